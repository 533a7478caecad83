"""What a load generator did, and the rule for all of them: a wrong answer or a broken connection fails the case."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.errors import CaseError

if TYPE_CHECKING:
    from collections.abc import Mapping

# What may not happen, as the generators call it, and as we do.
_FAULTS = {
    "status": "answers were not 2xx",
    "wrong": "answers were not the expected ones",
    "connect": "connections failed",
    "read": "reads failed",
    "write": "writes failed",
    "timeout": "requests had no answer in time",
    "exhausted": "threads ran out of content",
}


@dataclass(frozen=True)
class Load:
    """`operations` of the case's kind in `seconds`. `generator_seconds` is the generator's own processor time.

    `gauges` is what was looked at meanwhile, by name.
    """

    operations: float
    seconds: float
    generator_seconds: float = 0.0
    latencies_ms: Mapping[str, float] = field(default_factory=dict[str, float])
    gauges: Mapping[str, float] = field(default_factory=dict[str, float])


def check(figures: Mapping[str, float], words: str = "") -> None:
    """Raise CaseError if something happened that may not, or if nothing happened at all."""
    faults = [f"{figures[name]:g} {text}" for name, text in _FAULTS.items() if figures.get(name)]
    if not faults and not figures.get("requests"):
        faults = ["there was no answer at all"]
    if faults:
        raise CaseError("; ".join([*faults, *filter(None, [words])]))
