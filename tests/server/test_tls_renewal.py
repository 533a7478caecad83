"""Certificates that are replaced under a running registry: who comes later gets the new one; nobody is cut off."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.server.certificates import Identity, replace, root
from tests.server.harness import PATIENCE_SECONDS, Running, eventually, registry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
AUTHORITY = root("registry root")


class Call:
    """An encrypted connection and what is known of it."""

    def __init__(self, running: Running, context: ssl.SSLContext, session: Any = None) -> None:
        plain = socket.create_connection(running.address, PATIENCE_SECONDS)
        try:
            self.tls = context.wrap_socket(plain, server_hostname="localhost", session=session)
        except OSError:
            plain.close()
            raise
        self.certificate = self.tls.getpeercert(binary_form=True)

    def who(self) -> dict[str, Any]:
        """The answer of `/who`. Raises OSError if there is none."""
        self.tls.sendall(b"GET /who HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while not received.endswith(b"}"):
            if not (part := self.tls.recv(65536)):
                raise ConnectionError("closed without an answer")
            received += part
        return json.loads(received.partition(b"\r\n\r\n")[2])


@contextmanager
def call(running: Running, context: ssl.SSLContext, session: Any = None) -> Generator[Call]:
    made = Call(running, context, session)
    try:
        yield made
    finally:
        made.tls.close()


def caller(version: ssl.TLSVersion = TLS_1_3, identity: Path | None = None) -> ssl.SSLContext:
    """A client that knows the root alone: the server must send the intermediate, too."""
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    context.minimum_version = context.maximum_version = version
    if identity is not None:
        context.load_cert_chain(identity)
    return context


def server() -> Identity:
    return AUTHORITY.issue("intermediate", ca=True).issue("server")


def served(running: Running, context: ssl.SSLContext) -> bytes | None:
    with call(running, context) as made:
        return made.certificate


def kubernetes(directory: Path, name: str, identity: Identity) -> dict[str, str]:
    """A secret as it is mounted: `tls.crt` leads to `..data/tls.crt`, and `..data` to one generation of all files."""
    generation = directory / name
    generation.mkdir(parents=True)
    (generation / "tls.crt").write_bytes(identity.chain)
    (generation / "tls.key").write_bytes(identity.key_pem)
    fresh = directory / "..data_tmp"
    fresh.symlink_to(name)
    fresh.replace(directory / "..data")
    for file in ("tls.crt", "tls.key"):
        if not (directory / file).is_symlink():
            (directory / file).symlink_to(f"..data/{file}")
    return {"certificate": str(directory / "tls.crt"), "key": str(directory / "tls.key")}


def test_certificate_when_it_is_replaced_then_all_workers_serve_the_new_one_and_no_connection_fails(
    tmp_path: Path,
) -> None:
    old, new = server(), server()
    files = kubernetes(tmp_path / "secret", "one", old)
    contexts = [caller(TLS_1_2), caller(TLS_1_3)]
    with registry(tmp_path, tls=files) as running:
        http2 = httpx.Client(verify=caller(), http2=True)
        assert all(served(running, context) == old.der for context in contexts)
        with (
            http2,
            call(running, contexts[0]) as early,
            call(running, contexts[1]) as early_too,
            busy(running),
        ):
            assert http2.get(f"{running.url}/who").json()["protocol"] == "2"
            kubernetes(tmp_path / "secret", "two", new)

            renewed: set[int] = set()

            def everywhere() -> bool:
                for context in contexts:
                    with call(running, context) as made:
                        if made.certificate == new.der:
                            renewed.add(made.who()["process"])
                return len(renewed) == 2

            eventually(everywhere)
            assert [served(running, context) for context in contexts * 8] == [new.der] * 16
            # Who was there goes on.
            assert early.who()["scheme"] == early_too.who()["scheme"] == "https"
            assert http2.get(f"{running.url}/who").status_code == 200
        with httpx.Client(verify=caller(), http2=True) as fresh:
            assert fresh.get(f"{running.url}/who").json()["protocol"] == "2"
        assert len(running.workers()) == 2
        assert running.stop() == 0
        assert "WARN" not in running.log
        assert "ERROR" not in running.log


@contextmanager
def busy(running: Running) -> Generator[None]:
    """Somebody connects all the time, and is always served."""
    stopping, failures, answers = threading.Event(), list[str](), list[int]()
    context = caller()

    def keep_on() -> None:
        while not stopping.wait(0.02):
            try:
                with call(running, context) as made:
                    answers.append(made.who()["process"])
            except OSError as error:
                failures.append(str(error))

    thread = threading.Thread(target=keep_on)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
    assert failures == []
    assert answers


def test_certificate_when_what_replaces_it_is_no_good_then_the_old_one_stays_until_it_is(
    tmp_path: Path,
) -> None:
    old, new = server(), server()
    files = old.written(tmp_path, "server")
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    with registry(tmp_path, tls=files, workers=1) as running:
        assert served(running, caller()) == old.der
        for spoil, sentence in [
            (
                lambda: replace(certificate, old.chain[:300]),
                "must hold a certificate chain and its private",
            ),
            (certificate.unlink, f"{certificate}: No such file or directory"),
            (lambda: replace(certificate, new.chain), f"{key} does not belong to the certificate in"),
        ]:
            spoil()
            until(lambda: sentence in running.log, running, old)  # noqa: B023
        replace(key, new.key_pem)
        until(lambda: served(running, caller()) == new.der, running, old, new)
        assert running.log.count("WARN") == 3
        assert "BEGIN" not in running.log
        assert "Traceback" not in running.log


def until(condition: Callable[[], bool], running: Running, *expected: Identity) -> None:
    """Wait for `condition`; until then nobody is served with another certificate than those expected."""

    def served_and_holds() -> bool:
        assert served(running, caller()) in [identity.der for identity in expected]
        return condition()

    eventually(served_and_holds)


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
def test_client_ca_when_it_is_removed_then_its_clients_are_refused_even_with_a_session(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    before, after = root("before"), root("after")
    cas = tmp_path / "clients.pem"
    cas.write_bytes(before.pem)
    tls = {**server().written(tmp_path, "server"), "clientcas": [str(cas)]}
    leaving = caller(version, together(tmp_path, before.issue("leaving")))
    coming = caller(version, together(tmp_path, after.issue("coming")))
    with registry(tmp_path, tls=tls, workers=1) as running:
        with call(running, leaving) as first:
            assert first.who()
            session = first.tls.session
        assert resumed(running, leaving, session) is True
        assert resumed(running, coming, None) is None
        with call(running, leaving) as early:
            replace(cas, after.pem)
            eventually(lambda: resumed(running, coming, None) is False)
            assert early.who()
        assert resumed(running, leaving, session) is None
        assert resumed(running, leaving, None) is None
        assert "ERROR" not in running.log


def together(directory: Path, identity: Identity) -> Path:
    """Certificate and key in one file, as clients may have it."""
    file = directory / f"{identity.certificate.serial_number}.pem"
    file.write_bytes(identity.chain + identity.key_pem)
    return file


def resumed(running: Running, context: ssl.SSLContext, session: Any) -> bool | None:
    """Whether a session was taken up again; None if the client was not let in."""
    try:
        with call(running, context, session) as made:
            made.who()
            return made.tls.session_reused
    except OSError:
        return None
