"""wrk, with a Lua script for each kind of load, which prints what wrk counted in a form that can be read."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import children
from benchmarks.errors import CaseError
from benchmarks.loads import Load, check
from benchmarks.programs import path_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SCRIPTS: Final = Path(__file__).with_name("lua")
_FIGURES: Final = "figures "
_WRONG: Final = "wrong "
# Longer than the slowest single answer: what hangs is a fault, what is slow is a figure.
_TIMEOUT_SECONDS: Final = 120


async def run(
    url: str,
    script: str,
    arguments: Sequence[str] = (),
    *,
    seconds: float,
    connections: int,
    threads: int = 1,
    headers: Mapping[str, str] | None = None,
    answer_bytes: int = 0,
    requests_per_operation: float = 1,
) -> Load:
    """Load the URL. Raises CaseError as `loads.check` does, and if answers have less than `answer_bytes` on average."""
    command = [
        *(path_of("wrk"), f"-t{threads}", f"-c{connections}", f"-d{math.ceil(seconds)}s"),
        *("--timeout", f"{_TIMEOUT_SECONDS}s", "-s", str(_SCRIPTS / f"{script}.lua")),
        *(word for name, value in (headers or {}).items() for word in ("-H", f"{name}: {value}")),
        *(url, "--", *arguments),
    ]
    done = await children.run(command, {**os.environ, "LUA_PATH": f"{_SCRIPTS}/?.lua"})
    figures = parse(done.output)
    if figures["bytes"] < answer_bytes * figures["requests"]:
        raise CaseError(f"answers of {answer_bytes} bytes had {figures['bytes'] / figures['requests']:.0f}")
    return Load(
        operations=figures["requests"] / requests_per_operation,
        seconds=figures["microseconds"] / 1e6,
        generator_seconds=done.cpu_seconds,
        latencies_ms={name: figures[name] / 1e3 for name in ("p50", "p99")},
    )


def parse(output: str) -> dict[str, float]:
    """What the script printed. Raises CaseError if it is not there, or says that not every answer was right."""
    found = [line.removeprefix(_FIGURES) for line in output.splitlines() if line.startswith(_FIGURES)]
    if len(found) != 1:
        raise CaseError(f"wrk gave no figures: {output.strip() or 'no word'}")
    figures: dict[str, Any] = json.loads(found[0])
    wrong = {line.removeprefix(_WRONG) for line in output.splitlines() if line.startswith(_WRONG)}
    check(figures, ", ".join(sorted(wrong)))
    return figures
