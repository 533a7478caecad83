"""Listings: tags, repositories, referrers. Each page costs the same, however many there are (keyset pagination)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from app.domain.limits import REFERRERS_ANNOTATION_BYTES_MAX, REFERRERS_PER_PAGE_MAX
from app.store import manifests, repositories

if TYPE_CHECKING:
    from app.domain.digest import Digest
    from app.domain.names import RepositoryName, Tag
    from app.services.repository_ids import RepositoryIds
    from app.store.engine import Connection, Database
    from app.store.manifests import Referrer

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some entries, and whether there are more behind them."""

    entries: list[T]
    more: bool


class Listings:
    """Pages of what the registry holds."""

    def __init__(self, database: Database, ids: RepositoryIds) -> None:
        self._database = database
        self._ids = ids

    async def tags(self, name: RepositoryName, last: str, limit: int) -> Page[Tag]:
        """Tags in byte order after `last`. Raises NameUnknown."""
        repository_id = await self._ids.get(name)

        async def work(c: Connection) -> list[Tag]:
            return await repositories.tag_names(c, repository_id, last, limit + 1) if limit else []

        return _page(await self._database.read(work), limit)

    async def catalog(self, last: str, limit: int) -> Page[str]:
        """Paths of repositories with tags, in byte order after `last`."""

        async def work(c: Connection) -> list[str]:
            return await repositories.catalog(c, last, limit + 1) if limit else []

        return _page(await self._database.read(work), limit)

    async def referrers(
        self, name: RepositoryName, subject: Digest, artifact_type: str | None, after: int, limit: int
    ) -> Page[Referrer]:
        """Manifests that name `subject`, oldest first, after the one whose id is `after`.

        An unknown repository has none (OCI spec, "Listing Referrers"). The page ends early when its annotations
        grow large, so that the answer stays below what clients accept.
        """
        limit = min(limit, REFERRERS_PER_PAGE_MAX)

        async def work(c: Connection) -> list[Referrer]:
            repository_id = await repositories.find(c, name)
            if repository_id is None:
                return []
            return await manifests.referrers(
                c,
                repository_id,
                subject,
                artifact_type=artifact_type,
                after=after,
                limit=limit + 1,
                bytes_max=REFERRERS_ANNOTATION_BYTES_MAX,
            )

        found = await self._database.read(work)
        page = found[:limit]
        return Page(page, more=bool(found) and found[0].matched > len(page))


def _page(found: list[T], limit: int) -> Page[T]:
    return Page(found[:limit], len(found) > limit)
