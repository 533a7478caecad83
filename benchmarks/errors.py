"""What can go wrong, in sentences for whoever reads the terminal."""

from __future__ import annotations


class BenchError(Exception):
    """The run cannot go on."""


class CaseError(BenchError):
    """One case cannot be measured: a wrong answer, a broken connection. The others go on, and the run has failed."""
