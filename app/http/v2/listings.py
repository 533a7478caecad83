"""Tags, catalog, referrers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from app.domain.digest import Digest
from app.domain.errors import PaginationNumberInvalid
from app.domain.limits import REFERRERS_PER_PAGE_MAX
from app.domain.manifests import OCI_INDEX
from app.http.wire import json_response, next_link

if TYPE_CHECKING:
    from starlette.responses import Response

    from app.http.call import Call
    from app.store.manifests import Referrer


async def tags(call: Call) -> Response:
    limit = min(call.query.count(call.rules.tags_max), call.rules.tags_max)
    page = await call.services.listings.tags(call.name, call.query.last(), limit)
    headers = {}
    if page.more and page.entries:
        headers = next_link(
            call.scope, f"/v2/{call.name}/tags/list", [("last", page.entries[-1]), ("n", str(limit))]
        )
    return json_response({"name": call.name, "tags": page.entries}, headers)


async def catalog(call: Call) -> Response:
    allowed = call.rules.catalog_entries_max
    limit = call.query.count(min(100, allowed))
    if limit > allowed:
        raise PaginationNumberInvalid({"n": limit, "expected": f"at most {allowed}"})
    page = await call.services.listings.catalog(call.query.last(), limit)
    headers = {}
    if page.more and page.entries:
        headers = next_link(call.scope, "/v2/_catalog", [("last", page.entries[-1]), ("n", str(limit))])
    return json_response({"repositories": page.entries}, headers)


async def referrers(call: Call) -> Response:
    subject = Digest.parse(call.parameters["digest"])
    artifact_type = call.query.first("artifactType")
    limit = max(1, min(call.query.count(REFERRERS_PER_PAGE_MAX), REFERRERS_PER_PAGE_MAX))
    page = await call.services.listings.referrers(
        call.name, subject, _storable(artifact_type), _cursor(call.query.last()), limit
    )
    headers = {"OCI-Filters-Applied": "artifactType"} if artifact_type is not None else {}
    if page.more:
        query = [("last", str(page.entries[-1].id)), ("n", str(limit))]
        query += [("artifactType", artifact_type)] if artifact_type is not None else []
        headers |= next_link(call.scope, f"/v2/{call.name}/referrers/{subject}", query)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [_descriptor(r) for r in page.entries]}
    return json_response(index, headers, OCI_INDEX)


def _descriptor(referrer: Referrer) -> dict[str, Any]:
    descriptor: dict[str, Any] = {
        "mediaType": referrer.media_type,
        "size": referrer.size,
        "digest": str(referrer.digest),
    }
    if referrer.annotations is not None:
        descriptor["annotations"] = json.loads(referrer.annotations)
    if referrer.artifact_type is not None:
        descriptor["artifactType"] = referrer.artifact_type
    return descriptor


def _storable(artifact_type: str | None) -> str | None:
    # What the database cannot hold matches nothing; no media type has a control character.
    return artifact_type if artifact_type is None or artifact_type.isprintable() else "\x01"


def _cursor(last: str) -> int:
    if last and not (last.isascii() and last.isdigit() and len(last) <= 18):  # noqa: PLR2004
        raise PaginationNumberInvalid({"last": last[:64], "expected": "the `last` of a Link header"})
    return int(last or 0)
