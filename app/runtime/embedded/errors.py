"""What goes wrong with the embedded PostgreSQL, in words for the person who started it."""

from __future__ import annotations


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be used. Its text is one sentence that says why and what to do."""
