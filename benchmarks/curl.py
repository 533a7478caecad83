"""curl, for bodies too large for wrk: some processes at a time, each with one request after the other."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from benchmarks import asking, children
from benchmarks.errors import CaseError
from benchmarks.loads import Load
from benchmarks.programs import path_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

_QUIET: Final = ("--silent", "--show-error", "--http1.1", "--noproxy", "*")


async def repeat(work: Callable[[int], Awaitable[None]], *, at_once: int, seconds: float) -> Load:
    """Do `work` again and again in `at_once` lines, each with its number, until the time is up."""
    before, began = children.cpu_seconds(), time.monotonic()
    done = 0

    async def line(number: int) -> None:
        nonlocal done
        while True:
            await work(number)
            done += 1
            if time.monotonic() >= began + seconds:
                return

    await together([line(number) for number in range(at_once)])
    return Load(done, time.monotonic() - began, children.cpu_seconds() - before)


async def together(works: list[Awaitable[None]]) -> None:
    """Do all of it at the same time. What one of them raises ends all, and comes out as it is."""

    async def one(work: Awaitable[None]) -> None:
        await work

    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(one(work))
    except* CaseError as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]  # pyright: ignore[reportUnknownMemberType]
        raise first from None


async def fetch(url: str, size: int) -> None:
    """GET the URL. Raises CaseError unless all of it came."""
    done = await children.run(
        [path_of("curl"), *_QUIET, "-o", "/dev/null", "-w", "%{http_code} %{size_download}", url]
    )
    if done.output.split() != ["200", str(size)]:
        raise CaseError(f"GET {url}: {done.output} instead of 200 {size}")


async def push(url: str, repository: str, file: Path, digest: str) -> None:
    """Push the file as docker does: POST, PATCH in chunks and without a length, PUT with the digest."""
    location = await asyncio.to_thread(_begin, url, repository)
    location = await _send(url + location, file)
    await asyncio.to_thread(_finish, url, asking.with_digest(location, digest))


def _begin(url: str, repository: str) -> str:
    with asking.connected(url) as client:
        answer = client.ask("POST", f"/v2/{repository}/blobs/uploads/", expect=202)
    return asking.path_of(answer.headers["location"])


async def _send(url: str, file: Path) -> str:
    done = await children.run(
        [
            *(path_of("curl"), *_QUIET, "-X", "PATCH", "-T", str(file)),
            *(
                "-H",
                "Transfer-Encoding: chunked",
                "-H",
                "Expect:",
                "-H",
                "Content-Type: application/octet-stream",
            ),
            *("-o", "/dev/null", "-w", "%{http_code} %header{location}", url),
        ]
    )
    status, _, location = done.output.partition(" ")
    if status != "202" or not location:
        raise CaseError(f"PATCH {url}: {done.output} instead of 202 and a location")
    return location


def _finish(url: str, location: str) -> None:
    with asking.connected(url) as client:
        client.ask("PUT", location, expect=201)
