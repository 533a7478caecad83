"""What collectors find: garbage of every kind, beside what must stay; and what must be left of it in the end.

A `Litter` prepares the data through the API, while nobody collects. Then the clock is put forward (`put_forward`), and
those of the collectors that are named in `before` have their turn, in peace, and the statements of `then` follow. The
collectors that die come next.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.crashes.client import noise
from tests.crashes.disks import object_files
from tests.support.registry import descriptor, image, index

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crashes.client import Client
    from tests.crashes.stage import Place
    from tests.support.registry import Image

# Everything that waits for its time is due, but for what was touched just now.
_PUT_FORWARD: Final = (
    "UPDATE gc_blob_review_queue SET review_after = review_after - interval '2 days'",
    "UPDATE gc_manifest_review_queue SET review_after = review_after - interval '2 days'",
    "UPDATE gc_storage_deletions SET not_before = not_before - interval '2 days'",
)
# Whatever becomes suspect is due at once.
_AT_ONCE: Final = "UPDATE gc_review_after_defaults SET value = '0'"
_WAITING: Final = """
    SELECT (SELECT count(*) FROM gc_blob_review_queue) + (SELECT count(*) FROM gc_manifest_review_queue)
           + (SELECT count(*) FROM gc_storage_deletions)
"""
# Every second receipt is old enough to be forgotten.
_LONG_AGO: Final = "UPDATE gc_receipts SET deleted_at = deleted_at - interval '1 year' WHERE id % 2 = 0"
PASSES_MAX: Final = 6


@dataclass(frozen=True)
class Litter:
    """See the module. `dying`: those that run in the process that dies."""

    name: str
    make: Callable[[Client, Place], None]
    dying: tuple[str, ...]
    before: tuple[str, ...] = ()
    then: tuple[str, ...] = ()


def put_forward(place: Place) -> None:
    """Two days pass in the queues."""
    place.execute(*_PUT_FORWARD)


def prepare(place: Place, client: Client, litter: Litter) -> None:
    """Leave behind what those who die will find."""
    place.clear()
    place.live()
    with place.served(client):
        litter.make(client, place)
    place.end()
    for name in litter.before:
        place.collect(name)
        assert place.wait_until_collected()
        place.end()
        put_forward(place)
    place.execute(*litter.then)


def clear_up(place: Place) -> None:
    """Pass after pass, days apart, until nothing waits for anything."""
    for _ in range(PASSES_MAX):
        put_forward(place)
        place.collect()
        assert place.wait_until_collected()
        place.end_collector()
        if not place.value(_WAITING):
            return
    raise AssertionError("it does not converge")


_STOCK: Final = """
    SELECT 'm', m.digest, r.path, NULL::bigint
    FROM manifests AS m JOIN repositories AS r ON r.id = m.repository_id
    UNION ALL SELECT 'b', digest, storage_key, NULL FROM blobs
    UNION ALL SELECT 'u', NULL, storage_key, NULL FROM blob_uploads
    UNION ALL SELECT 't', NULL, storage_key || ' ' || reason, NULL FROM gc_storage_deletions
    UNION ALL SELECT 'r', NULL, NULL, id FROM gc_receipts WHERE deleted_at > now() - interval '90 days'
"""


@dataclass(frozen=True)
class Stock:
    """What the tables name: manifests with their repository, blobs with their objects, receipts that are not old."""

    manifests: frozenset[tuple[bytes, str]]
    blobs: frozenset[tuple[bytes, str]]
    uploads: frozenset[str]
    tombstones: frozenset[tuple[str, str]]
    receipts: frozenset[int]

    @classmethod
    def of(cls, place: Place) -> Stock:
        found: dict[str, list[Any]] = {name: [] for name in ("m", "b", "u", "t", "r")}
        for table, digest, text, number in place.fetch(_STOCK):
            pair = (digest, text) if digest is not None else text
            found[table].append(number if pair is None else pair)
        tombstones = (tuple(both.split(" ")) for both in found["t"])
        return cls(
            manifests=frozenset(found["m"]),
            blobs=frozenset(found["b"]),
            uploads=frozenset(found["u"]),
            tombstones=frozenset((key, reason) for key, reason in tombstones),
            receipts=frozenset(found["r"]),
        )

    def receipts_for(self, now: Stock) -> Counter[tuple[Any, ...]]:
        """What must have been written since: one for each thing that is gone."""
        manifests = [("manifest", digest, path, None) for digest, path in self.manifests - now.manifests]
        blobs = [("blob", digest, None, key) for digest, key in self.blobs - now.blobs]
        ended = self.uploads - now.uploads - {key for _, key in now.blobs}
        objects = ended | {key for key, reason in self.tombstones if reason != "blob_unused"}
        return Counter([*manifests, *blobs, *(("object", None, None, key) for key in objects)])


_RECEIPTS: Final = """
    SELECT kind, CASE WHEN kind <> 'object' THEN digest END, repository, storage_key
    FROM gc_receipts WHERE NOT id = ANY ($1)
"""


def check_receipts(place: Place, before: Stock) -> None:
    """They tell of each deletion once, and that the objects are gone too."""
    now = Stock.of(place)
    assert before.receipts <= now.receipts
    assert Counter(place.fetch(_RECEIPTS, list(before.receipts))) == before.receipts_for(now)
    assert not place.fetch("SELECT * FROM gc_receipts WHERE removed_at IS NULL")


def check_nothing_is_left_over(place: Place) -> None:
    """No review, no tombstone, and no object but those of blobs and sessions."""
    for queue in ("gc_blob_review_queue", "gc_manifest_review_queue", "gc_storage_deletions"):
        assert not place.fetch(f"SELECT * FROM {queue}")
    stock = Stock.of(place)
    named = {key for _, key in stock.blobs} | stock.uploads
    assert set(object_files(place.root)) <= named


# Litters

KEPT: Final = image(noise("shared", 3000), noise("kept", 3000), config=b'{"of": "kept"}')
GONE: Final = image(noise("shared", 3000), noise("gone", 3000), config=b'{"of": "gone"}')
LEFT: Final = image(noise("left", 3000), noise("gone", 3000), config=b'{"of": "left"}')
CHILD: Final = image(noise("child", 3000), config=b'{"of": "child"}')


def _about(subject: Image, name: str) -> Image:
    return image(
        noise(name, 400),
        config=b"{}",
        subject=descriptor(subject.payload, subject.media_type),
        artifactType="a/b",
    )


def images(client: Client, place: Place) -> None:
    """Images that share layers, of which one stays; two indexes with a child in common; artifacts about both."""
    client.push("litter/a", "kept", KEPT)
    client.push("litter/a", "gone", GONE)
    client.push("litter/b", LEFT.digest(), LEFT)
    client.push("litter/a", CHILD.digest(), CHILD)
    for root in (index(CHILD, KEPT), index(CHILD, GONE)):
        client.put("litter/a", root.digest(), root)
    client.put("litter/a", "all", index(CHILD, KEPT))
    signature = _about(GONE, "signature")
    for artifact in (_about(KEPT, "note"), signature, _about(signature, "countersignature")):
        client.push("litter/a", artifact.digest(), artifact)
    client.untag("litter/a", "gone")
    # Not in litter/b, and no image of it needs it there.
    client.put_blob("litter/b", noise("shared", 3000))
    put_forward(place)


def blobs(client: Client, place: Place) -> None:
    """Blobs that nobody ever used, in one repository and in two, beside those of an image."""
    client.push("litter/a", "kept", KEPT)
    for number in range(7):
        client.put_blob(f"litter/{number % 2}", noise(f"unused {number}", 500 * number))
    client.put_blob("litter/1", noise("unused 2", 1000))
    put_forward(place)


def objects(client: Client, place: Place) -> None:
    """Tombstones of every kind: of unused blobs, of a duplicate, of a session that was cancelled, of a rejected one."""
    blobs(client, place)
    client.finish(client.start("litter/a", noise("kept", 3000)))
    for name, digest in (("cancelled", ""), ("rejected", GONE.digest())):
        upload = client.start("litter/a", noise(name, 30_000))
        client.patch(upload, 20_000)
        if digest:
            client.finish(upload, digest=digest)
        else:
            client.cancel(upload)
    put_forward(place)


def sessions(client: Client, place: Place) -> None:
    """Sessions with and without bytes that nobody has touched for long, beside fresh ones."""
    fresh: list[str] = []
    for number in range(9):
        upload = client.start("litter/a", noise(f"session {number}", 30_000))
        if number % 3:
            client.patch(upload, 10_000)
        if number in (1, 3):
            fresh.append(upload.id)
        else:
            del client.world.sessions[upload.id]
    place.execute(
        "UPDATE blob_uploads SET updated_at = now() - interval '30 days' WHERE NOT id = ANY "
        f"('{{{','.join(fresh)}}}'::uuid[])"
    )


def everything(client: Client, place: Place) -> None:
    """All of it at once, and whatever becomes suspect meanwhile is due at once."""
    images(client, place)
    sessions(client, place)
    objects(client, place)
    place.execute(_AT_ONCE)


LITTERS: Final = (
    Litter("manifests", images, dying=("manifests",)),
    Litter("blobs", blobs, dying=("blobs",)),
    Litter("objects", objects, dying=("objects",), before=("manifests", "blobs")),
    Litter("uploads", sessions, dying=("uploads",)),
    Litter("expired", sessions, dying=("objects",), before=("uploads",)),
    Litter("receipts", blobs, dying=("receipts",), before=("blobs", "objects"), then=(_LONG_AGO,)),
    Litter("everything", everything, dying=("uploads", "manifests", "blobs", "objects", "receipts")),
)
