"""How commands write numbers, moments and tables; and the same things as JSON."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from app.domain.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_MIB: Final = 1024 * 1024
# What the driver makes of PostgreSQL's infinite moments.
_ENDLESS: Final = {MINYEAR: "-infinity", MAXYEAR: "infinity"}
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def mib(count: int) -> str:
    """Bytes for people. The exact number is in the JSON."""
    if 0 < count < _MIB / 20:
        return "<0.1 MiB"
    return f"{count / _MIB:,.1f} MiB"


def moment(when: datetime) -> str:
    """A moment, in UTC. What an operator wrote as infinity is told as such."""
    if when.year in _ENDLESS:
        return _ENDLESS[when.year]
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(length: timedelta) -> str:
    """A length of time by its two largest units."""
    seconds = abs(round(length.total_seconds()))
    parts: list[str] = []
    for unit, size in _UNITS:
        if seconds >= size or (unit == "s" and not parts):
            parts.append(f"{seconds // size} {unit}")
            seconds %= size
        elif parts:
            break
    return " ".join(parts[:2])


def since(when: datetime, now: datetime) -> str:
    """How long ago, or in how long."""
    if when.year in _ENDLESS:
        return moment(when)
    return f"in {span(when - now)}" if when > now else f"{span(now - when)} ago"


def number(count: int, *, is_least: bool = False) -> str:
    """A count."""
    return f"{count:,}+" if is_least else f"{count:,}"


def many(count: int, noun: str, *, is_least: bool = False) -> str:
    """A count of things."""
    return f"{number(count, is_least=is_least)} {noun}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """The text without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], indent: str = "  ") -> Iterable[str]:
    """Lines with columns below each other; those whose heading ends in `>` are aligned to the right."""
    lines = [tuple(cell.removesuffix(">") for cell in head), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.rjust(width) if title.endswith(">") else cell.ljust(width)
            for cell, width, title in zip(line, widths, head, strict=True)
        )
        yield (indent + "  ".join(cells)).rstrip()


def document(value: Any) -> str:
    """The value as JSON text."""
    return json.dumps(value, indent=2)


def line(value: Any) -> str:
    """The value as JSON text without a line break."""
    return json.dumps(value, separators=(",", ":"))


def plain(value: Any) -> Any:
    """The value in JSON's own types: digests as text, moments in ISO 8601 and UTC, lengths of time in seconds."""
    match value:
        case Digest():
            return str(value)
        case datetime():
            return value.isoformat() if value.tzinfo is None else value.astimezone(UTC).isoformat()
        case timedelta():
            return value.total_seconds()
        case list() | tuple() if not hasattr(cast("Any", value), "_asdict"):
            return [plain(one) for one in cast("Sequence[Any]", value)]
        case _:
            named = _fields(value)
            return value if named is None else {str(key): plain(one) for key, one in named.items()}


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """What the value consists of, if its parts have names."""
    if isinstance(value, dict):
        return cast("Mapping[Any, Any]", value)
    if isinstance(value, tuple):
        return cast("Any", value)._asdict()
    return {one.name: getattr(value, one.name) for one in fields(value)} if is_dataclass(value) else None
