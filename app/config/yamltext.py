"""YAML as the configuration reads it: one document of mappings, lists and scalars.

Stricter than YAML where a mistake would pass unseen (a key given twice, a value that refers to itself), and
closer to what operators mean where YAML guesses: every key is text, and an unquoted scalar such as `0123` or
`yes` keeps its spelling, because a password may look like that. No object is ever built from a tag, and no
message repeats a value.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

import yaml
from yaml.composer import ComposerError

# A configuration of every key there is has about a thousand nodes; aliases could multiply them without end.
NODES_MAX: Final = 50_000
DEPTH_MAX: Final = 32

_TOO_DEEP: Final = f"is nested more than {DEPTH_MAX} levels deep"
_PREFIX: Final = "tag:yaml.org,2002:"
_INTEGER: Final = re.compile(
    r"(?P<sign>[-+]?)(?:0b(?P<two>[01_]+)|0x(?P<sixteen>[0-9a-fA-F_]+)|0(?P<eight>[0-7_]+)|(?P<ten>[0-9][0-9_]*))"
)
_BASES: Final = {"two": 2, "eight": 8, "ten": 10, "sixteen": 16}
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9][0-9_]*)?\.?[0-9_]*(?:[eE][-+]?[0-9]+)?")
_COLLECTIONS: Final = frozenset({f"{_PREFIX}map", f"{_PREFIX}seq"})
_DIGITS_MAX: Final = 64
_TRUE: Final = frozenset({"true", "yes", "on"})
_NO_TEXT: Final = re.compile("[\x00\ud800-\udfff]")
_QUOTED: Final = re.compile(r"'(?!<)[^']{2,}'|\"[^\"]{2,}\"")


class YamlProblem(Exception):
    """What is wrong with a document. `path` leads to the key, if there is one; `text` ends the sentence."""

    def __init__(self, text: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.text = text
        self.path = path


@dataclass(frozen=True, slots=True)
class Plain:
    """An unquoted scalar that YAML takes for more than text: what it means, and how it was spelled."""

    value: bool | int | float
    text: str


def plain(value: Any) -> Any:
    """`value` with every Plain in it replaced by what it means."""
    if isinstance(value, Plain):
        return value.value
    if is_mapping(value):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if is_list(value) else value


def is_mapping(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether `value` is a mapping of a document."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether `value` is a list of a document."""
    return isinstance(value, list)


def parse(text: str | bytes) -> Any:
    """The document as dict, list, str, Plain and None. Raises YamlProblem."""
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)  # pyright: ignore[reportUnknownMemberType]
        return None if node is None else _Builder().build(node, ())
    except yaml.YAMLError as error:
        raise YamlProblem(_sentence(error)) from None
    except RecursionError:
        raise YamlProblem(_TOO_DEEP) from None


class _Builder:
    """Turns one document's nodes into values and holds the bounds on them."""

    def __init__(self) -> None:
        self._nodes = 0
        self._open: set[int] = set()

    def build(self, node: yaml.Node, path: tuple[str, ...]) -> Any:
        self._nodes += 1
        if len(path) > DEPTH_MAX:
            raise YamlProblem(_TOO_DEEP)
        if self._nodes > NODES_MAX:
            raise YamlProblem(f"has more than {NODES_MAX} values")
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node, path)
        if node.tag not in _COLLECTIONS:
            raise YamlProblem(_tagged(node), path)
        if id(node) in self._open:
            raise YamlProblem(f"refers to itself, at line {_line(node)}", path)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            return [self.build(item, (*path, str(index))) for index, item in enumerate(node.value)]
        finally:
            self._open.remove(id(node))

    def _mapping(self, node: yaml.MappingNode, path: tuple[str, ...]) -> dict[str, Any]:
        _refuse_duplicates(node, path)
        inherited: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == f"{_PREFIX}merge":
                inherited = {**self._merged(value, path), **inherited}
            else:
                own[key.value] = self.build(value, (*path, key.value))
        return {**inherited, **own}

    def _merged(self, node: yaml.Node, path: tuple[str, ...]) -> dict[str, Any]:
        """What `<<:` brings in: of several mappings the first one that has a key gives it."""
        merged: dict[str, Any] = {}
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode):
                raise YamlProblem(f"merges (<<) something that is not a mapping, at line {_line(node)}", path)
            merged = {**self.build(source, path), **merged}
        return merged


def _refuse_duplicates(node: yaml.MappingNode, path: tuple[str, ...]) -> None:
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise YamlProblem(f"has a key that is not plain text, at line {_line(key)}", path)
        _refuse_what_is_no_text(key, path)
    counts = Counter(key.value for key, _ in node.value)
    for name, count in counts.items():
        if count > 1:
            lines = [str(_line(key)) for key, _ in node.value if key.value == name]
            raise YamlProblem(f"given more than once, at lines {', '.join(lines)}; keep one", (*path, name))


def _refuse_what_is_no_text(node: yaml.ScalarNode, path: tuple[str, ...]) -> None:
    """Escapes in quotes can spell what no file name, statement or JSON document can hold."""
    if _NO_TEXT.search(node.value) is not None:
        raise YamlProblem(f"has a character that is not text, at line {_line(node)}", path)


def _scalar(node: yaml.ScalarNode, path: tuple[str, ...]) -> Any:
    _refuse_what_is_no_text(node, path)
    kind = node.tag.removeprefix(_PREFIX)
    text: str = node.value
    match kind:
        case "null":
            return None
        case "bool":
            return Plain(text.lower() in _TRUE, text)
        case "int" | "float":
            return _number(text)
        case "str" | "timestamp" | "value" | "merge":
            return text
        case _:
            raise YamlProblem(_tagged(node), path)


def _number(text: str) -> Plain | str:
    """A number, or the text itself where YAML 1.1 sees one that nobody means (`12:30` in base sixty)."""
    match = _INTEGER.fullmatch(text)
    if match is not None:
        base, digits = next((b, match[name]) for name, b in _BASES.items() if match[name])
        bare = digits.replace("_", "")
        if bare and len(bare) <= _DIGITS_MAX:
            return Plain(int(match["sign"] + bare, base), text)
        return text
    if _FLOAT.fullmatch(text) is not None:
        try:
            return Plain(float(text.replace("_", "")), text)
        except ValueError:
            return text
    return text


def _tagged(node: yaml.Node) -> str:
    return f"has a YAML tag, at line {_line(node)}, which is not allowed here; quote text"


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _sentence(error: yaml.YAMLError) -> str:
    """The parser's complaint with its place, and with anything that could be part of a value taken out."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return "is not valid YAML: it has characters that are not text"
    where = f"is not valid YAML at line {mark.line + 1}, column {mark.column + 1}"
    problem = getattr(error, "problem", None)
    if isinstance(error, ComposerError):
        problem = "a value that starts with & or * must be quoted, or there is more than one document"
    return f"{where}: {_QUOTED.sub('…', problem)}" if problem else where
