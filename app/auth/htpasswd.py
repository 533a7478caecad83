"""A file of users and bcrypt hashes, as `htpasswd -B` writes it and Distribution reads it.

A line is `user:hash`; what begins with `#` and what is empty is passed over, and so is what comes behind the hash; of
several lines for one user the last one counts. Only bcrypt hashes ever match. What no password can match is told in
the log, by line and user.

A file that is not there is made, with the user `docker` and a random password. Distribution writes that password to
its log; here it goes into a file beside the first one, which only its owner can read.
"""

from __future__ import annotations

import logging
import re
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Final

import bcrypt

from app.auth import secretfiles
from app.auth.passwords import bcrypt_decoy, is_bcrypt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE_BYTES_MAX: Final = 4 * 1024 * 1024
FIRST_USER: Final = "docker"
# What Distribution makes its hashes with: 70 ms.
_COST: Final = 10
_HASH_CHARS: Final = 60
_PASSWORD: Final = re.compile(r"[A-Za-z0-9_-]{43}")

_log = logging.getLogger("registry.files")


class HtpasswdError(Exception):
    """A file of users that cannot be used. The text is a sentence for the operator, without what the file holds."""


class Htpasswd:
    """The users of one reading."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes: Final = {user: hashed for user, hashed in hashes.items() if is_bcrypt(hashed)}
        costs = set(map(_cost_of, self._hashes.values())) or {_COST}
        self._highest: Final = max(costs)
        self._decoys: Final = {cost: bcrypt_decoy(cost) for cost in range(min(costs), self._highest + 1)}

    @property
    def users(self) -> frozenset[str]:
        """Who can log in."""
        return frozenset(self._hashes)

    def __contains__(self, user: str) -> bool:
        return user in self._hashes

    def hashes_of(self, user: str) -> tuple[str, ...]:
        """The user's hash, and behind it others that no password matches.

        To check all of them takes as long as the slowest hash of the file, for every user and for unknown ones: each
        cost is twice the one before, so a hash and one of each cost from its own up to the highest add up to that.
        """
        hashed = self._hashes.get(user)
        if hashed is None:
            return (self._decoys[self._highest],)
        return (hashed, *(self._decoys[cost] for cost in range(_cost_of(hashed), self._highest)))


def read_htpasswd(path: Path) -> Htpasswd:
    """The users of the file. Raises HtpasswdError."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise HtpasswdError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise HtpasswdError(f"{path} is larger than {FILE_BYTES_MAX // 2**20} MiB, so hardly a file of users")
    users = Htpasswd(_parsed(path, content.decode("utf-8-sig", "surrogateescape")))
    if not users.users:
        _log.warning("%s: nobody in it can log in", path)
    return users


def ensure_htpasswd(path: Path) -> bool:
    """Make the file if there is none; returns whether this call did. Raises HtpasswdError.

    The password is written first, to `<path>.password`, and is taken from there if it is there: whatever interrupts
    this, and whoever does the same at the same time, the two files belong together.
    """
    password_path = path.with_name(f"{path.name}.password")
    try:
        if path.exists():
            return False
        secretfiles.create(password_path, f"{token_urlsafe(32)}\n".encode())
        password = password_path.read_text("ascii", "replace").strip()
        if not _PASSWORD.fullmatch(password):
            raise HtpasswdError(f"{password_path} does not hold what the registry wrote there: remove it")
        hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(_COST)).decode()
        made = secretfiles.create(path, f"{FIRST_USER}:{hashed}\n".encode())
    except OSError as error:
        raise HtpasswdError(f"{path} is not there and cannot be made: {secretfiles.reason(error)}") from error
    if made:
        _log.warning(
            "%s was not there, so it was made; its user is %s, the password is in %s",
            path,
            FIRST_USER,
            password_path,
        )
    return made


def _parsed(path: Path, text: str) -> dict[str, str]:
    hashes: dict[str, str] = {}
    # Other line ends than Go knows stay part of their line: only \n ends one.
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        user, colon, rest = line.partition(":")
        if not colon:
            raise HtpasswdError(f"{path}: line {number} is not a user and a hash with a colon between them")
        hashed = rest[:_HASH_CHARS]
        _warn_of(path, number, user, hashed)
        hashes[user] = hashed
    hashes.pop("", None)
    return hashes


def _warn_of(path: Path, number: int, user: str, hashed: str) -> None:
    if not user:
        _log.warning("%s: line %d names no user, so nobody can log in with it", path, number)
    elif not is_bcrypt(hashed):
        _log.warning(
            "%s: line %d: %s cannot log in, since the hash is not a bcrypt one; make it with `htpasswd -B`",
            path,
            number,
            user.encode(errors="backslashreplace").decode(),  # the file need not be UTF-8
        )


def _cost_of(hashed: str) -> int:
    return int(hashed[4:6])
