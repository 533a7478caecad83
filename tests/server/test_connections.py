"""Connections as clients have them: early answers, HTTP/2, and clients or applications that stop in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import h2.connection
import httpx
import pytest
import uvloop
from hyperframe.frame import GoAwayFrame

from app.config import load
from app.runtime.metrics import Metrics
from app.server.manner import Manner
from app.server.serving import serve
from app.server.sockets import listen_tcp
from tests.server.harness import Raw
from tests.server.standin import assemble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

# More than what sockets and windows take in before anybody reads.
MANY = 8 * 1024 * 1024


@asynccontextmanager
async def server(**manner: Any) -> AsyncIterator[tuple[str, int]]:
    """The stand-in application, served in this process."""
    settings = load(None, {}, base={"http": {"addr": "127.0.0.1:0"}, "storage": "inmemory"}).settings
    assembly = await assemble(settings, Metrics())
    listeners = listen_tcp(settings.http.address)
    host, _, port = listeners.name.partition(":")
    stop, started = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(
            serve(
                assembly.app,
                listeners.sockets,
                Manner(drain_seconds=1, **manner),
                stop=stop.wait,
                started=started.set,
            )
        )
        await started.wait()
        try:
            yield host, int(port)
        finally:
            stop.set()


def http2(address: tuple[str, int]) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url="http://{}:{}".format(*address), http1=False, http2=True, timeout=20)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    uvloop.run(bounded())


def test_refusal_when_the_body_is_still_coming_then_the_client_gets_it() -> None:
    async def test() -> None:
        async with server() as address:
            status, head = await asyncio.to_thread(upload, address)
            assert status == 404
            assert "connection: close" in head

    def upload(address: tuple[str, int]) -> tuple[int, str]:
        with Raw(address) as client:
            client.send(f"PUT /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: {MANY}\r\n\r\n".encode())
            for _ in range(MANY // 65536):
                client.send(bytes(65536))
            status, head, body = client.answer()
            assert body == b"refused"
            assert client.closed()
            return status, head

    run(test)


def test_refusal_when_the_client_stops_sending_then_its_connection_is_closed_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.server.http1.LINGER_SECONDS", 0.2)

    async def test() -> None:
        async with server() as address:
            await asyncio.to_thread(upload, address)

    def upload(address: tuple[str, int]) -> None:
        with Raw(address) as client:
            client.send(b"PUT /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome")
            assert client.answer()[0] == 404
            assert client.closed()

    run(test)


def test_refusal_when_the_body_is_complete_then_the_connection_stays() -> None:
    async def test() -> None:
        async with server() as address:
            await asyncio.to_thread(twice, address)

    def twice(address: tuple[str, int]) -> None:
        with Raw(address) as client:
            for _ in range(2):
                client.send(b"PUT /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
                status, head, _ = client.answer()
                assert status == 404
                assert "connection: close" not in head

    run(test)


def test_http2_refusal_when_the_body_is_still_coming_then_other_requests_of_the_connection_go_on() -> None:
    async def test() -> None:
        async with server(h2c=True) as address, http2(address) as client:
            refused, counted = await together(
                client.put("/refuse", content=bytes(MANY)), client.put("/count", content=bytes(MANY))
            )
            assert (refused.status_code, refused.text) == (404, "refused")
            assert counted.text == str(MANY)
            assert (await client.get("/who")).json()["protocol"] == "2"

    run(test)


def test_http2_request_when_nobody_reads_it_then_others_of_its_connection_go_on(tmp_path: Path) -> None:
    async def test() -> None:
        go = tmp_path / "go"
        async with server(h2c=True) as address, http2(address) as client, asyncio.TaskGroup() as group:
            ignored = group.create_task(client.put(f"/ignore?go={go}", content=bytes(MANY)))
            await asyncio.sleep(0.2)
            assert (await client.put("/count", content=bytes(MANY))).text == str(MANY)
            assert not ignored.done()
            go.touch()
            assert (await ignored).text == str(MANY)

    run(test)


def test_http2_when_the_body_is_large_then_it_arrives_whole() -> None:
    async def test() -> None:
        async with server(h2c=True) as address, http2(address) as client:
            assert (await client.put("/count", content=bytes(MANY + 1))).text == str(MANY + 1)
            assert len((await client.get(f"/large?size={MANY + 1}")).content) == MANY + 1

    run(test)


@pytest.mark.parametrize("protocol", ["1.1", "2"])
def test_application_failure_when_nothing_was_answered_then_it_is_a_500(
    protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with server(h2c=True) as address, client_of(protocol, address) as client:
            assert (await client.get("/crash")).status_code == 500
            assert (await client.get("/who")).json()["protocol"] == protocol

    run(test)
    assert "the application failed" in caplog.text


@pytest.mark.parametrize("protocol", ["1.1", "2"])
def test_answer_when_the_application_stops_in_the_middle_then_the_client_sees_that_it_is_cut(
    protocol: str,
) -> None:
    async def test() -> None:
        async with server(h2c=True) as address, client_of(protocol, address) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/cut")
            assert (await client.get("/who")).status_code == 200

    run(test)


@pytest.mark.parametrize("protocol", ["1.1", "2"])
def test_download_when_the_client_goes_away_then_the_application_is_let_go(
    protocol: str, tmp_path: Path
) -> None:
    async def test() -> None:
        log = tmp_path / "log"
        async with server(h2c=True) as address:
            async with (
                client_of(protocol, address) as client,
                client.stream("GET", f"/large?size={MANY}&log={log}") as answer,
            ):
                assert answer.status_code == 200
            while not log.exists():
                await asyncio.sleep(0.01)

    run(test)


def test_http2_without_tls_when_it_is_off_then_prior_knowledge_is_refused() -> None:
    async def test() -> None:
        async with server() as address:
            await asyncio.to_thread(ask, address)
            async with http2(address) as client:
                with pytest.raises(httpx.RemoteProtocolError):
                    await client.get("/who")

    def ask(address: tuple[str, int]) -> None:
        with Raw(address) as client:
            client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert client.answer()[0] == 505
            assert client.closed()

    run(test)


UPGRADE = (
    b"GET /who HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
)


def test_http2_upgrade_when_it_is_off_then_the_answer_is_http_1() -> None:
    def ask(address: tuple[str, int]) -> None:
        with Raw(address) as client:
            client.send(UPGRADE)
            status, _, body = client.answer()
            assert (status, json.loads(body)["protocol"]) == (200, "1.1")

    async def test() -> None:
        async with server() as address:
            await asyncio.to_thread(ask, address)

    run(test)


def test_http2_upgrade_when_it_is_on_then_it_is_accepted() -> None:
    def ask(address: tuple[str, int]) -> None:
        with Raw(address) as client:
            client.send(UPGRADE)
            assert client.answer()[0] == 101

    async def test() -> None:
        async with server(h2c=True) as address:
            await asyncio.to_thread(ask, address)

    run(test)


@pytest.mark.needs("curl")
def test_http2_when_the_server_stops_then_requests_under_way_are_answered(tmp_path: Path) -> None:
    async def test() -> None:
        seen, go = tmp_path / "seen", tmp_path / "go"
        async with server(h2c=True) as (host, port):
            # Python's HTTP/2 gives up at the first GOAWAY; curl, as Go, finishes what it has begun.
            curl = await asyncio.create_subprocess_exec(
                *("curl", "-sS", "--http2-prior-knowledge", f"http://{host}:{port}/slow?seen={seen}&go={go}"),
                stdout=asyncio.subprocess.PIPE,
            )
            while not seen.exists():
                await asyncio.sleep(0.01)
            asyncio.get_running_loop().call_later(0.2, go.touch)
        output, _ = await curl.communicate()
        assert output == b"slow"

    run(test)


def test_http2_when_the_server_stops_then_it_says_goodbye_first(tmp_path: Path) -> None:
    async def test() -> None:
        seen = tmp_path / "seen"
        async with server(h2c=True) as address:
            reader, writer = await asyncio.open_connection(*address)
            client = h2.connection.H2Connection()
            client.initiate_connection()
            client.send_headers(
                1,
                [
                    (":method", "GET"),
                    (":path", f"/slow?seen={seen}&go={tmp_path}/never"),
                    (":scheme", "http"),
                    (":authority", "x"),
                ],
                end_stream=True,
            )
            writer.write(client.data_to_send())
            while not seen.exists():
                await asyncio.sleep(0.01)
        # A goodbye names the last stream that there could be; the final one names the last that there was.
        assert GoAwayFrame(0, last_stream_id=2**31 - 1).serialize() in await reader.read(1000)
        writer.close()

    run(test)


def test_headers_when_they_are_too_large_then_they_are_refused() -> None:
    def ask(address: tuple[str, int]) -> None:
        with Raw(address) as client:
            with contextlib.suppress(OSError):
                client.send(b"GET /who HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n")
            assert client.answer()[0] == 431

    async def test() -> None:
        async with server() as address:
            await asyncio.to_thread(ask, address)

    run(test)


def test_answers_then_they_do_not_name_the_server_software() -> None:
    async def test() -> None:
        async with server() as address, client_of("1.1", address) as client:
            answer = await client.get("/who")
            assert "server" not in answer.headers
            assert "date" in answer.headers

    run(test)


def client_of(protocol: str, address: tuple[str, int]) -> httpx.AsyncClient:
    if protocol == "2":
        return http2(address)
    return httpx.AsyncClient(base_url="http://{}:{}".format(*address), timeout=20)


async def together(*requests: Any) -> Iterator[httpx.Response]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(request) for request in requests]
    return (task.result() for task in tasks)
