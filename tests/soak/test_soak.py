"""Everything that clients do, at once and for a while: nobody sees a fault, and the registry stays as it was.

Memory is compared between two moments at which nobody asks anything: once the registry has moved the largest bodies
and seen every kind of request, and at the end. Measured, it grows by up to three megabytes within five thousand
requests and then comes and goes by two; digests and manifests that are remembered add about a hundred bytes a request.
A leak of four kilobytes a request adds ten megabytes on two quiet cores.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from app.blobs.drivers.filesystem import Filesystem
from tests.soak.crowd import Crowd
from tests.soak.watch import descriptors, memory_bytes, uploads
from tests.support.effort import EFFORT
from tests.support.fsck import assert_fsck_clean
from tests.support.invariants import assert_invariants
from tests.support.processes import wait_for
from tests.support.served import serve

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from app.store.engine import Target
    from tests.support.served import Served

SECONDS: Final = 10.0 * EFFORT
WARM_UP_SECONDS: Final = 0.3 * SECONDS
CLIENTS: Final = 8
WORKERS: Final = 2
# Connections of each worker, all of them open from the start, and fewer than its clients would use.
POOL: Final = 2
GROWTH_BYTES_MAX: Final = 4 * 1024 * 1024
GROWTH_PER_REQUEST_BYTES_MAX: Final = 512


def test_registry_when_everybody_uses_it_for_a_while_then_shows_no_fault_and_does_not_grow(
    database: Target, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}, {SECONDS:g} seconds")  # noqa: T201 - shown when the test fails
    with serving(tmp_path / "data", database) as served:
        opened = {pid: len(descriptors(pid)) for pid in served.workers()}
        crowd = Crowd(CLIENTS, seed, served.port, database)
        crowd.warm_up()
        crowd.play(WARM_UP_SECONDS)
        requests, warm = crowd.requests, {pid: memory_bytes(pid) for pid in opened}
        crowd.play(SECONDS - WARM_UP_SECONDS)
        requests = crowd.requests - requests
        grown = {pid: memory_bytes(pid) - before for pid, before in warm.items()}
        crowd.finish()
        print(*(f"{count:7} {step}" for step, count in sorted(crowd.done.items())), sep="\n")  # noqa: T201
        print(f"memory after the warm-up: {warm}; {requests} requests later: {grown} more")  # noqa: T201

        assert set(served.workers()) == set(opened), "a worker was replaced"
        assert max(grown.values()) <= GROWTH_BYTES_MAX + GROWTH_PER_REQUEST_BYTES_MAX * requests // WORKERS
        assert crowd.connections_most == WORKERS * POOL
        assert wait_for(lambda: opened == {pid: len(descriptors(pid)) for pid in opened}), (
            f"open at the start: {opened}, now: { {pid: descriptors(pid) for pid in opened} }"
        )
        assert uploads(database) == crowd.left_open
        assert served.stop() == 0
        assert_only_information(served)
    asyncio.run(check_invariants(database, tmp_path / "data"))
    shutil.rmtree(tmp_path / "data")  # gigabytes, after a long soak


@contextmanager
def serving(data: Path, database: Target) -> Generator[Served]:
    settings: dict[str, Any] = {
        "HTTP_WORKERS": str(WORKERS),
        "DATABASE_HOST": database.host,
        "DATABASE_PORT": str(database.port),
        "DATABASE_USER": database.user,
        "DATABASE_DBNAME": database.database,
        "DATABASE_POOL_MAXOPEN": str(POOL),
        "DATABASE_POOL_MAXIDLE": str(POOL),
        # A machine that is busy with something else is no fault of the registry's.
        "DATABASE_POOL_QUEUETIMEOUT": "60s",
    }
    with serve(data, **settings) as served:
        yield served


def assert_only_information(served: Served) -> None:
    """Nothing in the log is worth more than INFO, and no line is without a level, as a traceback's are."""
    lines = served.errors.read_text().splitlines()
    odd = [line for line in lines if line and line.split()[1:2] != ["INFO"]]
    assert not odd, "\n".join(odd)


async def check_invariants(database: Target, data: Path) -> None:
    driver = Filesystem(data)
    try:
        await assert_invariants(database, driver)
        await assert_fsck_clean(database, driver)
    finally:
        await driver.close()
