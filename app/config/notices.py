"""What an operator should know of a configuration that is good otherwise: idle keys and likely slips."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from app.config.section import NO_FACTS, Facts, Section, Status, bare, facts, is_switched_off, section_of
from app.config.values import Duration
from app.config.yamltext import Plain, is_mapping

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from app.config.model import Settings

_WARNED: Final = frozenset({Status.LATER, Status.DEPRECATED})
_LATER: Final = "not supported yet; ignored"
# Nobody means less than a millisecond; who writes 10 means 10s and gets 10 ns.
_TINY_NANOSECONDS: Final = range(1, 1_000_000)


def notices(settings: Settings, tree: Mapping[str, Any]) -> Iterator[str]:
    """One sentence per key, each starting with its path. `tree` is what the settings were built of."""
    yield from _idle(settings, "", NO_FACTS)
    yield from _unitless(tree, type(settings), "")
    yield from _database(settings)
    yield from _collection(settings)


def _idle(part: Section, path: str, above: Facts) -> Iterator[str]:
    """Keys that were set and do not do what they say, except where their section is switched off anyway."""
    for name in type(part).model_fields:
        if name not in part.model_fields_set:
            continue
        field = type(part).model_fields[name]
        here, value, known = f"{path}{name}", getattr(part, name), facts(field).under(above)
        if isinstance(value, Section):
            if is_switched_off(value):
                continue
            inner = list(_idle(value, f"{here}.", known))
            # A driver or provider that was chosen without any parameters.
            chosen = field.default is None and known.status in _WARNED
            yield from inner or ([_sentence(here, known)] if chosen else [])
        elif known.status in _WARNED and not _is_idle(value, field.get_default(call_default_factory=True)):
            yield _sentence(here, known)


def _sentence(path: str, known: Facts) -> str:
    return f"{path}: {known.note or _LATER}"


def _is_idle(value: Any, default: Any) -> bool:
    """Whether a value asks for nothing: the default, or a list of which every item is switched off."""
    if isinstance(value, tuple) and value:
        items = cast("tuple[Any, ...]", value)
        return all(isinstance(item, Section) and is_switched_off(item) for item in items)
    return value == default


def _unitless(tree: Mapping[str, Any], model: type[Section], path: str) -> Iterator[str]:
    for name, value in tree.items():
        field = model.model_fields.get(name)
        if field is None:
            continue
        section, is_tiny = (
            section_of(field.annotation),
            isinstance(value, Plain) and value.value in _TINY_NANOSECONDS,
        )
        if section is not None and is_mapping(value):
            yield from _unitless(value, section, f"{path}{name}.")
        elif bare(field.annotation) is Duration and is_tiny:
            yield f"{path}{name}: {value.text} without a unit is nanoseconds; {value.text}s would be seconds"


def _database(settings: Settings) -> Iterator[str]:
    database = settings.database
    if not database.host:
        yield "database.host: not set; `registry serve` needs it, because the metadata is kept in PostgreSQL"
    elif "enabled" in database.model_fields_set and database.enabled == "false":
        yield "database.enabled: false has no effect; the metadata is always kept in PostgreSQL"


def _collection(settings: Settings) -> Iterator[str]:
    gc = settings.gc
    if (
        gc.reviewafter is not None
        and gc.review_delay_seconds != gc.reviewafter.seconds
        and not gc.shortdelays
    ):
        yield "gc.reviewafter: shorter than a push, which relies on what it was told exists; 10m is used"
