"""Reads a configuration: the file, the environment over it, then every check. Nothing is read later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import ValidationError

from app.config.environment import CONFIGURATION_PATH, overlay, spelled_out
from app.config.model import Settings
from app.config.notices import notices
from app.config.problems import ConfigError, dotted, sentences
from app.config.section import section_of
from app.config.values import shown
from app.config.yamltext import Plain, YamlProblem, is_mapping, parse

if TYPE_CHECKING:
    from pathlib import Path

VERSION: Final = "0.1"
_FILE_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True)
class Loaded:
    """Settings that passed every check, and what the operator should know of them all the same."""

    settings: Settings
    warnings: tuple[str, ...]


def load(
    path: Path | None, environ: Mapping[str, str], *, base: Mapping[str, object] | None = None
) -> Loaded:
    """The settings of the file at `path`, or of `base`, with the `REGISTRY_*` of `environ` over them.

    With neither, `REGISTRY_CONFIGURATION_PATH` names the file. Raises ConfigError, which lists every mistake.
    """
    tree = _of_base(base) if base is not None else _of_file(path, environ)
    result = overlay(tree, Settings, environ)
    complete = _completed(result.tree)
    problems = [f"{dotted(place)}: {text}" for place, text in result.problems]
    try:
        settings = Settings.model_validate(complete)
    except ValidationError as error:
        raise ConfigError([*problems, *sentences(error, result.sources)]) from None
    if problems:
        raise ConfigError(problems)
    return Loaded(settings, (*result.warnings, *notices(settings, complete)))


def _of_base(base: Mapping[str, object]) -> dict[str, Any]:
    return {"version": VERSION, **cast("dict[str, Any]", _copied(base))}


def _copied(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _copied(item) for key, item in cast("Mapping[Any, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in cast("list[object]", value)]
    return value


def _of_file(path: Path | None, environ: Mapping[str, str]) -> dict[str, Any]:
    name = str(path) if path is not None else environ.get(CONFIGURATION_PATH, "")
    if not name:
        raise ConfigError([f"no configuration file was named; give its path or set {CONFIGURATION_PATH}"])
    try:
        tree = parse(_read(name))
    except YamlProblem as problem:
        where = dotted(problem.path) or name
        raise ConfigError([f"{where}: {problem.text}"]) from None
    if not is_mapping(tree):
        raise ConfigError([f"{name}: must be a mapping of keys; it starts with `version: {VERSION}`"])
    _refuse_version(tree.get("version"))
    return tree


def _read(name: str) -> bytes:
    try:
        with open(name, "rb") as file:  # noqa: PTH123
            content = file.read(_FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a file name"
        raise ConfigError([f"{name}: cannot be read: {reason}"]) from None
    if len(content) > _FILE_BYTES_MAX:
        raise ConfigError([f"{name}: is larger than {_FILE_BYTES_MAX} bytes, which no configuration is"])
    return content


def _refuse_version(version: Any) -> None:
    """Files of another version may mean something else by every key, so nothing else is looked at."""
    text = version.text if isinstance(version, Plain) else version
    if text is None:
        raise ConfigError([f"version: required; write `version: {VERSION}`"])
    if text != VERSION:
        raise ConfigError([f"version: must be {VERSION}, not {shown(version)}"])


def _completed(tree: dict[str, Any]) -> dict[str, Any]:
    """With the sections that must be there, and with `storage: filesystem` and the like written out."""
    complete = {**tree}
    for name, field in Settings.model_fields.items():
        section = section_of(field.annotation)
        if section is None:
            continue
        if field.is_required() and complete.get(name) is None:
            complete[name] = {}
        if section.by_name and name in complete:
            keys = spelled_out(complete[name], section)
            if is_mapping(keys):
                complete[name] = {key: {} if value is None else value for key, value in keys.items()}
    return complete
