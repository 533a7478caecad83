"""Passwords of people, secrets of robots, and the question whether one of them is right.

A person's password is kept as argon2id with the second choice of RFC 9106 (64 MiB, 3 passes, 4 lanes): one try costs
an attacker, and us, 64 MiB and 205 ms of processor time, 135 ms by the clock on two cores. A robot's secret has 256
random bits, which nobody guesses, so that a plain SHA-256 keeps it and a pipeline's login costs microseconds.

Whoever fails has waited for one slow hash, whether there is such an account or not, and whatever kind it is: the
time tells nothing. Passwords are compared as RFC 8265 says (OpaqueString): any space is a space, composed and
decomposed letters are the same (NFC). Bcrypt hashes were made by other programs, from the bytes as they were typed;
so they are checked with those bytes, the first 72 of them, as Distribution does.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import secrets
import unicodedata
from base64 import b64encode
from collections import OrderedDict
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Final

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error
from argon2.profiles import RFC_9106_LOW_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.runtime.threads import Threads

PASSWORD_BYTES_MAX: Final = 1024
# Bcrypt looks at no more of a password.
_BCRYPT_BYTES_MAX: Final = 72
_SECRET_BYTES: Final = 32
_SECRET_PREFIX: Final = "rgs_"  # noqa: S105 - so that scanners of source code know one when they see it
_ARGON2ID: Final = "$argon2id$"
_SHA256: Final = "sha256:"
# Of the last character of the salt only two bits count; the library refuses it with others.
_BCRYPT: Final = re.compile(
    r"\$2[abxy]\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}"
)
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")

_REMEMBERED_SECONDS: Final = 300.0
_REMEMBERED_MAX: Final = 1024


class UnfitPassword(ValueError):
    """Nobody may have this password. The words say why, and can be shown."""


def hash_password(text: str) -> str:
    """What to keep of a person's password. Raises UnfitPassword if it is empty, too long or not all text."""
    if not text:
        raise UnfitPassword("a password must not be empty")
    if _CONTROL.search(text):
        raise UnfitPassword("a password must not hold control characters, such as tabs or line breaks")
    if (password := _prepared(text)) is None:
        raise UnfitPassword(f"a password must be text of at most {PASSWORD_BYTES_MAX} bytes")
    return _argon2id().hash(password)


def verify_password(hashed: str, text: str) -> bool:
    """Whether `text` is the password that `hash_password` made `hashed` of. Anything else is False, never an error."""
    password = _prepared(text)
    if password is None or not hashed.startswith(_ARGON2ID):
        return False
    try:
        return _argon2id().verify(hashed, password)
    except (Argon2Error, ValueError):
        return False


def is_bcrypt(hashed: str) -> bool:
    """Whether `hashed` is a whole bcrypt hash, so that some password may match it."""
    return _BCRYPT.fullmatch(hashed) is not None


def verify_bcrypt(hashed: str, text: str) -> bool:
    """Whether `hashed` is the bcrypt hash of `text`. Anything else is False, never an error."""
    password = _encoded(text)
    if password is None or not is_bcrypt(hashed):
        return False
    try:
        return bcrypt.checkpw(password[:_BCRYPT_BYTES_MAX], hashed.encode())
    except ValueError:
        return False


def bcrypt_decoy(cost: int) -> str:
    """A bcrypt hash that takes as long as any of its cost, and is of no password: no hash ends like this one."""
    return bcrypt.gensalt(cost).decode() + "/" * 31


def new_secret() -> str:
    """A robot's secret: 256 random bits."""
    return _SECRET_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def hash_secret(text: str) -> str:
    """What to keep of a secret that `new_secret` made."""
    return _SHA256 + hashlib.sha256(text.encode()).hexdigest()


def verify_secret(hashed: str, text: str) -> bool:
    """Whether `text` is the secret that `hash_secret` made `hashed` of. Anything else is False, never an error."""
    secret = _encoded(text)
    if secret is None or not hashed.startswith(_SHA256):
        return False
    given = _SHA256 + hashlib.sha256(secret).hexdigest()
    return hmac.compare_digest(given.encode(), hashed.encode("utf-8", "replace"))


def verify(hashed: str, text: str) -> bool:
    """Whether `text` belongs to `hashed`, which says itself what kind it is."""
    if hashed.startswith(_SHA256):
        return verify_secret(hashed, text)
    if hashed.startswith(_ARGON2ID):
        return verify_password(hashed, text)
    return verify_bcrypt(hashed, text)


def check(hashes: Sequence[str], text: str) -> int | None:
    """The index of the first of an account's hashes that `text` belongs to; none at all if there is no such account.

    Blocks for as long as a slow hash takes, also when none of the hashes is slow, unless one of those matches.
    """
    for index, hashed in enumerate(hashes):
        if verify(hashed, text):
            return index
    if all(hashed.startswith(_SHA256) for hashed in hashes):
        verify_password(_argon2id_decoy(), text)
    return None


class Verifications:
    """Checks passwords in `threads`, and remembers for five minutes which were right.

    What is remembered is an HMAC, under a key of this process, of password and hash together: it is of no use once
    the hash has changed, and only successes are kept. Equal checks at the same time are made once. Two threads are
    enough: each takes 64 MiB and more than one processor. When more is asked than they do soon, ThreadsBusy is
    raised; passwords that are remembered pass, and so do robots' secrets.
    """

    def __init__(
        self,
        threads: Threads,
        *,
        remembered_seconds: float = _REMEMBERED_SECONDS,
        remembered_max: int = _REMEMBERED_MAX,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._threads: Final = threads
        self._key: Final = secrets.token_bytes(32)
        self._seconds: Final = remembered_seconds
        self._max: Final = remembered_max
        self._clock: Final = clock
        # Until when; all are kept equally long, so the first to come are the first to go.
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Task[int | None]] = {}

    def is_possible(self, text: str) -> bool:
        """Whether it may be anyone's password. If not, no hash is ever made of it."""
        return _encoded(text) is not None

    def remembered(self, hashes: Sequence[str], text: str) -> int | None:
        """The index of a hash that `text` belongs to, as far as that can be told at once: in 4 µs each."""
        if _encoded(text) is None:
            return None
        for index, hashed in enumerate(hashes):
            if verify_secret(hashed, text) or self._is_remembered(hashed, text):
                return index
        return None

    async def verify(self, hashes: Sequence[str], text: str) -> int | None:
        """As `check`, off the event loop. Raises ThreadsBusy."""
        known = self.remembered(hashes, text)
        if known is not None or _encoded(text) is None:
            return known
        key = self._tag("\n".join(hashes), text)
        if (task := self._under_way.get(key)) is None:
            task = asyncio.create_task(self._check(key, tuple(hashes), text))
            self._under_way[key] = task
            task.add_done_callback(_take_note)
        # Another request may wait for the same, so the end of this one is not the end of it.
        return await asyncio.shield(task)

    async def _check(self, key: bytes, hashes: tuple[str, ...], text: str) -> int | None:
        try:
            await self._threads.admit()
            index = await self._threads.run(check, hashes, text)
        finally:
            del self._under_way[key]
        if index is not None:
            self._remember(self._tag(hashes[index], text))
        return index

    def _is_remembered(self, hashed: str, text: str) -> bool:
        until = self._right.get(self._tag(hashed, text))
        return until is not None and self._clock() < until

    def _remember(self, tag: bytes) -> None:
        now = self._clock()
        self._right.pop(tag, None)
        while self._right and (len(self._right) >= self._max or next(iter(self._right.values())) <= now):
            self._right.popitem(last=False)
        self._right[tag] = now + self._seconds

    def _tag(self, hashed: str, text: str) -> bytes:
        # A hash holds no NUL, so that the two cannot be divided differently.
        whole = f"{hashed}\0{text}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, whole, "sha256")


def _take_note(task: asyncio.Task[int | None]) -> None:
    """Look at how it ended, so that a failure which nobody waits for any more is not reported as forgotten."""
    if not task.cancelled():
        task.exception()


@cache
def _argon2id() -> PasswordHasher:
    return PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)


@cache
def _argon2id_decoy() -> str:
    """A hash of ours in form and cost, whose 256 bits are random: of no password that anybody could find."""
    known = RFC_9106_LOW_MEMORY
    salt, digest = (
        b64encode(os.urandom(size)).decode().rstrip("=") for size in (known.salt_len, known.hash_len)
    )
    costs = f"m={known.memory_cost},t={known.time_cost},p={known.parallelism}"
    return f"{_ARGON2ID}v={known.version}${costs}${salt}${digest}"


def _encoded(text: str) -> bytes | None:
    """The bytes of a password; None if it cannot be anyone's, which is found out without hashing anything."""
    if not text or len(text) > PASSWORD_BYTES_MAX or "\0" in text:
        return None
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return None
    return encoded if len(encoded) <= PASSWORD_BYTES_MAX else None


def _prepared(text: str) -> bytes | None:
    """The bytes that are hashed by us: RFC 8265, section 4.2.2."""
    given = _encoded(text)
    if given is None or text.isascii():
        return given
    spaced = "".join(" " if unicodedata.category(letter) == "Zs" else letter for letter in text)
    return _encoded(unicodedata.normalize("NFC", spaced))
