"""Collectors in trouble: nothing is lost, what can be done is done, what cannot is put off, and nobody spins."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest

from gc_workers.pace import Tempo
from tests.faults import collecting
from tests.faults.collecting import (
    DELETION_TROUBLES,
    NEEDED,
    SIGNATURE,
    UNUSED_BLOBS,
    Stock,
    TroubledStorage,
    Troubles,
    at_work,
)
from tests.faults.volume import Volume
from tests.support.effort import EFFORT
from tests.support.registry import digest_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path
    from typing import Any

    from app.store.engine import Target
    from tests.faults.collecting import Work
    from tests.faults.place import Cluster

# Every statement that collectors send when they have something to do of each kind.
_STATEMENTS: Final = {
    "collecting.expire_uploads",
    "collecting.oldest_upload",
    "collecting.manifests",
    "collecting.next_manifest",
    "collecting.blobs",
    "collecting.next_blob",
    "collecting.take_tombstones",
    "collecting.settle_tombstones",
    "collecting.next_tombstone",
    "collecting.prune_receipts",
    "collecting.oldest_receipt",
    "queues.states",
}


@pytest.fixture
def stock(database: Target, tmp_path: Path) -> Stock:
    return Stock(database, tmp_path)


@pytest.mark.parametrize(
    "trouble",
    [
        collecting.lost,
        collecting.unanswered,
        collecting.timed_out,
        collecting.slow,
        collecting.deadlocked,
        collecting.unserializable,
        collecting.odd,
    ],
    ids=lambda trouble: trouble.__name__,
)
def test_collectors_when_each_statement_meets_trouble_then_they_go_on_and_nothing_is_lost(
    stock: Stock, trouble: Callable[..., Awaitable[Any]]
) -> None:
    # A time for statements is not set on the server where statements are wrapped in transactions, as by default.
    wrapped = trouble is not collecting.timed_out
    for times in range(1, 1 + EFFORT):
        troubles = Troubles(trouble, times)
        stock.settings = stock.settings_with(preparedstatements=not (wrapped and times % 2))

        async def scenario(troubles: Troubles = troubles) -> None:
            async with at_work(stock, statements=troubles) as work:
                await work.until(stock.is_clear)

        asyncio.run(scenario())
        assert set(troubles.met) >= _STATEMENTS
        stock.check()
        stock.bring_back()


@pytest.mark.parametrize("trouble", DELETION_TROUBLES)
def test_collectors_when_deletions_in_storage_meet_trouble_then_they_go_on_and_nothing_is_lost(
    stock: Stock, trouble: str
) -> None:
    storage = TroubledStorage(stock.root, trouble, times=2 * EFFORT)

    async def scenario() -> None:
        async with at_work(stock, storage=storage) as work:
            await work.until(stock.is_clear)

    asyncio.run(scenario())
    assert storage.met == 2 * EFFORT
    stock.check()


# What fails for ever

# Requests that might still write to an object are given a day. Nobody writes here.
_NO_GRACE: Final = (
    "UPDATE gc_storage_deletions SET not_before = now() WHERE reason = 'upload_expired' AND attempts = 0"
)
_TOMBSTONE: Final = "SELECT attempts, not_before - now() FROM gc_storage_deletions WHERE storage_key = $1"


def test_object_when_it_cannot_be_deleted_then_it_is_tried_ever_later_and_stops_no_other(
    stock: Stock,
) -> None:
    storage = TroubledStorage(stock.root)

    async def scenario() -> None:
        key = await stock.value(
            "SELECT storage_key FROM blobs WHERE gc_digest_text(digest) = $1", digest_of(UNUSED_BLOBS[3])
        )
        storage.stuck.add(key)
        async with at_work(stock, storage=storage) as work:

            async def others_are_gone() -> bool:
                await stock.execute(_NO_GRACE)
                return await stock.value(collecting.LEFT) == 1 and stock.objects() == _needed_blobs() + 1

            await work.until(others_are_gone, hurry=False)
            distances = [await _put_off_again(work, key) for _ in range(4)]
            _check_growth(distances)
            attempts, _ = (await stock.fetch(_TOMBSTONE, key))[0]
            assert (
                attempts
                == len(storage.tried[key])
                == work.ledger.counted("registry_gc_postpones_total", "objects")
            )
            await stock.check_soundness()
            storage.stuck.clear()
            await work.until(stock.is_clear)

    asyncio.run(scenario())
    stock.check()


def _check_growth(distances: list[float]) -> None:
    """Each is about twice the one before; more than one apart, chance does not make up for it."""
    assert all(later > earlier for earlier, later in zip(distances, distances[2:], strict=False)), distances


def _needed_blobs() -> int:
    return len({digest_of(blob) for kept in NEEDED for blob in kept.blobs})


async def _put_off_again(work: Work, key: str) -> float:
    """Have the deletion tried once more: for how many seconds it was put off."""
    before = work.ledger.counted("registry_gc_postpones_total", "objects")
    await work.stock.execute(collecting.HURRY[-1])

    async def is_put_off() -> bool:
        return work.ledger.counted("registry_gc_postpones_total", "objects") > before

    await work.until(is_put_off, hurry=False)
    ((_, distance),) = await work.stock.fetch(_TOMBSTONE, key)
    return distance.total_seconds()


# A trigger stands for whatever it is that makes the deletion of one row fail.
_REFUSE: Final = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF gc_digest_text(OLD.digest) = TG_ARGV[0] THEN
            RAISE EXCEPTION 'not this one';
        END IF;
        RETURN OLD;
    END
    $$
"""
_REVIEWS: Final = {
    "blobs": "SELECT review_count, review_after - now() FROM gc_blob_review_queue",
    "manifests": "SELECT review_count, review_after - now() FROM gc_manifest_review_queue",
}


@asynccontextmanager
async def _undeletable(stock: Stock, table: str, digest: str) -> AsyncGenerator[None]:
    """One row, which is the first to be reviewed."""
    await stock.execute(
        _REFUSE,
        f"CREATE TRIGGER refuse BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse('{digest}')",
    )
    try:
        yield
    finally:
        await stock.execute("DROP FUNCTION refuse CASCADE")


@pytest.mark.parametrize(
    ("table", "digest", "blobs", "manifests"),
    [("blobs", digest_of(UNUSED_BLOBS[4]), 1, 0), ("manifests", SIGNATURE.digest(), 1, 1)],
    ids=["blob", "manifest"],
)
def test_row_when_it_cannot_be_deleted_then_it_is_reviewed_ever_later_and_stops_no_other(
    stock: Stock, table: str, digest: str, blobs: int, manifests: int
) -> None:
    async def scenario() -> None:
        async with _undeletable(stock, table, digest):
            await stock.execute(
                "UPDATE gc_blob_review_queue SET review_after = now() - interval '2 hours'"
                f" WHERE gc_digest_text(digest) = '{digest}'"
            )
            async with at_work(stock) as work:

                async def others_are_gone() -> bool:
                    left = await stock.fetch(
                        "SELECT (SELECT count(*) FROM blobs), (SELECT count(*) FROM manifests)"
                    )
                    await stock.execute(_NO_GRACE)
                    waiting = await stock.value(collecting.LEFT)
                    are_gone = left == [(_needed_blobs() + blobs, len(NEEDED) + 1 + manifests)]
                    return are_gone and waiting == 1 and 1 in work.limits[table]

                await work.until(others_are_gone, hurry=False)
                # Smaller and smaller until it is alone; then on with the others.
                limits = work.limits[table]
                alone = limits.index(1)
                assert limits[0] == 4
                assert limits[alone - 1] == 2
                distances = [await _reviewed_again(work, table) for _ in range(4)]
                _check_growth(distances)
                await stock.check_soundness()
        async with at_work(stock) as work:
            await work.until(stock.is_clear)

    asyncio.run(scenario())
    stock.check()


async def _reviewed_again(work: Work, table: str) -> float:
    """Have the last one reviewed once more: for how many seconds it was put off."""
    ((count, _),) = await work.stock.fetch(_REVIEWS[table])
    await work.stock.execute(*collecting.HURRY)

    async def is_put_off() -> bool:
        ((now, _),) = await work.stock.fetch(_REVIEWS[table])
        return now == count + 1

    await work.until(is_put_off, hurry=False)
    ((_, distance),) = await work.stock.fetch(_REVIEWS[table])
    return distance.total_seconds()


# What nobody may do now


def test_collectors_when_deletions_are_paused_then_nothing_goes_until_they_are_resumed_and_heard_of_it(
    stock: Stock,
) -> None:
    patient = Tempo(batch=4, load=1, interval_seconds=30, longest_seconds=60)

    async def scenario() -> None:
        await stock.execute("SELECT gc_set_paused(true, 'a test')")
        objects, left = stock.objects(), await stock.value(_WITHOUT_RECEIPTS)
        async with at_work(stock) as work:

            async def have_looked() -> bool:
                return len(work.ledger.turns) == 5 and min(work.ledger.turns.values()) > 5

            await work.until(have_looked)
        assert (stock.objects(), await stock.value(_WITHOUT_RECEIPTS)) == (objects, left)
        async with at_work(stock, tempo=patient, is_heard=True) as work:

            async def have_looked_once() -> bool:
                return len(work.ledger.turns) == 5

            async def is_clear() -> bool:
                await stock.execute("NOTIFY registry_gc")
                return await stock.is_clear()

            await work.until(have_looked_once)
            await stock.execute("SELECT gc_set_paused(false, '')")
            await work.until(is_clear)

    asyncio.run(scenario())
    stock.check()


_WITHOUT_RECEIPTS: Final = """
    SELECT (SELECT count(*) FROM blobs) + (SELECT count(*) FROM manifests) + (SELECT count(*) FROM blob_uploads)
"""


def test_collectors_when_storage_is_read_only_then_objects_wait_and_everything_else_goes(
    database: Target, tmp_path: Path
) -> None:
    volume = Volume(tmp_path / "volume")
    try:
        if not volume.is_mounted:
            pytest.skip("needs to mount a file system")
        stock = Stock(database, volume.path)
        objects = stock.objects()

        async def scenario() -> None:
            async with at_work(stock) as work:
                with volume.mounted_read_only():

                    async def only_objects_wait() -> bool:
                        tried, most = (await stock.fetch(_ONLY_TOMBSTONES))[0]
                        return tried and most >= 3

                    await work.until(only_objects_wait)
                    assert stock.objects() == objects
                    await stock.check_soundness()
                await work.until(stock.is_clear)

        asyncio.run(scenario())
        stock.check()
    finally:
        volume.close()


_ONLY_TOMBSTONES: Final = f"""
    SELECT count(*) = ({collecting.LEFT}), coalesce(min(attempts), 0) FROM gc_storage_deletions
"""


def test_collectors_when_the_storage_is_gone_then_they_do_not_take_objects_for_deleted(stock: Stock) -> None:
    elsewhere = stock.root.with_name("elsewhere")

    async def scenario() -> None:
        async with at_work(stock) as work:
            stock.root.rename(elsewhere)
            stock.root.mkdir()

            async def only_objects_wait() -> bool:
                tried, most = (await stock.fetch(_ONLY_TOMBSTONES))[0]
                return tried and most >= 2

            try:
                await work.until(only_objects_wait)
            finally:
                stock.root.rmdir()
                elsewhere.rename(stock.root)
            await work.until(stock.is_clear)

    asyncio.run(scenario())
    stock.check()


# The server


@pytest.fixture
def own_stock(cluster: Cluster, tmp_path: Path) -> Stock:
    """On a server of its own."""
    return Stock(cluster.create(), tmp_path)


def test_collectors_when_the_server_is_killed_then_they_wait_ever_longer_and_go_on_when_it_is_back(
    own_stock: Stock, cluster: Cluster
) -> None:
    eager = Tempo(batch=4, load=1, interval_seconds=0.02, longest_seconds=60)

    async def scenario() -> None:
        async with at_work(own_stock, tempo=eager, is_heard=True) as work:

            async def have_failed() -> bool:
                return len(work.ledger.failures) == 5 and min(work.ledger.failures.values()) >= 5

            with cluster.down():
                while not await have_failed():
                    await asyncio.sleep(0.02)
            assert max(work.ledger.failures.values()) <= 12
            assert all(rests[-1] > rests[-2] > 0.05 for rests in work.ledger.rests.values())

            async def is_clear() -> bool:
                await own_stock.execute("NOTIFY registry_gc")
                return await own_stock.is_clear()

            await work.until(is_clear)

    asyncio.run(scenario())
    own_stock.check()


def test_collectors_when_the_server_hangs_then_they_stop_in_time_and_nothing_is_half_done(
    own_stock: Stock, cluster: Cluster
) -> None:
    async def scenario() -> None:
        with ExitStack() as hanging:
            async with at_work(own_stock, stop_seconds=10):
                hanging.enter_context(cluster.frozen())
                await asyncio.sleep(0.1)
        await own_stock.check_soundness()
        async with at_work(own_stock) as work:
            await work.until(own_stock.is_clear)

    asyncio.run(scenario())
    own_stock.check()


def test_collectors_when_the_server_is_read_only_then_nothing_goes_until_it_is_writable(
    own_stock: Stock,
) -> None:
    setting = f'DATABASE "{own_stock.target.database}"'

    async def scenario() -> None:
        await own_stock.execute(f"ALTER {setting} SET default_transaction_read_only = on")
        left, objects = await own_stock.value(collecting.LEFT), own_stock.objects()
        async with at_work(own_stock) as work:

            async def have_failed() -> bool:
                return len(work.ledger.failures) == 5 and min(work.ledger.failures.values()) >= 3

            await work.until(have_failed, hurry=False)
            assert (await own_stock.value(collecting.LEFT), own_stock.objects()) == (left, objects)
            await own_stock.execute(
                "SET default_transaction_read_only = off",
                f"ALTER {setting} RESET default_transaction_read_only",
            )
            await work.until(own_stock.is_clear)

    asyncio.run(scenario())
    own_stock.check()
