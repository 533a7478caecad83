"""A run says which checks it left out, and with REQUIRE_ALL=1 has failed if there was one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
CHECKS = """
import pytest
def test_plain(): pass
@pytest.mark.needs("sh")
def test_there(): pass
@pytest.mark.needs("no-such-program")
def test_missing(): pass
@pytest.mark.needs("no-such-program", "nor-this")
@pytest.mark.parametrize("n", [1, 2])
def test_two(n): pass
"""


def run(directory: Path, checks: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_checks.py").write_text(checks)
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "REQUIRE_ALL"))
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.support.needs",
        "-p",
        "no:cacheprovider",
        *options,
    ]
    return subprocess.run(
        [*command, f"--rootdir={directory}", str(directory)],
        env={**inherited, "PYTHONPATH": str(PROJECT), **environment},
        capture_output=True,
        text=True,
        cwd=directory,
        check=False,
    )


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "parallel"])
def test_a_run_without_a_program_passes_and_names_what_it_left_out(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = run(tmp_path, CHECKS, *options)
    assert done.returncode == 0
    assert "left out: 3 checks" in done.stdout
    assert "    1 needs no-such-program\n" in done.stdout
    assert "    2 needs no-such-program, nor-this\n" in done.stdout
    assert "2 passed, 3 skipped" in done.stdout.splitlines()[-1]


def test_a_run_that_must_be_whole_fails_when_something_was_left_out(tmp_path: Path) -> None:
    done = run(tmp_path, CHECKS, "-n", "2", REQUIRE_ALL="1")
    assert done.returncode == 1
    assert "left out: 3 checks" in done.stdout


def test_a_whole_run_passes_and_says_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "def test_plain(): pass\n", REQUIRE_ALL="1")
    assert done.returncode == 0
    assert "left out" not in done.stdout
