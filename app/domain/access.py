"""Who asks, and what they may do. One question, `Caller.may`, is asked by the route table and by mount."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Action(StrEnum):
    """What a route does to a repository (protocol of the token scopes: pull, push, delete) or to the registry."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    CATALOG = "catalog"


class Caller(Protocol):
    """The client of one request."""

    @property
    def name(self) -> str:
        """The account's name, empty for an anonymous client."""
        ...

    def may(self, action: Action, repository: str | None) -> bool:
        """Whether this caller may do `action` to `repository` (None: to all of the registry)."""
        ...


@dataclass(frozen=True)
class Anyone:
    """The caller of a registry without authentication: everybody may do everything."""

    name: str = ""

    def may(self, action: Action, repository: str | None) -> bool:
        del action, repository
        return True
