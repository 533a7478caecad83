"""What keeps the server from starting or going on, in words for the person who started it."""

from __future__ import annotations


class ServerError(Exception):
    """Its text is one sentence that says what is wrong and, where it can, what to do."""
