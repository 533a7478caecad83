"""The issuer's own key: made once and whole, kept from others, and what it signs can be verified."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import stat
from typing import TYPE_CHECKING

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)

from app.auth.key_ids import thumbprint
from app.auth.keys import KeyFileError, trusted
from app.auth.signing import ensure_key, new_key, read_signing_key, write_key
from app.runtime.watched import Watched

if TYPE_CHECKING:
    from pathlib import Path

CLAIMS = {"iss": "registry", "sub": "alice", "aud": "here", "access": [{"type": "repository", "name": "é"}]}
ALGORITHMS = ["ES256", "ES384", "EdDSA", "RS256"]


def rotate_key(path: Path, algorithm: str) -> None:
    write_key(path, new_key(algorithm))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "key.pem"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("fold", [str.lower, str])
def test_key_when_made_signs_tokens_that_its_public_half_verifies(
    path: Path, algorithm: str, fold: type
) -> None:
    assert ensure_key(path, fold(algorithm))
    key = read_signing_key(path)
    token = key.sign(CLAIMS)
    assert key.algorithm == algorithm
    assert jwt.get_unverified_header(token) == {"typ": "JWT", "alg": algorithm, "kid": key.kid}
    assert jwt.decode(token, key.public_pem, [algorithm], audience="here") == CLAIMS
    ours = trusted(load_pem_public_key(key.public_pem.encode()), algorithm=algorithm)
    assert key.kid in ours.ids
    if algorithm == "RS256":
        assert load_pem_public_key(key.public_pem.encode()).key_size == 3072


def test_key_when_made_is_its_owners_alone_whatever_the_umask_is(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "in" / "key.pem"
    before = os.umask(0)
    try:
        ensure_key(path, "es256")
    finally:
        os.umask(before)
    assert mode(path) == 0o600
    assert {mode(path.parent), mode(path.parent.parent)} == {0o700}
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert [each.name for each in path.parent.iterdir()] == ["key.pem"]


def test_key_when_it_is_there_stays_as_it_is(path: Path) -> None:
    ensure_key(path, "EdDSA")
    content = path.read_bytes()
    assert not ensure_key(path, "ES256")
    assert path.read_bytes() == content


def test_key_when_it_is_there_is_not_made_so_its_directory_need_not_be_writable(path: Path) -> None:
    ensure_key(path, "ES256")
    # No name of another file fits beside this one.
    assert not ensure_key(path.rename(path.with_name("k" * 250)), "ES256")


def start(path: Path) -> tuple[bool, str]:
    return ensure_key(path, "es256"), read_signing_key(path).kid


def test_key_when_several_processes_start_at_once_is_the_same_for_all(path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        outcomes = pool.map(start, [path] * 32, chunksize=1)
    assert sum(made for made, _ in outcomes) == 1
    assert len({kid for _, kid in outcomes}) == 1
    assert [each.name for each in path.parent.iterdir()] == ["key.pem"]


def test_key_when_rotated_is_another_in_the_same_hands(path: Path) -> None:
    ensure_key(path, "ES256")
    before, content = read_signing_key(path), path.read_bytes()
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
    owners = path.stat().st_uid, path.stat().st_gid
    rotate_key(path, "EdDSA")
    after = read_signing_key(path)
    assert (after.algorithm, mode(path)) == ("EdDSA", 0o640)
    assert after.kid != before.kid
    assert (path.stat().st_uid, path.stat().st_gid) == owners
    assert content not in b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert [each.name for each in path.parent.iterdir()] == ["key.pem"]


def test_key_when_rotated_through_a_link_is_changed_where_it_is(tmp_path: Path, path: Path) -> None:
    ensure_key(tmp_path / "real", "ES256")
    path.symlink_to("real")
    before = read_signing_key(path).kid
    rotate_key(path, "ES256")
    assert path.is_symlink()
    assert read_signing_key(tmp_path / "real").kid == read_signing_key(path).kid != before


def test_key_when_watched_is_followed(path: Path) -> None:
    times = iter(range(100))
    ensure_key(path, "ES256")
    key = Watched(
        [path], lambda: read_signing_key(path), told=(KeyFileError,), clock=lambda: float(next(times))
    )
    before = key.current().kid
    rotate_key(path, "ES256")
    assert key.current().kid == read_signing_key(path).kid != before


@pytest.mark.parametrize("bits", [0o644, 0o604, 0o602, 0o666])
def test_key_when_everybody_can_read_or_change_it_is_refused_with_the_remedy(path: Path, bits: int) -> None:
    ensure_key(path, "ES256")
    path.chmod(bits)
    with pytest.raises(KeyFileError, match=f"run: chmod 600 {path}"):
        read_signing_key(path)
    path.chmod(0o600)
    read_signing_key(path)


@pytest.mark.parametrize("bits", [0o400, 0o440, 0o640, 0o660])
def test_key_when_a_group_may_read_it_is_taken(path: Path, bits: int) -> None:
    ensure_key(path, "ES256")
    path.chmod(bits)
    read_signing_key(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_key_when_it_belongs_to_somebody_else_keeps_the_mode_that_they_chose(path: Path) -> None:
    ensure_key(path, "ES256")
    path.chmod(0o644)
    os.chown(path, 12345, 12345)
    read_signing_key(path)


UNFIT = {
    "rsa-1024": lambda: rsa.generate_private_key(65537, 1024),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "p-224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "ed448": ed448.Ed448PrivateKey.generate,
    "x25519": x25519.X25519PrivateKey.generate,
    "dsa": lambda: dsa.generate_private_key(1024),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_key_when_weak_or_of_another_kind_is_refused(path: Path, kind: str) -> None:
    write(path, UNFIT[kind]())
    with pytest.raises(KeyFileError, match="too weak or of a kind that cannot sign tokens"):
        read_signing_key(path)


@pytest.mark.parametrize(
    ("form", "before"),
    [
        (PrivateFormat.PKCS8, b""),
        (PrivateFormat.TraditionalOpenSSL, b""),
        # As `openssl ecparam -genkey` writes it.
        (
            PrivateFormat.TraditionalOpenSSL,
            b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n",
        ),
    ],
)
def test_key_when_openssl_made_it_is_read(path: Path, form: PrivateFormat, before: bytes) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(before + key.private_bytes(Encoding.PEM, form, NoEncryption()))
    path.chmod(0o600)
    assert read_signing_key(path).kid == thumbprint(key.public_key())


def test_key_when_on_p_521_signs_with_its_own_algorithm(path: Path) -> None:
    write(path, ec.generate_private_key(ec.SECP521R1()))
    key = read_signing_key(path)
    assert jwt.decode(key.sign(CLAIMS), key.public_pem, ["ES512"], audience="here") == CLAIMS


def test_key_when_protected_by_a_password_says_how_to_take_it_off(path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="protected by a password"):
        read_signing_key(path)


@pytest.mark.parametrize(
    "content", [b"", b"s3cret-canary", b"\xff" * 100, b"x" * 100_000, "public", "cut", None]
)
def test_key_when_there_is_none_in_the_file_says_so_without_its_content(
    tmp_path: Path, path: Path, content: bytes | str | None
) -> None:
    ensure_key(tmp_path / "other", "ES256")
    if content == "public":
        content = read_signing_key(tmp_path / "other").public_pem.encode()
    elif content == "cut":
        content = (tmp_path / "other").read_bytes()[:100]
    if isinstance(content, bytes):
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(KeyFileError) as refusal:
        read_signing_key(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "canary" not in str(refusal.value)
    assert len(str(refusal.value)) < len(str(path)) + 80


@pytest.mark.parametrize("call", [ensure_key, rotate_key])
def test_key_when_it_cannot_be_written_says_where(tmp_path: Path, call: object) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match=r"/file/key: the key cannot be (made|replaced): .*/file"):
        call(tmp_path / "file" / "key", "ES256")  # type: ignore[operator]


def test_key_when_printed_or_pickled_gives_nothing_away(path: Path) -> None:
    ensure_key(path, "EdDSA")
    key = read_signing_key(path)
    assert repr(key) == str(key) == f"<SigningKey {key.kid} EdDSA>"
    with pytest.raises(TypeError):
        pickle.dumps(key)


def write(path: Path, key: object) -> None:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))  # type: ignore[attr-defined]
    path.chmod(0o600)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
