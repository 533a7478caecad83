"""What a verified token allows, and to whom.

Rights are in the claim `access` alone: entries of a type, a name and actions, of which names are compared exactly and
the action `*` stands for any. No `access` and no actions, or `null`, allow nothing; an entry without a type or a name,
and whatever is not what it should be, makes the token as a whole refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from app.auth.compact import malformed
from app.auth.tag_rules import parse_tag_rules
from app.domain.access import Action, Subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from app.domain.access import TagRules

SUBJECT_CHARS_MAX: Final = 1024
# What is longer, or more, is left out: it is for log lines and events only.
PROJECT_CHARS_MAX: Final = 1024
PROJECTS_MAX: Final = 100

_ANY: Final = "*"
_REPOSITORY: Final = "repository"
_CATALOG: Final = ("registry", "catalog")


@dataclass(frozen=True)
class Entry:
    """One entry of `access`."""

    type: str
    name: str
    actions: frozenset[str]
    meta: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Grants:
    """The caller that a token stands for (`app.domain.access.Caller`)."""

    subject: Subject
    access: Mapping[tuple[str, str], frozenset[str]] = field(repr=False)
    meta: Mapping[str, Sequence[Mapping[str, Any]]] = field(repr=False)
    _rules: dict[str, TagRules | None] = field(
        default_factory=dict[str, "TagRules | None"], repr=False, compare=False
    )

    def may(self, action: Action, repository: str | None) -> bool:
        if action is Action.CATALOG:
            return repository is None and _ANY in self.access.get(_CATALOG, ())
        if repository is None:
            return False
        actions = self.access.get((_REPOSITORY, repository), ())
        return action in actions or _ANY in actions

    def tag_rules(self, repository: str) -> TagRules | None:
        """The rules of all entries for the repository. They are read when they are asked for first."""
        if repository not in self.meta:
            return None
        if repository not in self._rules:
            self._rules[repository] = _all_rules(self.meta[repository])
        return self._rules[repository]


@dataclass(frozen=True)
class _AllRules:
    """The rules of several entries: what one of them forbids is forbidden."""

    each: tuple[TagRules, ...]

    @property
    def guards_manifests(self) -> bool:
        return any(rules.guards_manifests for rules in self.each)

    def is_push_denied(self, tag: str) -> bool:
        return any(rules.is_push_denied(tag) for rules in self.each)

    def is_delete_denied(self, tag: str) -> bool:
        return any(rules.is_delete_denied(tag) for rules in self.each)

    def is_immutable(self, tag: str) -> bool:
        return any(rules.is_immutable(tag) for rules in self.each)


def _all_rules(metas: Sequence[Mapping[str, Any]]) -> TagRules | None:
    parsed = (parse_tag_rules(meta) for meta in metas)
    each = tuple(rules for rules in parsed if rules is not None)
    return _AllRules(each) if len(each) > 1 else next(iter(each), None)


def grants_of(claims: Mapping[str, Any]) -> Grants:
    """What the claims of a verified token allow. Raises TokenRefused."""
    listed = tuple(entries(claims))
    access: dict[tuple[str, str], frozenset[str]] = {}
    meta: dict[str, tuple[Mapping[str, Any], ...]] = {}
    for entry in listed:
        key = entry.type, entry.name
        access[key] = access.get(key, frozenset()) | entry.actions
        if entry.type == _REPOSITORY and entry.meta and entry.meta not in meta.get(entry.name, ()):
            meta[entry.name] = (*meta.get(entry.name, ()), entry.meta)
    subject = Subject(
        name=_subject(claims.get("sub")),
        kind=_plain(claims.get("auth_type")),
        user=_plain(claims.get("user")),
        projects=_projects(listed),
    )
    return Grants(subject, access, meta)


def entries(claims: Mapping[str, Any]) -> Iterator[Entry]:
    """What `access` lists. Raises TokenRefused."""
    access: Any = claims.get("access")
    if access is None:
        return
    if not isinstance(access, list):
        raise malformed("the claim `access` is not a list")
    for entry in cast("list[Any]", access):
        if not isinstance(entry, dict):
            raise malformed("an entry of the claim `access` is not an object")
        yield _entry(cast("dict[str, Any]", entry))


def _entry(entry: Mapping[str, Any]) -> Entry:
    kind, name, actions = entry.get("type"), entry.get("name"), _actions(entry.get("actions"))
    meta = entry.get("meta")
    if not isinstance(kind, str) or not isinstance(name, str):
        raise malformed("an entry of the claim `access` has no `type` or no `name` that is a string")
    if not isinstance(entry.get("class"), str | None):
        raise malformed("`class` of an entry of the claim `access` is not a string")
    if not isinstance(meta, dict | None):
        raise malformed("`meta` of an entry of the claim `access` is not an object")
    return Entry(kind, name, actions, cast("dict[str, Any] | None", meta))


def _actions(listed: Any) -> frozenset[str]:
    if listed is None:
        return frozenset()
    if not isinstance(listed, list):
        raise malformed("`actions` of an entry of the claim `access` is not a list")
    actions = cast("list[Any]", listed)
    if not all(isinstance(action, str) for action in actions):
        raise malformed("`actions` of an entry of the claim `access` has something that is not a string")
    return frozenset(actions)


def _subject(name: Any) -> str:
    if name is None:
        return ""
    if not isinstance(name, str):
        raise malformed("the claim `sub` is not a string")
    if len(name) > SUBJECT_CHARS_MAX:
        raise malformed(
            f"the claim `sub` has {len(name)} characters; at most {SUBJECT_CHARS_MAX} are accepted"
        )
    if any(c < " " or "\x7f" <= c <= "\x9f" for c in name):
        raise malformed("the claim `sub` has control characters")
    return name


def _plain(value: Any) -> str:
    """A claim that is GitLab's own. Another issuer may mean something else by it, which is none of ours."""
    return value if isinstance(value, str) else ""


def _projects(listed: Iterable[Entry]) -> tuple[str, ...]:
    paths = (entry.meta.get("project_path") for entry in listed if entry.meta is not None)
    fitting = (path for path in paths if isinstance(path, str) and 0 < len(path) <= PROJECT_CHARS_MAX)
    return tuple(dict.fromkeys(fitting))[:PROJECTS_MAX]
