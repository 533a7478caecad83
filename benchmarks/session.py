"""A run from beginning to end: start, fill, measure in turns, stop, clear away."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import files
from benchmarks.company import Company
from benchmarks.errors import BenchError, CaseError
from benchmarks.figures import CaseResult, Measurement, RowResult
from benchmarks.report import number, say

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence

    from benchmarks.contenders import Contender
    from benchmarks.kinds import Case

# The largest case writes this much between two clearances, on top of what was seeded.
_DISK_BYTES: Final = 12 * 1024**3
_WARM_SECONDS: Final = 1.0
_SETTLE_SECONDS: Final = 0.25
_SETTLE_SECONDS_MAX: Final = 15.0
# Of one core; a server that has nothing to do takes less.
_IDLE: Final = 0.1


@dataclass
class Session:
    """What is to be measured, and what came of it so far."""

    cases: Sequence[Case]
    rounds: int
    seconds: float
    sides: Sequence[str]
    directory: Path
    results: list[CaseResult] = field(default_factory=list[CaseResult])
    rows: list[RowResult] = field(default_factory=list[RowResult])

    @property
    def failed(self) -> list[CaseResult]:
        """Cases that could not be measured."""
        return [result for result in self.results if result.failure]

    async def run(self) -> None:
        """Measure everything. A case that fails does not keep the others. Raises BenchError."""
        if shutil.disk_usage(self.directory).free < _DISK_BYTES:
            raise BenchError(
                f"{self.directory} has less than {_DISK_BYTES >> 30} GiB free: choose another --directory"
            )
        async with AsyncExitStack() as stack:
            # Last in, first out: the servers stop before their directory goes.
            work = Path(stack.enter_context(_working_directory(self.directory)))
            company = Company(self.cases, self.sides, work, stack)
            for number_, case in enumerate(self.cases, 1):
                say(f"[{number_}/{len(self.cases)}] {case.name}")
                await self._measure(case, await company.of(case), work)
                await company.part(self.cases[number_:])

    async def _measure(self, case: Case, contenders: Sequence[Contender], work: Path) -> None:
        result = CaseResult(case.name, {contender.name: [] for contender in contenders})
        self.results.append(result)
        try:
            with tempfile.TemporaryDirectory(dir=work) as directory:
                case.prepare(Path(directory))
                for contender in contenders:
                    with _named(contender):
                        await self._warm(case, contender)
                for turn in range(1, self.rounds + 1):
                    for contender in contenders:
                        with _named(contender):
                            await self._turn(case, contender, result, turn)
        except CaseError as error:
            deaths = [contender.running.obituary for contender in contenders]
            result.failure = "; ".join([str(error), *filter(None, deaths)])
            say(f"    FAILED: {result.failure}")
            return
        self.rows += [
            RowResult(
                row.name,
                row.unit,
                result,
                {
                    name: [row.value(m.load) for m in found]
                    for name, found in result.measurements.items()
                    if name in row.of or not row.of
                },
                row.beside,
            )
            for row in case.rows
        ]

    async def _warm(self, case: Case, contender: Contender) -> None:
        async with _present(contender):
            await asyncio.to_thread(case.check, contender)
            if not case.fresh:
                await self._load(case, contender, _WARM_SECONDS * case.pace)

    async def _turn(self, case: Case, contender: Contender, result: CaseResult, turn: int) -> None:
        if case.fresh:
            await contender.running.stop()
            await contender.running.start()
        async with _present(contender):
            if contender.is_guest and not case.fresh:
                await self._load(case, contender, _WARM_SECONDS * case.pace)
            measurement = await self._load(case, contender, self.seconds * case.pace)
        result.measurements[contender.name].append(measurement)
        row = case.rows[0]
        say(
            f"    round {turn}  {contender.name:10} {number(row.value(measurement.load)):>9} {row.unit}, "
            f"CPU {number(measurement.cpu_per_thousand)} s/1000"
        )

    async def _load(self, case: Case, contender: Contender, seconds: float) -> Measurement:
        """One load. Whoever comes next finds a quiet machine, without the large things that this one wrote."""
        there = files.large_files(contender.blobs)
        before = contender.cpu_seconds()
        try:
            load = await case.load(contender, seconds)
            return Measurement(load, contender.cpu_seconds().since(before))
        finally:
            for path in files.large_files(contender.blobs) - there:
                path.unlink(missing_ok=True)
            # The registry does not start on a storage in which nothing is left of what its database names.
            contender.blobs.mkdir(parents=True, exist_ok=True)
            (contender.blobs / "left").touch()
            await _settle(contender)


@contextmanager
def _named(contender: Contender) -> Generator[None]:
    """A fault says whose it is."""
    try:
        yield
    except CaseError as error:
        raise CaseError(f"{contender.name}: {error}") from error


async def _settle(contender: Contender) -> None:
    """Wait until what was written is on the disk, and until requests that nobody waits for any more are done."""
    await asyncio.to_thread(os.sync)
    until = time.monotonic() + _SETTLE_SECONDS_MAX
    used = contender.cpu_seconds().total
    while time.monotonic() < until:
        await asyncio.sleep(_SETTLE_SECONDS)
        before, used = used, contender.cpu_seconds().total
        if used - before <= _IDLE * _SETTLE_SECONDS:
            return


@asynccontextmanager
async def _present(contender: Contender) -> AsyncGenerator[None]:
    """A contender that runs, also one that comes and goes, or that an earlier case was too much for."""
    if not contender.running.is_up:
        await contender.running.stop()
        await contender.running.start()
    try:
        yield
    finally:
        if contender.is_guest:
            await contender.running.stop()


def _working_directory(parent: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="registry-bench-", dir=parent, ignore_cleanup_errors=True)
