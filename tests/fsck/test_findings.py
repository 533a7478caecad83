"""Every kind of finding, made and found; what a repair does about it, and what it leaves."""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import pytest

from app.blobs.driver import StorageError, StorageUnavailable
from app.blobs.drivers.filesystem import Disk, Filesystem
from app.blobs.drivers.memory import Memory
from app.blobs.keys import new_key
from app.domain.digest import Digest
from app.services.fsck import Kind, StorageLooksWrong
from tests.services.support import Faulty
from tests.support.fsck import assert_fsck_clean, run_fsck
from tests.support.postgres import connected
from tests.support.registry import digest_of, image, index, open_registry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from app.blobs.driver import Driver, StoredObject
    from app.store.engine import Target
    from tests.support.registry import Image, Registry

NAME: Final = "team/app"
LAYER: Final = b"a layer of some length"
CONFIG: Final = b'{"a": "config"}'
IMAGE: Final = image(LAYER, b"another", config=CONFIG)


@dataclass(frozen=True)
class Place:
    """A registry with one tagged image, and what it stands on."""

    registry: Registry
    target: Target
    driver: Driver
    root: Path

    async def sql(self, text: str, *arguments: Any) -> None:
        """Past triggers and foreign keys, as damage comes."""
        async with connected(self.target) as connection:
            await connection.execute("SET session_replication_role = replica")
            await connection.execute(text, *arguments)

    async def key(self, content: bytes) -> str:
        rows = await self.registry.rows(
            "SELECT storage_key FROM blobs WHERE digest = $1", Digest.of(content).packed
        )
        return rows[0]["storage_key"]

    async def file(self, content: bytes) -> Path:
        return self.root / await self.key(content)

    async def tombstones(self) -> list[dict[str, Any]]:
        return await self.registry.rows(
            "SELECT storage_key, digest, size, reason, not_before > now() + interval '23 hours' AS later"
            " FROM gc_storage_deletions ORDER BY storage_key"
        )

    async def put(self, key: str, content: bytes) -> None:
        writer = self.driver.append(key, 0)
        await writer.write(content)
        await writer.commit()


def play(
    database: Target,
    root: Path,
    scenario: Callable[[Place], Awaitable[None]],
    driver: Driver | None = None,
    pushed: Image = IMAGE,
) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60), open_registry(database, root, driver=driver) as registry:
            await registry.push_image(NAME, "latest", pushed)
            await scenario(Place(registry, database, registry.driver, root))

    asyncio.run(bounded())


# Nothing wrong


def test_fsck_when_all_is_well_then_it_finds_nothing_and_counts_everything(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        registry = place.registry
        child = await registry.push_image(NAME, "child", image(b"of a child", config=b"{}"))
        referrer = {"mediaType": IMAGE.media_type, "digest": IMAGE.digest(), "size": len(IMAGE.payload)}
        await registry.push_image(NAME, "referrer", image(config=b"{}", subject=referrer))
        assert (await registry.put_manifest(NAME, "index", index(child, IMAGE))).status_code == 201
        await registry.push_blob(NAME, b"")
        # A duplicate, as the referrer's config is one: its object has a tombstone.
        await registry.push_blob(NAME, LAYER)
        # Sessions without a byte have no object.
        await registry.client.post(f"/v2/{NAME}/blobs/uploads/")
        started = await registry.client.post(f"/v2/{NAME}/blobs/uploads/")
        await registry.client.patch(started.headers["Location"], content=b"half of it")
        # The object of a tombstone may be gone already.
        await place.sql("INSERT INTO gc_storage_deletions VALUES ('gone', NULL, NULL, 'orphan', now())")
        summary = await assert_fsck_clean(database, place.driver, share=1.0)
        blobs = {LAYER, b"another", CONFIG, b"of a child", b"{}", b""}
        assert (summary.rows, summary.objects) == (len(blobs) + 5, len(blobs) + 3)
        assert summary.object_bytes == sum(map(len, (*blobs, LAYER, b"{}", b"half of it")))
        assert (summary.blobs_read, summary.bytes_read) == (len(blobs), sum(map(len, blobs)))
        assert (summary.manifests, summary.repositories, summary.suspicions) == (4, 1, 0)

    play(database, tmp_path, scenario)


def test_fsck_when_the_database_is_small_then_it_is_quick(database: Target, tmp_path: Path) -> None:
    async def scenario(place: Place) -> None:
        await assert_fsck_clean(database, place.driver)  # the first compiles the statements
        seconds: list[float] = []
        for _ in range(5):
            began = perf_counter()
            await assert_fsck_clean(database, place.driver)
            seconds.append(perf_counter() - began)
        assert min(seconds) < 0.25, seconds

    play(database, tmp_path, scenario)


# Objects and rows


def test_orphan_when_no_row_names_an_object_then_repair_gives_it_a_tombstone_a_day_ahead(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        keys = sorted(new_key() for _ in range(3))
        for key in keys:
            await place.put(key, b"nobody's")
        found = (await run_fsck(database, place.driver)).findings
        assert [(f.kind, f.key, f.size, f.is_repaired) for f in found] == [
            (Kind.ORPHAN, key, 8, False) for key in keys
        ]
        assert await place.tombstones() == []
        assert all(f.is_repaired for f in (await run_fsck(database, place.driver, repair=True)).findings)
        assert await place.tombstones() == [
            {"storage_key": key, "digest": None, "size": 8, "reason": "orphan", "later": True} for key in keys
        ]
        assert [await place.driver.size(key) for key in keys] == [8, 8, 8]
        await assert_fsck_clean(database, place.driver)

    play(database, tmp_path, scenario)


def test_stranger_when_a_file_is_not_the_registrys_then_it_is_told_and_left_alone(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        await place.put("docker/registry/v2/blobs/data", b"somebody else's")
        await place.put("zzz", b"")
        for repair in (False, True):
            result = await run_fsck(database, place.driver, repair=repair)
            assert [(f.kind, f.key, f.is_repaired) for f in result.findings] == [
                (Kind.STRANGER, "docker/registry/v2/blobs/data", False),
                (Kind.STRANGER, "zzz", False),
            ]
        assert await place.tombstones() == []

    play(database, tmp_path, scenario)


def test_lost_when_repaired_then_it_waits_for_the_next_push_and_is_whole_after_it(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        registry, layer = place.registry, Digest.of(LAYER)
        key = await place.key(LAYER)
        (await place.file(LAYER)).unlink()
        result = await run_fsck(database, place.driver)
        lost = result.one(Kind.LOST)
        assert (lost.key, lost.digest, lost.expected, lost.size) == (key, layer, len(LAYER), None)
        needed = result.one(Kind.BLOB_LOST)
        assert (needed.repository, needed.tags, needed.digest) == (NAME, ("latest",), layer)
        assert result.kinds == ["blob_lost", "lost"]

        result = await run_fsck(database, place.driver, repair=True)
        assert result.one(Kind.LOST).is_repaired
        assert await place.tombstones() == []
        # In the same run the walk tells which image needs it, and so does each run after.
        again = await run_fsck(database, place.driver, repair=True)
        for one in (result.one(Kind.BLOB_AWAITED), again.one(Kind.BLOB_AWAITED)):
            assert (one.repository, one.digest, one.tags) == (NAME, layer, ("latest",))
            assert one.manifest == Digest.of(IMAGE.payload)
            assert not one.is_repaired
        assert (again.kinds, again.summary.awaited) == (["blob_awaited"], 1)

        assert (await registry.client.head(f"/v2/{NAME}/blobs/{layer}")).status_code == 404
        await registry.push_blob(NAME, LAYER)
        await assert_fsck_clean(database, place.driver, share=1.0)
        assert (await registry.client.get(f"/v2/{NAME}/blobs/{layer}")).content == LAYER

    play(database, tmp_path, scenario)


def test_lost_when_no_tag_reaches_what_needs_it_then_it_is_counted_and_no_finding(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        (await place.file(LAYER)).unlink()
        await run_fsck(database, place.driver, repair=True)
        answer = await place.registry.client.delete(f"/v2/{NAME}/manifests/latest")
        assert answer.status_code == 202
        assert (await assert_fsck_clean(database, place.driver)).awaited == 1

    play(database, tmp_path, scenario)


@pytest.mark.parametrize("damage", [LAYER[:-1], LAYER + b"x", b""], ids=["short", "long", "empty"])
def test_wrong_size_when_repaired_then_the_object_gets_a_tombstone_and_the_blob_waits(
    database: Target, tmp_path: Path, damage: bytes
) -> None:
    async def scenario(place: Place) -> None:
        key = await place.key(LAYER)
        (await place.file(LAYER)).write_bytes(damage)
        result = await run_fsck(database, place.driver, share=1.0)
        wrong = result.one(Kind.WRONG_SIZE)
        assert (wrong.key, wrong.size, wrong.expected) == (key, len(damage), len(LAYER))
        assert result.kinds == ["blob_lost", "wrong_size"]
        result = await run_fsck(database, place.driver, repair=True)
        assert result.kinds == ["blob_awaited", "wrong_size"]
        assert result.one(Kind.WRONG_SIZE).is_repaired
        assert await place.tombstones() == [
            {
                "storage_key": key,
                "digest": Digest.of(LAYER).packed,
                "size": len(damage),
                "reason": "orphan",
                "later": True,
            }
        ]
        await place.registry.push_blob(NAME, LAYER)
        await assert_fsck_clean(database, place.driver)

    play(database, tmp_path, scenario)


def test_wrong_content_when_all_is_read_then_it_is_found_and_repaired_as_any_damage(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        key, damage = await place.key(LAYER), LAYER.upper()
        (await place.file(LAYER)).write_bytes(damage)
        await assert_fsck_clean(database, place.driver)  # its size is right
        result = await run_fsck(database, place.driver, share=1.0, repair=True)
        wrong = result.one(Kind.WRONG_CONTENT)
        assert (wrong.key, wrong.digest, wrong.found) == (key, Digest.of(LAYER), Digest.of(damage))
        assert wrong.is_repaired
        assert [(row["storage_key"], row["size"]) for row in await place.tombstones()] == [(key, len(LAYER))]
        assert (await run_fsck(database, place.driver, share=1.0)).kinds == ["blob_awaited"]
        await place.registry.push_blob(NAME, LAYER)
        await assert_fsck_clean(database, place.driver, share=1.0)

    play(database, tmp_path, scenario)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_wrong_content_when_a_blob_has_many_blocks_then_its_own_algorithm_is_used(
    database: Target, tmp_path: Path, algorithm: str
) -> None:
    async def scenario(place: Place) -> None:
        content = os.urandom(3 * 1024 * 1024 + 17)
        await place.registry.push_blob(NAME, content, algorithm)
        await assert_fsck_clean(database, place.driver, share=1.0)
        rows = await place.registry.rows("SELECT storage_key FROM blobs WHERE size = $1", len(content))
        with (tmp_path / rows[0]["storage_key"]).open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(bytes([content[-1] ^ 1]))
        wrong = (await run_fsck(database, place.driver, share=1.0)).one(Kind.WRONG_CONTENT)
        assert str(wrong.digest) == digest_of(content, algorithm)

    play(database, tmp_path, scenario)


def test_share_when_it_is_a_half_then_about_half_of_the_blobs_are_read(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        content = [f"blob {n}".encode() for n in range(200)]
        for one in content:
            await place.registry.push_blob(NAME, one)
        summary = await assert_fsck_clean(database, place.driver, share=0.5)
        assert 50 < summary.blobs_read < 150

    play(database, tmp_path, scenario, driver=Memory())


class BadSector(Disk):
    """One length of read fails, as a disk's bad sector does."""

    def read(self, descriptor: int, count: int, position: int) -> bytes:
        if count == len(LAYER):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(descriptor, count, position)


def test_unreadable_when_one_object_cannot_be_read_then_the_others_are_and_it_is_left_as_it_is(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        result = await run_fsck(database, place.driver, share=1.0, repair=True)
        assert result.kinds == ["blob_lost", "unreadable"]
        assert result.one(Kind.UNREADABLE).digest == Digest.of(LAYER)
        assert not result.one(Kind.UNREADABLE).is_repaired
        assert result.summary.blobs_read == 2

    play(database, tmp_path, scenario, driver=Filesystem(tmp_path, disk=BadSector()))


def test_named_twice_when_a_tombstone_has_a_blobs_key_then_it_is_told_and_nothing_is_done(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        key = await place.key(LAYER)
        await place.sql("INSERT INTO gc_storage_deletions VALUES ($1, NULL, 1, 'orphan', now())", key)
        result = await run_fsck(database, place.driver, repair=True)
        twice = result.one(Kind.NAMED_TWICE)
        assert (twice.key, twice.holders) == (key, (f"blob {Digest.of(LAYER)}", "tombstone"))
        assert (result.kinds, twice.is_repaired) == (["named_twice"], False)
        assert await place.key(LAYER) == key

    play(database, tmp_path, scenario)


def test_named_twice_when_one_of_two_blobs_is_right_then_its_object_gets_no_tombstone(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        key = await place.key(LAYER)
        await place.sql(
            "UPDATE blobs SET storage_key = $1 WHERE digest = $2", key, Digest.of(b"another").packed
        )
        result = await run_fsck(database, place.driver, repair=True)
        # What the second blob had is nobody's now; the tombstone for it is the only one.
        assert result.kinds == ["blob_lost", "named_twice", "orphan", "wrong_size"]
        assert not result.one(Kind.WRONG_SIZE).is_repaired
        assert [row["storage_key"] for row in await place.tombstones()] == [result.one(Kind.ORPHAN).key]

    play(database, tmp_path, scenario)


@pytest.mark.parametrize("left", [None, 3], ids=["gone", "short"])
def test_upload_damaged_when_it_has_fewer_bytes_than_its_row_says_then_it_is_told(
    database: Target, tmp_path: Path, left: int | None
) -> None:
    async def scenario(place: Place) -> None:
        started = await place.registry.client.post(f"/v2/{NAME}/blobs/uploads/")
        await place.registry.client.patch(started.headers["Location"], content=b"ten bytes.")
        key = (await place.registry.rows("SELECT storage_key FROM blob_uploads"))[0]["storage_key"]
        with (place.root / key).open("ab") as file:
            file.write(b"more than the row says, as after a crash")
        await assert_fsck_clean(database, place.driver)
        if left is None:
            (place.root / key).unlink()
        else:
            os.truncate(place.root / key, left)
        result = await run_fsck(database, place.driver, repair=True)
        found = result.one(Kind.UPLOAD_DAMAGED)
        assert (found.key, found.size, found.expected, found.is_repaired) == (key, left, 10, False)
        assert len(result.findings) == 1

    play(database, tmp_path, scenario)


def test_join_when_objects_and_rows_are_missing_in_every_place_then_each_is_found(
    database: Target, tmp_path: Path
) -> None:
    """First, last, side by side: whatever comes before or after whatever."""

    async def scenario(place: Place) -> None:
        for n in range(60):
            await place.registry.push_blob(NAME, f"blob {n}".encode())
        rows = await place.registry.rows('SELECT storage_key FROM blobs ORDER BY storage_key COLLATE "C"')
        keys = [row["storage_key"] for row in rows]
        gone = {*keys[:2], *keys[10:13], keys[20], *keys[-2:]}
        await place.driver.delete(sorted(gone))
        orphans = {new_key() for _ in range(40)} | {f"objects/{pair}/{pair * 16}" for pair in ("00", "ff")}
        for key in orphans:
            await place.put(key, b"")
        result = await run_fsck(database, place.driver)
        assert {f.key for f in result.findings if f.kind is Kind.LOST} == gone
        assert {f.key for f in result.findings if f.kind is Kind.ORPHAN} == orphans
        assert set(result.kinds) <= {"lost", "orphan", "blob_lost"}

    play(database, tmp_path, scenario, driver=Memory())


# Storage that cannot be believed


def test_repair_when_storage_holds_nothing_of_ours_then_it_refuses_until_told(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        unmounted = Filesystem(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").mkdir()
        with pytest.raises(StorageLooksWrong):
            await run_fsck(database, unmounted, repair=True)
        await run_fsck(database, unmounted)
        await assert_fsck_clean(database, Filesystem(tmp_path))
        result = await run_fsck(database, unmounted, repair=True, is_loss_believed=True)
        assert [f.is_repaired for f in result.findings if f.kind is Kind.LOST] == [True] * 3

    play(database, tmp_path, scenario)


def test_fsck_when_storage_is_not_there_then_it_says_so_and_finds_nothing(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        with pytest.raises(StorageUnavailable):
            await run_fsck(database, Filesystem(tmp_path / "not there"))

    play(database, tmp_path, scenario)


class Disordered(Faulty):
    """A storage whose listing is not in the order of keys."""

    async def list(self) -> AsyncGenerator[StoredObject, None]:
        async with aclosing(super().list()) as objects:
            found = [one async for one in objects]
        for one in reversed(found):
            yield one


def test_join_when_the_listing_is_out_of_order_then_it_ends_rather_than_invent(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        with pytest.raises(StorageError, match="out of order"):
            await run_fsck(database, Disordered(place.driver))

    play(database, tmp_path, scenario)


# Manifests


Damage = tuple[str, Kind, str | None]
MANIFEST: Final = Digest.of(IMAGE.payload).packed.hex()
DAMAGES: Final[dict[str, Damage]] = {
    "payload": (
        "UPDATE manifests SET payload = payload || ' '::bytea",
        Kind.WRONG_PAYLOAD,
        None,
    ),
    "media type": (
        "UPDATE manifests SET media_type = 'application/vnd.oci.image.index.v1+json'",
        Kind.WRONG_ROWS,
        "the media type",
    ),
    "config": ("UPDATE manifests SET config_digest = NULL", Kind.WRONG_ROWS, "the config"),
    "subject": ("UPDATE manifests SET subject_digest = digest", Kind.WRONG_ROWS, "the subject"),
    "layer gone": ("DELETE FROM layers WHERE ordinal = 2", Kind.WRONG_ROWS, "the layers"),
    "layer order": ("UPDATE layers SET ordinal = 4 - ordinal * ordinal", Kind.WRONG_ROWS, "the layers"),
    "layer size": (
        "UPDATE layers SET size = size + 1 WHERE ordinal = 1",
        Kind.WRONG_ROWS,
        "the layers",
    ),
    "total size": ("UPDATE manifests SET total_size = 1", Kind.WRONG_ROWS, "the image's size"),
    "child": (
        f"""INSERT INTO manifest_references SELECT repository_id, id, (SELECT max(id) FROM manifests)
            FROM manifests WHERE digest = '\\x{MANIFEST}'""",
        Kind.WRONG_ROWS,
        "the children",
    ),
    "link": (
        f"DELETE FROM repository_blobs WHERE blob_digest = '\\x{Digest.of(LAYER).packed.hex()}'",
        Kind.BLOB_UNLINKED,
        None,
    ),
}


@pytest.mark.parametrize(("sql", "kind", "what"), DAMAGES.values(), ids=DAMAGES)
def test_manifest_when_its_rows_are_damaged_then_what_is_wrong_is_told(
    database: Target, tmp_path: Path, sql: str, kind: Kind, what: str | None
) -> None:
    async def scenario(place: Place) -> None:
        if what == "the children":
            await place.registry.push_image(NAME, "more", image(b"more", config=b"{}"))
        await place.sql(sql)
        result = await run_fsck(database, place.driver, repair=True)
        found = result.one(kind)
        assert (found.what or "").startswith(what or "")
        assert (found.repository, found.is_tagged, found.tags) == (NAME, True, ("latest",))
        assert not found.is_repaired
        assert len(result.findings) == 1

    play(database, tmp_path, scenario, driver=Memory())


def test_blob_absent_when_its_row_is_gone_then_the_manifest_that_needs_it_is_told(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        await place.sql("DELETE FROM blobs WHERE digest = $1", Digest.of(CONFIG).packed)
        result = await run_fsck(database, place.driver)
        assert result.kinds == ["blob_absent", "orphan"]
        assert result.one(Kind.BLOB_ABSENT).digest == Digest.of(CONFIG)

    play(database, tmp_path, scenario)


def test_child_absent_when_an_index_lost_one_then_it_is_told_unless_it_may_be_missing(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        parent = index(IMAGE)
        assert (await place.registry.put_manifest(NAME, "all", parent)).status_code == 201
        await assert_fsck_clean(database, place.driver)
        await place.sql("DELETE FROM manifest_references")
        found = (await run_fsck(database, place.driver)).one(Kind.CHILD_ABSENT)
        assert (found.manifest, found.digest) == (Digest.of(parent.payload), Digest.of(IMAGE.payload))
        await assert_fsck_clean(database, place.driver, is_required=lambda child: False)

    play(database, tmp_path, scenario, driver=Memory())


def test_finding_when_only_an_index_or_a_subject_is_tagged_then_it_counts_as_tagged(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(place: Place) -> None:
        registry = place.registry
        child = await registry.push_image(NAME, image(b"c").digest(), image(b"c"))
        assert (await registry.put_manifest(NAME, "all", index(child))).status_code == 201
        subject = {"mediaType": child.media_type, "digest": child.digest(), "size": len(child.payload)}
        referrer = image(b"r", subject=subject)
        await registry.push_image(NAME, referrer.digest(), referrer)
        loose = await registry.push_image(NAME, image(b"l").digest(), image(b"l"))
        await place.sql("UPDATE manifests SET total_size = 1")
        findings = (await run_fsck(database, place.driver)).findings
        reached = {str(f.manifest): (f.is_tagged, f.tags) for f in findings}
        assert reached[child.digest()] == reached[referrer.digest()] == (True, ("all",))
        assert reached[loose.digest()] == (False, ())

    play(database, tmp_path, scenario, driver=Memory())


def test_foreign_layers_when_they_are_elsewhere_then_nothing_is_missing(
    database: Target, tmp_path: Path
) -> None:
    foreign = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": digest_of(b"elsewhere"),
        "size": 9,
        "urls": ["https://example.com/layer"],
    }

    async def scenario(place: Place) -> None:
        await place.registry.push_blob(NAME, b"{}")
        pushed = image(config=b"{}", layers=[foreign])
        assert (await place.registry.put_manifest(NAME, "foreign", pushed)).status_code == 201
        await assert_fsck_clean(database, place.driver)

    play(database, tmp_path, scenario, driver=Memory())


@pytest.mark.parametrize("bytes_max", [1, 2000], ids=["each too large", "several a page"])
def test_manifests_when_they_fill_pages_of_every_repository_then_none_is_left_out(
    database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_max: int
) -> None:
    from app.services.fsck import manifests  # noqa: PLC0415

    monkeypatch.setattr(manifests, "PAGE", 7)
    monkeypatch.setattr(manifests, "PAGE_BYTES_MAX", bytes_max)

    async def scenario(place: Place) -> None:
        for n in range(40):
            await place.registry.push_image(f"team/app-{n % 5}", f"v{n}", image(str(n).encode()))
        assert (await assert_fsck_clean(database, place.driver)).manifests == 41
        await place.sql("UPDATE manifests SET total_size = 1")
        assert (await run_fsck(database, place.driver)).kinds == ["wrong_rows"] * 41

    play(database, tmp_path, scenario, driver=Memory())


# The catalog


@pytest.mark.parametrize("has_tags", [True, False])
def test_catalog_when_a_flag_is_wrong_then_repair_sets_it_right(
    database: Target, tmp_path: Path, has_tags: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.services.fsck import catalog  # noqa: PLC0415

    monkeypatch.setattr(catalog, "LOOK_SECONDS", 0.01)

    async def scenario(place: Place) -> None:
        if has_tags:
            await place.sql("DELETE FROM tags")
        else:
            await place.sql("UPDATE repositories SET has_tags = false")
        found = (await run_fsck(database, place.driver)).one(Kind.WRONG_CATALOG)
        assert (found.repository, found.is_repaired) == (NAME, False)
        assert (await run_fsck(database, place.driver, repair=True)).one(Kind.WRONG_CATALOG).is_repaired
        await assert_fsck_clean(database, place.driver)
        listed = (await place.registry.client.get("/v2/_catalog")).json()["repositories"]
        assert listed == ([] if has_tags else [NAME])

    play(database, tmp_path, scenario, driver=Memory())
