"""Blobs and their links to repositories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.types import BigInteger

from app.store.statements import Statement

if TYPE_CHECKING:
    from app.domain.digest import Digest
    from app.store.engine import Connection

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
