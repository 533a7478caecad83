"""HTTP/2 and TLS, as the configuration turns them on."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.images import Package, directory_files, make_image, make_index, read_files, write_files
from tests.support.needs import program
from tests.support.registry import digest_of
from tests.support.served import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.clients.conftest import Seeded
    from tests.clients.programs import Sandbox
    from tests.support.served import Served

HTTP2: dict[str, Any] = {"http1": False, "http2": True}


@dataclass(frozen=True)
class Secured:
    """A registry that serves over TLS, and how to trust it."""

    registry: Served
    certificate: Path
    trust: ssl.SSLContext


@pytest.fixture(scope="module")
def secured(seeded: Seeded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
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
    trust = ssl.create_default_context(cafile=certificate)
    settings = {"HTTP_TLS_CERTIFICATE": str(certificate), "HTTP_TLS_KEY": str(key)}
    with (
        seeded.copy(directory) as data,
        serve(data, client={"verify": trust}, HTTP_WORKERS="2", **settings) as registry,
    ):
        yield Secured(registry, certificate, trust)


@pytest.fixture(scope="module")
def cleartext(seeded: Seeded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with (
        seeded.copy(tmp_path_factory.mktemp("cleartext")) as data,
        serve(data, client=HTTP2, HTTP_WORKERS="2", HTTP_H2C_ENABLED="true") as registry,
    ):
        yield registry


def check_side_by_side(registry: Served, **options: Any) -> None:
    """Many uploads and downloads over one connection, one upload of which waits for the others."""
    contents = [bytes([number]) * 2_000_000 for number in range(8)]
    name = f"{registry.url}/v2/http2/side-by-side/blobs"

    async def round_trip(client: httpx.AsyncClient, content: bytes) -> None:
        digest = digest_of(content)
        pushed = await client.post(f"{name}/uploads/?digest={digest}", content=content)
        assert (pushed.status_code, pushed.http_version) == (201, "HTTP/2")
        assert (await client.get(f"{name}/{digest}")).content == content

    async def scenario() -> None:
        limits = httpx.Limits(max_connections=1)
        others_done = asyncio.Event()

        async def slow() -> Any:
            yield b"first"
            await others_done.wait()
            yield b"last"

        async with httpx.AsyncClient(
            trust_env=False, timeout=30, limits=limits, **HTTP2, **options
        ) as client:
            await client.get(f"{registry.url}/v2/")  # until then this client takes one request at a time
            async with asyncio.timeout(30), asyncio.TaskGroup() as outer:
                digest = digest_of(b"firstlast")
                waiting = outer.create_task(client.post(f"{name}/uploads/?digest={digest}", content=slow()))
                async with asyncio.TaskGroup() as inner:
                    for content in contents:
                        inner.create_task(round_trip(client, content))
                others_done.set()
            assert waiting.result().status_code == 201

    asyncio.run(scenario())


@pytest.mark.needs("openssl")
def test_tls_when_the_client_speaks_http2_then_images_go_in_and_out(secured: Secured) -> None:
    package = make_index("over tls")
    with secured.registry.apart(verify=secured.trust, **HTTP2) as registry:
        assert registry.client.get(f"{registry.url}/v2/").http_version == "HTTP/2"
        registry.push("http2/tls", "v1", package)
        registry.check("http2/tls", "v1", package)
    check_side_by_side(secured.registry, verify=secured.trust)


@pytest.mark.needs("openssl", "skopeo")
def test_tls_when_skopeo_copies_in_and_out_then_is_identical(
    secured: Secured, sandbox: Sandbox, tmp_path: Path
) -> None:
    registry = secured.registry
    package = Package(make_image("over tls, by skopeo"))
    there = f"docker://{registry.address}/skopeo/tls:v1"
    files = directory_files(package)
    write_files(tmp_path / "in", files)
    (tmp_path / "trusted").mkdir()
    shutil.copy(secured.certificate, tmp_path / "trusted/ca.crt")

    sandbox.skopeo(
        "copy",
        "--preserve-digests",
        f"--dest-cert-dir={tmp_path / 'trusted'}",
        f"dir:{tmp_path / 'in'}",
        there,
    )
    sandbox.skopeo(
        "copy",
        "--preserve-digests",
        f"--src-cert-dir={tmp_path / 'trusted'}",
        there,
        f"dir:{tmp_path / 'out'}",
    )

    assert read_files(tmp_path / "out") == files


@pytest.mark.needs("openssl")
def test_tls_when_a_location_is_sent_then_it_is_https(secured: Secured) -> None:
    registry = secured.registry

    answer = registry.client.post(f"{registry.url}/v2/http2/location/blobs/uploads/")

    assert answer.headers["Location"].startswith(f"{registry.url}/v2/http2/location/blobs/uploads/")
    assert registry.url.startswith("https://")


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
def test_tls_when_a_large_upload_is_refused_early_then_the_client_reads_why(
    protocol: str, secured: Secured
) -> None:
    options = {"verify": secured.trust, **(HTTP2 if protocol == "HTTP/2" else {})}
    with secured.registry.apart(**options) as registry:
        session = f"{registry.url}/v2/http2/unknown/blobs/uploads/{uuid.uuid4()}"

        answer = registry.client.patch(session, content=bytes(4 * 1024 * 1024))

        assert (answer.status_code, answer.http_version) == (404, protocol)
        assert answer.json()["errors"][0]["code"] == "BLOB_UPLOAD_UNKNOWN"
        assert registry.client.get(f"{registry.url}/v2/").status_code == 200


def test_h2c_when_enabled_then_images_go_in_and_out(cleartext: Served) -> None:
    package = make_index("over h2c")
    assert cleartext.client.get(f"{cleartext.url}/v2/").http_version == "HTTP/2"
    cleartext.push("http2/h2c", "v1", package)
    cleartext.check("http2/h2c", "v1", package)
    check_side_by_side(cleartext)


def test_h2c_when_enabled_then_http1_is_served_as_well(cleartext: Served, seeded: Seeded) -> None:
    with cleartext.apart() as registry:
        assert registry.client.get(f"{registry.url}/v2/").http_version == "HTTP/1.1"
        registry.check("seeded/package", "v1", seeded.package)


def test_h2c_when_not_enabled_then_http2_without_tls_is_refused(registry: Served) -> None:
    with registry.apart(**HTTP2) as unwelcome, pytest.raises(httpx.HTTPError):
        unwelcome.client.get(f"{registry.url}/v2/")
