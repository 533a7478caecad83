"""`registry fsck` as its users run it: lines, exit codes, progress, Ctrl-C."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import pytest
import yaml

from app.blobs.drivers.filesystem import Filesystem
from app.blobs.keys import new_key
from app.cli import run
from app.cli.fsck import words
from app.cli.fsck.teller import Teller
from app.cli.progress import LINE_SECONDS
from app.domain.digest import Digest
from app.services.fsck import Finding, Kind, Phase
from tests.support.fsck import assert_fsck_clean
from tests.support.postgres import connected
from tests.support.registry import image, open_registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.store.engine import Target

ROOT: Final = Path(__file__).parents[2]
LAYER: Final = b"a layer"
DIGEST: Final = Digest.of(LAYER)
IMAGE: Final = image(LAYER, config=b"{}")


def configured(target: Target, tmp_path: Path, **sections: Any) -> Path:
    file = tmp_path / "config.yml"
    content = {
        "version": 0.1,
        "http": {"addr": "127.0.0.1:0"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "blobs")}},
        "database": {
            "host": target.host,
            "port": target.port,
            "user": target.user,
            "dbname": target.database,
        },
        **sections,
    }
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture
def config(database: Target, tmp_path: Path) -> Path:
    """A registry with one image, tagged team/app:latest."""

    async def push() -> None:
        async with open_registry(database, tmp_path / "blobs") as registry:
            await registry.push_image("team/app", "latest", IMAGE)

    asyncio.run(push())
    return configured(database, tmp_path)


def fsck(*arguments: str | Path) -> tuple[int, list[str], list[str]]:
    """Exit code, and the lines of standard output and standard error."""
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        code = run(["fsck", *map(str, arguments)])
    return code, output.getvalue().splitlines(), errors.getvalue().splitlines()


def file_of(config: Path, content: bytes) -> Path:
    return next(
        file
        for file in (config.parent / "blobs").rglob("*")
        if file.is_file() and file.read_bytes() == content
    )


def test_fsck_when_nothing_is_wrong_then_it_says_so_and_exits_0(config: Path) -> None:
    code, output, errors = fsck(config, "--rehash", "100%")
    assert (code, errors) == (0, [])
    assert re.fullmatch(
        r"checked 2 rows, 2 objects \(<0\.1 MiB\), 1 manifest and 1 repository in \d+\.\d s", output[0]
    )
    assert output[1:] == ["read 2 blobs (<0.1 MiB)", "nothing is wrong"]


def test_fsck_when_something_is_lost_then_repair_and_a_push_bring_it_back(
    config: Path, database: Target
) -> None:
    file = file_of(config, LAYER)
    file.unlink()
    key = f"objects/{file.parent.name}/{file.name}"
    needed = f"team/app@{IMAGE.digest()} (tagged latest) needs blob {DIGEST}"
    lost = f"lost: the object {key} of blob {DIGEST} (7 bytes) is gone"

    code, output, errors = fsck(config)
    assert (code, errors) == (1, [])
    assert output[:2] == [
        f"{lost}; --repair takes care of it",
        f"blob_lost: {needed}, whose object is gone or damaged; repair the blob, then push the image again",
    ]
    assert output[-1] == "2 findings: 1 lost, 1 blob_lost"

    awaited = f"blob_awaited: {needed}, which is lost and waits to be pushed again; push the image again"
    code, output, _ = fsck("--repair", config)
    assert code == 1
    assert output[:2] == [f"{lost}; repaired: the next push of the blob uploads it again", awaited]
    assert output[-1] == "2 findings: 1 lost, 1 blob_awaited; 1 repaired"

    code, output, _ = fsck("--repair", config)
    assert code == 1
    assert output[0] == awaited
    assert output[-2:] == [
        "known as lost before, until they are pushed again: 1 blob",
        "1 finding: 1 blob_awaited",
    ]

    async def push() -> None:
        async with open_registry(database, config.parent / "blobs") as registry:
            await registry.push_image("team/app", "latest", IMAGE)

    asyncio.run(push())
    assert fsck(config)[0] == 0


def test_json_when_asked_for_then_each_line_is_a_document_and_the_summary_is_the_last(config: Path) -> None:
    file_of(config, LAYER).write_bytes(b"longer than it was")
    code, output, errors = fsck("--json", config)
    assert (code, errors) == (1, [])
    documents = [json.loads(line) for line in output]
    wrong, needed, last = documents
    assert wrong["finding"] == {
        "kind": "wrong_size",
        "is_repaired": False,
        "key": wrong["finding"]["key"],
        "digest": str(DIGEST),
        "size": 18,
        "expected": 7,
    }
    assert needed["finding"] == {
        "kind": "blob_lost",
        "is_repaired": False,
        "digest": str(DIGEST),
        "repository": "team/app",
        "manifest": IMAGE.digest(),
        "is_tagged": True,
        "tags": ["latest"],
    }
    summary = last["summary"]
    assert summary.pop("seconds") >= 0
    assert summary == {
        "rows": 2,
        "objects": 2,
        "object_bytes": 20,
        "manifests": 1,
        "repositories": 1,
        "blobs_read": 0,
        "bytes_read": 0,
        "awaited": 0,
        "suspicions": 2,
        "repaired": 0,
        "findings": {"wrong_size": 1, "blob_lost": 1},
        "is_clean": False,
    }


def test_every_kind_when_it_is_told_then_it_is_one_line_that_says_what_to_do() -> None:
    for kind in Kind:
        finding = Finding(
            kind=kind,
            key="objects/k\n",
            digest=DIGEST,
            found=DIGEST,
            holders=("a", "b"),
            repository="r",
            what="w",
        )
        for is_repair in (False, True):
            line = words.sentence(finding, is_repair=is_repair)
            assert line.startswith(f"{kind.value}: ")
            assert "\n" not in line
            assert "; " in line
        assert json.loads(words.document(finding))["finding"]["kind"] == kind.value


# Mistakes


@pytest.mark.parametrize("share", ["5", "0%", "101%", "-1%", "1e1%", "x", "all", ""])
def test_rehash_when_it_is_no_share_then_the_command_is_refused(config: Path, share: str) -> None:
    code, output, errors = fsck("--rehash", share, config)
    assert (code, output, len(errors)) == (2, [], 1)
    assert "write it like 5%" in errors[0]


def test_all_lost_when_nothing_is_to_be_repaired_then_the_command_is_refused(config: Path) -> None:
    code, output, errors = fsck("--all-lost", config)
    assert (code, output) == (2, [])
    assert errors == ["registry: --all-lost goes with --repair (see registry fsck --help)"]


def test_repair_when_the_volume_is_not_mounted_then_nothing_is_done_and_one_sentence_says_so(
    config: Path, database: Target, tmp_path: Path
) -> None:
    (tmp_path / "blobs").rename(tmp_path / "unmounted")
    (tmp_path / "blobs").mkdir()
    code, output, errors = fsck("--repair", config)
    assert (code, output, len(errors)) == (1, [], 1)
    assert errors[0].startswith("registry: nothing was repaired: ")
    (tmp_path / "blobs").rmdir()
    code, output, errors = fsck(config)
    assert (code, output, len(errors)) == (1, [], 1)
    assert "the storage's root directory is not there" in errors[0]
    (tmp_path / "unmounted").rename(tmp_path / "blobs")
    asyncio.run(assert_fsck_clean(database, Filesystem(tmp_path / "blobs")))


@pytest.mark.parametrize(
    ("sections", "code", "words"),
    [
        ({"database": {}}, 2, "database.host: required"),
        ({"storage": {"s3": {"bucket": "b", "region": "r"}}}, 2, "storage driver"),
        ({"database": {"host": "/nowhere", "dbname": "none", "user": "none"}}, 1, "metadata database"),
    ],
    ids=["no database", "bad storage", "database away"],
)
def test_fsck_when_the_configuration_is_wrong_then_one_sentence_says_so(
    database: Target, tmp_path: Path, sections: dict[str, Any], code: int, words: str
) -> None:
    found, output, errors = fsck(configured(database, tmp_path, **sections))
    assert (found, output, len(errors)) == (code, [], 1)
    assert words in errors[0]


def test_fsck_when_migrations_are_pending_then_it_says_which_command_applies_them(
    empty_database: Target, tmp_path: Path
) -> None:
    file = configured(empty_database, tmp_path)
    code, output, errors = fsck(file)
    assert (code, output) == (1, [])
    assert errors == [
        f"registry: the metadata database lacks migrations; apply them first: registry database migrate up {file}"
    ]


# Progress


def test_progress_when_it_is_no_terminal_then_a_line_now_and_then_says_how_far_it_is() -> None:
    now = 0.0
    errors = io.StringIO()
    with redirect_stderr(errors):
        teller = Teller(is_json=False, is_repair=False, clock=lambda: now)
        teller.began(Phase.OBJECTS, 30_000)
        for _ in range(40):
            now += LINE_SECONDS / 10
            teller.advanced(1000)
        teller.close()
    assert errors.getvalue().splitlines() == [
        "registry: fsck: objects: 10,000 of about 30,000",
        "registry: fsck: objects: 20,000 of about 30,000",
        "registry: fsck: objects: 30,000 of about 30,000",
        "registry: fsck: objects: 40,000",
    ]


class Terminal:
    """A command with a terminal as its standard error, and what it has written there."""

    def __init__(self, output: Path, *arguments: str | Path) -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", *map(str, arguments)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=slave,
                start_new_session=True,
            )
        os.close(slave)
        self.text = ""

    def until(self, condition: Callable[[str], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition(self.text):
            assert time.monotonic() < end, self.text
            has_ended = self.process.poll() is not None
            with suppress(BlockingIOError, OSError):  # OSError: the other side is closed
                self.text += os.read(self._master, 65536).decode()
                continue
            assert not has_ended, self.text
            time.sleep(0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


def test_progress_when_it_is_a_terminal_then_a_bar_shows_it_and_findings_stand_by_themselves(
    config: Path, tmp_path: Path
) -> None:
    file_of(config, LAYER).unlink()
    with Terminal(tmp_path / "out", "fsck", config) as terminal:
        terminal.until(lambda text: re.search(r"catalog .* 1/1", text) is not None)
        assert terminal.process.wait(20) == 1
    for phase in ("objects", "manifests", "catalog"):
        assert re.search(rf"{phase} +\[#+\]", terminal.text), terminal.text
    output = (tmp_path / "out").read_text().splitlines()
    assert [line.partition(":")[0] for line in output[:2]] == ["lost", "blob_lost"]


def test_fsck_when_it_is_interrupted_then_it_ends_at_once_and_leaves_nothing_open(
    config: Path, database: Target, tmp_path: Path
) -> None:
    """In the middle of an object that takes half a minute to read."""
    key, size = new_key(), 40 * 1024**3
    large = tmp_path / "blobs" / key
    large.parent.mkdir(exist_ok=True)
    large.touch()
    os.truncate(large, size)

    async def sql(text: str, *arguments: object) -> Any:
        async with connected(database) as connection:
            return await connection.fetchval(text, *arguments)

    name = Digest.of(b"not its digest").packed
    asyncio.run(sql("INSERT INTO blobs (digest, size, storage_key) VALUES ($1, $2, $3)", name, size, key))
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with Terminal(tmp_path / "out", "fsck", "--rehash", "100%", config) as terminal:
        terminal.until(lambda text: "contents" in text)
        terminal.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        terminal.until(lambda text: "interrupted" in text, 20)
        assert terminal.process.wait(20) == 130
        assert time.monotonic() - began < 15
        assert terminal.text.splitlines()[-1] == "registry: interrupted"
        assert "Traceback" not in terminal.text
    assert (tmp_path / "out").read_text() == ""
    end = time.monotonic() + 20
    while asyncio.run(sql(others)):
        assert time.monotonic() < end
        time.sleep(0.05)
