"""Blobs and their links to repositories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import bindparam, func, select, true
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.types import BigInteger

from app.store.repositories import still_named
from app.store.statements import Statement
from app.store.tables import blobs, gc_blob_review_queue, repository_blobs

if TYPE_CHECKING:
    from datetime import datetime

    from app.domain.digest import Digest
    from app.domain.names import RepositoryName
    from app.store.engine import Connection

_pending = gc_blob_review_queue
FIND: Final = Statement(
    "blobs.find",
    select(
        blobs.c.size,
        blobs.c.storage_key,
        select(func.max(_pending.c.review_after))
        .where(_pending.c.digest == bindparam("digest", type_=BYTEA))
        .scalar_subquery()
        .label("reviewed_after"),
        func.now().label("now"),
    )
    .select_from(blobs)
    .join(repository_blobs, true())
    .where(
        blobs.c.digest == bindparam("digest", type_=BYTEA),
        repository_blobs.c.blob_digest == bindparam("digest", type_=BYTEA),
        repository_blobs.c.repository_id == bindparam("repository_id"),
        still_named(),
    ),
)
KEEP: Final = Statement("blobs.keep", select(func.keep_blob(bindparam("digest", type_=BYTEA))))
MOUNT: Final = Statement(
    "blobs.mount",
    select(
        func.mount_blob(
            bindparam("source", type_=BigInteger),
            bindparam("target", type_=BigInteger),
            bindparam("digest", type_=BYTEA),
        )
    ),
)
UNLINK: Final = Statement(
    "blobs.unlink",
    select(func.unlink_blob(bindparam("repository_id", type_=BigInteger), bindparam("digest", type_=BYTEA))),
)


@dataclass(frozen=True)
class Blob:
    """A blob as one repository sees it. `reviewed_after` is when its last pending review falls due."""

    digest: Digest
    size: int
    storage_key: str
    reviewed_after: datetime | None
    now: datetime


async def find(c: Connection, repository_id: int, name: RepositoryName, digest: Digest) -> Blob | None:
    """The blob, if the repository has it."""
    row = await c.one(FIND, repository_id=repository_id, path=name, digest=digest.packed)
    return None if row is None else Blob(digest, row[0], row[1], row[2], row[3])


async def keep(c: Connection, digest: Digest) -> bool:
    """Give the blob a grace period. False: it is gone."""
    return await c.value(KEEP, digest=digest.packed)


async def mount(c: Connection, source: int | None, target: int, digest: Digest) -> bool:
    """Link the blob of repository `source` (None: of any) into `target`. False: it is not there."""
    return await c.value(MOUNT, source=source, target=target, digest=digest.packed)


async def unlink(
    c: Connection, repository_id: int, digest: Digest
) -> Literal["removed", "unknown", "in_use"]:
    """Remove the repository's link to the blob."""
    return await c.value(UNLINK, repository_id=repository_id, digest=digest.packed)
