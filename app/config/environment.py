"""`REGISTRY_*` variables laid over the file's keys, by Distribution's rules.

A variable's name is `REGISTRY_` and the path of a key in capitals, joined by underscores; its value is YAML
and takes the key's place. Variables apply in the order of their names, so `REGISTRY_STORAGE` comes before
`REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY`. Every underscore is a level: a key that has one in its name is
set through the section above it. An item of a list is named by its index; the one after the last appends.
In mappings without fixed keys (headers, log fields) a key is found whatever its case; a new one is written in
small letters. A variable that leads to no key is named in a warning and changes nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

from app.config.section import Section, bare, element_of, section_of, value_of
from app.config.values import printable
from app.config.yamltext import YamlProblem, is_list, is_mapping, parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PREFIX: Final = "REGISTRY_"
CONFIGURATION_PATH: Final = "REGISTRY_CONFIGURATION_PATH"

# Not ours to warn of: where the file lies, where podman, skopeo and buildah keep logins, feature flags of the GitLab
# registry, and what Kubernetes gives every container when a service is called "registry".
_UNRELATED: Final = re.compile(
    rf"{CONFIGURATION_PATH}|REGISTRY_AUTH_FILE|REGISTRY_FF_.*"
    r"|REGISTRY_SERVICE_(HOST|PORT(_.*)?)|REGISTRY_PORT(_[0-9]+_(TCP|UDP|SCTP).*)?"
)
_INDEX: Final = re.compile(r"[0-9]{1,6}")


class _NoSuchKey(Exception):
    """The variable leads to no key."""


class _WrongIndex(Exception):
    """The variable names an item that a list cannot have."""


@dataclass
class Overlay:
    """What came of it. `sources` tells which variable gave the key at a path."""

    tree: dict[str, Any]
    warnings: list[str] = field(default_factory=list[str])
    problems: list[tuple[tuple[str, ...], str]] = field(default_factory=list[tuple[tuple[str, ...], str]])
    sources: dict[tuple[str, ...], str] = field(default_factory=dict[tuple[str, ...], str])


def overlay(tree: dict[str, Any], model: type[Section], environ: Mapping[str, str]) -> Overlay:
    """`tree` with the variables of `environ` laid over it. `tree` itself stays as it is."""
    result = Overlay(tree)
    for name in sorted(environ):
        if is_ours(name):
            _apply(result, model, name, environ[name])
    return result


def is_ours(name: str) -> bool:
    """Whether the variable of that name is about a setting."""
    return name.startswith(PREFIX) and _UNRELATED.fullmatch(name) is None


def _apply(result: Overlay, model: type[Section], name: str, text: str) -> None:
    if name == "REGISTRY_VERSION":
        result.warnings.append(f"{name}: the version cannot be set from the environment; ignored")
        return
    variable, shown_name = _Variable(text), printable(name)
    try:
        result.tree = variable.put(result.tree, model, name.removeprefix(PREFIX).split("_"))
    except _NoSuchKey:
        result.warnings.append(f"{shown_name}: leads to no known key; ignored")
    except _WrongIndex as error:
        result.problems.append((tuple(variable.path), f"{shown_name} names {error}"))
    except YamlProblem as error:
        result.problems.append(((*variable.path, *error.path), f"the value of {shown_name} {error.text}"))
    else:
        result.sources[tuple(variable.path)] = shown_name


class _Variable:
    """One variable's value on its way to its key; `path` is how far it has come."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.path: list[str] = []

    def put(self, node: Any, annotation: Any, names: Sequence[str]) -> Any:
        """`node`, which has the type `annotation`, with the value at the end of `names`."""
        if not names:
            return parse(self._text)
        section = section_of(annotation)
        if section is not None:
            return self._in_section(node, section, names)
        element = element_of(annotation)
        if element is not None:
            return self._in_list(node, element, names)
        value = value_of(annotation)
        if value is not None:
            return self._in_map(node, value, names)
        return self._in_free(node, names) if bare(annotation) is Any else self._nowhere()

    def _in_free(self, node: Any, names: Sequence[str]) -> Any:
        """Below a value of no fixed type: what is there decides."""
        if is_list(node):
            return self._in_list(node, Any, names)
        return self._in_map(node, Any, names) if node is None or is_mapping(node) else self._nowhere()

    def _nowhere(self) -> NoReturn:
        raise _NoSuchKey

    def _in_section(self, node: Any, section: type[Section], names: Sequence[str]) -> Any:
        keys = spelled_out(node, section)
        fields = {key.upper(): key for key in section.model_fields if "_" not in key}
        key = fields.get(names[0])
        if key is None and not (section.by_name and names[0]):
            raise _NoSuchKey
        if not is_mapping(keys):
            # The file has something else here; building the settings refuses it by the key's path.
            return node
        self.path.append(key or names[0].lower())
        annotation = section.model_fields[key].annotation if key else dict[str, Any]
        return {**keys, self.path[-1]: self.put(keys.get(self.path[-1]), annotation, names[1:])}

    def _in_list(self, node: Any, element: Any, names: Sequence[str]) -> Any:
        items: Any = [] if node is None else node
        if not is_list(items):
            return node
        if _INDEX.fullmatch(names[0]) is None:
            raise _WrongIndex(f"{names[0].lower()!r} where the number of an item belongs")
        index = int(names[0])
        if index > len(items):
            raise _WrongIndex(f"item {index}, but the next one would be {len(items)}")
        self.path.append(str(index))
        old = items[index] if index < len(items) else None
        return [*items[:index], self.put(old, element, names[1:]), *items[index + 1 :]]

    def _in_map(self, node: Any, value: Any, names: Sequence[str]) -> Any:
        keys: Any = {} if node is None else node
        if not is_mapping(keys):
            return node
        if not names[0]:
            raise _NoSuchKey
        key = next((known for known in keys if known.upper() == names[0].upper()), names[0].lower())
        self.path.append(key)
        return {**keys, key: self.put(keys.get(key), value, names[1:])}


def spelled_out(node: Any, section: type[Section]) -> Any:
    """A section that was written as null, or as the name of the one key that is chosen in it."""
    if node is None:
        return {}
    if section.by_name and isinstance(node, str):
        return {node: None}
    return node
