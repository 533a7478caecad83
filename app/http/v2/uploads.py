"""Upload sessions: POST, PATCH, PUT, GET, DELETE (OCI distribution spec, "Pushing blobs")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from app.domain.digest import Algorithm, Digest
from app.domain.errors import BlobUploadUnknown, DigestInvalid, NameInvalid, RangeInvalid, SizeInvalid
from app.domain.names import parse_name
from app.domain.ranges import parse_chunk_range
from app.http.wire import content_length, parse_upload
from app.services.push_blob import Chunk

if TYPE_CHECKING:
    from uuid import UUID

    from app.http.call import Call


async def start(call: Call) -> Response:
    mounted = call.query.first("mount")
    if mounted is not None:
        digest = Digest.parse(mounted)
        if await _mounted(call, digest):
            return _created(call, digest)
        return await _opened(call, digest.algorithm)
    stated = call.query.first("digest")
    if stated is not None:
        digest = Digest.parse(stated)
        await call.services.push_blob.whole(call.name, digest, Chunk(call.body.stream()), call.caller)
        return _created(call, digest)
    return await _opened(call, Algorithm.parse(call.query.first("digest-algorithm") or "sha256"))


async def append(call: Call) -> Response:
    upload = parse_upload(call.parameters["upload"])
    chunk = _chunk(call)
    try:
        size = await call.services.push_blob.append(call.name, upload, chunk)
    except RangeInvalid as error:
        raise await _with_status(call, upload, error) from error
    return _progress(call, upload, size, 202)


async def finish(call: Call) -> Response:
    upload = parse_upload(call.parameters["upload"])
    stated = call.query.first("digest")
    if stated is None:
        raise DigestInvalid("the closing PUT needs `?digest=`")
    digest, chunk = Digest.parse(stated), _chunk(call)
    try:
        await call.services.push_blob.finish(call.name, upload, digest, chunk)
    except RangeInvalid as error:
        raise await _with_status(call, upload, error) from error
    return _created(call, digest)


async def status(call: Call) -> Response:
    upload = parse_upload(call.parameters["upload"])
    return _progress(call, upload, await call.services.push_blob.size(call.name, upload), 204)


async def cancel(call: Call) -> Response:
    upload = parse_upload(call.parameters["upload"])
    await call.services.push_blob.cancel(call.name, upload)
    return Response(status_code=204, headers={"Docker-Upload-UUID": str(upload)})


async def _opened(call: Call, algorithm: Algorithm) -> Response:
    upload = await call.services.push_blob.start(call.name, algorithm, call.caller)
    return _progress(call, upload, 0, 202)


async def _mounted(call: Call, digest: Digest) -> bool:
    """Whether the blob could be mounted. A source whose name is malformed has nothing: a miss like any other."""
    text = call.query.first("from")
    try:
        source = None if text is None else parse_name(text)
    except NameInvalid:
        return False
    return await call.services.push_blob.mount(call.name, digest, source, call.caller)


def _chunk(call: Call) -> Chunk:
    """The body and where it belongs. Raises RangeInvalid, and SizeInvalid if range and length disagree."""
    text = call.headers.get("content-range")
    if text is None:
        return Chunk(call.body.stream())
    first, stop = parse_chunk_range(text)
    stated = content_length(call.headers)
    if stated is not None and stated != stop - first:
        raise SizeInvalid(f"Content-Range states {stop - first} bytes, Content-Length {stated}")
    return Chunk(call.body.stream(), first, stop - first)


def _created(call: Call, digest: Digest) -> Response:
    return Response(
        status_code=201,
        headers={
            "Location": call.url(f"/v2/{call.name}/blobs/{digest}"),
            "Docker-Content-Digest": str(digest),
        },
    )


def _progress(call: Call, upload: UUID, size: int, code: int) -> Response:
    return Response(status_code=code, headers=_session_headers(call, upload, size))


def _session_headers(call: Call, upload: UUID, size: int) -> dict[str, str]:
    # The header cannot say "no bytes"; like Distribution we answer 0-0 for none and for one.
    return {
        "Location": call.url(f"/v2/{call.name}/blobs/uploads/{upload}"),
        "Range": f"0-{max(0, size - 1)}",
        "Docker-Upload-UUID": str(upload),
    }


async def _with_status(call: Call, upload: UUID, error: RangeInvalid) -> RangeInvalid:
    """The same refusal, saying where the upload stands, so that the client can go on without asking."""
    try:
        size = await call.services.push_blob.size(call.name, upload)
    except BlobUploadUnknown:  # whoever took it over has finished it already
        return error
    return RangeInvalid(error.detail, headers=tuple(_session_headers(call, upload, size).items()))
