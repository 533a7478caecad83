"""Deleting: tags, manifests, a repository's links to blobs. Visible at once; bytes go later, by garbage collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.domain.errors import BlobUnknown, ManifestReferenced, ManifestUnknown, Unsupported
from app.services.tag_guard import check_delete, check_manifest_delete
from app.store import blobs, manifests, repositories

if TYPE_CHECKING:
    from app.domain.access import TagRules
    from app.domain.digest import Digest
    from app.domain.names import RepositoryName, Tag
    from app.services.repository_ids import RepositoryIds
    from app.store.engine import Database


class Remove:
    """Deletes on behalf of clients."""

    def __init__(self, database: Database, ids: RepositoryIds) -> None:
        self._database = database
        self._ids = ids

    async def tag(self, name: RepositoryName, tag: Tag, rules: TagRules | None = None) -> None:
        """Delete the tag alone. Raises ProtectedTag, ImmutableTag, NameUnknown, ManifestUnknown."""
        check_delete(rules, tag)
        repository_id = await self._ids.get(name)
        if not await self._database.write(lambda c: manifests.untag(c, repository_id, tag)):
            raise ManifestUnknown({"tag": tag})
        await self._settle(repository_id)

    async def manifest(
        self, name: RepositoryName, digest: Digest, rules: TagRules | None = None
    ) -> list[Tag]:
        """Delete the manifest and every tag on it.

        Raises ProtectedManifest, NameUnknown, ManifestUnknown, ManifestReferenced.
        """
        check_manifest_delete(rules)
        repository_id = await self._ids.get(name)
        outcome, tags = await self._database.write(lambda c: manifests.delete(c, repository_id, digest))
        if outcome == "unknown":
            raise ManifestUnknown({"digest": str(digest)})
        if outcome == "referenced":
            raise ManifestReferenced(f"an index of {name} needs {digest}: delete the index first")
        if tags:
            await self._settle(repository_id)
        return tags

    async def blob(self, name: RepositoryName, digest: Digest) -> None:
        """Take the blob out of the repository. Raises NameUnknown, BlobUnknown, Unsupported while it is in use."""
        repository_id = await self._ids.get(name)
        outcome = await self._database.write(lambda c: blobs.unlink(c, repository_id, digest))
        if outcome == "unknown":
            raise BlobUnknown({"digest": str(digest)})
        if outcome == "in_use":
            raise Unsupported(
                f"a manifest of {name} needs {digest}: delete the manifest first",
                headers=(("Allow", "GET, HEAD"),),  # what RFC 9110 wants of every 405
            )

    async def _settle(self, repository_id: int) -> None:
        await self._database.write(lambda c: repositories.settle_has_tags(c, repository_id))
