"""What the documents tell an operator to type: commands exist with these options, settings load, SQL runs."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg
import click
import pytest
import yaml

from app.cli.root import registry
from app.config import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.store.engine import Target

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE: Final = re.compile(r"`((?:\.venv/bin/)?registry [a-z][^`]*)`")
# What ends a command in a shell.
_SHELL: Final = frozenset({"|", ">", "<", "<<<", "&&", ";"})
_BASE: Final[dict[str, Any]] = {
    "http": {"addr": ":5000"},
    "storage": {"filesystem": {"rootdirectory": "/var/lib/registry"}},
    "database": {"host": "db"},
}


class Example(NamedTuple):
    document: str
    text: str


def blocks(*languages: str) -> Iterator[Example]:
    for path in DOCUMENTS:
        for language, text in _BLOCK.findall(path.read_text(encoding="utf-8")):
            if language in languages:
                yield Example(path.name, text)


def typed() -> Iterator[Example]:
    """The commands of ours that stand in blocks, without what is the shell's."""
    for document, text in blocks("console", "sh"):
        for line in text.splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0].rpartition("/")[2] == "registry":
                yield Example(document, shlex.join(before_shell(words)))


def mentioned() -> Iterator[Example]:
    """Those that stand within sentences, whose arguments may be left out."""
    for path in DOCUMENTS:
        prose = " ".join(_BLOCK.sub("", path.read_text(encoding="utf-8")).split())
        yield from (Example(path.name, text) for text in _INLINE.findall(prose))


def before_shell(words: list[str]) -> list[str]:
    return words[: next((at for at, word in enumerate(words) if word in _SHELL), len(words))]


def resolved(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and what is left of them."""
    command: click.Command = registry
    while isinstance(command, click.Group) and words:
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"there is no command {words[0]}"
        command, words = found, words[1:]
    return command, words


@pytest.mark.parametrize("example", sorted(set(typed())), ids=" ".join)
def test_command_when_a_document_has_it_typed_then_can_be_run_so(example: Example) -> None:
    command, words = resolved(shlex.split(example.text)[1:])

    assert not isinstance(command, click.Group)
    command.make_context("registry", words)


def test_commands_when_documents_mention_them_then_exist_with_these_options() -> None:
    wrong: list[Example] = []
    for example in mentioned():
        command, words = resolved(before_shell(shlex.split(example.text))[1:])
        options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        if any(word.startswith("--") and word not in options for word in words):
            wrong.append(example)

    assert wrong == []


@pytest.mark.parametrize("example", list(blocks("yaml")), ids=lambda example: example.document)
def test_settings_when_a_document_shows_them_then_they_load_without_a_warning(example: Example) -> None:
    found = load(None, {}, base={**_BASE, **yaml.safe_load(example.text)})

    assert (found.warnings, tuple(found.settings.unserved())) == ((), ())


def test_sql_when_a_document_shows_it_then_it_runs(database: Target) -> None:
    async def run() -> None:
        connection: Any = await asyncpg.connect(**database.arguments())
        try:
            for _, text in blocks("sql"):
                await connection.execute(text)
        finally:
            await connection.close()

    assert list(blocks("sql"))
    asyncio.run(run())
