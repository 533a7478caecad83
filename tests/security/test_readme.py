"""README.md names tests that exist: every file, and in it a test whose name has the words that are given for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
README: Final = Path(__file__).with_name("README.md")
_CELL: Final = re.compile(r"`([a-z0-9_/]+(?:\.py|\.md|/))`((?:[^`|]*?\*[^*`|]+\*)*)")
_WORDS: Final = re.compile(r"\*([^*]+)\*")
_NAME: Final = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)


def missing(text: str) -> list[str]:
    """What the text names that is not there."""
    found: list[str] = []
    for path, words in _CELL.findall(text):
        file = TESTS / path
        if not file.exists():
            found.append(path)
            continue
        names = [] if file.is_dir() else _NAME.findall(file.read_text(encoding="utf-8"))
        spoken = [name.replace("_", " ") for name in names]
        for word in _WORDS.findall(words):
            wanted = re.sub(r"\W|_", " ", word)
            if not any(wanted in name for name in spoken):
                found.append(f"{path}: {word}")
    return found


def test_readme_when_it_names_a_test_then_there_is_one() -> None:
    text = README.read_text(encoding="utf-8")
    assert missing(text) == []
    # Every test of this directory is in it.
    own = {f"security/{path.name}" for path in README.parent.glob("test_*.py")} - {"security/test_readme.py"}
    assert own <= {path for path, _ in _CELL.findall(text)}


def test_readme_when_a_file_or_a_test_is_not_there_then_it_is_told() -> None:
    """The test of the test."""
    assert missing("`security/test_nothing.py`") == ["security/test_nothing.py"]
    assert missing("`security/test_readme.py`: *no such words*; *named*") == [
        *("security/test_readme.py: no such words", "security/test_readme.py: named"),
    ]
    assert missing("`security/test_readme.py`: *there is one*, and *is told*; `unit/`") == []


def test_readme_when_it_tells_why_a_class_is_absent_then_it_gives_a_reason() -> None:
    absent = README.read_text(encoding="utf-8").partition("## Not here yet")[2]
    rows = [line.strip("| ").split(" | ") for line in absent.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 4
    assert all(len(row) == 2 and row[1] for row in rows)
