"""What is made of files follows them, however they are changed, and survives what is no good."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app.runtime.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Callable

CANARY = "s3cret-canary"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Words:
    """What a reader makes of a file; a new object at each reading."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text("ascii")
        if "bad" in self.text:
            raise ValueError(f"cannot parse {self.text}")
        if "unfit" in self.text:
            raise Unfit("line 1 has no colon")


class Unfit(Exception):
    pass


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def by_renaming(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def with_the_old_times(path: Path, text: str) -> None:
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def by_removing_first(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


WAYS = [in_place, by_renaming, with_the_old_times, by_removing_first]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("one")
    return path


def watched(path: Path, clock: Clock) -> Watched[Words]:
    return Watched([path], lambda: Words(path), told=(Unfit,), clock=clock)


@pytest.mark.parametrize("change", WAYS)
@pytest.mark.parametrize("text", ["two", "longer than one"])
@pytest.mark.parametrize("ahead", [0, 10_000_000_000], ids=["young", "settled"])
def test_watched_when_the_file_changes_is_read_again(
    path: Path, clock: Clock, change: Callable[[Path, str], None], text: str, ahead: int
) -> None:
    thing = Watched([path], path.read_text, clock=clock, now_nanoseconds=lambda: time.time_ns() + ahead)
    clock.now += 1
    assert thing.current() == "one"
    before = path.stat().st_ctime_ns
    change(path, text)
    while path.stat().st_ctime_ns == before:  # until the file system's clock has ticked
        change(path, text)
    clock.now += 1
    assert thing.current() == text


def test_watched_when_a_coarse_clock_hides_a_change_sees_it_as_long_as_the_file_is_young(
    path: Path, clock: Clock
) -> None:
    frozen = path.stat()

    class Coarse(type(Path())):  # type: ignore[misc]
        def stat(self, **options: bool) -> os.stat_result:
            return frozen

    thing = Watched([Coarse(path)], path.read_text, clock=clock)
    for text in ("two", "six"):
        path.write_text(text)
        clock.now += 1
        assert thing.current() == text


def test_watched_when_nothing_changes_stays_the_same_object(path: Path, clock: Clock) -> None:
    thing = watched(path, clock)
    before = thing.current()
    for _ in range(3):
        clock.now += 1
        assert thing.current() is before


def test_watched_when_asked_often_looks_once_in_its_time(path: Path, clock: Clock) -> None:
    thing = watched(path, clock)
    path.write_text("two")
    clock.now += 0.9
    assert thing.current().text == "one"
    clock.now += 0.2
    assert thing.current().text == "two"


def test_watched_when_a_file_is_older_than_any_tick_looks_without_opening_it(
    path: Path, clock: Clock
) -> None:
    opened: list[str] = []

    class Counted(type(Path())):  # type: ignore[misc]
        def read_bytes(self) -> bytes:
            opened.append(str(self))
            return super().read_bytes()

    ahead = 0
    thing = Watched(
        [Counted(path)], path.read_text, clock=clock, now_nanoseconds=lambda: time.time_ns() + ahead
    )
    clock.now += 1
    thing.current()
    assert len(opened) == 2
    ahead = 10_000_000_000
    for _ in range(3):
        clock.now += 1
        thing.current()
    assert len(opened) == 3
    path.write_text("two")
    clock.now += 1
    assert thing.current() == "two"


def test_watched_when_written_between_look_and_reading_is_read_again(path: Path, clock: Clock) -> None:
    def read_slowly() -> str:
        text = path.read_text()
        if text == "one":
            path.write_text("two")
        return text

    thing = Watched([path], read_slowly, clock=clock)
    assert thing.current() == "one"
    clock.now += 1
    assert thing.current() == "two"


def test_watched_when_kubernetes_swaps_the_link_is_read_again(tmp_path: Path, clock: Clock) -> None:
    for name, text in (("..1", "one"), ("..2", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "file").symlink_to("..data/file")
    thing = watched(tmp_path / "file", clock)
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    clock.now += 1
    assert thing.current().text == "two"


def test_watched_when_one_of_several_changes_is_read_again(tmp_path: Path, clock: Clock) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for each in paths:
        each.write_text("1")
    thing = Watched(paths, lambda: [each.read_text() for each in paths], clock=clock)
    paths[1].write_text("2")
    clock.now += 1
    assert thing.current() == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "why"), [(f"bad {CANARY}", "ValueError"), ("unfit", "line 1 has no colon"), ("é", "Unicode")]
)
def test_watched_when_what_is_there_is_no_good_keeps_the_old_and_says_so_once(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, text: str, why: str
) -> None:
    thing = watched(path, clock)
    before = thing.current()
    path.write_text(text)
    for _ in range(3):
        clock.now += 1
        assert thing.current() is before
    (line,) = messages(caplog)
    assert str(path) in line
    assert why in line
    assert CANARY not in line
    path.write_text("good again")
    clock.now += 1
    assert thing.current().text == "good again"


def test_watched_when_the_file_vanishes_keeps_the_old_and_says_so_once(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    thing = Watched([path], lambda: "" if not path.exists() else path.read_text(), clock=clock)
    path.unlink()
    for _ in range(3):
        clock.now += 1
        assert thing.current() == "one"
    (line,) = messages(caplog)
    assert f"{path}: No such file" in line
    path.write_text("two")
    clock.now += 1
    assert thing.current() == "two"


def test_watched_when_reading_fails_for_another_reason_than_the_file_tries_again(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    obstacles = ["", "Too many open files", "Too many open files", "Input/output error"]

    reads = 0

    def read() -> str:
        nonlocal reads
        reads += 1
        if obstacles and (obstacle := obstacles.pop(0)):
            raise OSError(5, obstacle)
        return path.read_text()

    thing = Watched([path], read, clock=clock)
    path.write_text("two")
    seen: list[str] = []
    for _ in range(4):
        clock.now += 1
        seen.append(thing.current())
    assert seen == ["one", "one", "one", "two"]
    clock.now += 1
    thing.current()
    assert reads == 5
    assert [line.rpartition(": ")[2] for line in messages(caplog)] == [
        "Too many open files",
        "Input/output error",
    ]


def test_watched_when_reading_has_a_defect_raises_it_once(path: Path, clock: Clock) -> None:
    def read() -> str:
        if (text := path.read_text()) == "two":
            raise KeyError("defect")
        return text

    thing = Watched([path], read, clock=clock)
    path.write_text("two")
    clock.now += 1
    with pytest.raises(KeyError):
        thing.current()
    clock.now += 1
    assert thing.current() == "one"


@pytest.mark.parametrize("text", ["bad", "unfit", None])
def test_watched_when_the_first_reading_fails_raises(path: Path, clock: Clock, text: str | None) -> None:
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises((OSError, ValueError, Unfit)):
        watched(path, clock)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
