"""The reference in docs/operating.md and the models say the same: every key, its default, status and meaning."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import SecretStr

from app.config import Settings
from app.config.section import Key, Status, keys

DOCUMENT = Path(__file__).parents[2] / "docs" / "operating.md"
ROW = re.compile(
    r"\| `(?P<key>[a-z0-9_.\[\]]+)` \| (?P<default>[^|]+) \| (?P<status>[^|]+) \| (?P<meaning>[^|]+) \|"
)
NOTHING = "\N{EN DASH}"


def default(key: Key) -> str:
    if key.field.is_required():
        return "required"
    value = key.field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value in (None, "", (), {}) or key.facts.same_as:
        return NOTHING
    return f"`{value}`"


def row(key: Key) -> str:
    status = key.facts.status or Status.SUPPORTED
    return f"| `{key.path}` | {default(key)} | {status.value} | {key.field.description} |"


def reference() -> str:
    """The part of the document under "## Settings"."""
    return DOCUMENT.read_text(encoding="utf-8").partition("\n## Settings\n")[2].partition("\n## ")[0]


def test_reference_when_compared_with_the_models_then_has_every_key_with_its_default() -> None:
    written = {match["key"]: match[0] for match in ROW.finditer(reference())}

    missing = [row(key) for key in keys(Settings) if written.get(key.path) != row(key)]

    assert missing == [], "these lines belong into docs/operating.md, Settings:\n" + "\n".join(missing)


def test_reference_when_compared_with_the_models_then_has_no_other_key_and_none_twice() -> None:
    written = [match["key"] for match in ROW.finditer(reference())]

    assert sorted(written) == sorted(key.path for key in keys(Settings))


def test_reference_when_read_then_every_line_of_its_tables_is_a_row_that_was_checked() -> None:
    lines = [line for line in reference().splitlines() if line.startswith("| `")]

    assert [line for line in lines if ROW.fullmatch(line) is None] == []


def test_statuses_when_used_in_the_reference_then_are_explained_above_it() -> None:
    explained = reference().partition("\n### ")[0]

    assert [status.value for status in Status if f"`{status.value}`" not in explained] == []


def test_keys_when_listed_then_each_says_what_it_means() -> None:
    assert [
        key.path for key in keys(Settings) if not (key.field.description or "").endswith((".", ")"))
    ] == []
