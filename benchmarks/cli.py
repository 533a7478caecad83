"""The command line."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import report
from benchmarks.cases import chosen, every_case
from benchmarks.errors import BenchError
from benchmarks.programs import install_missing
from benchmarks.session import Session
from benchmarks.sides import NAMES, check_installed

if TYPE_CHECKING:
    from collections.abc import Sequence

_FAILED: Final = 1
_INTERRUPTED: Final = 130
# Made for what is large and may stay; /tmp may be memory.
_DIRECTORY: Final = Path("/var/tmp")  # noqa: S108  (our directory below it is made safely)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.list:
        sys.stdout.write("".join(f"{case.name}\n" for case in every_case()))
        return 0
    try:
        session = _session(options)
        install_missing()
    except BenchError as error:
        report.say(f"bench: {error}")
        return _FAILED
    code = _run(session)
    if session.results:
        _tell(session, options.json)
    return code or (_FAILED if session.failed else 0)


def _session(options: argparse.Namespace) -> Session:
    check_installed(options.side)
    for directory in (options.directory, *([options.json.absolute().parent] if options.json else [])):
        if not directory.is_dir():
            raise BenchError(f"there is no directory {directory}")
    return Session(
        chosen(options.case),
        rounds=1 if options.quick else options.rounds,
        seconds=1 if options.quick else options.seconds,
        sides=list(dict.fromkeys(options.side)),
        directory=options.directory,
    )


def _run(session: Session) -> int:
    """The session's exit code; one that was told to stop has stopped what it started."""

    async def work() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        await session.run()

    try:
        asyncio.run(work())
    except (KeyboardInterrupt, asyncio.CancelledError):
        report.say("bench: stopped, and everything that it had started")
        return _INTERRUPTED
    except BenchError as error:
        report.say(f"bench: {error}")
        return _FAILED
    return 0


def _tell(session: Session, file: Path | None) -> None:
    if session.rows or session.failed:
        sys.stdout.write(report.table(session.rows, session.failed))
    if busy := report.busy_generators(session.results):
        report.say(f"bench: the generator took most of a core, and may be the limit, in {', '.join(busy)}")
    if file is not None:
        run = {
            "rounds": session.rounds,
            "seconds": session.seconds,
            "sides": list(session.sides),
            "versions": report.versions(),
        }
        text = json.dumps(report.document(session.rows, session.results, run), indent=1)
        file.write_text(f"{text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=…", description="Measure the registry beside Debian's docker-registry."
    )
    parser.add_argument(
        "--rounds", type=_positive, default=5, help="measurements of each case and side (default 5)"
    )
    parser.add_argument("--seconds", type=_positive, default=5, help="length of a measurement (default 5)")
    parser.add_argument("--quick", action="store_true", help="one round of one second: does everything work?")
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        metavar="NAME",
        help="only this case, or those of a pattern: 'blob-*'",
    )
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    parser.add_argument(
        "--side", action="append", default=[], choices=NAMES, help="also our application on this server"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every measurement to this file")
    parser.add_argument(
        "--directory",
        type=Path,
        default=_DIRECTORY,
        help=f"where both keep their data meanwhile (default {_DIRECTORY})",
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value
