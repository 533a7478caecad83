"""Manifests: GET, HEAD, PUT, DELETE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from app.domain.digest import Digest
from app.domain.errors import DigestUnsupported, ManifestTooLarge, ManifestUnknown, TagInvalid, TooManyTags
from app.domain.limits import MANIFEST_BYTES_MAX, TAGS_PER_PUT_MAX
from app.domain.names import Reference, Tag, parse_reference, parse_tag
from app.domain.negotiation import Accepted, linux_amd64_child
from app.http.wire import content_length, matches_etag
from app.services.tag_guard import check_push

if TYPE_CHECKING:
    from app.http.call import Call
    from app.store.lookups import FoundManifest


async def get(call: Call) -> Response:
    reference = _known_reference(call.parameters["reference"])
    accepted = Accepted(call.headers.getlist("accept"))
    manifest = await _find(call, reference)
    if not isinstance(reference, Digest) and accepted.wants_child_of(manifest.media_type):
        manifest = await _linux_amd64(call, manifest)
    if refusal := accepted.refusal(manifest.media_type):
        raise ManifestUnknown(refusal)
    etag = str(manifest.digest)
    headers = {"Docker-Content-Digest": etag, "ETag": f'"{etag}"'}
    if matches_etag(call.headers, etag):
        return Response(status_code=304, headers=headers)
    headers |= {"Content-Type": manifest.media_type, "Content-Length": str(manifest.size)}
    return Response(None if call.is_head else await call.services.pull.payload(manifest), headers=headers)


async def put(call: Call) -> Response:
    reference = parse_reference(call.parameters["reference"])
    tags = _tags(call, reference)
    immutable = await check_push(call.caller.tag_rules(call.name) if tags else None, tags)
    payload = await _payload(call)
    pushed = await call.services.push_manifest.put(
        call.name, reference, tags, payload, call.headers.get("content-type"), immutable=immutable
    )
    response = Response(
        status_code=201,
        headers={
            "Location": call.url(f"/v2/{call.name}/manifests/{pushed.digest}"),
            "Docker-Content-Digest": str(pushed.digest),
        },
    )
    if pushed.subject is not None:
        response.headers["OCI-Subject"] = str(pushed.subject)
    if isinstance(reference, Digest):
        for tag in pushed.tags:
            response.headers.append("OCI-Tag", tag)
    return response


async def delete(call: Call) -> Response:
    reference = _known_reference(call.parameters["reference"])
    rules = call.caller.tag_rules(call.name)
    if isinstance(reference, Digest):
        await call.services.remove.manifest(call.name, reference, rules)
    else:
        await call.services.remove.tag(call.name, reference, rules)
    return Response(status_code=202)


async def _find(call: Call, reference: Reference) -> FoundManifest:
    pull = call.services.pull
    return await (pull.manifest_head if call.is_head else pull.manifest)(call.name, reference)


async def _linux_amd64(call: Call, listed: FoundManifest) -> FoundManifest:
    """The child of a list that a client without lists can use."""
    child = linux_amd64_child(await call.services.pull.payload(listed))
    if child is None:
        raise ManifestUnknown(
            {"digest": str(listed.digest), "reason": "the manifest list has no linux/amd64 entry"}
        )
    return await _find(call, child)


def _known_reference(text: str) -> Reference:
    """The reference of a manifest to find. One that could never have been pushed is simply not there."""
    try:
        return parse_reference(text)
    except (TagInvalid, DigestUnsupported) as error:
        raise ManifestUnknown(error.detail) from None


def _tags(call: Call, reference: Reference) -> list[Tag]:
    """The tags to push: the path's, or those of `?tag=` (OCI spec, end-7b), which come beside a digest only."""
    texts = call.query.all("tag")
    if not isinstance(reference, Digest):
        if texts:
            raise TagInvalid("`?tag=` needs a digest in the path")
        return [reference]
    if len(texts) > TAGS_PER_PUT_MAX:
        raise TooManyTags(f"{len(texts)} tags in one request, at most {TAGS_PER_PUT_MAX} are taken")
    return [parse_tag(text) for text in texts]


async def _payload(call: Call) -> bytes:
    stated = content_length(call.headers)
    payload = None
    if stated is None or stated <= MANIFEST_BYTES_MAX:
        payload = await call.body.read(MANIFEST_BYTES_MAX)
    if payload is None:
        raise ManifestTooLarge(f"a manifest has at most {MANIFEST_BYTES_MAX} bytes")
    return payload
