"""Scopes: what a client asks a token service for, and what a challenge tells it to ask for.

`repository:team/app:pull,push`, several separated by spaces (Distribution, "Token Scope Documentation"). The name may
hold colons, as in `repository:host:5000/app:pull`, so it lies between the first and the last one. A class, as in
`repository(plugin):…`, is deprecated, and means nothing here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app.domain.access import Action
from app.domain.errors import ScopeInvalid
from app.domain.limits import SCOPE_CHARS_MAX, SCOPES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

ANY: Final = "*"
REPOSITORY: Final = "repository"
REGISTRY: Final = "registry"
CATALOG: Final = "catalog"

_KIND: Final = re.compile(r"([a-z0-9]+)(?:\([a-z0-9]+\))?")
_ACTIONS: Final = re.compile(r"(?:[a-z]+|\*)(?:,(?:[a-z]+|\*))*")
_EXPECTED: Final = "such as repository:team/app:pull,push or registry:catalog:*"


@dataclass(frozen=True)
class Scope:
    """Actions on one thing: a repository, or what the registry calls `catalog`."""

    kind: str
    name: str
    actions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}:{','.join(self.actions)}"


def parse_scopes(texts: Iterable[str]) -> list[Scope]:
    """The scopes in several values, each of which may hold several. Raises ScopeInvalid."""
    words = [word for text in texts for word in text.split(" ") if word]
    if len(words) > SCOPES_MAX:
        raise ScopeInvalid(f"{len(words)} scopes, at most {SCOPES_MAX} are taken")
    return [parse_scope(word) for word in words]


def parse_scope(text: str) -> Scope:
    """One scope. Raises ScopeInvalid. Its name is any text: what no repository is called, nothing is granted on."""
    kind, _, rest = text.partition(":")
    name, colon, actions = rest.rpartition(":")
    matched = _KIND.fullmatch(kind)
    if (
        len(text) > SCOPE_CHARS_MAX
        or matched is None
        or not colon
        or not name
        or not text.isprintable()
        or _ACTIONS.fullmatch(actions) is None
    ):
        raise ScopeInvalid({"scope": text[:64], "expected": _EXPECTED})
    return Scope(matched[1], name, tuple(dict.fromkeys(actions.split(","))))


def demanded(action: Action, repository: str | None) -> Scope:
    """What a client should ask for to do `action`. Who pushes also looks what is there already."""
    if action is Action.CATALOG:
        return Scope(REGISTRY, CATALOG, (ANY,))
    assert repository is not None, "only the catalog is about no repository"
    wanted = (Action.PULL, Action.PUSH) if action is Action.PUSH else (action,)
    return Scope(REPOSITORY, repository, tuple(map(str, wanted)))
