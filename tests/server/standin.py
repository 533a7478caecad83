"""In the place of `app.wiring`: an application whose every path does one thing that a server must cope with.

Run as a module it is a whole registry, but for the command line: `python -m tests.server.standin SETTINGS-JSON`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from app.config import Settings, load
from app.runtime.observe import Observer
from app.server import choices, supervisor
from app.server.errors import ServerError

if TYPE_CHECKING:
    from app.runtime.metrics import Metrics


class Assembly:
    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        request_id = self._observer.began(scope)
        handler = HANDLERS[scope["path"]]
        started = time.perf_counter()
        await handler(scope, receive, Answer(send, request_id))
        self._observer.ended(
            scope,
            route=scope["path"],
            status=200,
            seconds=time.perf_counter() - started,
            received=0,
            sent=5,
        )

    async def close(self) -> None:
        return None


class Answer:
    def __init__(self, send: Any, request_id: str) -> None:
        self._send = send
        self._request_id = request_id

    async def start(self, status: int, size: int) -> None:
        headers = [(b"content-length", str(size).encode()), (b"x-request-id", self._request_id.encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def part(self, content: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": content, "more_body": more})

    async def whole(self, content: bytes, status: int = 200) -> None:
        await self.start(status, len(content))
        await self.part(content, more=False)


def option(scope: Any, name: str, default: str) -> str:
    return parse_qs(scope["query_string"].decode()).get(name, [default])[0]


async def read(receive: Any) -> int:
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message["more_body"]:
            return size


async def who(scope: Any, receive: Any, answer: Answer) -> None:
    """The process, the protocol and the client."""
    said = {
        "process": os.getpid(),
        "protocol": scope["http_version"],
        "scheme": scope["scheme"],
        "client": scope["client"][0] if scope["client"] else None,
    }
    await answer.whole(json.dumps(said).encode())


async def slow(scope: Any, receive: Any, answer: Answer) -> None:
    """Answers when the file named `go` is there."""
    Path(option(scope, "seen", os.devnull)).write_text("seen")
    go = Path(option(scope, "go", ""))
    while not go.exists():
        await asyncio.sleep(0.01)
    await answer.whole(b"slow")


async def count(scope: Any, receive: Any, answer: Answer) -> None:
    """Reads the body."""
    await answer.whole(str(await read(receive)).encode())


async def refuse(scope: Any, receive: Any, answer: Answer) -> None:
    """Answers without reading the body."""
    await answer.whole(b"refused", 404)


async def ignore(scope: Any, receive: Any, answer: Answer) -> None:
    """Reads nothing of the body until `go` is there."""
    go = Path(option(scope, "go", ""))
    while not go.exists():
        await asyncio.sleep(0.01)
    await answer.whole(str(await read(receive)).encode())


async def crash(scope: Any, receive: Any, answer: Answer) -> None:
    raise RuntimeError("a fault")


async def cut(scope: Any, receive: Any, answer: Answer) -> None:
    """Promises more than it sends."""
    await answer.start(200, 1000)
    await answer.part(b"x" * 10)


async def large(scope: Any, receive: Any, answer: Answer) -> None:
    """Sends until it is done; writes to `log` how it ended."""
    size = int(option(scope, "size", "0"))
    await answer.start(200, size)
    block = bytes(65536)
    try:
        for sent in range(0, size, len(block)):
            rest = size - sent
            await answer.part(block[:rest], more=rest > len(block))
    finally:
        Path(option(scope, "log", os.devnull)).write_text("finished")


async def hang(scope: Any, receive: Any, answer: Answer) -> None:
    """Stops the whole process for a while."""
    time.sleep(float(option(scope, "seconds", "1")))
    await answer.whole(b"hung")


HANDLERS: dict[str, Any] = {
    f"/{handler.__name__}": handler for handler in (who, slow, count, refuse, ignore, crash, cut, large, hang)
}


async def assemble(settings: Settings, metrics: Metrics) -> Assembly:
    if (broken := os.environ.get("STANDIN_BROKEN")) and Path(broken).exists():
        raise ServerError("the stand-in cannot be built")
    metrics.statement("stand_in", 0.01)
    metrics.pool(1, 3)
    return Assembly(Observer(metrics))


def checks(settings: Settings) -> dict[str, Any]:
    async def database() -> None:
        if (sick := os.environ.get("STANDIN_SICK")) and Path(sick).exists():
            raise ServerError("the stand-in is sick")

    return {"database": database}


def main() -> None:
    settings = load(None, {}, base=json.loads(sys.argv[1])).settings
    choices.configure_logs(settings)
    try:
        doors = choices.open_doors(settings)
        names = doors.url, doors.debug.name if doors.debug is not None else None

        def ready() -> None:
            sys.stdout.write(json.dumps(names) + "\n")
            sys.stdout.flush()

        site = supervisor.Site(settings, doors, ready=ready, serving=__spec__.name, checks=__spec__.name)
        supervisor.run(site)
    except ServerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
