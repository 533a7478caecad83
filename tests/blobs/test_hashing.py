"""Running hashes, stopped and resumed anywhere, against hashlib."""

from __future__ import annotations

import asyncio
import ctypes.util
import hashlib
import struct
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.blobs import hashing
from app.blobs.hashing import Hasher, is_resumable, new_hasher, resume_hasher
from app.domain.digest import Algorithm, Digest
from app.domain.limits import INLINE_HASH_BYTES_MAX
from app.runtime.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable

STATE_BYTES = {Algorithm.SHA256: 106, Algorithm.SHA512: 202}
BLOCK_BYTES = {Algorithm.SHA256: 64, Algorithm.SHA512: 128}
# Where the words begin, and where the pending bytes do.
WORDS, PENDING = 10, {Algorithm.SHA256: 42, Algorithm.SHA512: 74}

each_algorithm = pytest.mark.parametrize("algorithm", list(Algorithm), ids=lambda one: one.label)
needs_states = pytest.mark.skipif(
    not is_resumable(), reason="this machine has no libcrypto to resume hashes with"
)


def state_of(hasher: Hasher) -> bytes:
    state = hasher.state()
    assert state is not None
    return state


def state_after(algorithm: Algorithm, content: bytes) -> bytes:
    hasher = new_hasher(algorithm)
    hasher.update(content)
    return state_of(hasher)


def with_total(state: bytes, total: int) -> bytes:
    return state[:2] + struct.pack(">Q", total) + state[10:]


@pytest.mark.skipif(sys.platform != "linux", reason="libcrypto is used on Linux only")
def test_hashers_when_on_linux_with_libcrypto_then_they_are_resumable() -> None:
    assert is_resumable() or ctypes.util.find_library("crypto") is None


@needs_states
@each_algorithm
@settings(max_examples=200, deadline=None)
@given(blocks=st.lists(st.binary(max_size=300), max_size=12))
def test_resume_when_stopped_at_every_split_then_the_digest_is_hashlibs(
    algorithm: Algorithm, blocks: list[bytes]
) -> None:
    hasher, expected = new_hasher(algorithm), hashlib.new(algorithm.label)
    assert len(state_of(hasher)) == STATE_BYTES[algorithm]
    for block in blocks:
        hasher = resume_hasher(algorithm, state_of(hasher))
        hasher.update(block)
        expected.update(block)
        assert hasher.digest() == Digest(algorithm, expected.hexdigest())
        assert hasher.digest() == resume_hasher(algorithm, state_of(hasher)).digest()


@needs_states
@each_algorithm
def test_resume_when_stopped_at_each_length_of_three_blocks_then_the_digest_is_hashlibs(
    algorithm: Algorithm,
) -> None:
    content = bytes(range(256)) * 2
    for length in range(3 * BLOCK_BYTES[algorithm] + 1):
        state = state_after(algorithm, content[:length])
        assert len(state) == STATE_BYTES[algorithm]
        hasher = resume_hasher(algorithm, state)
        assert state_of(hasher) == state
        hasher.update(content[length:])
        assert hasher.digest() == Digest.of(content, algorithm)


@needs_states
def test_state_when_it_is_stored_then_its_layout_is_the_documented_one() -> None:
    start = "01 01 0000000000000000 6a09e667 bb67ae85 3c6ef372 a54ff53a 510e527f 9b05688c 1f83d9ab 5be0cd19"
    assert state_after(Algorithm.SHA256, b"") == bytes.fromhex(start) + bytes(64)
    assert state_after(Algorithm.SHA256, b"abc") == (
        with_total(bytes.fromhex(start), 3) + b"abc".ljust(64, b"\0")
    )
    wide = state_after(Algorithm.SHA512, b"abc")
    assert wide[:18] == bytes.fromhex("01 02 0000000000000003 6a09e667f3bcc908")
    assert wide[PENDING[Algorithm.SHA512] :] == b"abc".ljust(128, b"\0")


@needs_states
@each_algorithm
def test_state_when_earlier_blocks_were_longer_then_none_of_their_bytes_is_in_it(
    algorithm: Algorithm,
) -> None:
    hasher = new_hasher(algorithm)
    for _ in range(BLOCK_BYTES[algorithm] - 1):
        hasher.update(b"S")
    hasher.update(b"12")
    assert state_of(hasher)[PENDING[algorithm] :] == b"2".ljust(BLOCK_BYTES[algorithm], b"\0")


@needs_states
@each_algorithm
def test_resume_when_terabytes_were_hashed_then_the_count_is_kept(algorithm: Algorithm) -> None:
    for total in (2**29, 2**32, 2**40, 2**61 - BLOCK_BYTES[algorithm]):
        state = with_total(state_after(algorithm, b"x" * 256), total)
        hasher = resume_hasher(algorithm, state)
        assert state_of(hasher) == state


@needs_states
@each_algorithm
@pytest.mark.parametrize(
    ("what", "spoil"),
    [
        ("empty", lambda state, block: b""),
        ("cut off", lambda state, block: state[:-1]),
        ("longer", lambda state, block: state + b"\0"),
        ("another version", lambda state, block: b"\2" + state[1:]),
        ("no algorithm", lambda state, block: state[:1] + b"\0" + state[2:]),
        ("the other algorithm", lambda state, block: state[:1] + bytes((3 - state[1],)) + state[2:]),
        ("a count below the pending bytes", lambda state, block: with_total(state, block + 4)),
        ("a count that leaves nothing pending", with_total),
        ("a count of no full block", lambda state, block: with_total(state, 5)),
        ("a count beyond the algorithm's", lambda state, block: with_total(state, 2**61 + 5)),
        ("the largest count", lambda state, block: with_total(state, 2**64 - 1)),
        ("a byte behind the pending ones", lambda state, block: state[:-1] + b"\1"),
    ],
)
def test_resume_when_the_state_is_not_well_formed_then_it_is_refused(
    algorithm: Algorithm, what: str, spoil: Callable[[bytes, int], bytes]
) -> None:
    block = BLOCK_BYTES[algorithm]
    state = state_after(algorithm, b"x" * (block + 5))
    resume_hasher(algorithm, state)
    with pytest.raises(ValueError, match="state"):
        resume_hasher(algorithm, spoil(state, block))


@needs_states
@each_algorithm
def test_resume_when_no_full_block_was_seen_then_other_words_are_refused(algorithm: Algorithm) -> None:
    state = state_after(algorithm, b"x")
    with pytest.raises(ValueError, match="beginning"):
        resume_hasher(algorithm, state[:WORDS] + bytes([state[WORDS] ^ 1]) + state[WORDS + 1 :])


@needs_states
def test_resume_when_the_state_is_of_the_other_algorithm_then_it_is_refused() -> None:
    with pytest.raises(ValueError, match="a stored sha512 state has 202 bytes, not 106"):
        resume_hasher(Algorithm.SHA512, state_after(Algorithm.SHA256, b"x"))


@needs_states
@each_algorithm
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_resume_when_the_state_is_noise_then_it_is_refused_or_works(
    algorithm: Algorithm, data: st.DataObject
) -> None:
    size = STATE_BYTES[algorithm]
    noise = bytes((1, algorithm.code)) + data.draw(st.binary(min_size=size - 2, max_size=size - 2))
    try:
        hasher = resume_hasher(algorithm, noise)
    except ValueError:
        return
    hasher.update(b"x" * 1000)
    hasher.digest()


@each_algorithm
def test_fallback_when_libcrypto_is_not_there_then_it_hashes_and_has_no_state(algorithm: Algorithm) -> None:
    hasher = hashing._new(None, algorithm)
    hasher.update(b"one ")
    assert hasher.digest() == Digest.of(b"one ", algorithm)
    hasher.update(b"two")
    assert hasher.digest() == Digest.of(b"one two", algorithm)
    assert hasher.state() is None
    with pytest.raises(ValueError, match="cannot resume"):
        hashing._resume(None, algorithm, bytes(STATE_BYTES[algorithm]))


def test_load_when_no_library_serves_then_there_is_none() -> None:
    without_symbols = ctypes.util.find_library("c") or "libc"
    assert hashing._load([]) is None
    assert hashing._load(["/does/not/exist.so", without_symbols]) is None


@needs_states
def test_self_test_when_a_function_does_not_do_its_part_then_the_library_is_refused() -> None:
    library = hashing._library()
    assert library is not None
    assert hashing._is_sound(library)
    narrow, wide = library[Algorithm.SHA256], library[Algorithm.SHA512]
    for broken in (
        replace(narrow, init=lambda context: 1),
        replace(narrow, update=lambda context, block, size: 1),
        replace(narrow, update=lambda context, block, size: narrow.update(context, block, min(size, 100))),
        replace(narrow, final=lambda raw, context: 1),
        replace(narrow, init=wide.init),
        replace(wide, final=narrow.final),
    ):
        assert not hashing._is_sound({Algorithm.SHA256: broken, Algorithm.SHA512: wide})


def test_import_when_nothing_is_hashed_then_no_library_is_chosen() -> None:
    code = "from app.blobs import hashing; assert hashing._library.cache_info().currsize == 0"
    subprocess.run([sys.executable, "-c", code], check=True)


@each_algorithm
@pytest.mark.parametrize("size", [0, 1, INLINE_HASH_BYTES_MAX, INLINE_HASH_BYTES_MAX + 1])
def test_update_when_a_block_is_large_then_it_is_hashed_in_a_thread(algorithm: Algorithm, size: int) -> None:
    class Witness:
        thread = ""

        def __init__(self) -> None:
            self.hasher = new_hasher(algorithm)

        def update(self, block: bytes) -> None:
            self.thread = threading.current_thread().name
            self.hasher.update(block)

        def state(self) -> bytes | None:
            return self.hasher.state()

        def digest(self) -> Digest:
            return self.hasher.digest()

    async def scenario() -> None:
        threads, hasher = Threads("hash", 1), Witness()
        await hashing.update(hasher, b"x" * size, threads)
        await threads.close()
        assert hasher.digest() == Digest.of(b"x" * size, algorithm)
        assert hasher.thread.startswith("hash") == (size > INLINE_HASH_BYTES_MAX)

    asyncio.run(scenario())
