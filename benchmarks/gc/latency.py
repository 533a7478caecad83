"""What clients notice: latencies of a steady load while nothing is collected, at the default pace, and at full speed.

In turns, since the machine drifts; each turn on a stock that is renewed, in another order.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from app.config.background import Gc
from benchmarks import asking, children
from benchmarks.errors import CaseError
from benchmarks.gc.content import repository
from benchmarks.gc.figures import Row, Target
from benchmarks.gc.steady import CONFIG, Job
from benchmarks.images import digest_of
from benchmarks.report import number, say
from benchmarks.running import clean_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.gc.stand import Stand

# Operations a second: together a third of one of two cores, as measured with the registry alone.
RATES: Final = {"pull": 100.0, "head": 50.0, "push": 15.0}
QUIET: Final = "quiet"
DEFAULT: Final = "default pace"
FULL: Final = "full speed"
LOADS: Final = {QUIET: 0.0, DEFAULT: Gc().load, FULL: 1.0}
PERCENTILES: Final = (50, 99)
_REPOSITORY: Final = "bench/pushes"
# Repositories that are read from.
_READ: Final = 10
_WARM_SECONDS: Final = 2.0
_TARGET: Final = Target(1.25, is_ratio=True, is_least=False)
_EMPTY: Final = ("manifests", "blobs", "objects")

Latencies = dict[str, dict[int, float]]


async def measure(
    stand: Stand, partitions: int, paces: Sequence[str], rounds: int, seconds: float
) -> list[Row]:
    """Measure in turns. Raises CaseError if one answer is wrong."""
    found: dict[str, list[Latencies]] = {mode: [] for mode in paces}
    modes = list(paces)
    for turn in range(1, rounds + 1):
        await stand.renew(partitions)
        async with stand.serving() as server:
            await prepare(server.url)
            await load(stand, server.url, min(_WARM_SECONDS, seconds))
            for mode in modes:
                latencies = await _round(stand, server.url, LOADS[mode], seconds)
                found[mode].append(latencies)
                say(f"    round {turn}  {mode:13} {words(latencies)}")
        modes = [*modes[1:], modes[0]]
    return _rows(found)


async def prepare(url: str) -> None:
    """Push what every push of the load needs."""

    def push() -> None:
        with asking.connected(url) as client:
            answer = client.ask("POST", f"/v2/{_REPOSITORY}/blobs/uploads/", expect=202)
            location = asking.with_digest(answer.headers["location"], digest_of(CONFIG))
            headers = {"Content-Type": "application/octet-stream"}
            client.ask("PUT", location, expect=201, headers=headers, body=CONFIG)

    await asyncio.to_thread(push)


async def load(stand: Stand, url: str, seconds: float) -> Latencies:
    """Load the server. Raises CaseError if one answer is wrong."""
    images = [
        (repository(at).name, image)
        for at in range(min(_READ, stand.size.repositories))
        for image in repository(at).images
        if image.is_tagged
    ]
    parts = urlsplit(url)
    job = Job(
        host=parts.hostname or "",
        port=parts.port or 80,
        seconds=seconds,
        rates=RATES,
        manifests=tuple(f"/v2/{name}/manifests/{image.tag}" for name, image in images),
        blobs=tuple(f"/v2/{name}/blobs/{image.layers[0].digest}" for name, image in images),
        repository=_REPOSITORY,
    )
    done = await children.run(
        [sys.executable, "-m", "benchmarks.gc.steady"], clean_environment(), json.dumps(asdict(job))
    )
    counts: dict[str, Any] = json.loads(done.output)
    if counts["words"]:
        raise CaseError(f"the steady load: {counts['words']}")
    return {kind: _percentiles(kind, values) for kind, values in counts["latencies_ms"].items()}


def words(latencies: Latencies) -> str:
    """In one line."""
    return (
        ", ".join(
            f"{kind} {' / '.join(number(value) for value in of.values())}" for kind, of in latencies.items()
        )
        + " ms (p50 / p99)"
    )


async def _round(stand: Stand, url: str, pace: float, seconds: float) -> Latencies:
    await stand.settle()
    async with AsyncExitStack() as stack:
        if pace:
            await stack.enter_async_context(stand.collecting(pace))
        latencies = await load(stand, url, seconds)
        if pace:
            idle = [name for name, due in zip(_EMPTY, await stand.due(), strict=True) if not due]
            if idle:
                say(f"    nothing was left to collect at the end: {', '.join(idle)}")
    return latencies


def _percentiles(kind: str, values: Sequence[float]) -> dict[int, float]:
    if not values:
        raise CaseError(f"the steady load: not one {kind} in the time")
    ordered = sorted(values)
    return {percent: ordered[len(ordered) * percent // 100] for percent in PERCENTILES}


def _rows(found: Mapping[str, Sequence[Latencies]]) -> list[Row]:
    rows: list[Row] = []
    for kind in RATES:
        for percent in PERCENTILES:
            quiet: Row | None = None
            for mode, rounds in found.items():
                target = _TARGET if mode == DEFAULT and percent == PERCENTILES[-1] else None
                values = [latencies[kind][percent] for latencies in rounds]
                row = Row(f"{kind}-p{percent}", "ms", mode, values, beside=quiet, target=target)
                quiet = quiet or row
                rows.append(row)
    return rows
