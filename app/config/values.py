"""The kinds of values that settings have, each with its grammar and a refusal that says what would be right.

A refusal quotes what it refuses, except where the value is text, which may be a secret. `Secret` fields show
their value to `get_secret_value()` and in JSON, which is how a worker process gets its settings.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import re2  # pyright: ignore[reportMissingImports]
from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler, PlainSerializer, SecretStr
from pydantic_core import PydanticCustomError, core_schema

from app.config.yamltext import Plain, is_list, is_mapping, plain

if TYPE_CHECKING:
    from collections.abc import Callable

_SHOWN_CHARS_MAX: Final = 60
_NAME_CHARS_MAX: Final = 200
_UNITS: Final = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}
_SPELLINGS: Final = _UNITS | {"\u00b5s": 1_000, "\u03bcs": 1_000}
_PART: Final = re.compile(r"(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?(?P<unit>[a-z\u00b5\u03bc]+)")
_DURATION_CHARS_MAX: Final = 100
_NANOSECONDS: Final = range(-(2**63), 2**63)
_PORTS: Final = range(65536)
_PORT_DIGITS: Final = 5


def refusal(text: str, key: str = "") -> PydanticCustomError:
    """A refused value. `text` ends the sentence that starts with the path; `key` is the one to blame."""
    return PydanticCustomError("setting", "{text}", {"text": text, "key": key})


def printable(name: str) -> str:
    """The name of a key or variable, short and on one line whatever it is."""
    return "".join(char if char.isprintable() else "?" for char in name)[:_NAME_CHARS_MAX]


def shown(value: Any) -> str:
    """A refused value as a message may quote it."""
    if isinstance(value, Plain):
        return value.text[:_SHOWN_CHARS_MAX]
    if isinstance(value, bool):
        return str(value).lower()
    if is_mapping(value):
        return "a mapping"
    if is_list(value):
        return "a list"
    return repr(value[:_SHOWN_CHARS_MAX]) if isinstance(value, str) else str(value)[:_SHOWN_CHARS_MAX]


@dataclass(frozen=True, order=True, slots=True)
class Duration:
    """A length of time as Go writes it: `1h30m`, `300ms`. A bare integer, also -1, counts nanoseconds."""

    nanoseconds: int

    @classmethod
    def parse(cls, text: str) -> Duration:
        """The duration that `text` spells. Raises ValueError, saying what would be right."""
        body = text[1:] if text[:1] in {"-", "+"} else text
        if body == "0":
            return cls(0)
        parts = list(_PART.finditer(body)) if len(body) <= _DURATION_CHARS_MAX else []
        if not body or "".join(part[0] for part in parts) != body:
            raise ValueError(_duration_help(text))
        total = sum(_nanoseconds(part, text) for part in parts)
        return cls.of_nanoseconds(-total if text.startswith("-") else total)

    @classmethod
    def of_nanoseconds(cls, count: int) -> Duration:
        """That many nanoseconds. Raises ValueError beyond 292 years, which no Go duration reaches."""
        if count not in _NANOSECONDS:
            raise ValueError("must be shorter than 292 years")
        return cls(count)

    @property
    def seconds(self) -> float:
        """In seconds, as timers take it."""
        return self.nanoseconds / 1_000_000_000

    def __bool__(self) -> bool:
        return self.nanoseconds != 0

    def __str__(self) -> str:
        if self.nanoseconds == 0:
            return "0s"
        left, text = abs(self.nanoseconds), "-" if self.nanoseconds < 0 else ""
        for unit, size in _UNITS.items():
            count, left = divmod(left, size)
            text += f"{count}{unit}" if count else ""
        return text

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._of_setting, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def _of_setting(cls, value: Any) -> Duration:
        bare = value.value if isinstance(value, Plain) else value
        if isinstance(bare, Duration):
            return bare
        try:
            if isinstance(bare, int) and not isinstance(bare, bool):
                return cls.of_nanoseconds(bare)
            if isinstance(bare, str):
                return cls.parse(bare)
        except ValueError as error:
            raise refusal(str(error)) from None
        raise refusal(_duration_help(shown(value)))


def _nanoseconds(part: re.Match[str], text: str) -> int:
    whole, fraction = part["whole"], part["fraction"] or ""
    if part["unit"] not in _SPELLINGS or not (whole or fraction):
        raise ValueError(_duration_help(text))
    size = _SPELLINGS[part["unit"]]
    return int(whole or "0") * size + int(fraction or "0") * size // 10 ** len(fraction)


def _duration_help(text: str) -> str:
    return f"must be a duration such as 10s, 1h30m or 300ms, not {text[:_SHOWN_CHARS_MAX]}"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens; an empty `host` means every interface."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """The address that `text` spells. Raises ValueError, saying what would be right."""
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host or "[" in host or "]" in host:
            colon = ""
        good = port.isascii() and port.isdigit() and len(port) <= _PORT_DIGITS and int(port) in _PORTS
        if not colon or not good or any(c.isspace() or c == "/" for c in host):
            raise ValueError(f"must be :PORT, HOST:PORT or [IPV6]:PORT, not {shown(text)}")
        return cls(host, int(port))


def as_address(text: str) -> str:
    """`text` unchanged if it is an address, or empty. Raises a refusal."""
    if text:
        try:
            Address.parse(text)
        except ValueError as error:
            raise refusal(str(error)) from None
    return text


def zero_means(default: Any) -> AfterValidator:
    """Zero or less stands for the default, as in Distribution."""
    least = Duration(0) if isinstance(default, Duration) else 0
    return AfterValidator(lambda value: value if value > least else default)


def at_least(least: int) -> AfterValidator:
    """Smaller numbers count as `least`, as in Distribution."""
    return AfterValidator(lambda value: max(value, least))


def folded(*also: tuple[str, str]) -> BeforeValidator:
    """Choices are told apart by their letters, not by case; `also` gives further names for some."""
    other_names = dict(also)

    def fold(value: Any) -> Any:
        text = value.text if isinstance(value, Plain) else value
        if not isinstance(text, str):
            return value
        return other_names.get(text.lower(), text.lower())

    return BeforeValidator(fold)


def _text(value: Any) -> Any:
    if isinstance(value, Plain):
        return value.text
    if isinstance(value, (str, SecretStr)):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    raise refusal("must be text")


def _flag(value: Any) -> bool:
    bare = value.value if isinstance(value, Plain) else value
    if isinstance(bare, str) and bare.lower() in {"true", "false"}:
        return bare.lower() == "true"
    if isinstance(bare, bool):
        return bare
    raise refusal(f"must be true or false, not {shown(value)}")


def _whole(value: Any) -> int:
    bare = value.value if isinstance(value, Plain) else value
    if isinstance(bare, str) and re.fullmatch(r"-?[0-9]{1,18}", bare) is not None:
        return int(bare)
    if isinstance(bare, int) and not isinstance(bare, bool) and bare in _NANOSECONDS:
        return bare
    raise refusal(f"must be a whole number, not {shown(value)}")


def _number(value: Any) -> float:
    bare = value.value if isinstance(value, Plain) else value
    if isinstance(bare, (int, float)) and not isinstance(bare, bool) and math.isfinite(bare):
        return float(bare)
    raise refusal(f"must be a number, not {shown(value)}")


def _not_negative(value: Duration) -> Duration:
    if value.nanoseconds < 0:
        raise refusal(f"must not be negative, and {value} is")
    return value


def compile_pattern(text: str) -> Any:
    """A regular expression in Go's syntax, matched in linear time. Raises ValueError if it is not one."""
    engine: Any = re2
    options = engine.Options()
    options.log_errors = False
    try:
        return engine.compile(text, options)
    except engine.error as error:
        reason = error.args[0]
        raise ValueError(reason.decode(errors="replace") if isinstance(reason, bytes) else reason) from None


def _pattern(text: str) -> str:
    try:
        compile_pattern(text)
    except ValueError as error:
        raise refusal(f"must be a regular expression (RE2 syntax): {error}") from None
    return text


def _json_text(secret: SecretStr) -> str:
    return secret.get_secret_value()


Text = Annotated[str, BeforeValidator(_text)]
Secret = Annotated[
    SecretStr, BeforeValidator(_text), PlainSerializer(_json_text, return_type=str, when_used="json")
]
Flag = Annotated[bool, BeforeValidator(_flag)]
Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[Whole, Field(ge=0)]
Number = Annotated[float, BeforeValidator(_number)]
Span = Annotated[Duration, AfterValidator(_not_negative)]
Pattern = Annotated[Text, AfterValidator(_pattern)]
ListenAddress = Annotated[Text, AfterValidator(as_address)]
Texts = tuple[Text, ...]
# Whatever a driver or middleware of its own makes of it.
Free = Annotated[Any, BeforeValidator(plain)]
FreeMap = dict[str, Free]

NO_SECRET: Final = SecretStr("")


def span(text: str) -> Duration:
    """A default, spelled as in the file."""
    return Duration.parse(text)


def checked(check: Callable[[str], str | None]) -> AfterValidator:
    """Text for which `check` finds no complaint; empty text means not set and is not looked at."""

    def apply(text: str) -> str:
        complaint = check(text) if text else None
        if complaint is not None:
            raise refusal(complaint)
        return text

    return AfterValidator(apply)
