"""How much at a time, and how long between. Pure arithmetic: it is told what happened and says what to do.

A collector that finds full batches goes on after a pause in proportion to the time that the last one took: on a
database that is slow, for whatever reason, it is at work no larger part of the time, with smaller batches. One that has
fallen behind rests less, and in the end not at all.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gc_workers.collectors import Batch

# A batch of reviews holds its locks while it lasts.
BATCH_SECONDS_MAX: Final = 0.25
# What is late by the first is hurried, by the second done without pauses.
LATE_SECONDS: Final = 3600.0
VERY_LATE_SECONDS: Final = 12 * 3600.0
# However far the settings let waits grow: an hour's wait would be found out by nobody until the disk is full.
IDLE_SECONDS_MAX: Final = 60.0
ERROR_SECONDS_MAX: Final = 300.0
# Work that is due but in other hands is not asked for more often, whatever the interval is.
_WAIT_SECONDS_MIN: Final = 0.01
_HALVING_SECONDS: Final = 0.2
_JITTER: Final = 0.2


@dataclass(frozen=True)
class Tempo:
    """What the settings say.

    `load` is the part of the time at work as long as nothing is late; `rate` items a second, 0 as many as there are. A
    batch that takes longer than `batch_seconds` is made smaller, from `batch` on. `interval_seconds` is the shortest
    wait once nothing more is due, `longest_seconds` the longest of any kind. With `is_steady` an idle collector always
    looks again after the interval. Errors are forgotten by a success, but not before `cooldown_seconds` have passed.
    """

    batch: int = 100
    batch_seconds: float = BATCH_SECONDS_MAX
    load: float = 0.05
    rate: int = 0
    interval_seconds: float = 5.0
    longest_seconds: float = IDLE_SECONDS_MAX
    is_steady: bool = False
    cooldown_seconds: float = 0.0


class Pace:
    """The pace of one collector. `limit` is the size of its next batch."""

    def __init__(self, tempo: Tempo) -> None:
        self.limit = tempo.batch
        self._tempo = tempo
        self._errors = 0
        self._error_at = float("-inf")

    def done(self, batch: Batch, seconds: float, now: float) -> float | None:
        """A batch took `seconds`. Returns the pause before the next one; None: nothing more is due."""
        is_full = batch.taken >= self.limit
        if now - self._error_at >= self._tempo.cooldown_seconds:
            self._errors = 0
        if seconds > self._tempo.batch_seconds:
            self.limit = max(self.limit // 2, 1)
        elif is_full and seconds < self._tempo.batch_seconds / 4:
            self.limit = min(self.limit * 2, self._tempo.batch)
        if not is_full:
            return None
        pause = seconds / self._load(batch.late_seconds) - seconds
        if self._tempo.rate:
            pause = max(pause, batch.taken / self._tempo.rate - seconds)
        return max(pause, self._error_wait() if self._errors else 0.0)

    def failed(self, now: float) -> float:
        """A batch failed. Returns the wait before the next, which is smaller: one bad item stops only itself.

        What is wrong is first sought in the batch, quickly; only when one item alone fails do the waits grow.
        """
        self._error_at = now
        if self.limit > 1:
            self.limit //= 2
            return _jittered(min(max(self._tempo.interval_seconds, _WAIT_SECONDS_MIN), _HALVING_SECONDS))
        self._errors += 1
        return self._error_wait()

    def idle(self, seconds_until_due: float | None) -> float:
        """How long to wait when nothing more is due before `seconds_until_due`."""
        tempo = self._tempo
        longest = min(IDLE_SECONDS_MAX, max(tempo.longest_seconds, 0.0))
        wait = longest if seconds_until_due is None else seconds_until_due
        if tempo.is_steady:
            wait = tempo.interval_seconds
        wait = max(min(wait, longest), tempo.interval_seconds, _WAIT_SECONDS_MIN)
        return max(_jittered(wait), self._error_wait() if self._errors else 0.0)

    def _load(self, late_seconds: float) -> float:
        """The part of the time at work: what the settings say, and more for one that is late."""
        lateness = (late_seconds - LATE_SECONDS) / (VERY_LATE_SECONDS - LATE_SECONDS)
        return self._tempo.load + (1 - self._tempo.load) * min(max(lateness, 0.0), 1.0)

    def _error_wait(self) -> float:
        longest = min(ERROR_SECONDS_MAX, max(self._tempo.longest_seconds, 0.0))
        first = max(self._tempo.interval_seconds, 0.1)
        return _jittered(min(first * 2 ** min(self._errors - 1, 16), longest))


def _jittered(seconds: float) -> float:
    """Replicas that were started together do not go on in step."""
    return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
