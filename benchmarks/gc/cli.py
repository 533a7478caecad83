"""The command line, and a run from beginning to end."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import report
from benchmarks.errors import BenchError
from benchmarks.gc import figures, latency, rates, reclaim
from benchmarks.gc.content import Size
from benchmarks.gc.stand import FULL_REPOSITORIES, Stand
from benchmarks.programs import PEER, install_missing, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.gc.figures import Row

PARTS: Final = ("rates", "latency", "reclaim")
_FAILED: Final = 1
_INTERRUPTED: Final = 130
_DIRECTORY: Final = Path("/var/tmp")  # noqa: S108  (our directory below it is made safely)
_QUICK_REPOSITORIES: Final = 10
_QUICK_SECONDS: Final = 2.0
# As an operator's own server gets by default, and as `--local` has it.
_PARTITIONS: Final = (16, 4)
# A small file takes a block and an inode, in the peer's tree with its directory and links several.
_BYTES_PER_REPOSITORY: Final = 8 * 1024**2
_BYTES: Final = 2 * 1024**3


@dataclass
class Run:
    """What is to be measured, and what came of it so far."""

    parts: Sequence[str]
    size: Size
    partitions: Sequence[int]
    rounds: int
    reclaims: int
    seconds: float
    directory: Path
    with_peer: bool
    is_smoke: bool
    rows: list[Row] = field(default_factory=list["Row"])
    failures: list[str] = field(default_factory=list[str])

    async def run(self) -> None:
        """Measure everything. A part that fails does not keep the others. Raises BenchError."""
        wanted = _BYTES + self.size.repositories * _BYTES_PER_REPOSITORY
        if shutil.disk_usage(self.directory).free < wanted:
            raise BenchError(
                f"{self.directory} has less than {wanted >> 30} GiB free: choose another --directory"
            )
        with ExitStack() as stack:
            # Last in, first out: PostgreSQL stops before its directory goes.
            work = tempfile.TemporaryDirectory(
                prefix="registry-bench-gc-", dir=self.directory, ignore_cleanup_errors=True
            )
            stand = Stand(Path(stack.enter_context(work)), self.size, durable=not self.is_smoke)
            stack.callback(stand.stop)
            stand.start()
            for part in self.parts:
                report.say(f"[{part}]")
                try:
                    self.rows += await self._measure(part, stand)
                except BenchError as error:
                    self.failures.append(f"{part}: FAILED: {error}")
                    report.say(f"    {self.failures[-1]}")

    async def _measure(self, part: str, stand: Stand) -> list[Row]:
        paces = [mode for mode in latency.LOADS if not (self.is_smoke and mode == latency.DEFAULT)]
        match part:
            case "rates":
                return await rates.measure(stand, self.partitions)
            case "latency":
                return await latency.measure(stand, self.partitions[0], paces, self.rounds, self.seconds)
            case _:
                return await reclaim.measure(
                    stand, self.partitions[0], paces, self.reclaims, self.seconds, with_peer=self.with_peer
                )

    def document(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "machine": report.machine(),
            "run": {
                "size": {name: getattr(self.size, name) for name in _SIZES},
                "partitions": list(self.partitions),
                "rounds": self.rounds,
                "seconds": self.seconds,
            },
            "rows": [{**asdict(row), "ratio": row.ratio, "missed": row.is_missed} for row in self.rows],
            "failures": self.failures,
        }


_SIZES: Final = ("repositories", "untagged", "tagged", "dangling", "referenced", "going", "staying")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns the exit code."""
    options = _parser().parse_args(arguments)
    run = _run_of(options)
    try:
        if "reclaim" in run.parts and run.with_peer:
            install_missing()
            report.say(f"peer: {version_of(PEER, '--version')}")
        code = _run(run)
    except BenchError as error:
        report.say(f"bench-gc: {error}")
        return _FAILED
    if run.rows:
        sys.stdout.write(figures.table(run.rows))
    sys.stdout.write("".join(f"{failure}\n" for failure in run.failures))
    if options.json is not None:
        options.json.write_text(f"{json.dumps(run.document(), indent=1)}\n")
    return code or (_FAILED if run.failures else 0)


def _run(run: Run) -> int:
    async def work() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        await run.run()

    try:
        asyncio.run(work())
    except (KeyboardInterrupt, asyncio.CancelledError):
        report.say("bench-gc: stopped, and everything that it had started")
        return _INTERRUPTED
    return 0


def _run_of(options: argparse.Namespace) -> Run:
    quick: bool = options.quick
    return Run(
        parts=[part for part in PARTS if part in options.part or not options.part],
        size=Size(options.repositories or (_QUICK_REPOSITORIES if quick else FULL_REPOSITORIES)),
        partitions=options.partitions or _PARTITIONS,
        rounds=1 if quick else options.rounds,
        reclaims=1 if quick else options.reclaims,
        seconds=_QUICK_SECONDS if quick else options.seconds,
        directory=options.directory,
        with_peer=not options.no_peer,
        is_smoke=options.smoke,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench-gc ARGS=…", description="Measure garbage collection, and what clients notice of it."
    )
    parser.add_argument(
        "--quick", action="store_true", help="a hundredth of everything, one round: does it all work?"
    )
    parser.add_argument("--part", action="append", default=[], choices=PARTS, help="only this")
    parser.add_argument(
        "--repositories",
        type=_positive,
        help=f"how much there is of everything (default {FULL_REPOSITORIES})",
    )
    parser.add_argument(
        "--partitions",
        type=_positive,
        action="append",
        help="of the large tables (default 16 and 4; latency and reclaim with the first)",
    )
    parser.add_argument(
        "--rounds", type=_positive, default=5, help="of latency, each quiet and busy (default 5)"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of latency, each (default 10)")
    parser.add_argument("--reclaims", type=_positive, default=1, help="rounds of reclaim (default 1)")
    parser.add_argument("--no-peer", action="store_true", help="reclaim without docker-registry")
    parser.add_argument(
        "--smoke", action="store_true", help="for tests: nothing reaches the disk, and no default pace"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to this file")
    parser.add_argument(
        "--directory",
        type=Path,
        default=_DIRECTORY,
        help=f"where the data is kept meanwhile (default {_DIRECTORY})",
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value
