"""TLS from the configuration, and the sentences for what can be wrong with it."""

from __future__ import annotations

import ssl
import subprocess
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

from app.config.load import load
from app.server.errors import ServerError
from app.server.tls import server_context
from tests.server.certificates import root
from tests.server.harness import Running, registry, starting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.needs("openssl")


EC: Final = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")


def certificate(directory: Path, name: str, *options: str, key: Sequence[str] = EC) -> dict[str, str]:
    """A certificate and its key: signed by itself unless `options` say otherwise."""
    files = {"certificate": str(directory / f"{name}.pem"), "key": str(directory / f"{name}.key")}
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", *key, "-nodes"),
            *("-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-out", files["certificate"], "-keyout", files["key"], *options),
        ],
        check=True,
        capture_output=True,
    )
    return files


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    return certificate(tmp_path, "server")


def trusting(files: dict[str, str], **options: Any) -> httpx.Client:
    return httpx.Client(verify=ssl.create_default_context(cafile=files["certificate"]), timeout=20, **options)


def test_tls_when_the_client_speaks_http2_then_both_do(tmp_path: Path, own: dict[str, str]) -> None:
    with registry(tmp_path, tls=own, workers=1) as running:
        assert running.url.startswith("https://")
        with trusting(own, http2=True) as client:
            said = client.get(f"{running.url}/who").json()
            assert (said["protocol"], said["scheme"]) == ("2", "https")
            body = bytes(3 * 1024 * 1024)
            assert client.put(f"{running.url}/count", content=body).text == str(len(body))
        with trusting(own) as client:
            assert client.get(f"{running.url}/who").json()["protocol"] == "1.1"
        assert running.stop() == 0
        assert "Traceback" not in running.log


def test_tls_when_http2_is_disabled_then_clients_get_http_1(tmp_path: Path, own: dict[str, str]) -> None:
    with (
        registry(tmp_path, tls=own, http2={"disabled": True}, workers=1) as running,
        trusting(own, http2=True) as client,
    ):
        assert client.get(f"{running.url}/who").json()["protocol"] == "1.1"


def test_tls_when_the_minimum_is_1_3_then_1_2_is_refused(tmp_path: Path, own: dict[str, str]) -> None:
    context = ssl.create_default_context(cafile=own["certificate"])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with registry(tmp_path, tls={**own, "minimumtls": "tls1.3"}, workers=1) as running:
        with httpx.Client(verify=context) as client, pytest.raises(httpx.ConnectError):
            client.get(f"{running.url}/who")
        with trusting(own) as client:
            assert client.get(f"{running.url}/who").status_code == 200
        # A failed handshake is the client's affair.
        assert "ERROR" not in running.log


def test_stop_when_a_client_keeps_an_idle_connection_then_it_is_not_waited_for(
    tmp_path: Path, own: dict[str, str]
) -> None:
    """With TLS a client has to answer the goodbye, and one that does nothing just then does not."""
    with registry(tmp_path, tls=own, workers=1) as running, trusting(own, http2=True) as client:
        assert client.get(f"{running.url}/who").status_code == 200
        assert running.stop() == 0
        assert "cut" not in running.log
        assert "Traceback" not in running.log


@pytest.mark.parametrize(
    ("mode", "without"), [("require-and-verify-client-cert", False), ("verify-client-cert-if-given", True)]
)
def test_client_certificates_when_they_are_asked_for_then_only_good_ones_pass(
    tmp_path: Path, own: dict[str, str], mode: str, without: bool
) -> None:
    good, bad = certificate(tmp_path, "client"), certificate(tmp_path, "stranger")
    tls = {**own, "clientcas": [good["certificate"]], "clientauth": mode}
    with registry(tmp_path, tls=tls, workers=1) as running:
        assert passes(running.url, own, good)
        assert not passes(running.url, own, bad)
        assert passes(running.url, own, None) is without


def test_client_certificates_when_their_ca_is_no_root_then_its_own_pass_and_its_issuer_s_do_not(
    tmp_path: Path, own: dict[str, str]
) -> None:
    company = root("company")
    department = company.issue("department", ca=True)
    (tmp_path / "ca.pem").write_bytes(department.pem)
    tls = {**own, "clientcas": [str(tmp_path / "ca.pem")]}
    with registry(tmp_path, tls=tls, workers=1) as running:
        assert passes(running.url, own, department.issue("one").written(tmp_path, "one"))
        assert not passes(running.url, own, company.issue("other").written(tmp_path, "other"))


def test_tls_when_cipher_suites_are_named_then_1_2_has_no_others(own: dict[str, str]) -> None:
    suites = ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]
    named, usual = context({**own, "ciphersuites": suites}), context(own)

    # The first of ours that the client has, not the client's first.
    assert chosen(named, own, "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305") == (
        "ECDHE-ECDSA-CHACHA20-POLY1305"
    )
    assert chosen(named, own, "ECDHE-ECDSA-AES128-GCM-SHA256") == "ECDHE-ECDSA-AES128-GCM-SHA256"
    assert chosen(named, own, "ECDHE-ECDSA-AES256-GCM-SHA384") is None
    assert chosen(usual, own, "ECDHE-ECDSA-AES256-GCM-SHA384") == "ECDHE-ECDSA-AES256-GCM-SHA384"
    assert chosen(usual, own, "ECDHE-ECDSA-AES128-SHA256") is None


def context(tls: dict[str, Any]) -> ssl.SSLContext:
    """What a worker serves with."""
    base = {"http": {"addr": ":5000", "tls": tls}, "storage": "inmemory"}
    made = server_context(load(None, {}, base=base).settings)
    assert made is not None
    return made


def chosen(server: ssl.SSLContext, files: dict[str, str], offered: str) -> str | None:
    """The TLS 1.2 cipher that both agree on, None if they do not."""
    client = ssl.create_default_context(cafile=files["certificate"])
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(offered)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(back, there, server_hostname="localhost"),
        server.wrap_bio(there, back, server_side=True),
    )
    cipher = ends[0].cipher() if shake(*ends) else None
    return cipher[0] if cipher is not None else None


def shake(*ends: ssl.SSLObject) -> bool:
    """Have both ends find to each other; whether they did."""
    for end in ends * 3:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError:
            return False
    return True


def test_key_when_it_is_of_another_kind_than_the_certificate_then_the_sentence_says_so(
    tmp_path: Path, own: dict[str, str]
) -> None:
    rsa = tmp_path / "rsa.key"
    subprocess.run(["openssl", "genrsa", "-out", rsa, "2048"], check=True, capture_output=True)

    with pytest.raises(ServerError, match=f"{rsa} does not belong to the certificate in"):
        context({**own, "key": str(rsa)})


@pytest.mark.parametrize("key", [("rsa:2048",), ("ed25519",), ("rsa:1024",)])
def test_key_when_it_is_of_any_kind_then_is_served_with_unless_it_is_weak(
    tmp_path: Path, key: Sequence[str]
) -> None:
    files = certificate(tmp_path, "server", key=key)
    if key == ("rsa:1024",):
        with pytest.raises(ServerError, match=r"server.pem is too weak for clients of today"):
            context(files)
        return
    client, (there, back) = (
        ssl.create_default_context(cafile=files["certificate"]),
        (ssl.MemoryBIO(), ssl.MemoryBIO()),
    )
    ends = (
        client.wrap_bio(back, there, server_hostname="localhost"),
        context(files).wrap_bio(there, back, server_side=True),
    )
    shake(*ends)
    assert ends[0].version() == "TLSv1.3"


def said_by_openssl(running: Running, *options: str, given: bytes = b"") -> str:
    """What `openssl s_client` says of a connection."""
    host, port = running.address
    words = ["openssl", "s_client", "-connect", f"{host}:{port}", "-cipher", "ALL:@SECLEVEL=0", *options]
    done = subprocess.run(words, input=given, capture_output=True, timeout=60, check=False)
    return (done.stdout + done.stderr).decode(errors="replace")


def test_tls_when_the_client_wants_what_is_no_longer_safe_then_it_does_not_get_it(
    tmp_path: Path, own: dict[str, str]
) -> None:
    with registry(tmp_path, tls=own, workers=1) as running:
        for version in ("-tls1", "-tls1_1"):
            assert "Cipher is (NONE)" in said_by_openssl(running, version)
        # A client that asks for new keys in the midst of a connection is told no.
        again = said_by_openssl(running, "-tls1_2", given=b"R\n")
        assert "New, TLSv1.2, Cipher is ECDHE" in again
        assert "no renegotiation" in again
        assert running.stop() == 0
        assert "ERROR" not in running.log


def passes(url: str, server: dict[str, str], client: dict[str, str] | None) -> bool:
    context = ssl.create_default_context(cafile=server["certificate"])
    if client is not None:
        context.load_cert_chain(client["certificate"], client["key"])
    try:
        with httpx.Client(verify=context) as caller:
            return caller.get(f"{url}/who").status_code == 200
    except httpx.TransportError:
        return False


def test_start_when_the_tls_files_are_wrong_then_one_sentence_names_the_key(
    tmp_path: Path, own: dict[str, str]
) -> None:
    other = certificate(tmp_path, "other")
    locked = certificate(tmp_path, "locked")
    subprocess.run(
        [
            "openssl",
            "ec",
            "-aes128",
            "-passout",
            "pass:x",
            "-in",
            locked["key"],
            "-out",
            f"{locked['key']}.x",
        ],
        check=True,
        capture_output=True,
    )
    text = tmp_path / "text"
    text.write_text("no certificate")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({**own, "certificate": "/nowhere"}, "http.tls.certificate: /nowhere cannot be read: No such file"),
        ({**own, "key": "/nowhere"}, "http.tls.key: /nowhere cannot be read: No such file"),
        ({**own, "key": other["key"]}, f"http.tls.key: {other['key']} does not belong to the certificate"),
        ({**own, "certificate": str(text)}, "must hold a certificate chain and its private key in PEM form"),
        ({**locked, "key": f"{locked['key']}.x"}, "is protected by a password"),
        ({**own, "clientcas": [str(text)]}, f"http.tls.clientcas: {text} holds no certificates in PEM form"),
        (
            {**own, "clientcas": [own["certificate"]], "clientauth": "require-any-client-cert"},
            "http.tls.clientauth: require-any-client-cert is not supported",
        ),
    ]
    for tls, sentence in wrong:
        with starting(tmp_path, tls=tls) as running:
            assert running.process.wait(60) == 1
            assert sentence in running.log
            assert running.log.count("\n") == 1
