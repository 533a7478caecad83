"""Suspicions about objects and the rows that name them: looked at again, told if proven, and repaired if that is safe.

The registry and its collectors work meanwhile, so what differed between two looks proves nothing. What proves it is the
order of further looks, together with two rules: a key is never used twice (I3), and a row names an object before its
first byte is written and until after its last is gone (I2).

- No row (orphan): the object was listed, so its row had come before. Rows first, then the object: a key that no row
  names any more, of an object that is there still, has lost its row for good. An object that is gone was deleted as it
  should be.
- No object (lost), or one of the wrong size: rows, object, rows. A blob that names the key before and after has named
  it all the time between, when its object should have been there, and whole: its bytes are written before its row.
- An upload's object too: it has at least the bytes that the row vouched for before the look, as long as the row names
  it after. More is no fault, since bytes come before the row.
- Named twice: all rows of one moment.

Repair makes no object go away. A blob without its bytes becomes known as lost, so that the next push of it uploads them
again; what no blob needs gets a tombstone, which the collectors carry out after a day.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from app.blobs.driver import KeyInvalid, ObjectMissing, ObjectTooShort, StorageUnavailable
from app.blobs.keys import is_key
from app.domain.digest import Digest
from app.services.fsck.crowd import each
from app.services.fsck.findings import Finding, Kind, StorageLooksWrong
from app.services.fsck.reading import digest_of
from app.store import census

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from app.blobs.driver import Driver
    from app.runtime.threads import Threads
    from app.services.fsck.ledger import Ledger
    from app.store.census import Named, StoredBlob
    from app.store.engine import Database

# For an operator who wants to look at an object before it goes.
REPAIR_GRACE: Final = timedelta(days=1)
LOOKS_AT_ONCE: Final = 16
# Blobs that are looked for before a repair, until one of them is found.
PROBES: Final = 1000


@dataclass(frozen=True)
class Orphan:
    """An object was seen and no row that names it."""

    key: str


@dataclass(frozen=True)
class Twice:
    """Two rows were seen that name one key."""

    key: str


@dataclass(frozen=True)
class DamagedBlob:
    """A blob was seen whose object was not there, or was wrong; `is_read`: its bytes were."""

    blob: StoredBlob
    is_read: bool = False


@dataclass(frozen=True)
class DamagedUpload:
    """An upload's row was seen, and fewer bytes than it vouches for."""

    key: str


Suspicion = Orphan | Twice | DamagedBlob | DamagedUpload


class _Damage(NamedTuple):
    """What is wrong with a blob, and its object's size if it has one."""

    kind: Kind
    size: int | None = None
    found: Digest | None = None


class Verdicts:
    """Settles suspicions. With `repair` it also mends what can be mended."""

    def __init__(
        self, database: Database, driver: Driver, hashers: Threads, ledger: Ledger, *, repair: bool
    ) -> None:
        self._database = database
        self._driver = driver
        self._hashers = hashers
        self._ledger = ledger
        self._repair = repair

    async def ensure_storage_is_right(self) -> None:
        """Raise StorageLooksWrong if none of many blobs is in storage: a volume that is not mounted looks like that."""
        some = await self._database.read(lambda c: census.blobs_after(c, b"", PROBES))
        for blob in some:
            if await self._size(blob.key) is not None:
                return
        if some:
            raise StorageLooksWrong

    async def settle(self, suspicions: Sequence[Suspicion]) -> None:
        """Tell what is proven of them."""
        self._ledger.summary.suspicions += len(suspicions)
        keys = [s.key for s in suspicions if isinstance(s, Orphan | Twice)]
        named = _by_key(await self._database.read(lambda c: census.holders(c, keys)))
        self._tell_twice(named)
        await self._settle_orphans(
            [s.key for s in suspicions if isinstance(s, Orphan) and s.key not in named]
        )
        await self._settle_uploads([s.key for s in suspicions if isinstance(s, DamagedUpload)])
        await self._settle_blobs([s for s in suspicions if isinstance(s, DamagedBlob)])

    def _tell_twice(self, named: dict[str, list[Named]]) -> None:
        for key, rows in named.items():
            if len(rows) > 1:
                holders = tuple(sorted(_holder(row) for row in rows))
                self._ledger.found(Finding(kind=Kind.NAMED_TWICE, key=key, holders=holders))

    async def _settle_orphans(self, keys: Sequence[str]) -> None:
        """Objects that no row named a moment ago."""
        sizes = await self._sizes(keys)
        ours = [(key, size) for key, size in sizes.items() if is_key(key)]
        entombed: set[str] = set()
        if self._repair and ours:
            entombed = await self._database.write(lambda c: census.entomb(c, ours, REPAIR_GRACE))
        for key, size in sorted(sizes.items()):
            kind = Kind.ORPHAN if is_key(key) else Kind.STRANGER
            self._ledger.found(Finding(kind=kind, key=key, size=size, is_repaired=key in entombed))

    async def _settle_uploads(self, keys: Sequence[str]) -> None:
        before = await self._database.read(lambda c: census.upload_sizes(c, keys))
        sizes = await self._sizes(before)
        short = [key for key, size in before.items() if sizes.get(key, 0) < size]
        after = await self._database.read(lambda c: census.upload_sizes(c, short))
        for key in sorted(after):
            self._ledger.found(
                Finding(kind=Kind.UPLOAD_DAMAGED, key=key, size=sizes.get(key), expected=before[key])
            )

    async def _settle_blobs(self, suspicions: Sequence[DamagedBlob]) -> None:
        suspects = {s.blob for s in suspicions}
        suspects &= await self._still(suspects)
        damages: dict[StoredBlob, _Damage] = {}

        async def look(suspicion: DamagedBlob) -> None:
            if suspicion.blob in suspects and (damage := await self._damage(suspicion)) is not None:
                damages[suspicion.blob] = damage

        await each(suspicions, look, LOOKS_AT_ONCE)
        proven = await self._still(damages)
        marked = await self._mark({blob: damages[blob] for blob in proven}) if self._repair else set[Digest]()
        for blob in sorted(proven):
            digest, damage = Digest.unpack(blob.digest), damages[blob]
            self._ledger.found(
                Finding(
                    kind=damage.kind,
                    key=blob.key,
                    digest=digest,
                    size=damage.size,
                    expected=blob.size,
                    found=damage.found,
                    is_repaired=digest in marked,
                )
            )

    async def _still(self, blobs: Iterable[StoredBlob]) -> set[StoredBlob]:
        """Those whose rows are as they were."""
        wanted = set(blobs)
        now = await self._database.read(lambda c: census.blobs(c, [blob.digest for blob in wanted]))
        return wanted & set(now.values())

    async def _damage(self, suspicion: DamagedBlob) -> _Damage | None:
        blob = suspicion.blob
        size = await self._size(blob.key)
        if size == blob.size:
            return await self._content_damage(blob) if suspicion.is_read else None
        if suspicion.is_read:
            return None  # told already, when rows and objects were compared
        return _Damage(Kind.LOST) if size is None else _Damage(Kind.WRONG_SIZE, size)

    async def _content_damage(self, blob: StoredBlob) -> _Damage | None:
        """Read it once more, since memory and cables fail, too."""
        try:
            found = await digest_of(self._driver, blob, self._hashers)
        except (ObjectMissing, ObjectTooShort):
            return None
        except StorageUnavailable:
            return _Damage(Kind.UNREADABLE, blob.size)
        return None if found.packed == blob.digest else _Damage(Kind.WRONG_CONTENT, blob.size, found)

    async def _mark(self, damages: dict[StoredBlob, _Damage]) -> set[Digest]:
        """Mark as lost those that nobody can read, and give what is left of them tombstones."""
        wrong = [blob.key for blob, damage in damages.items() if damage.size is not None]
        named = _by_key(await self._database.read(lambda c: census.holders(c, wrong)))
        # What another row names as well may be right for that one.
        safe = [
            (blob, damage.size)
            for blob, damage in damages.items()
            if damage.kind is not Kind.UNREADABLE and len(named.get(blob.key, ())) <= 1
        ]
        if not safe:
            return set()
        return await self._database.write(lambda c: census.lose(c, safe, REPAIR_GRACE))

    async def _sizes(self, keys: Iterable[str]) -> dict[str, int]:
        """The sizes of those that are there."""
        sizes: dict[str, int] = {}

        async def look(key: str) -> None:
            if (size := await self._size(key)) is not None:
                sizes[key] = size

        await each(keys, look, LOOKS_AT_ONCE)
        return sizes

    async def _size(self, key: str) -> int | None:
        try:
            return await self._driver.size(key)
        except (ObjectMissing, KeyInvalid):
            return None


def _by_key(rows: Iterable[Named]) -> dict[str, list[Named]]:
    found: defaultdict[str, list[Named]] = defaultdict(list)
    for row in rows:
        if row.key is not None:
            found[row.key].append(row)
    return found


def _holder(row: Named) -> str:
    return row.holder if row.digest is None else f"{row.holder} {Digest.unpack(row.digest)}"
