"""Pushing manifests: one transaction for the manifest, its layers, children, subject and tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from app.domain.digest import Digest
from app.domain.errors import DigestInvalid, ManifestBlobUnknown, ManifestInvalid
from app.domain.manifests import Descriptor, Manifest, Platform, parse_manifest
from app.store import manifests
from app.store.manifests import Missing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from app.domain.names import Reference, RepositoryName, Tag
    from app.services.repository_ids import RepositoryIds
    from app.store.engine import Database


@dataclass(frozen=True)
class ManifestRules:
    """What an operator may forbid (`validation.manifests`). The default forbids nothing.

    `url_allowed` judges each URL of a layer. `platforms` says which children of an index must be there: all, none,
    or those whose platform is in `listed_platforms`.
    """

    url_allowed: Callable[[str], bool] | None = None
    platforms: Literal["all", "none", "list"] = "all"
    listed_platforms: frozenset[Platform] = frozenset()
    references_max: int = 0
    payload_bytes_max: int = 0


@dataclass(frozen=True)
class Pushed:
    """What a client is told of its manifest."""

    digest: Digest
    subject: Digest | None
    tags: tuple[Tag, ...]


class PushManifest:
    """Stores manifests."""

    def __init__(self, database: Database, ids: RepositoryIds, rules: ManifestRules) -> None:
        self._database = database
        self._ids = ids
        self._rules = rules

    async def put(
        self,
        name: RepositoryName,
        reference: Reference,
        tags: Sequence[Tag],
        payload: bytes,
        content_type: str | None,
        *,
        immutable: Collection[Tag] = (),
    ) -> Pushed:
        """Store the manifest; `tags` come beside a digest. Those that are `immutable` must be new.

        Raises ManifestInvalid, ManifestBlobUnknown, ImmutableTag.
        """
        manifest = parse_manifest(payload, content_type)
        self._check(manifest)
        if isinstance(reference, Digest):
            digest = Digest.of(payload, reference.algorithm)
            if digest != reference:
                raise DigestInvalid(f"the manifest's digest is {digest}, the request states {reference}")
        else:
            digest, tags = Digest.of(payload), [reference]
        stored = await self._database.write(
            lambda c: manifests.put(
                c,
                name,
                manifest,
                digest,
                tags,
                optional_children=self._optional(manifest),
                immutable=immutable,
            )
        )
        if isinstance(stored, Missing):
            raise ManifestBlobUnknown([str(d) for d in (*stored.blobs, *stored.children)])
        self._ids.remember(name, stored)
        return Pushed(digest, manifest.subject, tuple(dict.fromkeys(tags)))

    def _optional(self, manifest: Manifest) -> frozenset[Digest]:
        """The children that may be missing."""
        if self._rules.platforms == "all":
            return frozenset()
        return frozenset(child.digest for child in manifest.children if not self._is_required(child))

    def _is_required(self, child: Descriptor) -> bool:
        return self._rules.platforms == "list" and child.platform in self._rules.listed_platforms

    def _check(self, manifest: Manifest) -> None:
        rules = self._rules
        if rules.payload_bytes_max and len(manifest.payload) > rules.payload_bytes_max:
            raise ManifestInvalid(
                f"the manifest has {len(manifest.payload)} bytes, this registry takes {rules.payload_bytes_max}"
            )
        count = (manifest.config is not None) + len(manifest.layers) + len(manifest.children)
        if rules.references_max and count > rules.references_max:
            raise ManifestInvalid(
                f"the manifest has {count} references, this registry takes {rules.references_max}"
            )
        if rules.url_allowed is not None:
            for layer in manifest.layers:
                self._check_urls(layer, rules.url_allowed)

    def _check_urls(self, layer: Descriptor, allowed: Callable[[str], bool]) -> None:
        for url in layer.urls:
            if not _is_web_url(url) or not allowed(url):
                raise ManifestInvalid(f"invalid URL on layer {layer.digest}: {url[:255]!r}")


def _is_web_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and not parts.fragment
