"""Why one manifest or blob is kept, or when it goes, or what became of it.

The rules are those of `gc_unused_manifests` and `gc_unused_blobs` (db/schema/60_gc_collect.sql), told with the names of
what holds it. A verdict holds as long as nothing is pushed, tagged or deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from app.domain.digest import Digest
from app.domain.names import RepositoryName
from app.store import gc_counts, gc_holders, repositories

if TYPE_CHECKING:
    from datetime import datetime

    from app.domain.names import Reference
    from app.store.engine import Connection
    from app.store.gc_counts import Control
    from app.store.gc_holders import BlobRow, ManifestRow, Named, Receipt, Reviews, Some
    from app.store.observing import Observer

T = TypeVar("T")


@dataclass(frozen=True)
class Verdict:
    """`kept`, for these reasons; `goes`, at its review, due at `at`; or `stranded`: unused, but without a review."""

    outcome: Literal["kept", "goes", "stranded"]
    reasons: tuple[str, ...] = ()
    at: datetime | None = None


@dataclass(frozen=True)
class ManifestExplained:
    """A manifest, what names it, and the verdict. `has_subject`: its subject is in the repository."""

    repository: str
    row: ManifestRow
    tags: Some[str]
    indexes: Some[Digest]
    has_subject: bool
    referrers: Some[Digest]
    reviews: Reviews
    verdict: Verdict


@dataclass(frozen=True)
class BlobExplained:
    """A blob, what needs it, and the verdict. `is_linked`: the repository that was asked about can see it."""

    row: BlobRow
    is_linked: bool | None
    links: Some[str]
    manifests: Some[Named]
    reviews: Reviews
    verdict: Verdict


@dataclass(frozen=True)
class Explanation:
    """What was found at `now`. `has_repository` and `digest` are None where the question named none, or no tag has it.

    `holders` are the repositories that have a manifest with this digest, of which some are explained.
    """

    now: datetime
    control: Control
    repository: str | None
    has_repository: bool | None
    digest: Digest | None
    holders: Some[str] | None
    manifests: tuple[ManifestExplained, ...]
    blob: BlobExplained | None
    receipts: tuple[Receipt, ...]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Those of all that was found."""
        found = (*self.manifests, self.blob) if self.blob else self.manifests
        return tuple(one.verdict for one in found)


async def explain(
    observer: Observer, name: RepositoryName | None, reference: Reference, *, keep_untagged: bool
) -> Explanation:
    """Explain the reference of that repository; without one, a digest wherever it is. Raises Unavailable."""

    async def work(c: Connection) -> Explanation:
        repository_id = None if name is None else await repositories.find(c, name)
        digest = await _digest(c, repository_id, reference)
        holders = await gc_holders.repositories_of_manifest(c, digest) if name is None and digest else None
        wanted = holders.shown if holders else (name,) if name and repository_id else ()
        manifests: list[ManifestExplained] = []
        blob: BlobExplained | None = None
        receipts: list[Receipt] = []
        if digest is not None:
            every = [await _manifest(c, path, digest, keep_untagged=keep_untagged) for path in wanted]
            manifests = [found for found in every if found is not None]
            blob = await _blob(c, repository_id, digest)
            receipts = await gc_holders.receipts(c, digest, name)
        return Explanation(
            now=await gc_counts.now(c),
            control=await gc_counts.control(c),
            repository=name,
            has_repository=None if name is None else repository_id is not None,
            digest=digest,
            holders=holders,
            manifests=tuple(manifests),
            blob=blob,
            receipts=tuple(receipts),
        )

    return await observer.look(work)


async def _digest(c: Connection, repository_id: int | None, reference: Reference) -> Digest | None:
    if isinstance(reference, Digest):
        return reference
    return None if repository_id is None else await gc_holders.tagged(c, repository_id, reference)


async def _manifest(
    c: Connection, path: str, digest: Digest, *, keep_untagged: bool
) -> ManifestExplained | None:
    repository_id = await repositories.find(c, RepositoryName(path))
    row = None if repository_id is None else await gc_holders.manifest(c, repository_id, digest)
    if row is None:
        return None
    subject = None
    if row.subject is not None:
        subject = await gc_holders.manifest(c, row.repository_id, row.subject)
    tags = await gc_holders.tags(c, row)
    indexes = await gc_holders.parents(c, row)
    reviews = await gc_holders.manifest_reviews(c, row)
    reasons = [
        *_reason(tags, "tag `{}` names it", "{} tags name it, `{}` among them"),
        *_reason(indexes, "index {} has it as a child", "{} indexes have it as a child, {} among them"),
        *([f"its subject {row.subject} is there"] if subject else []),
    ]
    if keep_untagged and not reasons:
        reasons.append("gc.manifests.keepuntagged keeps what nothing names")
    return ManifestExplained(
        repository=path,
        row=row,
        tags=tags,
        indexes=indexes,
        has_subject=subject is not None,
        referrers=await gc_holders.referrers(c, row),
        reviews=reviews,
        verdict=_verdict(reasons, reviews),
    )


async def _blob(c: Connection, repository_id: int | None, digest: Digest) -> BlobExplained | None:
    row = await gc_holders.blob(c, digest)
    if row is None:
        return None
    users = await gc_holders.users(c, digest)
    reviews = await gc_holders.blob_reviews(c, digest)
    return BlobExplained(
        row=row,
        is_linked=None if repository_id is None else await gc_holders.is_linked(c, repository_id, digest),
        links=await gc_holders.links(c, digest),
        manifests=users,
        reviews=reviews,
        verdict=_verdict(_reason(users, "{} needs it", "{} manifests need it, {} among them"), reviews),
    )


def _reason(holders: Some[T], one: str, many: str) -> list[str]:
    """The sentence about what holds it, if anything does."""
    if not holders.count:
        return []
    first = str(holders.shown[0])
    if holders.count == 1:
        return [one.format(first)]
    return [many.format(f"at least {holders.count}" if holders.is_least else holders.count, first)]


def _verdict(reasons: list[str], reviews: Reviews) -> Verdict:
    """A later review that is not due yet counts as alive, so the last one decides."""
    if reasons:
        return Verdict("kept", tuple(reasons))
    return Verdict("stranded") if reviews.latest is None else Verdict("goes", at=reviews.latest)
