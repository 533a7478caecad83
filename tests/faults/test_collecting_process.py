"""The process that collects beside those that serve: told to stop, killed, and hanging."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Final

import pytest

from app.blobs.drivers.filesystem import Filesystem
from tests.faults.client import Client, noise
from tests.faults.place import running
from tests.support.fsck import assert_fsck_clean
from tests.support.processes import wait_for
from tests.support.registry import image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.place import Cluster, Registry

# Everything is collected at once; a batch of objects may take long.
_AT_ONCE: Final = {
    "batchsize": 3,
    "load": 1,
    "reviewafter": "0s",
    "shortdelays": True,
    "noidlebackoff": True,
    "manifests": {"interval": "50ms"},
    "blobs": {"interval": "50ms", "storagedelay": "0s", "storagetimeout": "20s"},
}
_KEPT: Final = image(noise("kept", 3000), config=noise("config", 50))
_WAITING: Final = "SELECT storage_key FROM gc_storage_deletions"
_TAKEN: Final = "SELECT storage_key FROM gc_storage_deletions WHERE attempts > 0"


@pytest.fixture
def registry(cluster: Cluster, tmp_path: Path) -> Iterator[Registry]:
    with running(cluster, tmp_path, collecting=_AT_ONCE) as registry:
        yield registry


def litter(registry: Registry, count: int = 8) -> None:
    """Beside an image that stays, blobs that nobody needs."""
    registry.execute("SELECT gc_set_paused(true, 'while blobs wait for their image')")
    with Client(registry.address) as client:
        client.push("processes", "latest", _KEPT)
        for number in range(count):
            assert client.push_blob("processes", noise(f"{number}", 1000)).status == 201
    registry.execute("SELECT gc_set_paused(false, '')")


def is_clear(registry: Registry) -> bool:
    """Whether everything is gone that is to go."""
    objects = sum(path.is_file() for path in registry.root.rglob("*"))
    return not registry.rows(_WAITING) and objects == len(_KEPT.blobs)


def test_collectors_when_the_registry_is_stopped_amid_a_batch_then_it_is_finished_and_nothing_is_half_done(
    registry: Registry,
) -> None:
    with registry.disk("directory.slow.400"):
        litter(registry)
        assert wait_for(lambda: registry.rows(_TAKEN))
        began = time.monotonic()
        registry.process.terminate()
        assert registry.process.wait(20) == 0
    assert time.monotonic() - began < 15
    # What was taken was deleted and settled; what was not taken waits.
    assert not registry.rows(_TAKEN)
    waiting = {key for (key,) in registry.rows(_WAITING)}
    assert all((registry.root / key).is_file() for key in waiting)
    (removed,) = registry.rows("SELECT count(*) FROM gc_receipts WHERE removed_at IS NOT NULL")
    assert removed[0] > 0
    asyncio.run(assert_fsck_clean(registry.target, Filesystem(registry.root), share=1.0))


def test_collectors_when_their_process_is_killed_then_another_one_goes_on_and_requests_do_not_notice(
    registry: Registry,
) -> None:
    killed = registry.collector()
    serving = set(registry.workers()) - {killed}
    with registry.disk("directory.slow.400"):
        litter(registry)
        assert wait_for(lambda: registry.rows(_TAKEN))
        os.kill(killed, signal.SIGKILL)
        assert wait_for(lambda: registry.collector() not in (0, killed))
    assert "collectors ended: a worker process was ended by SIGKILL" in registry.log
    assert serving <= set(registry.workers())
    # The dead one's batch is nobody else's for the time that it might have taken.
    registry.execute("UPDATE gc_storage_deletions SET not_before = now()")
    assert wait_for(lambda: is_clear(registry))
    with Client(registry.address) as client:
        client.check("processes", "latest", _KEPT)
    registry.becomes_well()


def test_health_when_the_collectors_hang_then_it_says_so_until_they_go_on(registry: Registry) -> None:
    registry.becomes_well()
    hanging = registry.collector()
    os.kill(hanging, signal.SIGSTOP)
    try:
        assert registry.becomes_unwell() == {"collectors": "the collectors' process does not answer"}
        litter(registry)
        with Client(registry.address) as client:
            client.check("processes", "latest", _KEPT)
    finally:
        os.kill(hanging, signal.SIGCONT)
    registry.becomes_well()
    assert wait_for(lambda: is_clear(registry))
    assert registry.collector() == hanging
