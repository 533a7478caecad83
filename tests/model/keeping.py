"""What garbage collection must leave alone, and what it must have taken: two dates for everything, and no queues.

Time stands still but for `jump`. The second that an example takes, and the jitter of reviews, are in SLACK_SECONDS.

Something that became suspect stays for the review delay, and something that a client was told of stays for its grace,
whatever else happens to it. When all of that is over and nothing uses it, the next whole pass must take it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

SLACK_SECONDS: Final = 150.0
HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
# A touch gives the whole delay, but none is written while a review that leaves half of it, or this, is pending.
GRACE_SECONDS_MAX: Final = 12 * HOUR
# What the collectors are told.
STORAGE_DELAY_SECONDS: Final = HOUR / 2
UPLOAD_AGE_SECONDS: Final = 7 * DAY
RECEIPT_AGE_SECONDS: Final = 90 * DAY
# How long the object of a tombstone stays at least, and at most until it may be deleted.
_GRAVES: Final[dict[str, tuple[float, float]]] = {
    "blob_unused": (STORAGE_DELAY_SECONDS, STORAGE_DELAY_SECONDS),
    "upload_duplicate": (0, 0),
    "upload_rejected": (0, 0),
    "upload_cancelled": (0, HOUR),
    "upload_taken_over": (DAY, DAY),
    "upload_expired": (DAY, DAY),
}


@dataclass
class Dates:
    """Until `stays` nothing may take it. Unused, it must be gone after the first pass from `goes` on."""

    stays: float = 0.0
    goes: float = 0.0

    def extend(self, stays: float, goes: float) -> None:
        self.stays = max(self.stays, stays)
        self.goes = max(self.goes, goes)


class Keeping:
    """The dates of everything by its name: `("manifest", repository, digest)`, `("stored", digest)`, and so on."""

    def __init__(self, delay_seconds: float) -> None:
        self.now = 0.0
        self.delay_seconds = delay_seconds
        # Unused manifests whose reviews were settled while untagged ones are kept: nobody suspects them any more.
        self.spared: set[tuple[str, ...]] = set()
        self._dates: defaultdict[tuple[str, ...], Dates] = defaultdict(Dates)
        self._graves: dict[str, Dates] = {}

    def jump(self, seconds: float) -> None:
        self.now += seconds

    def appeared(self, *what: str) -> None:
        """It is new, and so are its reviews."""
        self._dates.pop(what, None)
        self.suspect(*what)

    def suspect(self, *what: str) -> None:
        """It lost something that used it, or it appeared and may never be used."""
        self.spared.discard(what)
        self._dates[what].extend(self.now + self.delay_seconds, self.now + self.delay_seconds)

    def confirm(self, *what: str) -> None:
        """A client was told that it is there."""
        grace = min(self.delay_seconds / 2, GRACE_SECONDS_MAX)
        self._dates[what].extend(self.now + grace, self.now + self.delay_seconds)

    def use_upload(self, *what: str, recorded: bool) -> None:
        """A request used the session; `recorded`: it certainly left its time there."""
        until = self.now + UPLOAD_AGE_SECONDS
        self._dates[what].extend(until if recorded else 0.0, until)

    def may_go(self, what: tuple[str, ...]) -> bool:
        """Whether its time may be over."""
        return self.now + SLACK_SECONDS >= self._dates[what].stays

    def must_go(self, what: tuple[str, ...]) -> bool:
        """Whether its time is over in any case."""
        return self.now - SLACK_SECONDS > self._dates[what].goes and what not in self.spared

    def seconds_until_gone(self, what: tuple[str, ...]) -> float:
        """How long it is until nothing that happened so far keeps it."""
        return self._dates[what].goes - self.now

    def bury(self, tombstones: dict[str, str]) -> None:
        """Reasons by storage key: those not seen before were made since the last jump."""
        for key, reason in tombstones.items():
            if key not in self._graves:
                at_least, at_most = _GRAVES[reason]
                self._graves[key] = Dates(self.now + at_least, self.now + at_most)

    def may_be_removed(self, key: str) -> bool:
        """Whether the object may be deleted from storage."""
        return key in self._graves and self.now + SLACK_SECONDS >= self._graves[key].stays

    def must_be_removed(self, key: str) -> bool:
        return key in self._graves and self.now - SLACK_SECONDS > self._graves[key].goes
