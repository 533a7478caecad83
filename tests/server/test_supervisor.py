"""The processes, end to end: what an operator does to them, and what clients see of it."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.server.harness import Raw, alive, eventually, registry, starting

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_sigterm_when_a_request_is_under_way_then_it_is_answered(tmp_path: Path) -> None:
    seen, go = tmp_path / "seen", tmp_path / "go"
    with registry(tmp_path) as running, Raw(running.address) as client:
        workers = running.workers()
        client.get(f"/slow?seen={seen}&go={go}")
        eventually(seen.exists)
        running.process.send_signal(signal.SIGTERM)
        eventually(lambda: _refused(running.address))
        go.touch()
        status, head, body = client.answer()
        assert (status, body) == (200, b"slow")
        assert "connection: close" in head
        assert running.process.wait(30) == 0
        assert not any(alive(pid) for pid in workers)
        assert list(tmp_path.glob("registry-metrics-*")) == []


def test_sigterm_when_a_connection_is_idle_then_a_request_already_sent_on_it_is_answered(
    tmp_path: Path,
) -> None:
    with registry(tmp_path) as running, Raw(running.address) as client:
        client.get("/who")
        assert client.answer()[0] == 200
        running.process.send_signal(signal.SIGTERM)
        eventually(lambda: _refused(running.address))
        client.get("/who")
        status, head, _ = client.answer()
        assert status == 200
        assert "connection: close" in head
        assert client.closed()
        assert running.process.wait(30) == 0


def test_sigterm_when_connections_are_idle_then_it_takes_no_longer_than_the_goodbye(tmp_path: Path) -> None:
    with registry(tmp_path) as running, Raw(running.address) as idle, Raw(running.address) as silent:
        idle.get("/who")
        idle.answer()
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 8
        assert idle.closed()
        assert silent.closed()


def test_sigterm_when_a_request_takes_longer_than_draintimeout_then_it_is_cut_off(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with registry(tmp_path, draintimeout="1s") as running, Raw(running.address) as client:
        client.get(f"/slow?seen={seen}&go={tmp_path}/never")
        eventually(seen.exists)
        began = time.monotonic()
        assert running.stop() == 0
        assert 1 <= time.monotonic() - began < 9
        assert client.answer()[0] == 503
        assert client.closed()
        assert "cut 1 connections off" in running.log


def test_second_signal_when_requests_are_under_way_then_everything_ends_at_once(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with registry(tmp_path) as running, Raw(running.address) as client:
        workers = running.workers()
        client.get(f"/slow?seen={seen}&go={tmp_path}/never")
        eventually(seen.exists)
        running.process.send_signal(signal.SIGTERM)
        eventually(lambda: _refused(running.address))
        began = time.monotonic()
        assert running.stop() == 1
        assert time.monotonic() - began < 8
        assert not any(alive(pid) for pid in workers)
        assert "stopped at once" in running.log


def test_sigint_when_the_whole_group_gets_it_then_requests_are_finished(tmp_path: Path) -> None:
    seen, go = tmp_path / "seen", tmp_path / "go"
    with registry(tmp_path) as running, Raw(running.address) as client:
        client.get(f"/slow?seen={seen}&go={go}")
        eventually(seen.exists)
        for pid in running.workers():
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        os.killpg(running.process.pid, signal.SIGINT)
        eventually(lambda: _refused(running.address))
        go.touch()
        assert client.answer()[2] == b"slow"
        assert running.process.wait(30) == 0


def test_worker_killed_when_requests_come_then_they_wait_and_it_is_replaced(tmp_path: Path) -> None:
    with registry(tmp_path) as running:
        before = running.workers()
        os.kill(before[0], signal.SIGKILL)
        eventually(lambda: before[0] not in running.workers())
        # Connections go to both sockets, also to that of the dead worker; none of them is refused.
        answers = [httpx.get(f"{running.url}/who", timeout=20) for _ in range(12)]
        assert {answer.status_code for answer in answers} == {200}
        eventually(lambda: len(running.workers()) == 2)
        assert before[0] not in running.workers()
        assert "SIGKILL" in running.log


def test_worker_killed_when_it_cannot_be_built_again_then_it_is_tried_until_it_can(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    with registry(tmp_path, workers=1, _env={"STANDIN_BROKEN": str(broken)}) as running:
        broken.touch()
        os.kill(running.workers()[0], signal.SIGKILL)
        eventually(lambda: running.log.count("the stand-in cannot be built") >= 2)
        broken.unlink()
        assert httpx.get(f"{running.url}/who", timeout=20).status_code == 200


def test_start_when_a_worker_cannot_be_built_then_one_sentence_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    with starting(tmp_path, _env={"STANDIN_BROKEN": str(broken)}) as running:
        assert running.process.wait(60) == 1
        assert running.log.splitlines()[-1] == "the registry cannot start: the stand-in cannot be built"
        assert "Traceback" not in running.log


def test_supervisor_killed_when_workers_serve_then_nothing_is_left(tmp_path: Path) -> None:
    seen, go = tmp_path / "seen", tmp_path / "go"
    with registry(tmp_path) as running, Raw(running.address) as client:
        workers = running.workers()
        assert len(workers) == 2
        client.get(f"/slow?seen={seen}&go={go}")
        eventually(seen.exists)
        running.process.kill()
        running.process.wait()
        go.touch()
        assert client.answer()[2] == b"slow"
        eventually(lambda: not any(alive(pid) for pid in workers))
        assert _refused(running.address)
        assert list(tmp_path.glob("registry-metrics-*")) == []


def test_supervisor_killed_when_a_worker_hangs_then_it_ends_all_the_same(tmp_path: Path) -> None:
    with registry(tmp_path, workers=1, draintimeout="100ms") as running, Raw(running.address) as client:
        [worker] = running.workers()
        client.get("/hang?seconds=60")
        time.sleep(0.3)
        running.process.kill()
        running.process.wait()
        eventually(lambda: not alive(worker))


def test_start_when_the_address_is_in_use_then_one_sentence_says_so(tmp_path: Path) -> None:
    with registry(tmp_path) as first:
        address = "{}:{}".format(*first.address)
        with starting(tmp_path, addr=address) as second:
            assert second.process.wait(60) == 1
            assert second.log == (
                f"cannot listen on {address} (http.addr): another process is listening there; "
                "stop it, or choose another address\n"
            )
        with starting(tmp_path, debug={"addr": address}) as third:
            assert third.process.wait(60) == 1
            assert f"cannot listen on {address} (http.debug.addr)" in third.log
        assert httpx.get(f"{first.url}/who").status_code == 200


def test_start_when_an_earlier_run_left_connections_then_the_address_is_free(tmp_path: Path) -> None:
    with registry(tmp_path) as first, Raw(first.address) as client:
        address = first.address
        client.get("/who")
        client.answer()
        assert first.stop() == 0
    with registry(tmp_path, addr="{}:{}".format(*address)) as second:
        assert httpx.get(f"{second.url}/who").status_code == 200


@pytest.mark.parametrize(
    ("addr", "reason"),
    [("192.0.2.1:5000", "cannot assign requested address"), ("nowhere.invalid:5000", "not known")],
)
def test_start_when_the_address_is_not_ours_then_one_sentence_says_so(
    tmp_path: Path, addr: str, reason: str
) -> None:
    with starting(tmp_path, addr=addr) as running:
        assert running.process.wait(60) == 1
        assert running.log.startswith(f"cannot listen on {addr} (http.addr): ")
        assert running.log.count("\n") == 1


def test_workers_when_many_connections_come_then_all_get_some(tmp_path: Path) -> None:
    with registry(tmp_path, workers=3) as running:
        serving = {httpx.get(f"{running.url}/who").json()["process"] for _ in range(60)}
        assert serving == set(running.workers())


def test_every_interface_when_an_ipv4_client_comes_then_its_address_is_plain(tmp_path: Path) -> None:
    with registry(tmp_path, addr=":0", workers=1) as running:
        port = running.address[1]
        assert httpx.get(f"http://127.0.0.1:{port}/who").json()["client"] == "127.0.0.1"
        if running.url.startswith("http://["):
            assert httpx.get(f"http://[::1]:{port}/who").json()["client"] == "::1"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name leaves room for a socket's, of which a path has 107 characters at most."""
    with tempfile.TemporaryDirectory(prefix="rs-") as directory:
        yield Path(directory)


def test_unix_socket_when_it_is_stale_then_it_is_replaced_and_when_it_is_live_then_refused(
    tmp_path: Path, short_path: Path
) -> None:
    path = short_path / "registry.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with registry(tmp_path, addr=str(path), net="unix") as running:
        assert running.url == f"unix:{path}"
        with Raw(str(path)) as client:
            client.get("/who")
            assert client.answer()[0] == 200
        with starting(tmp_path, addr=str(path), net="unix") as second:
            assert second.process.wait(60) == 1
            assert "another process is listening there" in second.log
        before = running.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        with Raw(str(path)) as client:
            client.get("/who")
            assert client.answer()[0] == 200
        assert running.stop() == 0
    assert not path.exists()


def test_unix_socket_when_there_is_a_file_then_it_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("content")
    with starting(tmp_path, addr=str(path), net="unix") as running:
        assert running.process.wait(60) == 1
        assert "it is no socket" in running.log
    assert path.read_text() == "content"


def test_requests_when_the_registry_stops_under_load_then_none_that_was_accepted_is_lost(
    tmp_path: Path,
) -> None:
    lost: list[str] = []
    with registry(tmp_path) as running:
        host, port = running.address
        stop = threading.Event()

        def ask() -> None:
            with Raw((host, port)) as client:
                while not stop.is_set():
                    try:
                        client.get("/who")
                        head = client.answer()[1]
                    except (OSError, EOFError) as error:
                        lost.append(repr(error))
                        return
                    if "connection: close" in head:
                        return

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        assert running.stop() == 0
        stop.set()
        for thread in threads:
            thread.join()
    assert lost == []


def _refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 5).close()
    except ConnectionRefusedError:
        return True
    return False
