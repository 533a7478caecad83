"""A PostgreSQL that comes with the registry, and the lock that keeps a data directory to one instance."""

from __future__ import annotations

from app.runtime.embedded.errors import EmbeddedError
from app.runtime.embedded.lock import InstanceLock
from app.runtime.embedded.server import Address, EmbeddedPostgres

__all__ = ["Address", "EmbeddedError", "EmbeddedPostgres", "InstanceLock"]
