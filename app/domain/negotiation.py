"""Which manifest a client gets for what it accepts (Distribution's rules, made a superset of the OCI spec's).

Distribution answers 404 when an OCI type is not in Accept. We do so only if the client did send an Accept without
any wildcard. A Docker manifest list asked for by tag is replaced by its linux/amd64 child for clients that know
manifests but not lists: what Docker before 1.10 relies on.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from app.domain.digest import Digest
from app.domain.manifests import DOCKER_LIST, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterable

_REFUSALS: Final = {
    OCI_MANIFEST: "OCI manifest found, but accept header does not support OCI manifests",
    OCI_INDEX: "OCI index found, but accept header does not support OCI indexes",
}


class Accepted:
    """The media types of a request's Accept headers; parameters and weights are ignored, as clients expect."""

    def __init__(self, headers: Iterable[str]) -> None:
        self._types = frozenset(
            media_type
            for header in headers
            for entry in header.split(",")
            if (media_type := entry.partition(";")[0].strip().lower())
        )
        self._everything = not self._types or "*/*" in self._types or "application/*" in self._types

    def refusal(self, media_type: str) -> str | None:
        """Why a manifest of this type cannot be given, or None if it can."""
        if self._everything or media_type in self._types:
            return None
        return _REFUSALS.get(media_type)

    def wants_child_of(self, media_type: str) -> bool:
        """Whether a list of this type must be replaced by its linux/amd64 child."""
        return (
            media_type == DOCKER_LIST
            and not self._everything
            and DOCKER_LIST not in self._types
            and not self._types.isdisjoint(MANIFEST_TYPES)
        )


def linux_amd64_child(payload: bytes) -> Digest | None:
    """The child of a stored manifest list that runs on linux/amd64."""
    try:
        body: dict[str, Any] = json.loads(payload)
    except RecursionError:  # as deep as could be when it was stored, with more of the stack to spare
        return None
    for entry in body["manifests"] or ():  # a nil slice of Go is stored as null
        platform: dict[str, Any] = entry.get("platform") or {}
        if platform.get("os") == "linux" and platform.get("architecture") == "amd64":
            return Digest.parse(entry["digest"])
    return None
