"""What people and programs read: a line per measurement, the table, and the same with everything in it as JSON."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.figures import spread
from benchmarks.programs import PEER as PEER_PROGRAM
from benchmarks.programs import version_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.figures import CaseResult, Measurement, RowResult

_HEADINGS: Final = (
    ("case", "unit", "", "median", "min", "max", "spread", "medians", "pairs", "CPU s/1000", "load CPU"),
)
# A generator that takes this much of one core may be what limits the case.
_BUSY: Final = 0.8
_MANY: Final = 100


def say(text: str) -> None:
    """A word on how things go."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def table(rows: Sequence[RowResult], failed: Sequence[CaseResult]) -> str:
    """Everything that was measured, and what could not be."""
    lines = [*_HEADINGS, *(line for row in rows for line in _lines(row))]
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    text = "\n".join(_aligned(line, widths) for line in lines)
    text += "".join(f"\n{case.name}: FAILED: {case.failure}" for case in failed)
    return text + "\n"


def document(
    rows: Sequence[RowResult], cases: Sequence[CaseResult], run: Mapping[str, Any]
) -> dict[str, Any]:
    """The same for programs, with every single measurement. `run` is how it came about."""
    return {
        "machine": machine(),
        "run": run,
        "rows": [_row(row) for row in rows],
        "cases": [
            {
                "name": case.name,
                "failure": case.failure,
                "measurements": {
                    contender: [_measurement(m) for m in measurements]
                    for contender, measurements in case.measurements.items()
                },
            }
            for case in cases
        ],
    }


def versions() -> dict[str, str]:
    """Of what was measured with."""
    return {
        "python": platform.python_version(),
        "peer": version_of(PEER_PROGRAM, "--version"),
        "wrk": version_of("wrk", "-v"),
        "curl": version_of("curl", "--version"),
    }


def machine() -> dict[str, Any]:
    """What this was measured on."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def number(value: float) -> str:
    """As many digits as say something."""
    if value >= _MANY:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def busy_generators(cases: Sequence[CaseResult]) -> list[str]:
    """Cases in which the generator may have been the limit."""
    return [
        case.name
        for case in cases
        if any(
            m.load.generator_seconds > _BUSY * m.load.seconds
            for measurements in case.measurements.values()
            for m in measurements
        )
    ]


def _lines(row: RowResult) -> list[tuple[str, ...]]:
    return [
        (*((row.name, row.unit) if at == 0 else ("", "")), *_line(row, contender))
        for at, contender in enumerate(row.values)
    ]


def _line(row: RowResult, contender: str) -> tuple[str, ...]:
    found = spread(row.values[contender])
    beside = row.ratios(contender)
    measurements = row.case.measurements[contender]
    generator = spread([m.load.generator_seconds / m.load.seconds for m in measurements]).median
    return (
        contender,
        *(number(value) for value in (found.median, found.smallest, found.largest)),
        f"{found.percent:.0f} %",
        number(beside.of_medians) if beside else "",
        number(beside.of_pairs) if beside else "",
        number(row.case.cpu_per_thousand(contender)),
        f"{100 * generator:.0f} %",
    )


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    words = [
        word.ljust(width) if at < 3 else word.rjust(width)  # noqa: PLR2004  (the first three are words)
        for at, (word, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(words).rstrip()


def _row(row: RowResult) -> dict[str, Any]:
    return {
        "name": row.name,
        "unit": row.unit,
        "beside": row.beside,
        "contenders": {
            contender: {
                "values": list(values),
                **asdict(spread(values)),
                "cpu_seconds_per_thousand": row.case.cpu_per_thousand(contender),
                **({"ratios": asdict(beside)} if (beside := row.ratios(contender)) else {}),
            }
            for contender, values in row.values.items()
        },
    }


def _measurement(measurement: Measurement) -> dict[str, Any]:
    return {
        **asdict(measurement.load),
        "cpu_seconds": measurement.cpu.total,
        "cpu_seconds_postgres": measurement.cpu.database,
        "cpu_seconds_per_thousand": measurement.cpu_per_thousand,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor()
