"""Content digests (OCI image spec, "Digests"): `sha256:<64 hex>` and `sha512:<128 hex>`, nothing else.

A `Digest` can only be built from a well-formed string or from raw hash bytes, so whoever holds one may put it
into a statement, a header or a storage key.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Final

from app.domain.errors import DigestInvalid, DigestUnsupported

# The specification's grammar, of which ours is a part.
_LABEL: Final = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*")
_ENCODED: Final = re.compile(r"[a-zA-Z0-9=_-]+")


class Algorithm(Enum):
    """A registered digest algorithm: `code` is its byte in the database, `size` the raw hash's length in bytes."""

    SHA256 = ("sha256", 1, 32)
    SHA512 = ("sha512", 2, 64)

    def __init__(self, label: str, code: int, size: int) -> None:
        self.label = label
        self.code = code
        self.size = size

    @classmethod
    def parse(cls, text: str) -> Algorithm:
        """The algorithm of that name. Raises DigestInvalid, DigestUnsupported if it is somebody else's."""
        for algorithm in cls:
            if algorithm.label == text:
                return algorithm
        kind = DigestInvalid if _LABEL.fullmatch(text) is None else DigestUnsupported
        raise kind(f"unsupported digest algorithm {text[:32]!r}: use sha256 or sha512")

    @classmethod
    def of_code(cls, code: int) -> Algorithm:
        """The algorithm of a database byte. Raises ValueError if there is none."""
        for algorithm in cls:
            if algorithm.code == code:
                return algorithm
        raise ValueError(f"no digest algorithm has the code {code}")


_PATTERNS: Final = {a.label: re.compile(rf"[a-f0-9]{{{a.size * 2}}}") for a in Algorithm}


@dataclass(frozen=True)
class Digest:
    """A digest. Its text is `algorithm:hex`; `packed` is the database form, one algorithm byte and the raw hash."""

    algorithm: Algorithm
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The digest that `text` spells. Raises DigestInvalid, saying what is wrong with it.

        DigestUnsupported, which is one, if it is well-formed and only its algorithm is not ours.
        """
        label, colon, encoded = text.partition(":")
        if not colon or _ENCODED.fullmatch(encoded) is None:
            raise DigestInvalid(f"{text[:160]!r} is not a digest: expected algorithm:hex")
        algorithm = Algorithm.parse(label)
        if _PATTERNS[label].fullmatch(encoded) is None:
            raise DigestInvalid(
                f"{text[:160]!r} is not a {label} digest: expected {algorithm.size * 2} lower-case hex digits"
            )
        return cls(algorithm, encoded)

    @classmethod
    def unpack(cls, packed: bytes) -> Digest:
        """The digest of its database form. Raises ValueError if the length does not fit the algorithm."""
        algorithm = Algorithm.of_code(packed[0] if packed else 0)
        if len(packed) != algorithm.size + 1:
            raise ValueError(
                f"a packed {algorithm.label} digest has {algorithm.size + 1} bytes, not {len(packed)}"
            )
        return cls(algorithm, packed[1:].hex())

    @classmethod
    def of(cls, content: bytes, algorithm: Algorithm = Algorithm.SHA256) -> Digest:
        """The digest of `content`."""
        return cls(algorithm, hashlib.new(algorithm.label, content).hexdigest())

    @cached_property
    def packed(self) -> bytes:
        """The database form: one algorithm byte and the raw hash."""
        return bytes((self.algorithm.code,)) + bytes.fromhex(self.hex)

    def __str__(self) -> str:
        return f"{self.algorithm.label}:{self.hex}"
