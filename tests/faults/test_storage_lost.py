"""Storage that hangs, and a volume that is gone: nobody waits in vain, and nothing is written in its place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.faults.client import Client, noise, together
from tests.faults.place import THREADS, WORKERS, running
from tests.support.processes import wait_for
from tests.support.registry import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.client import Answer
    from tests.faults.place import Cluster, Registry


@pytest.fixture
def registry(cluster: Cluster, tmp_path: Path) -> Iterator[Registry]:
    """One whose workers have not stored anything yet."""
    with running(cluster, tmp_path) as registry:
        yield registry


def push(registry: Registry, number: int) -> Answer:
    with Client(registry.address) as client:
        return client.push_blob(f"lost/{number}", noise(f"{registry.root}-{number}", 1000))


@pytest.mark.parametrize("left", ["nothing", "an empty directory"])
def test_registry_when_its_volume_is_gone_then_no_worker_puts_anything_in_its_place(
    registry: Registry, left: str
) -> None:
    elsewhere = registry.root.with_name("elsewhere")
    registry.root.rename(elsewhere)
    if left != "nothing":
        registry.root.mkdir()
    answers = together(24, lambda number: push(registry, number))
    assert all(answer.is_refusal for answer in answers)
    assert answers[0].detail == "the storage's root directory is not there"
    assert "storage" in registry.becomes_unwell()
    if left != "nothing":
        registry.root.rmdir()
    assert not registry.root.exists()

    elsewhere.rename(registry.root)
    assert {answer.status for answer in together(24, lambda number: push(registry, number))} == {201}
    registry.becomes_well()


def test_registry_when_its_disk_hangs_then_those_who_come_are_refused_at_once_and_go_on_with_it(
    registry: Registry,
) -> None:
    content = noise(f"{registry.root}-0", 1000)
    assert push(registry, 0).status == 201
    target = f"/v2/lost/0/blobs/{digest_of(content)}"

    def pull() -> Answer:
        with Client(registry.address) as client:
            return client.get(target)

    with registry.disk("read.hang"), ThreadPoolExecutor(200) as pool:
        pulls = [pool.submit(pull) for _ in range(200)]
        # As many as there are threads hang with the disk, the others have waited for as long as they may.
        assert wait_for(lambda: sum(not one.done() for one in pulls) <= WORKERS * THREADS)
        for answer in together(20, lambda _: pull()):
            assert answer.is_refusal
            assert answer.detail == "too many requests wait for the object storage"
            assert answer.seconds < 3
        (registry.faults / "read.hang").unlink()
        assert {one.result().status for one in pulls} == {200, 503}
    assert pull().status == 200
