"""The benchmark of garbage collection runs from beginning to end, is right about what is there, and leaves nothing.

At the smallest size: the figures mean nothing then, but a part that measures something else than it says still fails,
since each compares what is left with what should be. The peer takes its turn where it is installed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import trees
from benchmarks.gc import content, storing
from benchmarks.gc.content import Size
from benchmarks.gc.figures import Row, Target, table
from benchmarks.gc.steady import Job, moments
from benchmarks.images import digest_of
from benchmarks.programs import CHECKOUT, PEER

SMALLEST = ("--repositories", "1", "--partitions", "2", "--rounds", "1", "--seconds", "0.5", "--smoke")


def command(directory: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.gc", *SMALLEST, "--directory", str(directory), *more]


def test_benchmark_when_run_at_the_smallest_size_then_every_part_has_figures(tmp_path: Path) -> None:
    work, figures = tmp_path / "work", tmp_path / "figures.json"
    work.mkdir()
    peer = [] if shutil.which(PEER) else ["--no-peer"]

    done = subprocess.run(
        command(work, "--json", str(figures), *peer),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text())
    assert found["failures"] == []
    rows = {(row["case"], row["variant"]): row["values"] for row in found["rows"] if row["values"]}
    assert ("blob-reviews", "2 partitions") in rows
    assert ("manifest-deletions", "2 partitions") in rows
    assert ("object-removals", "2 partitions") in rows
    assert ("pull-p99", "quiet") in rows
    assert ("push-p99", "full speed") in rows
    assert ("reclaim", "ours, full speed") in rows
    assert (("reclaim", "peer") in rows) == (not peer)
    assert all(value > 0 for values in rows.values() for value in values)
    assert list(work.iterdir()) == []


def test_benchmark_when_interrupted_then_nothing_is_left(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path, "--part", "latency", "--seconds", "600"),
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until = time.monotonic() + 60
    # Until PostgreSQL, a server and a load are there.
    while not any("benchmarks.gc.steady" in line for line in command_lines(process.pid)):
        assert time.monotonic() < until
        time.sleep(0.1)
    family = trees.tree(process.pid)

    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 130, said
    assert list(tmp_path.iterdir()) == []
    assert trees.end(family) == 0


def command_lines(root: int) -> list[str]:
    found: list[str] = []
    for process in trees.tree(root):
        try:
            found.append(Path(f"/proc/{process.pid}/cmdline").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_content_when_counted_then_is_of_the_size_that_it_claims() -> None:
    size = Size(3)
    made = list(content.repositories(size))

    images = [image for repository in made for image in repository.images]
    blobs = {hash_ for repository in made for hash_ in repository.blobs}
    kept = {layer.hash for image in images if image.is_tagged for layer in (image.config, *image.layers)}
    assert sum(not image.is_tagged for image in images) == size.untagged == 60
    assert sum(image.is_tagged for image in images) == size.tagged
    assert (len(kept), len(blobs - kept)) == (size.staying, size.going)


def test_trees_when_written_then_both_hold_the_same_bytes_under_their_digests(tmp_path: Path) -> None:
    ours, peer, size = tmp_path / "ours", tmp_path / "peer", Size(1)
    (ours / "objects" / "aa").mkdir(parents=True)
    (ours / "objects" / "aa" / "stray").touch()

    storing.write_objects(ours, size)
    storing.write_tree(peer, size)

    (repository,) = content.repositories(size)
    blobs = peer / "docker/registry/v2/blobs/sha256"
    assert storing.count_objects(ours) == size.going + size.staying
    assert storing.count_tree(peer) == size.going + size.staying + size.tagged + size.untagged
    for blob in repository.blobs.values():
        assert (ours / blob.key).read_bytes() == blob.content
        assert (blobs / blob.hash.hex()[:2] / blob.hash.hex() / "data").read_bytes() == blob.content
    for image in repository.images:
        name = image.manifest.hash.hex()
        assert hashlib.sha256((blobs / name[:2] / name / "data").read_bytes()).hexdigest() == name
        named = [layer["digest"] for layer in json.loads(image.manifest.content)["layers"]]
        assert named == [digest_of(layer.content) for layer in image.layers]


def test_steady_load_when_planned_twice_then_comes_at_the_same_moments_and_rates() -> None:
    job = Job("h", 1, 100.0, {"pull": 50.0, "push": 5.0}, (), (), "")

    planned = moments(job)

    assert planned == moments(job) == sorted(planned)
    assert sum(kind == "pull" for _, kind in planned) == pytest.approx(5000, rel=0.1)
    assert sum(kind == "push" for _, kind in planned) == pytest.approx(500, rel=0.2)


@pytest.mark.parametrize(
    ("target", "is_missed"),
    [
        (Target(20), False),
        (Target(21), True),
        (Target(2, is_ratio=True, is_least=False), False),
        (Target(1.9, is_ratio=True, is_least=False), True),
    ],
)
def test_figure_when_beside_its_target_then_says_whether_it_is_missed(
    target: Target, is_missed: bool
) -> None:
    quiet = Row("pull-p99", "ms", "quiet", [10.0, 9.0, 11.0])
    busy = Row("pull-p99", "ms", "busy", [10.0, 20.0, 30.0], beside=quiet, target=target)

    assert busy.is_missed is is_missed
    assert table([quiet, busy]).splitlines()[-1].endswith("missed") is is_missed
    assert "2.00" in table([busy])
