"""`registry gc pause` and `resume`; and what all commands say when the database is not as they need it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.gcview.support import collect, scene, shelve
from tests.server.test_cli import call, configuration
from tests.support.registry import digest_of

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.engine import Target

COMMANDS = (("status",), ("plan",), ("explain", "a:b"), ("explain", digest_of(b"")), ("pause",), ("resume",))


@pytest.mark.parametrize("prepared", ["true", "false"])
def test_pause_when_it_is_resumed_then_nothing_is_deleted_in_between(
    tmp_path: Path, database: Target, prepared: str
) -> None:
    s = scene(tmp_path, database)
    shelf = shelve(s)
    variables = {"REGISTRY_DATABASE_PREPAREDSTATEMENTS": prepared}
    ran = s.gc("pause", "--reason", "the disk is being moved", **variables)
    assert (ran.code, ran.output, ran.errors) == (
        0,
        "paused: nothing is deleted until registry gc resume\n",
        "",
    )
    assert collect(s) == set()
    assert s.gc("resume", **variables).output == "resumed\n"
    assert collect(s) == shelf.goes


def test_pause_when_it_was_so_already_then_it_says_so_and_keeps_the_reason(
    tmp_path: Path, database: Target
) -> None:
    s = scene(tmp_path, database)
    assert s.gc("resume").output == "nothing to do: deletions are not paused\n"
    s.gc("pause", "--reason", "first")
    ran = s.gc("pause", "--reason", "second")
    assert ran.code == 0
    assert ran.output.startswith("nothing to do: deletions are paused since ")
    assert ran.output.endswith(": first\n")
    assert s.rows("SELECT is_paused, reason FROM gc_control") == [{"is_paused": True, "reason": "first"}]


@pytest.mark.parametrize("reason", ["two\nlines", "\x1b[2J", "x" * 201, "\u202e", "\x00"])
def test_pause_when_the_reason_is_no_line_then_one_sentence_says_so(reason: str) -> None:
    code, output, errors = call("gc", "pause", "--reason", reason, "/no/such/file")
    assert (code, output) == (2, "")
    assert errors.startswith("registry: Invalid value for '--reason': one line of at most 200")
    assert errors.count("\n") == 1


def test_command_when_migrations_are_pending_then_one_sentence_names_the_remedy(
    tmp_path: Path, empty_database: Target
) -> None:
    s = scene(tmp_path, empty_database)
    remedy = f"registry database migrate up {s.config}"
    for command in COMMANDS:
        ran = s.gc(*command)
        assert (ran.code, ran.output) == (1, "")
        assert ran.errors == f"registry: the metadata database lacks migrations; apply them first: {remedy}\n"


def test_command_when_the_database_cannot_be_reached_then_one_sentence_says_so(tmp_path: Path) -> None:
    config = configuration(tmp_path, None, database={"host": "127.0.0.1", "port": 1, "sslmode": "disable"})
    for command in COMMANDS:
        code, output, errors = call("gc", *command, config)
        assert (code, output) == (1, "")
        assert errors.startswith("registry: cannot connect to the metadata database: ")
        assert errors.count("\n") == 1


def test_command_when_no_database_is_named_then_the_key_is(tmp_path: Path) -> None:
    code, _, errors = call("gc", "status", configuration(tmp_path, None))
    assert code == 2
    assert errors.startswith("registry: database.host: required")
