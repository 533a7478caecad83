"""What is wrong with a configuration: sentences that start with the key's path and never repeat a secret."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from app.config.model import Settings
from app.config.section import Section, element_of, keys, section_of, value_of
from app.config.values import printable, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    Path = tuple[str, ...]


class ConfigError(Exception):
    """The configuration cannot be used. `problems` are sentences for the operator, one per mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def sentences(error: ValidationError, sources: Mapping[Path, str]) -> Iterator[str]:
    """One sentence per mistake that the models found. `sources` names the variables that gave keys."""
    for detail in error.errors(include_url=False):
        path = tuple(str(part) for part in detail["loc"] if part != "[key]")
        context = detail.get("ctx", {})
        if context.get("key"):
            path = (*path, context["key"])
        variable = _source(path, detail["type"], sources)
        origin = f" (set by {variable})" if variable else ""
        yield f"{dotted(path)}: {_text(detail, path, context)}{origin}"


def _source(path: Path, kind: str, sources: Mapping[Path, str]) -> str | None:
    """The variable that gave the key at `path`, or the section it is in; of an unknown key also something in it."""
    if kind == "missing":
        return None
    above = [path[:end] for end in range(len(path), 0, -1)]
    below = [place for place in sources if place[: len(path)] == path] if kind == "extra_forbidden" else []
    return next((sources[place] for place in (*above, *below) if place in sources), None)


def dotted(path: Path) -> str:
    """A path as messages have it."""
    return printable(".".join(path))


def _text(detail: ErrorDetails, path: Path, context: Mapping[str, Any]) -> str:
    given = detail["input"]
    match detail["type"]:
        case "setting":
            text = str(context["text"])
        case "missing":
            text = _required(path)
        case "extra_forbidden":
            text = f"unknown key{_nearest(path)}"
        case "model_type" | "dict_type":
            text = f"must be a mapping of keys, not {_kind(given)}"
        case "tuple_type":
            text = f"must be a list, not {_kind(given)}"
        case "literal_error":
            text = f"must be {_plain_words(str(context['expected']))}, not {shown(given)}"
        case "greater_than_equal":
            text = f"must be at least {context['ge']}, not {shown(given)}"
        case _:
            text = "is not a value that this key can have"
    return text


def _required(path: Path) -> str:
    return "required; write where to listen, such as :5000" if path == ("http", "addr") else "required"


def _plain_words(expected: str) -> str:
    """Without the quotes: `'a', 'b' or 'c'`."""
    return expected.replace("'", "")


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, (list, tuple)) else "a single value"


def _nearest(path: Path) -> str:
    """The key that was probably meant: one beside it, one of that name below, or the only one there is."""
    section = _section_at(path[:-1])
    beside = get_close_matches(path[-1].lower(), section.model_fields if section else (), n=1)
    if beside:
        return f"; did you mean {beside[0]}?"
    elsewhere = [key.path for key in keys(Settings) if key.path.rpartition(".")[2] == path[-1].lower()]
    below = (
        [found for found in elsewhere if found.startswith(".".join((*path[:-1], "")))] if path[:-1] else []
    )
    likely = below[:1] or (elsewhere if len(elsewhere) == 1 else [])
    return f"; did you mean {likely[0]}?" if likely else ""


def _section_at(path: Path) -> type[Section] | None:
    here: Any = Settings
    for name in path:
        section = section_of(here)
        field = section.model_fields.get(name) if section else None
        here = field.annotation if field else element_of(here) or value_of(here)
    return section_of(here)
