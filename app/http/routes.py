"""THE table: every path of the API, and for each method its handler, the access it needs, whether it writes.

A path is matched loosely, from its end, and parsed afterwards, so that a malformed name is answered with NAME_INVALID
and not with a bare 404. A repository may be called `a/blobs/b` or `manifests`: the last match decides. One row per
path, so that a 405 can name every method of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from app.domain.access import Action, Door
from app.http import token
from app.http.call import Call
from app.http.v2 import base, blobs, listings, manifests, uploads

Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True)
class Operation:
    """What one method of a path does, and what it demands of whoever calls it."""

    handler: Handler
    demand: Action | Door
    writes: bool = False
    deletes: bool = False


@dataclass(frozen=True)
class Endpoint:
    """One path. `id` is what metrics and logs call it; `spec` names its rows in the OCI distribution spec."""

    id: str
    path: str
    operations: dict[str, Operation]
    spec: str = ""


def _read(handler: Handler, demand: Action | Door = Action.PULL) -> dict[str, Operation]:
    return {"GET": Operation(handler, demand), "HEAD": Operation(handler, demand)}


ROOT: Final = Endpoint("root", "/", _read(base.root, Door.OPEN))
# Demands credentials also where anybody may pull: only here do clients learn where to get a token.
BASE: Final = Endpoint("v2.base", "/v2/", _read(base.version, Door.LOGIN), "end-1")
TOKEN: Final = Endpoint(
    "auth.token",
    "/auth/token",
    {"GET": Operation(token.get, Door.OPEN), "POST": Operation(token.post, Door.OPEN)},
)
CATALOG: Final = Endpoint("v2.catalog", "/v2/_catalog", _read(listings.catalog, Action.CATALOG))
TAGS: Final = Endpoint("v2.tags", "/v2/{name}/tags/list", _read(listings.tags), "end-8")
REFERRERS: Final = Endpoint(
    "v2.referrers", "/v2/{name}/referrers/{digest}", _read(listings.referrers), "end-12"
)
MANIFEST: Final = Endpoint(
    "v2.manifest",
    "/v2/{name}/manifests/{reference}",
    {
        **_read(manifests.get),
        "PUT": Operation(manifests.put, Action.PUSH, writes=True),
        "DELETE": Operation(manifests.delete, Action.DELETE, writes=True, deletes=True),
    },
    "end-3, end-7, end-9",
)
BLOB: Final = Endpoint(
    "v2.blob",
    "/v2/{name}/blobs/{digest}",
    {
        **_read(blobs.get),
        "DELETE": Operation(blobs.delete, Action.DELETE, writes=True, deletes=True),
    },
    "end-2, end-10",
)
UPLOADS: Final = Endpoint(
    "v2.uploads",
    "/v2/{name}/blobs/uploads/",
    {"POST": Operation(uploads.start, Action.PUSH, writes=True)},
    "end-4, end-11",
)
UPLOAD: Final = Endpoint(
    "v2.upload",
    "/v2/{name}/blobs/uploads/{upload}",
    {
        **_read(uploads.status, Action.PUSH),
        "PATCH": Operation(uploads.append, Action.PUSH, writes=True),
        "PUT": Operation(uploads.finish, Action.PUSH, writes=True),
        # Clients cancel with the token that they push with.
        "DELETE": Operation(uploads.cancel, Action.PUSH, writes=True),
    },
    "end-5, end-6, end-13, end-14",
)
ENDPOINTS: Final = (ROOT, BASE, TOKEN, CATALOG, TAGS, REFERRERS, MANIFEST, BLOB, UPLOADS, UPLOAD)

_FIXED: Final = {"": ROOT, "/": ROOT, "/v2": BASE, "/auth/token": TOKEN, "/auth/token/": TOKEN}
_BY_COLLECTION: Final = {
    "manifests": (MANIFEST, "reference"),
    "blobs": (BLOB, "digest"),
    "referrers": (REFERRERS, "digest"),
}


def match(path: str) -> tuple[Endpoint, dict[str, str]] | None:
    """The endpoint of a decoded path and its variable parts, None if there is none. A last slash may miss."""
    if not path.startswith("/v2/"):
        fixed = _FIXED.get(path)
        return None if fixed is None else (fixed, {})
    rest = path[len("/v2/") :].removesuffix("/")
    if rest == "":
        return BASE, {}
    if rest == "_catalog":
        return CATALOG, {}
    head, _, last = rest.rpartition("/")
    head, _, collection = head.rpartition("/")
    return _in_repository(head, collection, last) if head else None


def _in_repository(head: str, collection: str, last: str) -> tuple[Endpoint, dict[str, str]] | None:
    if collection == "uploads" and head.endswith("/blobs"):
        return UPLOAD, {"name": head.removesuffix("/blobs"), "upload": last}
    if collection == "blobs" and last == "uploads":
        return UPLOADS, {"name": head}
    if collection == "tags" and last == "list":
        return TAGS, {"name": head}
    if collection in _BY_COLLECTION:
        endpoint, parameter = _BY_COLLECTION[collection]
        return endpoint, {"name": head, parameter: last}
    return None
