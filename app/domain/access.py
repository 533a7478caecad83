"""Who asks, and what they may do. One question, `Caller.may`, is asked by the guard of the routes and by mount."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Final, Protocol


class Action(StrEnum):
    """What a route does to a repository (the token scopes' pull, push, delete) or to the registry."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    CATALOG = "catalog"


class Door(Enum):
    """What a route needs that is about no repository."""

    OPEN = "open"  # nothing: credentials are not looked at
    LOGIN = "login"  # credentials that are accepted, whatever they allow


@dataclass(frozen=True)
class Subject:
    """Who somebody is, for logs and events.

    `name` is empty for an anonymous client. `kind` is how they proved it, in the token issuer's words (GitLab's
    `auth_type`). `user` is what the issuer wants handed on with events: GitLab's nested token, never to be logged.
    """

    name: str = ""
    kind: str = ""
    user: str = field(default="", repr=False)
    projects: tuple[str, ...] = ()


class TagRules(Protocol):
    """What a caller may not do to tags of a repository, however much else it may do there (GitLab's claims)."""

    @property
    def guards_manifests(self) -> bool:
        """Whether some tag might be protected from deletion, so that no manifest may be deleted by digest."""
        ...

    def is_push_denied(self, tag: str) -> bool: ...

    def is_delete_denied(self, tag: str) -> bool: ...

    def is_immutable(self, tag: str) -> bool:
        """Whether the tag, once it exists, may neither move, nor be pushed again, nor be deleted."""
        ...


class Caller(Protocol):
    """The client of one request."""

    @property
    def subject(self) -> Subject: ...

    def may(self, action: Action, repository: str | None) -> bool:
        """Whether this caller may do `action` to `repository` (None: to all of the registry)."""
        ...

    def tag_rules(self, repository: str) -> TagRules | None:
        """The rules that hold for the repository's tags, None if there are none.

        Raises TagProtectionPatternInvalid, TagImmutabilityPatternInvalid or TagPatternCountLimitExceeded if the
        token's rules cannot be followed.
        """
        ...


@dataclass(frozen=True)
class Anyone:
    """A caller who may do everything: all of them, on a registry without authentication."""

    subject: Subject = Subject()

    def may(self, action: Action, repository: str | None) -> bool:
        del action, repository
        return True

    def tag_rules(self, repository: str) -> TagRules | None:
        del repository


@dataclass(frozen=True)
class Nobody:
    """A caller who was not asked who they are, and may do nothing."""

    subject: Subject = Subject()

    def may(self, action: Action, repository: str | None) -> bool:
        del action, repository
        return False

    def tag_rules(self, repository: str) -> TagRules | None:
        del repository


ANYONE: Final = Anyone()
NOBODY: Final = Nobody()
