"""One manifest or blob and what keeps it: who needs it, which reviews are pending, what was deleted of it before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from app.domain.digest import Digest
from app.store.observing import statement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from app.domain.names import RepositoryName, Tag
    from app.store.engine import Connection, Row

T = TypeVar("T")


@dataclass(frozen=True)
class Some(Generic[T]):
    """A few of many. `count` is how many there are in all, or that there are more: then `is_least` is true."""

    shown: tuple[T, ...]
    count: int
    is_least: bool = False


class Named(NamedTuple):
    """A manifest by its address."""

    repository: str
    digest: Digest

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}"


@dataclass(frozen=True)
class ManifestRow:
    """A manifest. `needed_bytes` is what its config and layers state together."""

    repository_id: int
    id: int
    digest: Digest
    media_type: str
    subject: Digest | None
    bytes: int
    needed_bytes: int
    created_at: datetime


@dataclass(frozen=True)
class BlobRow:
    """A blob. Without a storage key its object was lost, so that it counts as absent until it is pushed again."""

    digest: Digest
    bytes: int
    storage_key: str | None
    created_at: datetime


@dataclass(frozen=True)
class Review:
    """A pending review."""

    event: str
    due: datetime
    put_off: int
    since: datetime


@dataclass(frozen=True)
class Reviews:
    """Those of one thing, the first to fall due before others. `latest` is when the last of them does."""

    pending: Some[Review]
    latest: datetime | None


@dataclass(frozen=True)
class Receipt:
    """Something that was deleted. `object_due`: its object waits until then, after `attempts` that failed."""

    kind: str
    repository: str | None
    event: str
    suspected_at: datetime
    bytes: int | None
    storage_key: str | None
    deleted_at: datetime
    removed_at: datetime | None
    object_due: datetime | None
    attempts: int | None


TAGGED: Final = statement(
    "gc_holders.tagged",
    """
        SELECT m.digest
        FROM (SELECT manifest_id FROM tags WHERE repository_id = :repository_id AND name = :tag LIMIT 1) AS t
        CROSS JOIN LATERAL (SELECT x.digest FROM manifests AS x
                            WHERE x.repository_id = :repository_id AND x.id = t.manifest_id LIMIT 1) AS m
    """,
)
MANIFEST: Final = statement(
    "gc_holders.manifest",
    """
        SELECT repository_id, id, digest, media_type, subject_digest, payload_bytes, total_size, created_at
        FROM manifests WHERE repository_id = :repository_id AND digest = :digest
    """,
)
REPOSITORIES_OF_MANIFEST: Final = statement(
    "gc_holders.repositories_of_manifest",
    """
        SELECT r.path, few.total
        FROM (SELECT repository_id, count(*) OVER () AS total
              FROM (SELECT repository_id FROM manifests WHERE digest = :digest LIMIT :most) AS found
              LIMIT :shown) AS few
        CROSS JOIN LATERAL (SELECT p.path FROM repositories AS p WHERE p.id = few.repository_id LIMIT 1) AS r
        ORDER BY r.path
    """,
)
TAGS: Final = statement(
    "gc_holders.tags",
    """
        SELECT name, count(*) OVER () AS total
        FROM (SELECT name FROM tags
              WHERE repository_id = :repository_id AND manifest_id = :manifest_id LIMIT :most) AS found
        ORDER BY name LIMIT :shown
    """,
)
PARENTS: Final = statement(
    "gc_holders.parents",
    """
        SELECT m.digest, few.total
        FROM (SELECT parent_id, count(*) OVER () AS total
              FROM (SELECT parent_id FROM manifest_references
                    WHERE repository_id = :repository_id AND child_id = :manifest_id LIMIT :most) AS found
              LIMIT :shown) AS few
        CROSS JOIN LATERAL (SELECT x.digest FROM manifests AS x
                            WHERE x.repository_id = :repository_id AND x.id = few.parent_id LIMIT 1) AS m
        ORDER BY m.digest
    """,
)
REFERRERS: Final = statement(
    "gc_holders.referrers",
    """
        SELECT m.digest, few.total
        FROM (SELECT id, count(*) OVER () AS total
              FROM (SELECT id FROM manifests
                    WHERE repository_id = :repository_id AND subject_digest = :digest LIMIT :most) AS found
              LIMIT :shown) AS few
        CROSS JOIN LATERAL (SELECT x.digest FROM manifests AS x
                            WHERE x.repository_id = :repository_id AND x.id = few.id LIMIT 1) AS m
        ORDER BY m.digest
    """,
)
BLOB: Final = statement(
    "gc_holders.blob", "SELECT digest, size, storage_key, created_at FROM blobs WHERE digest = :digest"
)
IS_LINKED: Final = statement(
    "gc_holders.is_linked",
    "SELECT EXISTS (SELECT FROM repository_blobs WHERE repository_id = :repository_id AND blob_digest = :digest)",
)
LINKS: Final = statement(
    "gc_holders.links",
    """
        SELECT r.path, few.total
        FROM (SELECT repository_id, count(*) OVER () AS total
              FROM (SELECT repository_id FROM repository_blobs WHERE blob_digest = :digest LIMIT :most) AS found
              LIMIT :shown) AS few
        CROSS JOIN LATERAL (SELECT p.path FROM repositories AS p WHERE p.id = few.repository_id LIMIT 1) AS r
        ORDER BY r.path
    """,
)
# A manifest may name a blob as several layers, and as its config as well.
USERS: Final = statement(
    "gc_holders.users",
    """
        SELECT r.path, m.digest, few.total
        FROM (SELECT repository_id, id, count(*) OVER () AS total
              FROM (SELECT repository_id, id
                    FROM ((SELECT repository_id, manifest_id AS id FROM layers WHERE digest = :digest LIMIT :most)
                          UNION ALL
                          (SELECT repository_id, id FROM manifests WHERE config_digest = :digest LIMIT :most)) AS every
                    GROUP BY repository_id, id) AS found
              LIMIT :shown) AS few
        CROSS JOIN LATERAL (SELECT p.path FROM repositories AS p WHERE p.id = few.repository_id LIMIT 1) AS r
        CROSS JOIN LATERAL (SELECT x.digest FROM manifests AS x
                            WHERE x.repository_id = few.repository_id AND x.id = few.id LIMIT 1) AS m
        ORDER BY r.path, m.digest
    """,
)


def _reviews(table: str, same: str) -> str:
    return f"""
        SELECT event, review_after, review_count, created_at,
               count(*) OVER () AS total, max(review_after) OVER () AS latest
        FROM ((SELECT id, event, review_after, review_count, created_at FROM {table}
               WHERE {same} ORDER BY review_after LIMIT :most)
              UNION
              (SELECT id, event, review_after, review_count, created_at FROM {table}
               WHERE {same} ORDER BY review_after DESC LIMIT 1)) AS found
        ORDER BY review_after, id LIMIT :shown
    """  # noqa: S608


BLOB_REVIEWS: Final = statement(
    "gc_holders.blob_reviews", _reviews("gc_blob_review_queue", "digest = :digest")
)
MANIFEST_REVIEWS: Final = statement(
    "gc_holders.manifest_reviews",
    _reviews("gc_manifest_review_queue", "repository_id = :repository_id AND manifest_id = :manifest_id"),
)
# With a path: a manifest's receipts of that repository only. Blobs and objects are nobody's.
RECEIPTS: Final = statement(
    "gc_holders.receipts",
    """
        SELECT r.kind, r.repository, r.event, r.suspected_at, r.bytes, r.storage_key, r.deleted_at, r.removed_at,
               t.not_before, t.attempts
        FROM (SELECT * FROM gc_receipts
              WHERE digest = :digest
                  AND (kind <> 'manifest' OR repository = coalesce(:path, repository))
              ORDER BY deleted_at DESC LIMIT :shown) AS r
        LEFT JOIN LATERAL (SELECT d.not_before, d.attempts FROM gc_storage_deletions AS d
                           WHERE d.storage_key = r.storage_key LIMIT 1) AS t ON true
        ORDER BY r.deleted_at DESC
    """,
)


@dataclass(frozen=True)
class Bounds:
    """Of how many things to tell, and up to how many to count them."""

    shown: int = 10
    most: int = 10_000


_BOUNDS: Final = Bounds()


async def tagged(c: Connection, repository_id: int, tag: Tag) -> Digest | None:
    """The digest of the manifest that the tag names."""
    found = await c.value(TAGGED, repository_id=repository_id, tag=tag)
    return None if found is None else Digest.unpack(found)


async def manifest(c: Connection, repository_id: int, digest: Digest) -> ManifestRow | None:
    """The repository's manifest with this digest."""
    row = await c.one(MANIFEST, repository_id=repository_id, digest=digest.packed)
    if row is None:
        return None
    subject = row["subject_digest"]
    return ManifestRow(
        repository_id=row["repository_id"],
        id=row["id"],
        digest=Digest.unpack(row["digest"]),
        media_type=row["media_type"],
        subject=None if subject is None else Digest.unpack(subject),
        bytes=row["payload_bytes"],
        needed_bytes=row["total_size"],
        created_at=row["created_at"],
    )


async def repositories_of_manifest(c: Connection, digest: Digest, bounds: Bounds = _BOUNDS) -> Some[str]:
    """The repositories that have a manifest with this digest."""
    return _some(
        await c.all(REPOSITORIES_OF_MANIFEST, digest=digest.packed, **_told(bounds)),
        bounds,
        lambda row: row[0],
    )


async def tags(c: Connection, row: ManifestRow, bounds: Bounds = _BOUNDS) -> Some[str]:
    """The tags that name the manifest."""
    found = await c.all(TAGS, repository_id=row.repository_id, manifest_id=row.id, **_told(bounds))
    return _some(found, bounds, lambda one: one[0])


async def parents(c: Connection, row: ManifestRow, bounds: Bounds = _BOUNDS) -> Some[Digest]:
    """The indexes that have the manifest as child."""
    found = await c.all(PARENTS, repository_id=row.repository_id, manifest_id=row.id, **_told(bounds))
    return _some(found, bounds, lambda one: Digest.unpack(one[0]))


async def referrers(c: Connection, row: ManifestRow, bounds: Bounds = _BOUNDS) -> Some[Digest]:
    """The manifests that have this one as subject."""
    found = await c.all(REFERRERS, repository_id=row.repository_id, digest=row.digest.packed, **_told(bounds))
    return _some(found, bounds, lambda one: Digest.unpack(one[0]))


async def manifest_reviews(c: Connection, row: ManifestRow, bounds: Bounds = _BOUNDS) -> Reviews:
    """The manifest's pending reviews."""
    return _pending(
        await c.all(MANIFEST_REVIEWS, repository_id=row.repository_id, manifest_id=row.id, **_told(bounds)),
        bounds,
    )


async def blob(c: Connection, digest: Digest) -> BlobRow | None:
    """The blob, whoever has it."""
    row = await c.one(BLOB, digest=digest.packed)
    return None if row is None else BlobRow(Digest.unpack(row[0]), row[1], row[2], row[3])


async def is_linked(c: Connection, repository_id: int, digest: Digest) -> bool:
    """Whether the repository can see the blob."""
    return await c.value(IS_LINKED, repository_id=repository_id, digest=digest.packed)


async def links(c: Connection, digest: Digest, bounds: Bounds = _BOUNDS) -> Some[str]:
    """The repositories that can see the blob."""
    return _some(await c.all(LINKS, digest=digest.packed, **_told(bounds)), bounds, lambda row: row[0])


async def users(c: Connection, digest: Digest, bounds: Bounds = _BOUNDS) -> Some[Named]:
    """The manifests that need the blob as layer or config."""
    found = await c.all(USERS, digest=digest.packed, **_told(bounds))
    return _some(found, bounds, lambda row: Named(row[0], Digest.unpack(row[1])))


async def blob_reviews(c: Connection, digest: Digest, bounds: Bounds = _BOUNDS) -> Reviews:
    """The blob's pending reviews."""
    return _pending(await c.all(BLOB_REVIEWS, digest=digest.packed, **_told(bounds)), bounds)


async def receipts(
    c: Connection, digest: Digest, name: RepositoryName | None, bounds: Bounds = _BOUNDS
) -> list[Receipt]:
    """What was deleted under this digest, the latest first. Of manifests only those of `name`, if one is given."""
    return [
        Receipt(*row) for row in await c.all(RECEIPTS, digest=digest.packed, path=name, shown=bounds.shown)
    ]


def _told(bounds: Bounds) -> dict[str, int]:
    return {"shown": bounds.shown, "most": bounds.most}


def _some(rows: Sequence[Row], bounds: Bounds, of: Callable[[Row], T]) -> Some[T]:
    count: int = rows[0]["total"] if rows else 0
    return Some(tuple(of(row) for row in rows), count, is_least=count >= bounds.most)


def _pending(rows: Sequence[Row], bounds: Bounds) -> Reviews:
    latest = rows[0]["latest"] if rows else None
    return Reviews(_some(rows, bounds, lambda row: Review(row[0], row[1], row[2], row[3])), latest)
