"""One collector at full speed, until nothing is due: `python -m benchmarks.gc.worker CONFIG NAME`.

What `registry gc run` does, with a note of when each batch was done. A process of its own, on the workers' loop.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from app.blobs.drivers import open_driver
from app.config import load
from app.wiring.collection import collectors, open_gc_database
from gc_workers.passes import full_pass

if TYPE_CHECKING:
    from app.config import Settings
    from gc_workers.passes import Tally

# The run is cut into so many parts, so that one run shows how steady the rate is.
_PARTS: Final = 10


@dataclass(frozen=True)
class Part:
    """A part of the run."""

    seconds: float
    taken: int
    deleted: int
    bytes: int


@dataclass(frozen=True)
class Pass:
    """The whole of it, and in parts. `failures` are batches that failed, `batch_ms` the median of how long one took."""

    parts: list[Part]
    deleted: int
    failures: int
    batch_ms: float
    cpu_seconds: float


async def run(settings: Settings, name: str) -> Pass:
    """Collect everything of that kind that is due."""
    database = await open_gc_database(settings, None)
    driver = open_driver(settings.storage.driver, settings.storage.parameters)
    marks: list[Part] = []
    try:
        chosen = [one for one in collectors(settings, database, driver) if one.name == name]
        began, used = time.perf_counter(), time.process_time()

        def note(tally: Tally) -> None:
            marks.append(Part(time.perf_counter() - began, tally.taken, tally.deleted, tally.bytes))

        (tally,) = await full_pass(chosen, settings.gc.batchsize, told=note)
        used = time.process_time() - used
        return Pass(_parts(marks), tally.deleted, tally.failures, _median_ms(marks), used)
    finally:
        await driver.close()
        await database.close()


def _parts(marks: list[Part]) -> list[Part]:
    """From sums at the end of each batch to parts of equally many batches."""
    # The last batch is the one that found out that there is no more.
    full = marks[:-1] or marks
    ends = [full[len(full) * part // _PARTS - 1] for part in range(1, _PARTS + 1) if len(full) >= _PARTS]
    ends = ends or full[-1:]
    starts = [Part(0.0, 0, 0, 0), *ends]
    return [
        Part(b.seconds - a.seconds, b.taken - a.taken, b.deleted - a.deleted, b.bytes - a.bytes)
        for a, b in zip(starts, ends, strict=False)
    ]


def _median_ms(marks: list[Part]) -> float:
    starts = [0.0, *(mark.seconds for mark in marks)]
    times = sorted(mark.seconds - start for mark, start in zip(marks, starts, strict=False))
    return 1000 * times[len(times) // 2]


def main() -> None:
    """Collect, and print what was done."""
    path, name = sys.argv[1:]
    settings = load(Path(path), {}).settings
    sys.stdout.write(json.dumps(asdict(uvloop.run(run(settings, name)))))


if __name__ == "__main__":
    main()
