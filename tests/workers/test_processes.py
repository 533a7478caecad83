"""The collectors as operators run them: beside `registry serve`, alone (`gc work`), once (`gc run`)."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
import yaml

from tests.support.images import make_index
from tests.support.postgres import connected
from tests.support.processes import descendants, wait_for
from tests.support.registry import open_registry
from tests.support.served import CHECKOUT, Outcome, overrides, run, serve
from tests.workers.support import settings_of

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from app.store.engine import Target
    from tests.support.served import Served

SHORT = {
    "GC_SHORTDELAYS": "true",
    "GC_REVIEWAFTER": "1s",
    "GC_MAXBACKOFF": "50ms",
    "GC_MANIFESTS_INTERVAL": "20ms",
    "GC_BLOBS_INTERVAL": "20ms",
    "GC_BLOBS_STORAGEDELAY": "0s",
}
COMMAND = [sys.executable, "-c", "from app.cli import main; main()", "gc"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def debug_of(registry: Served) -> str:
    found = wait_for(
        lambda: re.search(r"health and metrics are at (http://\S+)", registry.errors.read_text()), 20
    )
    assert isinstance(found, re.Match)
    return found[1]


def test_serve_when_an_image_is_untagged_then_its_bytes_are_deleted_and_the_metrics_say_so(
    data: Path,
) -> None:
    package, other = make_index("gone"), make_index("kept")
    with serve(data, HTTP_WORKERS="2", HTTP_DEBUG_ADDR="127.0.0.1:0", **SHORT) as registry:
        debug = debug_of(registry)
        assert wait_for(registry.collectors)
        # On a slow disk more than the delay passes between a blob and its manifest.
        assert run([*COMMAND, "pause", str(data / "config.yml")]).code == 0
        registry.push("a/kept", "v1", other)
        registry.push("a/gone", "v1", package)
        assert run([*COMMAND, "resume", str(data / "config.yml")]).code == 0
        answer = registry.client.delete(f"{registry.url}/v2/a/gone/manifests/v1")
        assert answer.status_code == 202
        assert wait_for(lambda: not registry.stored(package) - registry.stored(other), 20), registry.said()
        registry.check("a/kept", "v1", other)
        assert httpx.get(f"{debug}/debug/health").json() == {}

        def counted() -> bool:
            page = httpx.get(f"{debug}/metrics").text
            return 'registry_gc_deletes_total{artifact="blob",backend="storage"}' in page

        assert wait_for(counted, 20)


@pytest.mark.parametrize(
    "switch",
    [{"GC_DISABLED": "true"}, {"STORAGE_MAINTENANCE_READONLY_ENABLED": "true"}],
    ids=["disabled", "readonly"],
)
def test_serve_when_collection_is_off_then_there_is_no_process_of_collectors(
    switch: dict[str, str], data: Path
) -> None:
    with serve(data, HTTP_WORKERS="1", **switch) as registry:
        assert len(registry.workers()) == 1
        assert registry.collectors() == []


def test_serve_when_the_collectors_are_killed_then_others_take_their_place_and_requests_go_on(
    data: Path,
) -> None:
    with serve(data, HTTP_WORKERS="1", **SHORT) as registry:
        assert wait_for(registry.collectors)
        (first,) = registry.collectors()
        os.kill(first, signal.SIGKILL)
        assert registry.client.get(f"{registry.url}/v2/").status_code == 200
        assert wait_for(lambda: registry.collectors() not in ([], [first]), 20)
        assert registry.stop() == 0
        assert "collectors ended" in registry.errors.read_text()


def test_local_when_it_runs_then_its_directory_has_a_configuration_for_other_commands(data: Path) -> None:
    with serve(data, HTTP_WORKERS="1") as registry:
        registry.push("a/b", "v1", make_index("some"))
        for words in (["gc", "status"], ["gc", "explain", "a/b:v1"], ["fsck"]):
            done = run([*COMMAND[:-1], *words, str(data / "config.yml")])
            assert (done.code, done.errors) == (0, ""), words


def test_local_when_its_objects_were_removed_then_it_serves_without_collecting_until_fsck_was_told(
    data: Path,
) -> None:
    with serve(data, HTTP_WORKERS="1") as registry:
        registry.push("a/b", "v1", make_index("some"))
    shutil.rmtree(data / "objects")
    with serve(data, HTTP_WORKERS="1") as registry:
        assert registry.collectors() == []
        assert "the storage is empty, but the database names objects in it" in registry.errors.read_text()
        repair = run([*COMMAND[:-1], "fsck", "--repair", "--all-lost", str(data / "config.yml")])
        assert repair.code == 1
    with serve(data, HTTP_WORKERS="1") as registry:
        assert wait_for(registry.collectors)
        registry.push("a/b", "v1", make_index("some"))
        registry.check("a/b", "v1", make_index("some"))


# On a database of the test's own, as several replicas share it.


@pytest.fixture
def config(database: Target, tmp_path: Path) -> Path:
    settings = settings_of(database, tmp_path / "objects").model_dump(
        mode="json", include={"storage", "database"}, exclude_defaults=True
    )
    found = tmp_path / "config.yml"
    found.write_text(
        yaml.safe_dump(
            {
                "version": "0.1",
                "http": {"addr": "127.0.0.1:0", "debug": {"addr": "127.0.0.1:0"}},
                **settings,
                "gc": {"maxbackoff": "50ms", "blobs": {"interval": "20ms", "storagedelay": "0s"}},
            }
        )
    )
    return found


def gc(*words: str | Path) -> Outcome:
    return run([*COMMAND, *map(str, words)])


async def _seed(database: Target, root: Path) -> None:
    async with open_registry(database, root) as registry:
        await registry.push_image("a/b", "kept")
        await registry.push_blob("a/b", b"unused")
        async with connected(database) as connection:
            await connection.execute("UPDATE gc_blob_review_queue SET review_after = now()")


async def _blobs(database: Target) -> list[int]:
    async with connected(database) as connection:
        rows = await connection.fetch(
            "SELECT size FROM blobs UNION ALL SELECT size FROM gc_storage_deletions ORDER BY 1"
        )
        return [row[0] for row in rows]


def test_run_when_something_is_due_then_it_is_deleted_with_its_object(
    database: Target, config: Path, tmp_path: Path
) -> None:
    asyncio.run(_seed(database, tmp_path / "objects"))

    done = gc("run", config)

    assert (done.code, done.errors) == (0, "")
    assert done.output.splitlines() == [
        "uploads: 0 looked at, 0 deleted",
        "manifests: 0 looked at, 0 deleted",
        "blobs: 3 looked at, 1 deleted (<0.1 MiB)",
        "objects: 1 looked at, 1 deleted (<0.1 MiB)",
        "receipts: 0 looked at, 0 deleted",
    ]
    assert asyncio.run(_blobs(database)) == [len(b"{}"), len(b"a layer")]
    assert len([path for path in (tmp_path / "objects").rglob("*") if path.is_file()]) == 2


def test_run_when_deletions_are_paused_then_nothing_is_deleted_and_it_says_so(
    database: Target, config: Path, tmp_path: Path
) -> None:
    asyncio.run(_seed(database, tmp_path / "objects"))
    assert gc("pause", config).code == 0

    done = gc("run", config)

    assert (done.code, done.output) == (1, "")
    assert done.errors == "registry: garbage collection is paused; registry gc resume lets it go on\n"
    assert len(asyncio.run(_blobs(database))) == 3


def test_run_when_the_storage_is_read_only_by_its_settings_then_it_refuses(
    config: Path, tmp_path: Path
) -> None:
    done = run([*COMMAND, "run", str(config)], STORAGE_MAINTENANCE_READONLY_ENABLED="true")

    assert (done.code, done.output) == (1, "")
    assert done.errors == "registry: storage.maintenance.readonly is on: nothing may be deleted\n"


@pytest.mark.parametrize("word", ["run", "work"])
def test_gc_when_the_storage_is_not_the_databases_then_it_refuses(
    word: str, database: Target, config: Path, tmp_path: Path
) -> None:
    asyncio.run(_seed(database, tmp_path / "elsewhere"))

    done = gc(word, config)

    assert (done.code, done.output) == (1, "")
    assert "the database names objects in it: is the right volume mounted?" in done.errors
    assert len(asyncio.run(_blobs(database))) == 3


@contextmanager
def working(config: Path, log: Path, *words: str) -> Generator[subprocess.Popen[str]]:
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*COMMAND, "work", *words, str(config)],
            cwd=CHECKOUT,
            env=overrides(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "registry: collecting\n", log.read_text()
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_work_when_two_run_beside_each_other_then_what_is_due_goes_and_sigterm_ends_them(
    database: Target, config: Path, tmp_path: Path
) -> None:
    asyncio.run(_seed(database, tmp_path / "objects"))
    with working(config, tmp_path / "one") as one, working(config, tmp_path / "two") as two:
        assert wait_for(lambda: len(asyncio.run(_blobs(database))) == 2, 20)
        for process in (one, two):
            process.send_signal(signal.SIGTERM)
        assert [process.wait(20) for process in (one, two)] == [0, 0]
        assert (descendants(one.pid), descendants(two.pid)) == ([], [])


def test_work_when_it_is_asked_to_tell_then_health_is_bad_once_something_is_overdue(
    database: Target, config: Path, tmp_path: Path
) -> None:
    asyncio.run(_seed(database, tmp_path / "objects"))

    async def late() -> None:
        async with connected(database) as connection:
            await connection.execute(
                "UPDATE gc_blob_review_queue SET review_after = now() - interval '25 hours'"
            )

    assert gc("pause", config, "--reason", "moving house").code == 0
    log = tmp_path / "one"
    with working(config, log, "--debug"):
        found = wait_for(lambda: re.search(r"health and metrics are at (http://\S+)", log.read_text()), 20)
        assert isinstance(found, re.Match)
        assert httpx.get(f"{found[1]}/debug/health").json() == {}
        asyncio.run(late())

        def unwell() -> bool:
            answer = httpx.get(f"{found[1]}/debug/health")
            return answer.status_code == 503 and answer.json() == {
                "gc": "garbage collection is late: of blobs, the oldest has been due for 25.0 hours;"
                " garbage collection is paused (registry gc status tells more)"
            }

        assert wait_for(unwell, 20), httpx.get(f"{found[1]}/debug/health").text
        assert gc("resume", config).code == 0
        assert wait_for(lambda: httpx.get(f"{found[1]}/debug/health").json() == {}, 20)
