"""A pytest plugin: what a check needs of the machine, and an honest list of the checks that were left out.

`@pytest.mark.needs("skopeo")` leaves a test out where the program is missing; the word `root` stands for
being root. The run says at its end what was left out and why. With REQUIRE_ALL=1 in the environment a run
that left anything out has failed.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

# Where servers are installed, which is not on everyone's path.
_SYSTEM: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def program(name: str) -> str | None:
    """Where the program is, or None."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM)))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*things): programs that the test runs, or the word root")


def pytest_runtest_setup(item: pytest.Item) -> None:
    wanted = [thing for marker in item.iter_markers("needs") for thing in marker.args]
    missing = [thing for thing in wanted if not _has(thing)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def _has(thing: str) -> bool:
    return os.geteuid() == 0 if thing == "root" else program(thing) is not None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _all_required() and session.exitstatus == pytest.ExitCode.OK and _left_out(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = _left_out(terminalreporter.config)
    if not reasons:
        return
    terminalreporter.section(f"left out: {reasons.total()} checks", yellow=True)
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count:5} {reason}")
    if _all_required():
        terminalreporter.line("REQUIRE_ALL=1 is set: a run that left anything out has failed", red=True)


def _all_required() -> bool:
    return os.environ.get("REQUIRE_ALL") == "1"


def _left_out(config: pytest.Config) -> Counter[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped: Sequence[pytest.TestReport] = reporter.stats.get("skipped", ()) if reporter else ()
    return Counter(_reason(report) for report in skipped)


def _reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")
