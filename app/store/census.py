"""What `registry fsck` asks and mends: every row that names an object, every manifest with what it needs.

Rows of a page come from one statement and so from one moment. What they are compared with, objects and manifests' own
bytes, is looked at by the service, which judges; here nothing is judged but what a row says itself.

The rows that name objects are read in the order of their keys, all of one moment, in a transaction that stays open for
as long as the storage is listed. Like a dump it keeps PostgreSQL from cleaning up what was deleted meanwhile. They are
fetched with SQL's own cursor and not with the protocol's, whose named statements PgBouncer would leave behind.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

import asyncpg
from sqlalchemy import text

from app.domain.digest import Digest
from app.domain.errors import Unavailable
from app.store.statements import Statement

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence
    from datetime import timedelta

    from app.store.engine import Connection, Row, Target

ROWS_PER_FETCH: Final = 10_000
Holder = Literal["blob", "upload", "tombstone"]

# Known losses come last: they have no key.
_NAMED: Final = """
    SELECT storage_key, 'blob' AS holder, size, digest FROM blobs
    UNION ALL SELECT storage_key, 'upload', size, NULL FROM blob_uploads
    UNION ALL SELECT storage_key, 'tombstone', size, digest FROM gc_storage_deletions
"""
NAMED: Final = Statement(
    "census.named",
    text(f'SELECT * FROM ({_NAMED}) AS named ORDER BY storage_key COLLATE "C"'),  # noqa: S608
)
NAMED_ABOUT: Final = Statement(
    "census.named_about",
    text("""
        SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint
        FROM unnest(ARRAY['blobs', 'blob_uploads', 'gc_storage_deletions']) AS t,
             pg_partition_tree(t::regclass) AS p JOIN pg_class AS c ON c.oid = p.relid
        WHERE p.isleaf
    """),
)
MANIFESTS_ABOUT: Final = Statement(
    "census.manifests_about",
    text("""
        SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint
        FROM pg_partition_tree('manifests') AS p JOIN pg_class AS c ON c.oid = p.relid WHERE p.isleaf
    """),
)
# Reads the blobs from end to end: their keys have no index, and what is asked about here is rare.
HOLDERS: Final = Statement(
    "census.holders",
    text(f"SELECT * FROM ({_NAMED}) AS named WHERE storage_key = ANY (CAST(:keys AS text[]))"),  # noqa: S608
)
UPLOADS: Final = Statement(
    "census.uploads",
    text("SELECT storage_key, size FROM blob_uploads WHERE storage_key = ANY (CAST(:keys AS text[]))"),
)
BLOBS: Final = Statement(
    "census.blobs",
    text("""
        SELECT b.digest, b.size, b.storage_key FROM unnest(CAST(:digests AS bytea[])) AS d
        CROSS JOIN LATERAL (SELECT x.digest, x.size, x.storage_key FROM blobs AS x
                            WHERE x.digest = d AND x.storage_key IS NOT NULL LIMIT 1) AS b
    """),
)
BLOBS_AFTER: Final = Statement(
    "census.blobs_after",
    text("""
        SELECT digest, size, storage_key FROM blobs
        WHERE digest > CAST(:last AS bytea) AND storage_key IS NOT NULL
        ORDER BY digest LIMIT CAST(:limit AS bigint)
    """),
)
# The running sum bounds a page's bytes as well as its rows: a payload may have megabytes.
_MANIFESTS: Final = """
    WITH page AS MATERIALIZED (
        SELECT k.repository_id, k.id, row_number() OVER w AS position, sum(k.payload_bytes) OVER w AS bytes_so_far
        FROM (SELECT x.repository_id, x.id, x.payload_bytes FROM manifests AS x
              WHERE (x.repository_id, x.id) > (CAST(:repository_id AS bigint), CAST(:manifest_id AS bigint))
              ORDER BY x.repository_id, x.id LIMIT CAST(:limit AS bigint)) AS k
        WINDOW w AS (ORDER BY k.repository_id, k.id)
    )
    SELECT p.repository_id, p.id, r.path, m.*, l.layers, l.layer_sizes, c.children, s.absent, s.unlinked, s.lost
    FROM page AS p
    CROSS JOIN LATERAL (
        SELECT x.digest, x.media_type, x.artifact_type, x.config_media_type, x.config_digest, x.subject_digest,
               x.payload, x.payload_bytes, x.total_size
        FROM manifests AS x WHERE x.repository_id = p.repository_id AND x.id = p.id LIMIT 1) AS m
    CROSS JOIN LATERAL (SELECT x.path FROM repositories AS x WHERE x.id = p.repository_id LIMIT 1) AS r
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(x.digest ORDER BY x.ordinal), '{}') AS layers,
               coalesce(array_agg(x.size ORDER BY x.ordinal), '{}') AS layer_sizes
        FROM layers AS x WHERE x.repository_id = p.repository_id AND x.manifest_id = p.id) AS l
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(child.digest), '{}') AS children FROM manifest_references AS f
        CROSS JOIN LATERAL (SELECT x.digest FROM manifests AS x
                            WHERE x.repository_id = f.repository_id AND x.id = f.child_id LIMIT 1) AS child
        WHERE f.repository_id = p.repository_id AND f.parent_id = p.id) AS c
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(n.d) FILTER (WHERE b.digest IS NULL), '{}') AS absent,
               coalesce(array_agg(n.d) FILTER (WHERE b.digest IS NOT NULL AND b.storage_key IS NULL), '{}') AS lost,
               coalesce(array_agg(n.d) FILTER (WHERE k.blob_digest IS NULL), '{}') AS unlinked
        FROM (SELECT DISTINCT d FROM unnest(l.layers || m.config_digest) AS d WHERE d IS NOT NULL) AS n
        LEFT JOIN LATERAL (SELECT x.digest, x.storage_key FROM blobs AS x WHERE x.digest = n.d LIMIT 1) AS b ON true
        LEFT JOIN LATERAL (SELECT x.blob_digest FROM repository_blobs AS x
                           WHERE x.repository_id = p.repository_id AND x.blob_digest = n.d LIMIT 1) AS k ON true) AS s
    WHERE p.position = 1 OR p.bytes_so_far <= CAST(:bytes_max AS bigint)
    ORDER BY p.repository_id, p.id
"""
MANIFESTS: Final = Statement("census.manifests", text(_MANIFESTS))
# Upward, to whatever keeps the manifest: an index that has it as child, its subject.
TAGS_ABOVE: Final = Statement(
    "census.tags_above",
    text("""
        WITH RECURSIVE above (repository_id, id) AS (
            SELECT CAST(:repository_id AS bigint), CAST(:manifest_id AS bigint)
            UNION
            SELECT a.repository_id, holder.id FROM above AS a CROSS JOIN LATERAL (
                SELECT f.parent_id AS id FROM manifest_references AS f
                WHERE f.repository_id = a.repository_id AND f.child_id = a.id
                UNION ALL
                SELECT s.id FROM (SELECT x.subject_digest FROM manifests AS x
                                  WHERE x.repository_id = a.repository_id AND x.id = a.id LIMIT 1) AS m
                CROSS JOIN LATERAL (SELECT x.id FROM manifests AS x WHERE x.repository_id = a.repository_id
                                        AND x.digest = m.subject_digest LIMIT 1) AS s) AS holder
        )
        SELECT t.name FROM above AS a
        CROSS JOIN LATERAL (SELECT x.name FROM tags AS x
                            WHERE x.repository_id = a.repository_id AND x.manifest_id = a.id LIMIT 3) AS t
        ORDER BY t.name LIMIT 3
    """),
)
CATALOG: Final = Statement(
    "census.catalog",
    text("""
        SELECT r.id, r.path, r.has_tags, EXISTS (SELECT FROM tags AS t WHERE t.repository_id = r.id OFFSET 0) AS tagged
        FROM repositories AS r WHERE r.id > CAST(:after AS bigint) ORDER BY r.id LIMIT CAST(:limit AS bigint)
    """),
)
# In the order of digests, as everybody locks blobs. A damaged object gets its tombstone with the same statement.
LOSE: Final = Statement(
    "census.lose",
    text("""
        WITH held AS (
            SELECT b.digest, b.storage_key, wanted.object_bytes
            FROM (SELECT d, k, object_bytes FROM unnest(CAST(:digests AS bytea[]), CAST(:keys AS text[]),
                      CAST(:object_bytes AS bigint[])) AS w (d, k, object_bytes) ORDER BY d) AS wanted
            CROSS JOIN LATERAL (SELECT x.digest, x.storage_key FROM blobs AS x
                                WHERE x.digest = wanted.d AND x.storage_key = wanted.k FOR UPDATE) AS b
        ), changed AS (
            UPDATE blobs AS b SET storage_key = NULL FROM held
            WHERE b.digest = held.digest AND b.storage_key = held.storage_key RETURNING b.digest
        ), tombstones AS (
            INSERT INTO gc_storage_deletions (storage_key, digest, size, reason, not_before)
            SELECT held.storage_key, held.digest, held.object_bytes, 'orphan', now() + CAST(:grace AS interval)
            FROM held JOIN changed USING (digest) WHERE held.object_bytes IS NOT NULL
            ON CONFLICT DO NOTHING
        )
        SELECT digest FROM changed
    """),
)
ENTOMB: Final = Statement(
    "census.entomb",
    text("""
        INSERT INTO gc_storage_deletions (storage_key, size, reason, not_before)
        SELECT k, s, 'orphan', now() + CAST(:grace AS interval)
        FROM unnest(CAST(:keys AS text[]), CAST(:sizes AS bigint[])) AS o (k, s)
        ON CONFLICT DO NOTHING RETURNING storage_key
    """),
)
LIST: Final = Statement(
    "census.list",
    text("""
        UPDATE repositories AS r SET has_tags = true WHERE r.id = CAST(:repository_id AS bigint) AND NOT r.has_tags
            AND EXISTS (SELECT FROM tags AS t WHERE t.repository_id = r.id OFFSET 0)
        RETURNING r.id
    """),
)


class Named(NamedTuple):
    """A row that names an object. Known losses are blobs without a key; a tombstone may not know its size."""

    key: str | None
    holder: Holder
    size: int | None
    digest: bytes | None


class StoredBlob(NamedTuple):
    """A blob and where its bytes should be. `digest` is packed."""

    digest: bytes
    size: int
    key: str


@dataclass(frozen=True)
class ManifestRow:
    """A manifest as its rows tell it, and what is wrong with what they name. Digests are packed.

    `layers` with their sizes are in the manifest's order. Of config and layers `absent` have no blob's row, `unlinked`
    no link in the repository, `lost` no object, which is known.
    """

    repository_id: int
    id: int
    path: str
    digest: bytes
    media_type: str
    artifact_type: str | None
    config_media_type: str | None
    config_digest: bytes | None
    subject_digest: bytes | None
    payload: bytes
    payload_bytes: int
    total_size: int
    layers: list[bytes]
    layer_sizes: list[int]
    children: list[bytes]
    absent: list[bytes]
    unlinked: list[bytes]
    lost: list[bytes]


class Repository(NamedTuple):
    """Whether the repository says that it has tags, and whether it has."""

    id: int
    path: str
    has_tags: bool
    tagged: bool


@asynccontextmanager
async def named_rows(target: Target) -> AsyncGenerator[AsyncGenerator[list[Row], None]]:
    """Every row that names an object (as `Named`), in the order of keys' bytes, in lists. All of one moment.

    Raises Unavailable, also while they are read.
    """
    with _told():
        raw: Any = await asyncpg.connect(**target.arguments(), statement_cache_size=0)
    try:
        with _told():
            await raw.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            # The time-outs are an operator's for requests. Between two fetches the storage may be slow.
            await raw.execute(
                "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;"
                " SET LOCAL work_mem = '64MB'"
            )
            await raw.execute(f"DECLARE named NO SCROLL CURSOR FOR {NAMED.text}")
        yield _fetched(raw)
    finally:
        raw.terminate()  # the server gives the transaction up; there is nothing to wait for


async def _fetched(raw: Any) -> AsyncGenerator[list[Row], None]:
    while True:
        with _told():
            rows: list[Row] = await raw.fetch(f"FETCH FORWARD {ROWS_PER_FETCH} FROM named")
        if not rows:
            return
        yield rows


async def named_about(c: Connection) -> int:
    """How many rows name an object, as far as PostgreSQL has counted them; 0 if it has not."""
    return await c.value(NAMED_ABOUT)


async def manifests_about(c: Connection) -> int:
    """How many manifests there are, as far as PostgreSQL has counted them."""
    return await c.value(MANIFESTS_ABOUT)


async def holders(c: Connection, keys: Sequence[str]) -> list[Named]:
    """The rows that name these objects now, of one moment."""
    return [Named(*row) for row in await c.all(HOLDERS, keys=list(keys))] if keys else []


async def upload_sizes(c: Connection, keys: Sequence[str]) -> dict[str, int]:
    """Key → size of the sessions that have these keys now."""
    if not keys:
        return {}
    return {row[0]: row[1] for row in await c.all(UPLOADS, keys=list(keys))}


async def blobs(c: Connection, digests: Sequence[bytes]) -> dict[bytes, StoredBlob]:
    """The blobs of these digests that are not known as lost."""
    if not digests:
        return {}
    return {row[0]: StoredBlob(*row) for row in await c.all(BLOBS, digests=list(digests))}


async def blobs_after(c: Connection, last: bytes, limit: int) -> list[StoredBlob]:
    """Up to `limit` blobs that are not known as lost, in the order of digests, which is the order of chance."""
    return [StoredBlob(*row) for row in await c.all(BLOBS_AFTER, last=last, limit=limit)]


async def manifests(
    c: Connection, repository_id: int, manifest_id: int, *, limit: int, bytes_max: int
) -> list[ManifestRow]:
    """Up to `limit` manifests after that one, as long as their payloads stay within `bytes_max`; one at least."""
    rows = await c.all(
        MANIFESTS, repository_id=repository_id, manifest_id=manifest_id, limit=limit, bytes_max=bytes_max
    )
    return [ManifestRow(*row) for row in rows]


async def tags_above(c: Connection, repository_id: int, manifest_id: int) -> list[str]:
    """Up to three tags from which the manifest can be reached."""
    rows = await c.all(TAGS_ABOVE, repository_id=repository_id, manifest_id=manifest_id)
    return [row[0] for row in rows]


async def catalog(c: Connection, after: int, limit: int) -> list[Repository]:
    """Up to `limit` repositories whose ids come after that one."""
    return [Repository(*row) for row in await c.all(CATALOG, after=after, limit=limit)]


async def lose(
    c: Connection, damaged: Sequence[tuple[StoredBlob, int | None]], grace: timedelta
) -> set[Digest]:
    """Mark blobs as lost, if they still name these objects. Returns which are.

    With an object there is its size: it becomes a tombstone, to be carried out after `grace`.
    """
    rows = await c.all(
        LOSE,
        digests=[blob.digest for blob, _ in damaged],
        keys=[blob.key for blob, _ in damaged],
        object_bytes=[size for _, size in damaged],
        grace=grace,
    )
    return {Digest.unpack(cast("bytes", row[0])) for row in rows}


async def entomb(c: Connection, objects: Sequence[tuple[str, int]], grace: timedelta) -> set[str]:
    """Give these objects, keys and sizes, tombstones. Returns the keys of those that had none."""
    rows = await c.all(
        ENTOMB, keys=[key for key, _ in objects], sizes=[size for _, size in objects], grace=grace
    )
    return {row[0] for row in rows}


async def list_repository(c: Connection, repository_id: int) -> None:
    """Put the repository into the catalog if it has tags.

    A tag that goes meanwhile may be seen here still, so `repositories.settle_has_tags` comes after it.
    """
    await c.one(LIST, repository_id=repository_id)


@contextmanager
def _told() -> Generator[None]:
    try:
        yield
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        reason = str(error) or "no answer in time"
        raise Unavailable(f"the metadata database cannot be read: {reason}") from error
