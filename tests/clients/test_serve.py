"""The life of `make serve`: it starts, is stopped or killed, starts again, and loses nothing and leaves nothing."""

from __future__ import annotations

import os
import pwd
import random
import re
import shutil
import signal
import socket
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.clients.guarded import Guarded
from tests.clients.wire import Wire
from tests.support.images import Package, make_image
from tests.support.processes import alive, command_line, mentioning, users, wait_for
from tests.support.registry import digest_of
from tests.support.served import CHECKOUT, command, ordinary, run, serve

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.clients.conftest import Seeded
    from tests.support.served import Served


def check_nothing_runs(running: set[tuple[int, str]], data: Path, seconds: float = 0) -> None:
    """Nothing of what ran is left, and nothing that names the data."""
    wait_for(lambda: not alive(running) and not mentioning(data), seconds)
    assert (alive(running), mentioning(data)) == ([], [])


def test_ready_line_when_it_serves_then_says_where_and_what_to_try(registry: Served) -> None:
    lines = [line for line in registry.output.read_text().splitlines() if line.startswith("registry: ready")]

    assert len(lines) == 1
    pattern = rf"registry: ready on http://{registry.address}, data in {registry.data}; try: .+"
    assert re.fullmatch(pattern, lines[0]) is not None
    assert f"docker push {registry.address}/" in lines[0]
    assert registry.client.get(f"{registry.url}/v2/").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_when_an_upload_is_under_way_then_it_is_finished_and_nothing_is_left(
    number: signal.Signals, seeded: Seeded, data: Path
) -> None:
    content = b"begun before the signal, finished after it"
    target = f"/v2/serve/drained/blobs/uploads/?digest={digest_of(content)}"
    with serve(data, HTTP_WORKERS="2") as registry, Wire(registry.port) as wire:
        registry.check("seeded/package", "v1", seeded.package)
        running = registry.processes()
        wire.ask("POST", target, content[:10], Content_Length=str(len(content)))
        assert wait_for(lambda: registry.worker_of(wire.local_port))

        registry.process.send_signal(number)
        assert wait_for(lambda: refuses(registry.port)), "no more connections are taken"
        wire.send(content[10:])

        assert wire.answer().status == 201
        assert registry.process.wait(60) == 0, registry.said()
        check_nothing_runs(running, registry.data)


def test_second_instance_when_the_data_is_in_use_then_is_refused_in_one_sentence(registry: Served) -> None:
    refused = run(command(registry.data))

    assert refused.code == 1
    assert refused.output == ""
    assert refused.errors.count("\n") == 1
    assert str(registry.data) in refused.errors
    assert registry.client.get(f"{registry.url}/v2/").status_code == 200


def test_supervisor_when_killed_then_all_ends_and_the_next_start_finds_everything(
    seeded: Seeded, data: Path
) -> None:
    package = Package(make_image("pushed before the kill"))
    with serve(data, HTTP_WORKERS="2") as registry:
        running = registry.processes()
        registry.push("serve/killed", "v1", package)
        registry.process.kill()
        registry.process.wait()
        check_nothing_runs(running, data, seconds=20)

    with serve(data, HTTP_WORKERS="1") as registry:
        registry.check("serve/killed", "v1", package)
        registry.check("seeded/package", "v1", seeded.package)


def test_database_when_killed_then_the_registry_says_so_and_ends(data: Path) -> None:
    with serve(data, HTTP_WORKERS="1") as registry:
        running = registry.processes()
        (server,) = (pid for pid in mentioning(data) if "postgres -D" in command_line(pid))
        os.kill(server, signal.SIGKILL)

        assert registry.process.wait(60) == 1
        assert (
            registry.errors.read_text()
            .splitlines()[-1]
            .startswith("registry: the embedded PostgreSQL has ended")
        )
        check_nothing_runs(running, data, seconds=20)


def test_environment_when_it_names_settings_then_they_apply(
    seeded: Seeded, data: Path, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{free_port()}"
    settings = {
        "HTTP_ADDR": address,
        "STORAGE_FILESYSTEM_ROOTDIRECTORY": str(data),
        "HTTP_WORKERS": "1",
        "LOG_LEVEL": "error",
    }

    with serve(tmp_path / "unused", **settings) as registry:
        registry.check("seeded/package", "v1", seeded.package)

        assert registry.url == f"http://{address}"
        assert f"data in {data};" in registry.output.read_text()
        assert not (tmp_path / "unused").exists()
        assert registry.stop() == 0
        assert registry.errors.read_text() == ""


def test_first_account_when_the_command_has_ended_then_no_worker_is_open(data: Path) -> None:
    with serve(data, HTTP_WORKERS="2") as registry:
        url = f"{registry.url}/v2/"
        for _ in range(20):  # by new connections, so that both workers have just seen that there is none
            with registry.apart() as stranger:
                assert stranger.client.get(url).status_code == 200

        # The quickest way to an account: hashing a password could take the second that is to be waited for.
        Guarded(registry, f"{registry.url}/auth/token", "registry").command("robot", "add", "ci")

        for _ in range(20):
            with registry.apart() as stranger:
                assert stranger.client.get(url).status_code == 401


@pytest.mark.needs("root", "setpriv")
def test_ordinary_user_when_serving_then_everything_is_theirs(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    package = Package(make_image("pushed to nobody"))
    with owned_directory(nobody.pw_uid) as directory:
        data = directory / "data"
        with serve(
            data, words=ordinary(command(data), directory), logs=tmp_path, HTTP_WORKERS="1"
        ) as registry:
            running = registry.processes()
            registry.push("serve/nobody", "v1", package)
            registry.check("serve/nobody", "v1", package)
            assert users(pid for pid, _ in running) == {nobody.pw_uid}
            assert registry.stop() == 0, registry.said()
            check_nothing_runs(running, data)
            assert {path.stat().st_uid for path in data.rglob("*")} == {nobody.pw_uid}


@pytest.mark.needs("make")
@pytest.mark.skipif(not (CHECKOUT / ".venv/bin/registry").exists(), reason="needs the checkout's .venv")
def test_make_serve_when_interrupted_at_the_terminal_then_leaves_nothing(seeded: Seeded, data: Path) -> None:
    with serve(data, words=["make", "serve", f"ARGS=--data '{data}'"]) as registry:
        running = registry.processes()
        registry.check("seeded/package", "v1", seeded.package)
        os.killpg(registry.process.pid, signal.SIGINT)  # what Ctrl-C does
        registry.process.wait(60)
        check_nothing_runs(running, data, seconds=20)


@contextmanager
def owned_directory(uid: int) -> Generator[Path]:
    """A directory of that user's, where every user may go: pytest's own is closed to others."""
    directory = Path(tempfile.mkdtemp(prefix="registry-"))
    os.chown(directory, uid, -1)
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


def free_port() -> int:
    """One that nobody gets unasked: those are at the kernel's disposal for every connection that somebody makes."""
    for port in random.SystemRandom().sample(range(10_000, 32_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")
