"""Passwords and secrets: what matches, what never does, what it costs, and what is remembered of it."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from time import process_time
from typing import TYPE_CHECKING

import bcrypt
import pytest
from argon2 import PasswordHasher, Type, extract_parameters
from argon2.profiles import CHEAPEST, RFC_9106_LOW_MEMORY
from hypothesis import given, settings
from hypothesis import strategies as st

from app.auth import passwords
from app.auth.passwords import UnfitPassword, Verifications, check, verify
from app.runtime.threads import Threads, ThreadsBusy
from tests.support.effort import EFFORT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

RIGHT = "correct horse battery staple"
# What the code makes costs 130 ms each; these are of the same form, and always the same ones.
ARGON2ID = PasswordHasher.from_parameters(CHEAPEST).hash(RIGHT, salt=b"saltsalt")
BCRYPT = bcrypt.hashpw(RIGHT.encode(), b"$2b$04$abcdefghijklmnopqrstuu").decode()
SECRET = "rgs_" + "x" * 43
SHA256 = passwords.hash_secret(SECRET)

MALFORMED = [
    *("", "x", "sha256:", "sha256:é", SHA256[:-1], SHA256 + "0", SHA256.upper(), "SHA256:" + SHA256[7:]),
    *(
        "$argon2id$",
        ARGON2ID[:-4],
        ARGON2ID + "é",
        ARGON2ID.replace("argon2id", "argon2i"),
        "\udcff" + ARGON2ID,
    ),
    *(ARGON2ID.replace("m=8", "m=4194304000"), ARGON2ID.replace("m=8", "m=99999999999999999999")),
    *("$2b$", BCRYPT[:-1], BCRYPT + "a", BCRYPT.replace("$04$", "$03$"), BCRYPT.replace("$04$", "$99$")),
    *(BCRYPT.replace("$2b$", "$2z$"), BCRYPT[:-5] + "!" * 5, BCRYPT + "\n", BCRYPT[:-1] + "\udcff"),
    *("$apr1$zk1Ebvg6$jhNoFZV4Ap4zIVeVwGAFy.", "{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc=", RIGHT, SECRET),
]


def test_hash_when_made_is_argon2id_at_the_cost_of_rfc_9106_with_a_salt_of_its_own() -> None:
    hashed = passwords.hash_password(RIGHT)
    assert extract_parameters(hashed) == RFC_9106_LOW_MEMORY
    assert passwords.verify_password(hashed, RIGHT)
    assert hashed != passwords.hash_password(RIGHT)
    assert RIGHT not in hashed


@pytest.mark.parametrize("text", ["", "a\0b", "a\nb", "tab\there", "\x85", "x" * 1025, "é" * 513, "\udcff"])
def test_hash_when_nobody_may_have_the_password_says_why_without_it(text: str) -> None:
    with pytest.raises(UnfitPassword, match="a password must") as refusal:
        passwords.hash_password(text)
    assert not text or text not in str(refusal.value)


@pytest.mark.parametrize("text", ["x" * 1024, "é" * 512, " ", "  a  ", "🔑", "$argon2id$"])
def test_password_when_unusual_matches_itself_alone(text: str) -> None:
    hashed = PasswordHasher.from_parameters(CHEAPEST).hash(text.encode())
    assert passwords.verify_password(hashed, text)
    assert not passwords.verify_password(hashed, text + "x")
    assert not passwords.verify_password(hashed, text[:-1])


@pytest.mark.parametrize("typed", ["caf\u00e9 1", "cafe\u0301 1", "cafe\u0301\u00a01", "caf\u00e9\u30001"])
def test_password_when_the_keyboard_composes_letters_otherwise_is_the_same(typed: str) -> None:
    composed = "caf\u00e9 1"
    assert passwords.verify_password(PasswordHasher.from_parameters(CHEAPEST).hash(composed), typed)
    # By another program, of the bytes: nobody knows of which ones, so they are taken as they come.
    made_elsewhere = bcrypt.hashpw(composed.encode(), bcrypt.gensalt(4)).decode()
    assert passwords.verify_bcrypt(made_elsewhere, typed) == (typed == composed)


def test_password_when_it_is_hashed_has_its_letters_composed() -> None:
    hashed = passwords.hash_password("cafe\u0301")
    assert PasswordHasher().verify(hashed, "caf\u00e9")


@pytest.mark.parametrize(
    ("hashed", "right"),
    [(SHA256, SECRET), (ARGON2ID, RIGHT), (BCRYPT, RIGHT), (BCRYPT.replace("2b", "2y"), RIGHT)],
)
def test_verify_when_one_character_differs_is_false(hashed: str, right: str) -> None:
    assert verify(hashed, right)
    for wrong in (right[:-1], right + "x", right.upper(), "", f" {right}", f"{right}\0", "\udcff", hashed):
        assert not verify(hashed, wrong)


@pytest.mark.parametrize("hashed", MALFORMED)
def test_verify_when_the_hash_is_malformed_is_false(hashed: str) -> None:
    for text in (RIGHT, SECRET, "", hashed):
        assert not verify(hashed, text)
        assert not passwords.verify_password(hashed, text)
        assert not passwords.verify_bcrypt(hashed, text)
        assert not passwords.verify_secret(hashed, text)


@settings(max_examples=60 * EFFORT, deadline=None)
@given(st.text(), st.sampled_from([SHA256, ARGON2ID, BCRYPT, ""]), st.integers(0, 90), st.text(max_size=3))
def test_verify_when_given_anything_never_raises(text: str, hashed: str, at: int, piece: str) -> None:
    for other in (hashed, hashed[:at] + piece + hashed[at + len(piece) :], piece):
        if "m=8," in other or not other.startswith("$argon2id$"):  # another amount of memory might be had
            assert not verify(other, text) or text in (RIGHT, SECRET)


@pytest.mark.parametrize("kind", [Type.I, Type.D])
def test_verify_when_the_hash_is_of_a_weaker_argon2_is_false(kind: Type) -> None:
    hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, type=kind).hash(RIGHT)
    assert PasswordHasher().verify(hashed, RIGHT)
    assert not verify(hashed, RIGHT)
    assert not passwords.verify_password(hashed, RIGHT)


def test_bcrypt_when_the_password_is_longer_than_72_bytes_compares_those_72() -> None:
    hashed = bcrypt.hashpw(b"a" * 72, bcrypt.gensalt(4)).decode()
    assert verify(hashed, "a" * 72)
    assert verify(hashed, "a" * 100)
    assert not verify(hashed, "a" * 71)
    assert not verify(hashed, "a" * 1025)


def test_bcrypt_decoy_when_checked_takes_its_costs_time_and_matches_nothing() -> None:
    cheap, dear = (passwords.bcrypt_decoy(cost) for cost in (4, 10))
    assert passwords.is_bcrypt(cheap)
    assert not verify(cheap, RIGHT)
    assert not verify(dear, RIGHT)
    assert effort(lambda: verify(dear, RIGHT)) > 5 * effort(lambda: verify(cheap, RIGHT))


def test_secret_when_made_has_256_random_bits_behind_a_prefix() -> None:
    made = {passwords.new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"rgs_[A-Za-z0-9_-]{43}", secret) for secret in made)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", SHA256)


def test_check_when_several_hashes_are_given_finds_the_first_that_matches() -> None:
    assert check([SHA256, ARGON2ID, BCRYPT, ARGON2ID], RIGHT) == 1
    assert check([passwords.hash_secret("other"), SHA256], SECRET) == 1
    assert check([BCRYPT], "wrong") is None


def test_check_when_it_fails_has_made_the_same_effort_whatever_the_account_is() -> None:
    slow = passwords.hash_password(RIGHT)
    person = effort(lambda: check([slow], "wrong"))
    for none_slow in ([], [SHA256], [SHA256, passwords.hash_secret("other")]):
        assert person / 3 < effort(lambda hashes=none_slow: check(hashes, "wrong")) < person * 3
    assert effort(lambda: check([SHA256], SECRET)) < person / 10


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def verifications(
    clock: Clock | None = None, *, count: int = 2, remembered_max: int = 1024, admit_seconds: float = 5.0
) -> AsyncIterator[Verifications]:
    threads = Threads("passwords", count, admit_seconds)
    try:
        yield Verifications(threads, clock=clock or Clock(), remembered_max=remembered_max)
    finally:
        await threads.close()


def test_verifications_when_a_password_was_right_remember_it_for_five_minutes() -> None:
    async def scenario() -> None:
        clock = Clock()
        async with verifications(clock) as checks:
            assert checks.remembered([BCRYPT, ARGON2ID], RIGHT) is None
            assert await checks.verify([SHA256, ARGON2ID], RIGHT) == 1
            assert checks.remembered([ARGON2ID], RIGHT) == 0
            clock.now = 299.0
            assert checks.remembered([BCRYPT, ARGON2ID], RIGHT) == 1
            clock.now = 300.0
            assert checks.remembered([ARGON2ID], RIGHT) is None

    asyncio.run(scenario())


def test_verifications_when_a_password_was_wrong_remember_nothing() -> None:
    async def scenario() -> None:
        async with verifications() as checks:
            assert await checks.verify([ARGON2ID], "wrong") is None
            assert checks.remembered([ARGON2ID], "wrong") is None
            assert checks._right == {}
            assert checks._under_way == {}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("hashes", "text"),
    [
        ([BCRYPT], RIGHT),
        ([ARGON2ID], RIGHT + "x"),
        ([], RIGHT),
        ([ARGON2ID + "\0" + RIGHT], ""),
        ([""], RIGHT),
    ],
)
def test_verifications_when_hash_or_password_is_another_do_not_take_it_for_the_remembered(
    hashes: list[str], text: str
) -> None:
    async def scenario() -> None:
        async with verifications() as checks:
            assert await checks.verify([ARGON2ID], RIGHT) == 0
            assert checks.remembered(hashes, text) is None

    asyncio.run(scenario())


def test_verifications_when_they_remember_keep_neither_password_nor_hash() -> None:
    async def scenario() -> None:
        async with verifications() as one, verifications() as other:
            assert await one.verify([ARGON2ID], RIGHT) == 0
            assert await other.verify([ARGON2ID], RIGHT) == 0
            (tag,) = one._right
            assert len(tag) == 32
            assert tag not in other._right  # a process's own key

    asyncio.run(scenario())


def test_verifications_when_many_are_right_remember_the_newest_of_them() -> None:
    hashes = [bcrypt.hashpw(RIGHT.encode(), bcrypt.gensalt(4)).decode() for _ in range(6)]

    async def scenario() -> None:
        async with verifications(remembered_max=3) as checks:
            for hashed in hashes:
                assert await checks.verify([hashed], RIGHT) == 0
            assert [checks.remembered([hashed], RIGHT) for hashed in hashes] == [None] * 3 + [0] * 3
            assert len(checks._right) == 3

    asyncio.run(scenario())


def test_verifications_when_a_flood_comes_refuse_the_rest_and_let_the_known_pass() -> None:
    slow = passwords.bcrypt_decoy(10)

    async def scenario() -> None:
        async with verifications(count=1, admit_seconds=0.3) as checks:
            assert await checks.verify([ARGON2ID], RIGHT) == 0
            flood = [asyncio.ensure_future(checks.verify([slow], f"wrong {number}")) for number in range(60)]
            await asyncio.sleep(0)
            assert await checks.verify([ARGON2ID], RIGHT) == 0
            assert await checks.verify([SHA256], SECRET) == 0
            assert not any(task.done() for task in flood[1:])
            outcomes = await asyncio.wait_for(ended(flood), 20)
            assert outcomes[0] is None
            assert sum(outcome is ThreadsBusy for outcome in outcomes) > 10

    asyncio.run(scenario())


def test_verifications_when_many_ask_the_same_check_it_once() -> None:
    slow = passwords.bcrypt_decoy(8)

    async def scenario(times: int) -> None:
        async with verifications() as checks:
            tasks = [asyncio.ensure_future(checks.verify([slow], "wrong")) for _ in range(times)]
            assert await ended(tasks) == [None] * times

    once = effort(lambda: asyncio.run(scenario(1)))
    assert effort(lambda: asyncio.run(scenario(50))) < once * 10


def test_verifications_when_one_of_those_who_ask_the_same_leaves_answer_the_other() -> None:
    async def scenario() -> None:
        async with verifications() as checks:
            leaves, stays = (asyncio.ensure_future(checks.verify([BCRYPT], RIGHT)) for _ in range(2))
            await asyncio.sleep(0)
            leaves.cancel()
            assert await stays == 0
            assert leaves.cancelled()
            assert checks.remembered([BCRYPT], RIGHT) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("text", ["", "x" * 1025, "a\0b", "\udcff"])
def test_verifications_when_nobody_can_have_the_password_hash_nothing(text: str) -> None:
    async def scenario() -> None:
        async with verifications() as checks:
            assert await checks.verify([ARGON2ID], text) is None
            assert await checks.verify([], text) is None
            assert checks._threads._threads == []  # none was needed yet

    asyncio.run(scenario())


async def ended(tasks: list[asyncio.Future[int | None]]) -> list[object]:
    """What each came to: its result, or the class of its error."""
    await asyncio.wait(tasks)
    return [type(error) if (error := task.exception()) else task.result() for task in tasks]


def effort(call: Callable[[], object]) -> float:
    """Seconds of processor time in all of the process's threads, which other processes do not add to."""
    begun = process_time()
    call()
    return process_time() - begun
