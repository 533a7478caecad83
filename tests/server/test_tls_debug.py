"""The debug address over TLS: with the API's certificate or its own, renewed as well, and for known clients alone."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from app.config.load import load
from app.config.problems import ConfigError
from app.server.tls import debug_context
from tests.server.certificates import Identity, replace, root
from tests.server.harness import eventually, registry, starting

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY = root("registry root")


def health(url: str, client: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and protocol. Raises httpx.TransportError if there is no answer."""
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    if client is not None:
        context.load_cert_chain(client["certificate"], client["key"])
    with httpx.Client(verify=context, http2=True, timeout=20) as caller:
        answer = caller.get(f"{url}/debug/health")
        return answer.status_code, answer.http_version


def debug(**tls: Any) -> dict[str, Any]:
    return {"addr": "127.0.0.1:0", "tls": {"enabled": True, **tls}}


def certificate_of(url: str) -> str:
    host, _, port = url.rpartition("/")[2].rpartition(":")
    return ssl.get_server_certificate((host, int(port)))


def pem(identity: Identity) -> str:
    return ssl.DER_cert_to_PEM_cert(identity.der)


def test_debug_address_when_it_has_tls_then_serves_the_api_s_certificate_and_renews_it(
    tmp_path: Path,
) -> None:
    old, new = AUTHORITY.issue("old"), AUTHORITY.issue("new")
    files = old.written(tmp_path, "server")
    with registry(tmp_path, tls=files, debug=debug(), workers=1) as running:
        url = running.debug.replace("http:", "https:")
        assert f"health and metrics are at {url}" in running.log
        assert health(url) == (200, "HTTP/2")
        assert certificate_of(url) == pem(old)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{running.debug}/debug/health")
        replace(tmp_path / "server.crt", new.chain)
        replace(tmp_path / "server.key", new.key_pem)
        eventually(lambda: certificate_of(url) == pem(new))
        assert health(url) == (200, "HTTP/2")
        assert running.stop() == 0
        assert "Traceback" not in running.log
        assert "ERROR" not in running.log


def test_debug_address_when_it_has_its_own_certificate_and_clients_then_others_are_refused(
    tmp_path: Path,
) -> None:
    own, clients = AUTHORITY.issue("debug"), root("clients")
    cas = tmp_path / "clients.pem"
    cas.write_bytes(clients.pem)
    tls = debug(**own.written(tmp_path, "debug"), clientcas=[str(cas)])
    known = clients.issue("prometheus").written(tmp_path, "prometheus")
    stranger = root("others").issue("stranger").written(tmp_path, "stranger")
    with registry(tmp_path, debug=tls, workers=1) as running:
        url = running.debug.replace("http:", "https:")
        assert running.url.startswith("http:")
        assert health(url, known) == (200, "HTTP/2")
        for nobody in (None, stranger):
            with pytest.raises(httpx.TransportError):
                health(url, nobody)


def test_start_when_the_debug_certificate_is_wrong_then_one_sentence_names_the_key(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no certificate")
    files = AUTHORITY.issue("debug").written(tmp_path, "debug")
    for tls, sentence in [
        (debug(**{**files, "key": str(text)}), "http.debug.tls: "),
        (debug(**files, clientcas=["/nowhere"]), "http.debug.tls.clientcas: /nowhere cannot be read"),
    ]:
        with starting(tmp_path, debug=tls) as running:
            assert running.process.wait(60) == 1
            assert sentence in running.log
            assert running.log.count("\n") == 1


def loaded(**http: Any) -> Any:
    sections = {"http": {"addr": ":5000", **http}, "storage": "inmemory", "database": {"host": "db"}}
    return load(None, {}, base=sections).settings


def test_debug_tls_when_something_is_missing_then_the_sentence_says_which_key() -> None:
    for tls, sentence in [
        ({"enabled": True}, "http.debug.tls.certificate: required, because http.debug.tls.enabled is set"),
        ({"certificate": "x"}, "http.debug.tls.key: required, because http.debug.tls.certificate is set"),
        ({"enabled": True, "minimumtls": "tls1.0"}, "http.debug.tls.minimumtls: must be tls1.2 or tls1.3"),
    ]:
        with pytest.raises(ConfigError) as caught:
            loaded(debug={"addr": ":5001", "tls": tls})
        assert str(caught.value).startswith(sentence)


def test_debug_tls_when_it_does_not_say_then_is_as_strict_as_the_api_s() -> None:
    api = {"certificate": "c", "key": "k", "minimumtls": "tls1.3", "clientcas": ["ca"]}
    settings = loaded(tls=api, debug={"addr": ":5001", "tls": {"enabled": True}})

    tls = settings.http.debug_tls
    assert settings.unserved() == ()
    assert (tls.certificate, tls.key, tls.minimumtls) == ("c", "k", "tls1.3")
    # Probes have no certificates.
    assert tls.clientcas == ()


def test_debug_tls_when_there_is_no_debug_address_then_nothing_is_read() -> None:
    assert debug_context(loaded(debug={"tls": {"enabled": True, "certificate": "c", "key": "k"}})) is None
