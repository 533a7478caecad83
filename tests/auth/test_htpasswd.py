"""Files of users are read as Distribution reads them, and made where there is none."""

from __future__ import annotations

import logging
import multiprocessing
import re
import stat
from typing import TYPE_CHECKING

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.auth.htpasswd import Htpasswd, HtpasswdError, ensure_htpasswd, read_htpasswd
from app.auth.passwords import check
from app.runtime.watched import Watched
from tests.support.effort import EFFORT

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "s3cret-canary"


def hashed(password: str, prefix: str = "2y", cost: int = 4) -> str:
    """Always the same one, since it is part of tests' names."""
    made = bcrypt.hashpw(password.encode(), f"$2b${cost:02}$abcdefghijklmnopqrstuu".encode())
    return made.decode().replace("$2b$", f"${prefix}$")


def lets_in(users: Htpasswd, name: str, password: str) -> bool:
    return check(users.hashes_of(name), password) is not None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "htpasswd"


def lines(path: Path, *written: str, end: str = "\n") -> Path:
    path.write_bytes("".join(line + end for line in written).encode("utf-8", "surrogateescape"))
    return path


@pytest.mark.parametrize("prefix", ["2a", "2b", "2x", "2y"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "  \n\n"])
def test_htpasswd_when_well_formed_lets_its_users_in_and_nobody_else(
    path: Path, prefix: str, end: str
) -> None:
    users = read_htpasswd(
        lines(
            path, "# users", "", f"  alice:{hashed('wonder', prefix)}", "#x:y", f"zoë:{hashed('😀')}", end=end
        )
    )
    assert users.users == {"alice", "zoë"}
    assert lets_in(users, "alice", "wonder")
    assert lets_in(users, "zoë", "😀")
    for name, password in (("alice", "😀"), ("Alice", "wonder"), ("bob", "wonder"), ("#x", "y"), ("", "")):
        assert not lets_in(users, name, password)


def test_htpasswd_when_made_on_windows_has_its_first_user(path: Path) -> None:
    assert read_htpasswd(lines(path, f"\ufeffalice:{hashed('x')}", end="\r\n")).users == {"alice"}


def test_htpasswd_when_a_user_is_there_twice_takes_the_last(path: Path) -> None:
    users = read_htpasswd(lines(path, f"alice:{hashed('old')}", f"alice:{hashed('new')}"))
    assert lets_in(users, "alice", "new")
    assert not lets_in(users, "alice", "old")


@pytest.mark.parametrize("behind", [":1", " # since June", ":a comment: as nginx has it"])
def test_htpasswd_when_something_comes_behind_the_hash_passes_it_over(path: Path, behind: str) -> None:
    assert lets_in(read_htpasswd(lines(path, f"alice:{hashed('x')}{behind}")), "alice", "x")


def test_htpasswd_when_made_by_apache_is_read(path: Path) -> None:
    # From the documentation of Apache 2.4, "Password Formats".
    lines(path, "myName:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC")
    assert lets_in(read_htpasswd(path), "myName", "myPassword")


@pytest.mark.parametrize("line", [CANARY, f"{CANARY} {hashed('x')}", f"\x0b{CANARY}\x0b"])
def test_htpasswd_when_a_line_has_no_colon_is_refused_by_its_number_alone(path: Path, line: str) -> None:
    lines(path, "# users", f"alice:{hashed('x')}", line)
    with pytest.raises(HtpasswdError) as refusal:
        read_htpasswd(path)
    assert str(refusal.value) == f"{path}: line 3 is not a user and a hash with a colon between them"


@pytest.mark.parametrize(
    "other",
    [
        "$apr1$zk1Ebvg6$jhNoFZV4Ap4zIVeVwGAFy.",
        "{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc=",
        CANARY,
        "",
        # Of the last character of the salt only two bits may be set.
        hashed("x")[:28] + "v" + hashed("x")[29:],
    ],
)
def test_htpasswd_when_a_hash_is_not_bcrypt_says_who_cannot_log_in(
    path: Path, caplog: pytest.LogCaptureFixture, other: str
) -> None:
    users = read_htpasswd(lines(path, f"alice:{hashed('x')}", f"bob:{other}"))
    assert users.users == {"alice"}
    for password in (other, CANARY, "x", ""):
        assert not lets_in(users, "bob", password)
    (line,) = warnings(caplog)
    assert "line 2: bob cannot log in" in line
    assert CANARY not in line


def test_htpasswd_when_the_user_is_empty_lets_nobody_in(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    users = read_htpasswd(lines(path, f":{hashed('x')}"))
    assert not lets_in(users, "", "x")
    assert [line.partition(": ")[2] for line in warnings(caplog)] == [
        "line 1 names no user, so nobody can log in with it",
        "nobody in it can log in",
    ]


@pytest.mark.parametrize("costs", [(4,), (6, 6), (4, 7), (4, 5, 9)])
def test_htpasswd_when_costs_differ_takes_as_long_for_every_user_and_for_unknown_ones(
    path: Path, costs: tuple[int, ...]
) -> None:
    users = read_htpasswd(lines(path, *(f"u{n}:{hashed('x', cost=cost)}" for n, cost in enumerate(costs))))
    for name in ("nobody", *users.users):
        hashes = users.hashes_of(name)
        assert sum(2 ** int(each[4:6]) for each in hashes) == 2 ** max(costs), name
        assert check(hashes, "y") is None
        assert check(hashes, "x") == (None if name == "nobody" else 0)


@pytest.mark.parametrize(
    "content",
    [b"", b"#\n", b"alice:" + b"x" * 5 * 1024 * 1024, None],
    ids=["empty", "comment", "huge", "missing"],
)
def test_htpasswd_when_it_is_empty_huge_or_missing_lets_nobody_in(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    if content in (b"", b"#\n"):
        assert read_htpasswd(path).users == frozenset()
        return
    with pytest.raises(HtpasswdError, match=r"cannot be read: No such file|larger than 4 MiB"):
        read_htpasswd(path)


@settings(max_examples=60 * EFFORT, deadline=None)
@given(st.binary(max_size=200))
def test_htpasswd_when_it_holds_anything_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-htpasswd"
    path.write_bytes(content)
    try:
        users = read_htpasswd(path)
    except HtpasswdError as error:
        told = str(error)
    else:
        told = "" if users.users == frozenset() else "somebody"
    assert not told or re.search(r"line \d+ is not", told)


def test_htpasswd_when_watched_follows_the_file_and_survives_a_broken_one(path: Path) -> None:
    times = iter(range(100))
    lines(path, f"alice:{hashed('x')}")
    users = Watched(
        [path], lambda: read_htpasswd(path), told=(HtpasswdError,), clock=lambda: float(next(times))
    )
    lines(path, "broken")
    assert users.current().users == {"alice"}
    lines(path, f"bob:{hashed('x')}")
    assert users.current().users == {"bob"}


def test_ensure_when_there_is_no_file_makes_one_user_whose_password_is_in_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "deep" / "in" / "htpasswd"
    caplog.set_level(logging.DEBUG)
    assert ensure_htpasswd(path)
    secret = path.with_name("htpasswd.password")
    password = secret.read_text().strip()
    assert read_htpasswd(path).users == {"docker"}
    assert lets_in(read_htpasswd(path), "docker", password)
    assert {mode(path), mode(secret)} == {0o600}
    assert {mode(path.parent), mode(path.parent.parent)} == {0o700}
    assert sorted(each.name for each in path.parent.iterdir()) == ["htpasswd", "htpasswd.password"]
    assert str(secret) in caplog.text
    assert password not in caplog.text


def test_ensure_when_there_is_a_file_leaves_it_alone(path: Path) -> None:
    lines(path, "# mine")
    assert not ensure_htpasswd(path)
    assert path.read_text() == "# mine\n"
    assert [each.name for each in path.parent.iterdir()] == ["htpasswd"]
    # As in a directory that is not writable: no name of another file fits beside this one.
    assert not ensure_htpasswd(path.rename(path.with_name("h" * 250)))


def test_ensure_when_an_earlier_attempt_was_cut_off_goes_on_with_its_password(path: Path) -> None:
    assert ensure_htpasswd(path)
    password = path.with_name("htpasswd.password").read_text()
    path.unlink()
    assert ensure_htpasswd(path)
    assert path.with_name("htpasswd.password").read_text() == password
    assert lets_in(read_htpasswd(path), "docker", password.strip())


def test_ensure_when_the_file_for_the_password_holds_another_thing_says_so_without_it(path: Path) -> None:
    path.with_name("htpasswd.password").write_text(CANARY)
    with pytest.raises(HtpasswdError, match=r"htpasswd\.password does not hold") as refusal:
        ensure_htpasswd(path)
    assert CANARY not in str(refusal.value)
    assert not path.exists()


def test_ensure_when_the_file_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HtpasswdError, match=r"is not there and cannot be made: .*/file: File exists"):
        ensure_htpasswd(tmp_path / "file" / "htpasswd")


def test_ensure_when_several_processes_start_at_once_makes_one_file_that_fits(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        made = pool.map(ensure_htpasswd, [path] * 8, chunksize=1)
    assert sum(made) == 1
    assert lets_in(read_htpasswd(path), "docker", path.with_name("htpasswd.password").read_text().strip())
    assert len(list(path.parent.iterdir())) == 2


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
