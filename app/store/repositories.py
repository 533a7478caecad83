"""Repositories: path ↔ id, the catalog, the tag lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, func, select
from sqlalchemy.types import BigInteger, Text

from app.domain.names import RepositoryName, Tag
from app.store.statements import Statement
from app.store.tables import repositories, tags

if TYPE_CHECKING:
    from app.store.engine import Connection

FIND: Final = Statement(
    "repositories.find", select(repositories.c.id).where(repositories.c.path == bindparam("path"))
)
ENSURE: Final = Statement(
    "repositories.ensure", select(func.ensure_repository(bindparam("path", type_=Text)))
)
CATALOG: Final = Statement(
    "repositories.catalog",
    select(repositories.c.path)
    .where(repositories.c.has_tags, repositories.c.path > bindparam("last"))
    .order_by(repositories.c.path)
    .limit(bindparam("limit", type_=BigInteger)),
)
TAGS: Final = Statement(
    "repositories.tags",
    select(tags.c.name)
    .where(tags.c.repository_id == bindparam("repository_id"), tags.c.name > bindparam("last"))
    .order_by(tags.c.name)
    .limit(bindparam("limit", type_=BigInteger)),
)
SETTLE: Final = Statement(
    "repositories.settle_has_tags",
    select(func.settle_has_tags(bindparam("repository_id", type_=BigInteger))),
)


async def find(c: Connection, name: RepositoryName) -> int | None:
    """The repository's id."""
    return await c.value(FIND, path=name)


async def ensure(c: Connection, name: RepositoryName) -> int:
    """The repository's id; the repository is created if need be."""
    return await c.value(ENSURE, path=name)


async def catalog(c: Connection, last: str, limit: int) -> list[str]:
    """Up to `limit` paths of repositories with tags, in byte order, after `last`."""
    return [row[0] for row in await c.all(CATALOG, last=last, limit=limit)]


async def tag_names(c: Connection, repository_id: int, last: str, limit: int) -> list[Tag]:
    """Up to `limit` tags in byte order, after `last`."""
    rows = await c.all(TAGS, repository_id=repository_id, last=last, limit=limit)
    return [Tag(row[0]) for row in rows]


async def settle_has_tags(c: Connection, repository_id: int) -> None:
    """Take the repository out of the catalog if its last tag is gone and the delete itself could not.

    In a transaction after the delete's own, as this one may wait.
    """
    await c.one(SETTLE, repository_id=repository_id)
