"""What a section of the configuration is: a frozen model whose fields are its keys, each with its meaning.

A key that is null counts as not given. A key that no field has is refused. Whether we do what a key asks
for is its `Status`; a section's status holds for all keys in it that do not say otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.config.yamltext import is_mapping

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


class Status(Enum):
    """What becomes of a key."""

    SUPPORTED = "supported"
    LATER = "later"  # accepted; whoever sets it is told that it does nothing yet
    DEPRECATED = "deprecated"  # accepted; whoever sets it is told what to set instead
    IGNORED = "ignored"  # accepted in silence: it has nothing to act on here


class Section(BaseModel):
    """A mapping of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)

    # Of such a section one key is chosen: `storage: filesystem` stands for that key without parameters.
    by_name: ClassVar[bool] = False

    @model_validator(mode="before")
    @classmethod
    def _drop_unset(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        keys = cast("Mapping[str, Any]", data)
        return {key: value for key, value in keys.items() if not _is_unset(cls.model_fields.get(key), value)}


def _is_unset(field: FieldInfo | None, value: Any) -> bool:
    """Charts render choices that nobody made as empty text; only for text itself that is a value."""
    if field is None:
        return False
    return value is None or (value == "" and get_origin(bare(field.annotation)) is Literal)


def setting(
    description: str,
    *,
    default: Any,
    status: Status | None = None,
    note: str = "",
    same_as: str = "",
    hidden: bool = False,
) -> Any:
    """A key. `note` replaces the usual words of its warning, `hidden` keeps its value out of every repr.

    `same_as` names the section that documents this one's keys.
    """
    extra: dict[str, Any] = {"status": status.value if status else "", "note": note, "same_as": same_as}
    return Field(default, description=description, repr=not hidden, json_schema_extra=extra)


def section(
    model: type[Section], description: str, *, status: Status | None = None, note: str = "", same_as: str = ""
) -> Any:
    """A key that holds a section, which is as its own defaults say if it is not given."""
    extra: dict[str, Any] = {"status": status.value if status else "", "note": note, "same_as": same_as}
    return Field(default_factory=model, description=description, json_schema_extra=extra)


@dataclass(frozen=True)
class Facts:
    """What is known of a key besides its type."""

    status: Status | None
    note: str
    same_as: str

    def under(self, above: Facts) -> Facts:
        """With what the section above says of all its keys."""
        return Facts(self.status or above.status, self.note or above.note, self.same_as)


NO_FACTS = Facts(None, "", "")


def facts(field: FieldInfo) -> Facts:
    """What `setting` or `section` recorded."""
    extra: Any = field.json_schema_extra
    if not is_mapping(extra):
        return NO_FACTS
    status = str(extra["status"])
    return Facts(Status(status) if status else None, str(extra["note"]), str(extra["same_as"]))


def bare(annotation: Any) -> Any:
    """A field's type without `Annotated` and without `None`."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in {Union, UnionType}:
            annotation = next(choice for choice in get_args(annotation) if choice is not NoneType)
        else:
            return annotation


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field holds, optional or not."""
    kind = bare(annotation)
    return kind if get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, Section) else None


def element_of(annotation: Any) -> Any | None:
    """What the items of a list field are."""
    kind = bare(annotation)
    return get_args(kind)[0] if get_origin(kind) is tuple else None


def value_of(annotation: Any) -> Any | None:
    """What the values of a free mapping are."""
    kind = bare(annotation)
    return get_args(kind)[1] if get_origin(kind) is dict else None


def is_switched_off(part: Section) -> bool:
    """Whether a section says of itself that it is not in use."""
    switch = type(part).model_fields.get("enabled")
    if switch is not None and facts(switch).status is not Status.IGNORED:
        return getattr(part, "enabled", None) is False
    return bool(getattr(part, "disabled", False))


@dataclass(frozen=True)
class Key:
    """One key of the configuration, as the reference lists it."""

    path: str
    field: FieldInfo
    facts: Facts


def keys(model: type[Section], path: str = "", above: Facts = NO_FACTS) -> Iterator[Key]:
    """Every key that can hold a value, in the order of the models; items of lists as `name[]`."""
    for name, field in model.model_fields.items():
        here = f"{path}.{name}" if path else name
        known = facts(field).under(above)
        element = element_of(field.annotation)
        below = section_of(field.annotation if element is None else element)
        if known.same_as or below is None or not below.model_fields:
            yield Key(here, field, known)
        else:
            yield from keys(below, here if element is None else f"{here}[]", known)
