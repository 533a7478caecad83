"""From measurements to figures: medians, spread, ratios."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.contenders import PEER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.loads import Load
    from benchmarks.trees import Use

_PER = 1000


@dataclass(frozen=True)
class Measurement:
    """One load of one contender, and the processor time that the contender took for it."""

    load: Load
    cpu: Use

    @property
    def cpu_per_thousand(self) -> float:
        """Processor seconds for a thousand operations."""
        return self.cpu.total / self.load.operations * _PER


@dataclass
class CaseResult:
    """What a case gave: a list of measurements for each contender, in the order of the rounds, or why there is none."""

    name: str
    measurements: dict[str, list[Measurement]] = field(default_factory=dict[str, list[Measurement]])
    failure: str = ""

    def cpu_per_thousand(self, contender: str) -> float:
        """The contender's median."""
        return median(m.cpu_per_thousand for m in self.measurements[contender])


@dataclass(frozen=True)
class RowResult:
    """The figures of one row: those of each round, by contender. They are compared with those of `beside`."""

    name: str
    unit: str
    case: CaseResult
    values: Mapping[str, Sequence[float]]
    beside: str = PEER

    def ratios(self, contender: str) -> Ratios | None:
        """The contender beside the one that it is compared with, None if it is that one or if there is none."""
        if contender == self.beside or self.beside not in self.values:
            return None
        return ratios(self.values[contender], self.values[self.beside])


@dataclass(frozen=True)
class Spread:
    """The median, and what it is the median of lies between."""

    median: float
    smallest: float
    largest: float

    @property
    def percent(self) -> float:
        """How far apart smallest and largest are, as a part of the median."""
        return 100 * (self.largest - self.smallest) / self.median if self.median else 0.0


@dataclass(frozen=True)
class Ratios:
    """One contender beside another: the ratio of their medians, and the median of the ratios of each round."""

    of_medians: float
    of_pairs: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Ratios:
    """Of values that were measured in turns, as many on either side."""
    return Ratios(median(ours) / median(theirs), median(a / b for a, b in zip(ours, theirs, strict=True)))
