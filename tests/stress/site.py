"""A registry whose collectors hurry, and more collectors beside it: the commands that an operator would start."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx

from tests.support.processes import wait_for
from tests.support.served import CHECKOUT, environment

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from app.store.engine import Target

WORKERS: Final = 2
CREWS: Final = 2
PATIENCE_SECONDS: Final = 60.0
_READY: Final = re.compile(r"^registry: (?:ready on http://\S+:(\d+)|collecting)$", re.MULTILINE)
_DEBUG: Final = re.compile(r"health and metrics are at (http://\S+)")
_METRIC: Final = re.compile(r'^registry_gc_(\w+)_total\{.*worker="(\w+)".*\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Running:
    """One of the commands. `output` and `errors` are files that its streams go to."""

    process: subprocess.Popen[bytes]
    output: Path
    errors: Path

    def said(self) -> str:
        return f"{self.output.read_text()}\n{self.errors.read_text()}"

    def wait_until_ready(self) -> int:
        """Returns the port of the API, 0 where there is none."""
        found = wait_for(
            lambda: _READY.search(self.output.read_text()) or self._has_ended(), PATIENCE_SECONDS
        )
        assert isinstance(found, re.Match), f"not ready: {self.said()}"
        return int(found[1] or 0)

    def counted(self) -> Counter[str]:
        """What its collectors have counted so far: reviews, postpones and more, with the collector's name."""
        found = _DEBUG.search(self.errors.read_text())
        assert found is not None, self.said()
        page = httpx.get(f"{found[1]}/metrics", timeout=PATIENCE_SECONDS, trust_env=False).text
        counted: Counter[str] = Counter()
        for name, worker, count in _METRIC.findall(page):
            counted[f"{name} of {worker}"] += int(float(count))
        return counted

    def stop(self) -> None:
        """End it in order. Raises AssertionError if it does not, or if it has complained before."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_SECONDS) == 0, self.said()
        lines = self.errors.read_text().splitlines()
        odd = [line for line in lines if line and line.split()[1:2] != ["INFO"]]
        assert not odd, "\n".join(odd)

    def _has_ended(self) -> bool:
        return self.process.poll() is not None


@dataclass(frozen=True)
class Site:
    """All of them: the registry at `port`, which collects, too, and more that only collect."""

    port: int
    commands: tuple[Running, ...]

    def counted(self) -> Counter[str]:
        """What all collectors have counted."""
        return sum((command.counted() for command in self.commands), Counter[str]())

    def stop(self) -> None:
        """End all of them in order."""
        for command in self.commands:
            command.stop()


@contextmanager
def running(root: Path, database: Target, review_after: str) -> Generator[Site]:
    """A registry with its data in `root/data`, and crews, until the block ends."""
    config = root / "registry.yml"
    config.write_text(json.dumps(_settings(root / "data", database, review_after)))
    (root / "data").mkdir()
    with ExitStack() as stack:
        commands = [stack.enter_context(_started(root, "serve", str(config)))]
        commands += [
            stack.enter_context(_started(root, "gc", "work", "--debug", str(config), name=f"crew-{number}"))
            for number in range(CREWS)
        ]
        ports = [command.wait_until_ready() for command in commands]
        yield Site(ports[0], tuple(commands))


@contextmanager
def _started(root: Path, *words: str, name: str = "serve") -> Generator[Running]:
    output, errors = root / f"{name}.out", root / f"{name}.err"
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", "from app.cli import main; main()", *words],
            cwd=CHECKOUT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    try:
        yield Running(process, output, errors)
    finally:
        if process.poll() is None:
            process.kill()  # its workers notice, and go too
            process.wait()


def _settings(data: Path, database: Target, review_after: str) -> dict[str, Any]:
    return {
        "version": 0.1,
        "http": {
            "addr": "127.0.0.1:0",
            "workers": WORKERS,
            "debug": {"addr": "127.0.0.1:0", "prometheus": {"enabled": True}},
        },
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(data)}, "delete": {"enabled": True}},
        "database": {
            "host": database.host,
            "port": database.port,
            "user": database.user,
            "password": database.password,
            "dbname": database.database,
            # A machine that is busy with something else is no fault of the registry's.
            "pool": {"queuetimeout": "60s"},
        },
        "gc": {
            "reviewafter": review_after,
            "shortdelays": True,
            "maxbackoff": "50ms",
            "load": 1,
            "manifests": {"interval": "10ms"},
            "blobs": {"interval": "10ms", "storagedelay": "0s", "storagetimeout": "60s"},
            "transactiontimeout": "60s",
        },
    }
