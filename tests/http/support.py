"""What the tests of the API share: a registry per test, refusals, requests fed by hand, and what the tables hold."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec
from urllib.parse import unquote

import httpx

from tests.support.fsck import assert_fsck_clean
from tests.support.postgres import rows
from tests.support.registry import Registry, digest_of, open_registry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from starlette.types import Message

    from app.store.engine import Target

P = ParamSpec("P")
Headers = dict[str, str]
# A digest that nothing pushed here has.
ABSENT: Final = digest_of(b"never pushed")


def served(
    *,
    sound: bool = True,
    **options: Any,
) -> Callable[[Callable[Concatenate[Registry, P], Awaitable[None]]], Callable[..., None]]:
    """Make a coroutine function a test; its first argument is a registry of its own, opened with `options`.

    At the end `fsck` must find nothing wrong, unless the test does damage of its own (`sound=False`).
    """

    def decorate(test: Callable[Concatenate[Registry, P], Awaitable[None]]) -> Callable[..., None]:
        given = list(inspect.signature(test).parameters.values())[1:]
        wanted = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("database", "tmp_path")
        ]
        wanted = [parameter for parameter in wanted if parameter.name not in {p.name for p in given}]

        def run(**arguments: Any) -> None:
            own = {name: arguments[name] for name in (p.name for p in given)}

            async def scenario() -> None:
                async with open_registry(arguments["database"], arguments["tmp_path"], **options) as registry:
                    await test(registry, **own)  # pyright: ignore[reportCallIssue]
                    if sound:
                        await assert_fsck_clean(registry.target, registry.driver)

            asyncio.run(scenario())

        # pytest takes fixtures and parameters from the signature, so it must name them and not `registry`.
        seen: Any = functools.update_wrapper(run, test)
        del seen.__wrapped__
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in given]
        seen.__signature__ = inspect.Signature([*wanted, *parameters])
        return seen

    return decorate


def refused(answer: httpx.Response, status: int, code: str) -> Any:
    """Check that the answer is this refusal, in the form that clients read. Returns its first entry's detail."""
    assert (answer.status_code, answer.text and answer.json()["errors"][0]["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.text.endswith("\n")
    return answer.json()["errors"][0].get("detail")


async def open_upload(registry: Registry, name: str, query: str = "") -> str:
    """A new session's Location."""
    answer = await registry.client.post(f"/v2/{name}/blobs/uploads/{query}")
    assert answer.status_code == 202, answer.text
    return answer.headers["Location"]


async def patch(registry: Registry, location: str, content: bytes, content_range: str = "") -> httpx.Response:
    headers = {"Content-Range": content_range} if content_range else {}
    return await registry.client.patch(location, content=content, headers=headers)


async def close_upload(
    registry: Registry, location: str, digest: str, content: bytes = b"", content_range: str = ""
) -> httpx.Response:
    headers = {"Content-Range": content_range} if content_range else {}
    return await registry.client.put(f"{location}?digest={digest}", content=content, headers=headers)


async def pulled(registry: Registry, name: str, digest: str) -> bytes:
    """The blob's bytes."""
    answer = await registry.client.get(f"/v2/{name}/blobs/{digest}")
    assert answer.status_code == 200, answer.text
    return answer.content


async def put(
    registry: Registry,
    name: str,
    reference: str,
    payload: bytes,
    media_type: str | None = None,
    **headers: str,
) -> httpx.Response:
    """PUT of a manifest's bytes as they are; `headers` with underscores for hyphens."""
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    if media_type is not None:
        sent["Content-Type"] = media_type
    return await registry.client.put(f"/v2/{name}/manifests/{reference}", content=payload, headers=sent)


async def contents(registry: Registry) -> dict[str, bytes]:
    """Every row of every table, by table."""
    return {table.name: table.content for table in await rows(registry.target)}


async def counts(registry: Registry) -> dict[str, int]:
    """How many rows each table has."""
    return {name: content.count(b"\n") for name, content in (await contents(registry)).items()}


async def unnamed_objects(registry: Registry) -> list[str]:
    """Objects in storage that no blob, no upload and no tombstone names: there must never be one."""
    named = await registry.rows(
        "SELECT storage_key FROM blobs UNION ALL SELECT storage_key FROM blob_uploads"
        " UNION ALL SELECT storage_key FROM gc_storage_deletions"
    )
    keys = {row["storage_key"] for row in named}
    return [found.key async for found in registry.driver.list() if found.key not in keys]


class Conversation:
    """One request that the test feeds by hand, past every HTTP client: what arrives, and when the client leaves."""

    def __init__(
        self, registry: Registry, method: str, target: str, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        path, _, query = target.removeprefix("http://registry.test").partition("?")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
            "server": ("registry.test", 80),
            "client": ("127.0.0.1", 123),
        }
        self._arriving: asyncio.Queue[Message] = asyncio.Queue()
        self._asked = asyncio.Event()
        self._sent: list[Message] = []
        self._gone = False
        self._task = asyncio.ensure_future(registry.app(scope, self._receive, self._send))

    def give(self, block: bytes, *, last: bool = False) -> None:
        """Let a part of the body arrive."""
        self._asked.clear()
        self._arriving.put_nowait({"type": "http.request", "body": block, "more_body": not last})

    def leave(self) -> None:
        """Let the client go away: a server says so to whoever receives, and to whoever sends."""
        self._gone = True
        self._arriving.put_nowait({"type": "http.disconnect"})

    async def asked(self) -> None:
        """Return when the application has taken all that arrived and waits for more."""
        async with asyncio.timeout(30):
            await self._asked.wait()

    async def kill(self) -> None:
        """Stop the request wherever it is, as the end of its process would."""
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def answer(self) -> httpx.Response | None:
        """What was answered, whole; None if nothing was."""
        async with asyncio.timeout(30):
            await self._task
        if not self._sent:
            return None
        start, *blocks = self._sent
        body = b"".join(message.get("body", b"") for message in blocks)
        return httpx.Response(start["status"], headers=start["headers"], content=body)

    async def _receive(self) -> Message:
        if self._arriving.empty():
            self._asked.set()
        return await self._arriving.get()

    async def _send(self, message: Message) -> None:
        if self._gone:
            raise ConnectionResetError("the client is gone")
        self._sent.append(message)


async def ask(
    registry: Registry,
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
) -> httpx.Response:
    """One request with exactly these headers: no Host, no Accept, no Content-Length but what is given."""
    conversation = Conversation(registry, method, target, headers)
    conversation.give(body, last=True)
    answer = await conversation.answer()
    assert answer is not None
    return answer


def another(database: Target, tmp_path: Path) -> Any:
    """A second process of the same registry: another application, pool and driver on the same data."""
    return open_registry(database, tmp_path)
