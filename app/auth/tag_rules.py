"""GitLab's rules for tags, which its tokens carry for each repository (`access[].meta`).

    "tag_deny_access_patterns": {"push": [pattern], "delete": [pattern]}, "tag_immutable_patterns": [pattern]

A pattern is a regular expression in RE2's syntax, looked for anywhere in the tag. That takes time in proportion to the
tag's length and to what the pattern is compiled to, and both are bounded. Rules that cannot be followed are refused,
never left out: a caller's tags are checked with all of its token's patterns, or not changed at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

import re2  # pyright: ignore[reportMissingImports]

from app.domain.errors import (
    RegistryError,
    TagImmutabilityPatternInvalid,
    TagPatternCountLimitExceeded,
    TagProtectionPatternInvalid,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

# GitLab's own. It counts for each action what holds for it: a rule against pushing and deleting comes in both lists.
PATTERNS_MAX: Final = 5
PATTERN_CHARS_MAX: Final = 100
# Of one compiled pattern: a search of a tag takes up to 2 microseconds for each. `[a-z0-9._-]{1,128}` has 650, what
# people write some 20.
PATTERN_INSTRUCTIONS_MAX: Final = 1000
# Of one compiled pattern with what it caches while it searches.
PATTERN_BYTES_MAX: Final = 64 * 1024
# Compiled patterns that are kept: those of a few dozen projects, or of many whose rules are alike.
PATTERNS_KEPT_MAX: Final = 128

_DENY: Final = "tag_deny_access_patterns"
_IMMUTABLE: Final = "tag_immutable_patterns"


@dataclass(frozen=True)
class TagPatterns:
    """The rules of one token for one repository: compiled patterns (`app.domain.access.TagRules`)."""

    push: tuple[Any, ...] = ()
    delete: tuple[Any, ...] = ()
    immutable: tuple[Any, ...] = ()

    @property
    def guards_manifests(self) -> bool:
        return bool(self.delete or self.immutable)

    def is_push_denied(self, tag: str) -> bool:
        return _matches(self.push, tag)

    def is_delete_denied(self, tag: str) -> bool:
        return _matches(self.delete, tag)

    def is_immutable(self, tag: str) -> bool:
        return _matches(self.immutable, tag)


def parse_tag_rules(meta: Mapping[str, Any]) -> TagPatterns | None:
    """The rules in the `meta` of a token's access entry, None if there are none.

    Raises TagPatternCountLimitExceeded, TagProtectionPatternInvalid, TagImmutabilityPatternInvalid.
    """
    denied = _mapping(meta.get(_DENY))
    push = _texts(denied.get("push"), f"{_DENY}.push", TagProtectionPatternInvalid)
    delete = _texts(denied.get("delete"), f"{_DENY}.delete", TagProtectionPatternInvalid)
    immutable = _texts(meta.get(_IMMUTABLE), _IMMUTABLE, TagImmutabilityPatternInvalid)
    if not (push or delete or immutable):
        return None
    for action, patterns in (("push", push), ("delete", delete)):
        if (count := len(patterns) + len(immutable)) > PATTERNS_MAX:
            raise TagPatternCountLimitExceeded(
                f"{count} patterns hold for {action}: {len(patterns)} of protected and {len(immutable)} of immutable"
                f" tags; at most {PATTERNS_MAX} are taken"
            )
    return TagPatterns(
        _compiled(push, f"{_DENY}.push", TagProtectionPatternInvalid),
        _compiled(delete, f"{_DENY}.delete", TagProtectionPatternInvalid),
        _compiled(immutable, _IMMUTABLE, TagImmutabilityPatternInvalid),
    )


def _matches(patterns: tuple[Any, ...], tag: str) -> bool:
    text = tag.encode()
    return any(pattern.search(text) is not None for pattern in patterns)


def _mapping(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TagProtectionPatternInvalid(f"{_DENY} must be an object, not {_kind(value)}")
    return cast("dict[str, Any]", value)


def _texts(value: Any, where: str, refusal: type[RegistryError]) -> list[str]:
    """The patterns in the list `value`, nothing of which is left out."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise refusal(f"{where} must be a list of patterns, not {_kind(value)}")
    entries = cast("list[Any]", value)
    for entry in entries:
        if not isinstance(entry, str):
            raise refusal(f"{where}: a pattern must be a string, not {_kind(entry)}")
    return entries


def _compiled(patterns: list[str], where: str, refusal: type[RegistryError]) -> tuple[Any, ...]:
    for pattern in patterns:
        if len(pattern) > PATTERN_CHARS_MAX:
            raise refusal(
                f"{where}: the pattern {pattern[:PATTERN_CHARS_MAX]!r}… has {len(pattern)} characters,"
                f" at most {PATTERN_CHARS_MAX} are taken"
            )
    try:
        return tuple(map(_compile, patterns))
    except ValueError as error:
        raise refusal(f"{where}: {error}") from None


@lru_cache(maxsize=PATTERNS_KEPT_MAX)
def _compile(text: str) -> Any:
    """The pattern, ready to search. Raises ValueError, which is not kept, if it is none, or takes too much."""
    engine: Any = re2
    try:
        pattern = _for_ascii(engine, text)
    except UnicodeEncodeError:
        reason = "it is not text"
    except engine.error as error:
        reason = error.args[0]
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
    else:
        if pattern.programsize <= PATTERN_INSTRUCTIONS_MAX:
            return pattern
        raise ValueError(
            f"the pattern {text!r} repeats too much: it has {pattern.programsize} instructions when compiled,"
            f" at most {PATTERN_INSTRUCTIONS_MAX} are taken"
        )
    raise ValueError(f"the pattern {text!r} is not a regular expression (RE2 syntax): {reason}")


def _for_ascii(engine: Any, text: str) -> Any:
    """The pattern in Latin-1 if it can be. To tags, which are ASCII, it means the same, at a ninth of the cost."""
    encodings = engine.Options.Encoding
    try:
        return _in(engine, text.encode("latin-1"), encodings.LATIN1)
    except (UnicodeEncodeError, engine.error):
        return _in(engine, text, encodings.UTF8)


def _in(engine: Any, text: str | bytes, encoding: Any) -> Any:
    options = engine.Options()
    options.encoding = encoding
    options.log_errors = False
    options.never_capture = True
    options.max_mem = PATTERN_BYTES_MAX
    return engine.compile(text, options)


def _kind(value: Any) -> str:
    """What JSON calls it."""
    if isinstance(value, str):
        return "a string"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if value is None:
        return "null"
    return "a list" if isinstance(value, list) else "an object"
