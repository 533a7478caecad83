"""What the collectors would delete if they ran now: the same judgement, from the same functions, without a lock.

Nothing is kept open while the caller does something with what was found: each page is a look of its own. So this is not
one moment's truth; what is pushed or deleted meanwhile may or may not be seen.

The blobs of manifests that would go are not among what goes: they become suspect only then, and are reviewed after a
delay of their own. `later_bytes` says how much that may be.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from app.domain.digest import Digest
from app.store import gc_counts, gc_due

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from datetime import datetime, timedelta

    from app.store.engine import Connection
    from app.store.gc_due import DueBlob, DueManifest, UnusedManifest
    from app.store.observing import Observer

_Pair = tuple[int, int]
# What falls due at the same instant is read once for each page that it fills (app/store/gc_due.py).
PAGE: Final = 5_000


@dataclass(frozen=True)
class PlanRules:
    """`upload_age`: how long nobody has touched an upload that is given up; None: they are kept."""

    keep_untagged: bool
    upload_age: timedelta | None


class Going(NamedTuple):
    """Something that would go: `kind` is manifest, blob, object or upload; `bytes` is what that frees.

    `event` is why, `since` when that happened, `due` when its time came.
    """

    kind: str
    name: str
    bytes: int
    event: str
    since: datetime
    due: datetime


@dataclass
class Sum:
    """So many things, of so many bytes."""

    count: int = 0
    bytes: int = 0


@dataclass
class Plan:
    """What would go. The sums grow while `going` is read; at most `limit` of each kind come, if there is a limit."""

    observer: Observer
    rules: PlanRules
    limit: int | None = None
    page: int = PAGE
    sums: dict[tuple[str, str], Sum] = field(default_factory=lambda: defaultdict[tuple[str, str], Sum](Sum))
    later_bytes: int = 0
    # Due reviews of what is needed, or of what is gone already: the next pass settles them.
    needless: int = 0
    is_cut: bool = False

    async def going(self) -> AsyncGenerator[Going]:
        """What goes, kind by kind, that which is due first before others. Raises Unavailable."""
        until = await self.observer.look(gc_counts.now)
        for kind in (self._manifests, self._blobs, self._objects, self._uploads):
            count = 0
            async with aclosing(kind(until)) as found:
                async for one in found:
                    if count == self.limit:
                        self.is_cut = True
                        break
                    count += 1
                    self._add(one)
                    yield one

    def _add(self, one: Going) -> None:
        total = self.sums[one.kind, one.event]
        total.count += 1
        total.bytes += one.bytes

    async def _manifests(self, until: datetime) -> AsyncGenerator[Going]:
        if self.rules.keep_untagged:
            return
        last: DueManifest | None = None
        left = self.limit

        async def look(c: Connection) -> tuple[list[DueManifest], dict[_Pair, UnusedManifest], int]:
            page = await gc_due.due_manifests(c, until, last, self.page)
            unused = await gc_due.unused_manifests(c, [_pair(one) for one in page if one.is_first])
            counted = [_pair(one) for one in page if one.is_first and _pair(one) in unused][:left]
            return page, unused, await gc_due.needed_bytes(c, counted)

        while True:
            page, unused, later_bytes = await self.observer.look(look)
            self.later_bytes += later_bytes
            self.needless += len(page) - len(unused)
            for one in page:
                if one.is_first and (found := unused.get(_pair(one))):
                    name = f"{found.repository}@{Digest.unpack(found.digest)}"
                    yield Going("manifest", name, found.bytes, one.event, one.since, one.due)
            if len(page) < self.page:
                return
            last = page[-1]
            left = None if left is None else max(0, left - len(unused))

    async def _blobs(self, until: datetime) -> AsyncGenerator[Going]:
        last: DueBlob | None = None

        async def look(c: Connection) -> tuple[list[DueBlob], dict[bytes, int]]:
            page = await gc_due.due_blobs(c, until, last, self.page)
            return page, await gc_due.unused_blobs(c, [one.digest for one in page if one.is_first])

        while True:
            page, unused = await self.observer.look(look)
            self.needless += len(page) - len(unused)
            for one in page:
                if one.is_first and one.digest in unused:
                    name = str(Digest.unpack(one.digest))
                    yield Going("blob", name, unused[one.digest], one.event, one.since, one.due)
            if len(page) < self.page:
                return
            last = page[-1]

    async def _objects(self, until: datetime) -> AsyncGenerator[Going]:
        page: Sequence[gc_due.DueObject] = ()
        while True:
            last = page[-1] if page else None
            page = await self.observer.look(
                lambda c, last=last: gc_due.due_objects(c, until, last, self.page)
            )
            for one in page:
                yield Going("object", one.storage_key, one.bytes or 0, one.reason, one.since, one.due)
            if len(page) < self.page:
                return

    async def _uploads(self, until: datetime) -> AsyncGenerator[Going]:
        age = self.rules.upload_age
        if age is None:
            return
        page: Sequence[gc_due.OldUpload] = ()
        while True:
            last = page[-1] if page else None
            page = await self.observer.look(
                lambda c, last=last: gc_due.old_uploads(c, until, age, last, self.page)
            )
            for one in page:
                name = f"{one.repository} {one.id}"
                yield Going("upload", name, one.bytes, "upload_expired", one.touched, one.touched + age)
            if len(page) < self.page:
                return


def _pair(review: DueManifest) -> _Pair:
    return review.repository_id, review.manifest_id
