"""The registries that get raw bytes: each a real server with one worker, which has to survive all of it."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.badinput.wire import Attacked
from tests.support.needs import program
from tests.support.postgres import create, drop
from tests.support.served import serve

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from app.store.engine import Target


@contextmanager
def attacked(
    server: Target, name: str, directory: Path, *, certificate: Path | None = None, **settings: str
) -> Generator[Attacked]:
    """A registry with a database of its own on the run's server."""
    target = asyncio.run(create(server, name))
    address = {
        "DATABASE_HOST": target.host,
        "DATABASE_PORT": str(target.port),
        "DATABASE_USER": target.user,
        "DATABASE_DBNAME": name,
        "DATABASE_SSLMODE": "disable",
        "LOG_ACCESSLOG": "{disabled: false, formatter: text}",
        # One, so that nobody takes over when it hangs or dies.
        "HTTP_WORKERS": "1",
    }
    try:
        client = {"verify": ssl.create_default_context(cafile=certificate)} if certificate else None
        with serve(directory / "data", words=None, logs=None, client=client, **address, **settings) as served:
            yield Attacked(served, target, certificate)
    finally:
        asyncio.run(drop(server, name))


@pytest.fixture(scope="session")
def worker_name(request: pytest.FixtureRequest) -> str:
    return getattr(request.config, "workerinput", {}).get("workerid", "alone")


@pytest.fixture(scope="session")
def plain(
    postgres_server: Target, worker_name: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Attacked]:
    """Without TLS: HTTP/1.1 and, by prior knowledge or upgrade, HTTP/2."""
    directory = tmp_path_factory.mktemp("plain")
    name = f"badinput_plain_{worker_name}"
    with attacked(postgres_server, name, directory, HTTP_H2C_ENABLED="true") as registry:
        yield registry


@pytest.fixture(scope="session")
def secured(
    postgres_server: Target, worker_name: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Attacked]:
    """Over TLS: HTTP/2 and HTTP/1.1."""
    directory = tmp_path_factory.mktemp("secured")
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    subprocess.run(
        [
            *(str(program("openssl")), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    settings = {"HTTP_TLS_CERTIFICATE": str(certificate), "HTTP_TLS_KEY": str(key)}
    name = f"badinput_tls_{worker_name}"
    with attacked(postgres_server, name, directory, certificate=certificate, **settings) as registry:
        yield registry
