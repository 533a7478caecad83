"""A line of the table, and the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.figures import spread
from benchmarks.report import number

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADINGS: Final = ("case", "unit", "", "median", "min", "max", "spread", "ratio", "to", "target", "")
_WORDS: Final = 3


@dataclass(frozen=True)
class Target:
    """What a figure should reach: the median, or if `is_ratio` the ratio, not less than this, or not more."""

    bound: float
    is_ratio: bool = False
    is_least: bool = True

    def __str__(self) -> str:
        return f"{'≥' if self.is_least else '≤'} {self.bound:,g}{'x' if self.is_ratio else ''}"


@dataclass(frozen=True)
class Row:
    """A figure: what came out each time, and beside what it is to be seen. Those were measured in turns with these."""

    case: str
    unit: str
    variant: str
    values: Sequence[float]
    beside: Row | None = None
    target: Target | None = None
    notes: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def ratio(self) -> float | None:
        """Of the medians."""
        if self.beside is None:
            return None
        other = median(self.beside.values)
        return median(self.values) / other if other else None

    @property
    def is_missed(self) -> bool:
        """Whether there is a target, and this is not it."""
        target = self.target
        if target is None:
            return False
        reached = self.ratio if target.is_ratio else median(self.values)
        return reached is not None and (reached < target.bound if target.is_least else reached > target.bound)


def table(rows: Sequence[Row]) -> str:
    """Everything, aligned. Empty values are left out."""
    lines = [_HEADINGS, *(_line(row) for row in rows if row.values)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(_HEADINGS))]
    return "".join(
        "  ".join(
            word.ljust(width) if at < _WORDS else word.rjust(width)
            for at, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        + "\n"
        for line in lines
    )


def _line(row: Row) -> tuple[str, ...]:
    found = spread(row.values)
    return (
        *(row.case, row.unit, row.variant),
        *(number(value) for value in (found.median, found.smallest, found.largest)),
        f"{found.percent:.0f} %",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        "" if row.beside is None else row.beside.variant,
        "" if row.target is None else str(row.target),
        "missed" if row.is_missed else "",
    )
