"""Clients that hold a connection and do nothing with it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tests.server.harness import Raw
from tests.server.test_connections import run, server

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("said", [b"", b"GET /who HTTP/1.1\r\nHost: x\r\n", b"PRI * HTTP/2.0\r\n"])
def test_connection_when_no_request_comes_of_it_then_it_is_closed(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.server.serving.KEEP_ALIVE_SECONDS", 0.3)

    def ask(address: tuple[str, int]) -> None:
        with Raw(address) as client:
            client.send(said)
            assert client.closed()

    async def test() -> None:
        async with server(h2c=True) as address:
            await asyncio.to_thread(ask, address)

    run(test)


def test_head_when_it_comes_byte_by_byte_then_its_time_does_not_begin_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.server.serving.KEEP_ALIVE_SECONDS", 0.5)

    def trickle(address: tuple[str, int]) -> int:
        with Raw(address) as client:
            client.send(b"GET /who HTTP/1.1\r\nX: ")
            for sent in range(200):
                try:
                    client.send(b"x")
                except OSError:
                    return sent
                time.sleep(0.05)
        return 200

    async def test() -> None:
        async with server() as address:
            assert await asyncio.to_thread(trickle, address) < 100

    run(test)


def test_download_when_the_client_takes_nothing_then_it_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.server.bytestream.STALL_SECONDS", 0.2)

    async def test() -> None:
        log = tmp_path / "log"
        async with server() as address:
            with Raw(address) as client:
                client.get(f"/large?size={2**30}&log={log}")
                while not log.exists():
                    await asyncio.sleep(0.01)

    run(test)


def test_download_when_the_client_is_slow_but_goes_on_then_it_gets_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.server.bytestream.STALL_SECONDS", 1.0)
    size = 36 * 1024 * 1024

    def take(address: tuple[str, int]) -> int:
        taken = 0
        with Raw(address) as client:
            client.get(f"/large?size={size}")
            while taken < size and (block := client.socket.recv(1024 * 1024)):
                taken += len(block)
                time.sleep(0.05)  # longer in all than it may take nothing
        return taken

    async def test() -> None:
        async with server() as address:
            assert await asyncio.to_thread(take, address) >= size

    run(test)
