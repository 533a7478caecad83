"""Patterns of repository names, in which grants are written.

team-a/app      that repository
team-a/*        every repository directly below team-a; `*` stands for anything within one part of the name
team-a/**       every repository below team-a, however deep, but not `team-a` itself
**/cache        every repository called cache; `**` stands alone in its part, for any number of parts
**              every repository
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app.domain.errors import NameInvalid
from app.domain.limits import NAME_CHARS_MAX
from app.domain.names import parse_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEEP: Final = "**"
_PART: Final = re.compile(r"[a-z0-9._*-]+")


class PatternInvalid(ValueError):
    """No repository's name can match the pattern, or it is none. The text says what would be right."""


@dataclass(frozen=True)
class PathPattern:
    """A pattern, as its parts between the slashes."""

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> PathPattern:
        """The pattern that `text` spells. Raises PatternInvalid."""
        parts = tuple(text.split("/"))
        if len(text) > NAME_CHARS_MAX:
            raise PatternInvalid(f"a pattern has at most {NAME_CHARS_MAX} characters, this one {len(text)}")
        for part in parts:
            if part != DEEP and (DEEP in part or _PART.fullmatch(part) is None):
                raise PatternInvalid(_help(text))
        try:
            # A star that stands for one letter is as good as any other.
            parse_name("/".join(part.replace(DEEP, "a").replace("*", "a") for part in parts))
        except NameInvalid:
            raise PatternInvalid(_help(text)) from None
        return cls(parts)

    def __str__(self) -> str:
        return "/".join(self.parts)

    def matches(self, repository: str) -> bool:
        """Whether the repository is one of those meant. Takes time in proportion to the product of both lengths."""
        parts = self.parts
        if len(parts) > 1 and parts[-1] == DEEP:
            parts = (*parts[:-1], "*", DEEP)  # below something: at least one part more
        return _matches(parts, repository.split("/"), DEEP, _is_like)


def _is_like(part: str, name: str) -> bool:
    return _matches(part, name, "*", str.__eq__)


def _matches(
    pattern: Sequence[str], text: Sequence[str], star: str, is_like: Callable[[str, str], bool]
) -> bool:
    """Whether `text` is like the pattern, in which a star is any number of elements.

    Only the last star that was met is ever gone back to: what an earlier one could take instead, it can take too.
    """
    at = place = tried = 0
    last_star = -1
    while place < len(text):
        if at < len(pattern) and pattern[at] == star:
            last_star, tried = at, place
            at += 1
        elif at < len(pattern) and is_like(pattern[at], text[place]):
            at += 1
            place += 1
        elif last_star >= 0:
            tried += 1
            at, place = last_star + 1, tried
        else:
            return False
    return all(one == star for one in pattern[at:])


def _help(text: str) -> str:
    return (
        f"{text[:64]!r} is no pattern of repository names; write it in lower case, such as team-a/app, team-a/* for"
        " what is directly below team-a, or team-a/** for all below it"
    )
