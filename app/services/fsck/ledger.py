"""The books of one run: findings are counted, and told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.services.fsck.findings import Kind, Summary

if TYPE_CHECKING:
    from app.services.fsck.findings import Finding, Listener, Phase

# Some ten megabytes.
LOST_MAX: Final = 100_000
_LOSSES: Final = (Kind.LOST, Kind.WRONG_SIZE, Kind.WRONG_CONTENT, Kind.UNREADABLE)


class Ledger:
    """Counts for the summary, and passes on to the listener.

    `lost` are the packed digests of blobs that were found without their bytes and not repaired, as many as memory
    allows: so that the images that need them can be told.
    """

    def __init__(self, listener: Listener) -> None:
        self.summary = Summary()
        self.lost: set[bytes] = set()
        self._listener = listener

    def found(self, finding: Finding) -> None:
        """A finding is proven, and repaired or not."""
        findings = self.summary.findings
        findings[finding.kind] = findings.get(finding.kind, 0) + 1
        self.summary.repaired += finding.is_repaired
        if finding.kind in _LOSSES and not finding.is_repaired and len(self.lost) < LOST_MAX:
            assert finding.digest is not None
            self.lost.add(finding.digest.packed)
        self._listener.found(finding)

    def began(self, phase: Phase, about: int) -> None:
        """See Listener."""
        self._listener.began(phase, about)

    def advanced(self, steps: int) -> None:
        """See Listener."""
        self._listener.advanced(steps)
