"""The command line, as its users run it: output, exit codes, and one sentence for each mistake."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from app.cli import run
from app.cli.root import registry
from tests.server.harness import ROOT, Raw, alive, children, eventually
from tests.support.postgres import connected
from tests.support.processes import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click

    from app.store.engine import Target

COMMAND = [sys.executable, "-c", "from app.cli import main; main()"]
HEAD = r"\d{8}_\w+"


def environment(**variables: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


def call(*arguments: str | Path, **variables: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command that ends; in this process, to save time."""
    output, errors = io.StringIO(), io.StringIO()
    before, stdin = dict(os.environ), sys.stdin
    os.environ.clear()
    os.environ.update(environment(**variables))
    sys.stdin = io.StringIO("")
    try:
        with redirect_stdout(output), redirect_stderr(errors):
            code = run([*map(str, arguments)])
    finally:
        os.environ.clear()
        os.environ.update(before)
        sys.stdin = stdin
    return code, output.getvalue(), errors.getvalue()


def call_serve(*arguments: str | Path, **variables: str) -> tuple[int, str, str]:
    """The same of `registry serve`, which takes over signals and logs, in a process of its own."""
    done = subprocess.run(
        [*COMMAND, "serve", *map(str, arguments)],
        env=environment(**variables),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@contextmanager
def served(
    *arguments: str | Path, cwd: Path, **variables: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `registry serve` and its line that says that it is ready."""
    errors = cwd / "stderr"
    with errors.open("a") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve", *map(str, arguments)],
            cwd=cwd,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, errors.read_text()
        yield process, line
    finally:
        everything = [process.pid, *descendants(process.pid)]
        process.kill()
        process.wait()
        process.stdout.close()
        eventually(lambda: not any(alive(pid) for pid in everything))


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def url_in(line: str) -> str:
    return re.search(r"https?://[^\s,]+", line)[0]  # type: ignore[index]


def configuration(tmp_path: Path, target: Target | None, **sections: Any) -> Path:
    database = (
        {}
        if target is None
        else {"host": target.host, "port": target.port, "user": target.user, "dbname": target.database}
    )
    file = tmp_path / "config.yml"
    content = {
        "version": 0.1,
        "http": {"addr": "127.0.0.1:0", "workers": 1},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "blobs")}},
        "database": database,
        **sections,
    }
    file.write_text(yaml.safe_dump(content))
    return file


def test_help_then_every_command_says_what_it_does() -> None:
    code, output, errors = call("--help")
    assert (code, errors) == (0, "")
    for name in ("serve", "config", "database", "--version"):
        assert name in output
    for path, command in commands(registry, ("registry",)):
        code, output, _ = call(*path[1:], "--help")
        assert code == 0
        assert output.startswith(f"Usage: {' '.join(path)}")
        assert command.help
        for option in command.params:
            if option.param_type_name == "option":
                assert getattr(option, "help", None), (path, option.name)


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if hasattr(command, "list_commands"):
        context = command.make_context(path[-1], [], resilient_parsing=True)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), (*path, name))


def test_output_when_nobody_reads_it_then_the_command_ends_without_a_word() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*COMMAND, "--help"],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_output_when_the_disk_is_full_then_one_sentence_says_so() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "--help"],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "registry: the output could not be written: No space left on device\n",
    )


def test_help_then_it_loads_nothing_but_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import app.cli, sys; print(*sys.modules)"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "app.cli.root" in loaded
    assert not loaded & {"pydantic", "asyncpg", "sqlalchemy", "hypercorn", "starlette", "asyncio", "yaml"}


def test_version_then_it_is_one_line() -> None:
    code, output, _ = call("--version")
    assert code == 0
    assert re.fullmatch(r"registry \S.*\n", output)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nonsense",), "No such command 'nonsense' (see registry --help)"),
        (("serve", "--nonsense"), "No such option '--nonsense' (see registry serve --help)"),
        (("serve",), "no configuration file was named; give its path or set REGISTRY_CONFIGURATION_PATH"),
        (("serve", "/nowhere.yml"), "/nowhere.yml: cannot be read: No such file or directory"),
        (("serve", "--local", "some.yml"), "--local is a configuration of its own"),
        (("serve", "--data", "some", "some.yml"), "--data goes with --local"),
        (("config", "check"), "Missing argument 'FILE' (see registry config check --help)"),
        (("database", "migrate", "up", "--partitions", "0"), "Invalid value for '--partitions'"),
    ],
)
def test_mistake_in_a_command_then_one_sentence_says_so(arguments: tuple[str, ...], sentence: str) -> None:
    code, output, errors = call(*arguments)
    assert (code, output) == (2, "")
    assert errors.startswith(f"registry: {sentence}")
    assert errors.count("\n") == 1


def test_config_check_when_the_file_is_good_then_it_says_so(tmp_path: Path) -> None:
    file = configuration(tmp_path, None, database={"host": "db"}, redis={"addr": "localhost:6379"})
    code, output, errors = call("config", "check", file)
    assert (code, output) == (0, f"{file}: ok\n")
    assert re.search(r"^warning: redis", errors, re.MULTILINE)


def test_config_check_when_there_are_mistakes_then_each_has_its_line(tmp_path: Path) -> None:
    file = configuration(tmp_path, None, http={"addr": ":0", "workers": "many"}, log={"level": "loud"})
    code, output, errors = call("config", "check", file)
    assert (code, output) == (2, "")
    assert {line.split(": ")[1] for line in errors.splitlines()} == {"http.workers", "log.level"}


def test_config_check_when_serve_would_refuse_then_it_says_so(tmp_path: Path) -> None:
    file = configuration(tmp_path, None)
    code, output, errors = call("config", "check", file)
    assert (code, output) == (0, f"{file}: ok, but it cannot be served yet\n")
    assert "warning: registry serve refuses to start: database.host: required" in errors


def test_migrations_when_they_go_up_and_down_then_each_command_tells_the_state(
    tmp_path: Path, empty_database: Target
) -> None:
    file = configuration(tmp_path, empty_database)
    migrate = ("database", "migrate")
    assert call(*migrate, "version", file)[:2] == (0, "none\n")
    assert re.fullmatch(rf"(pending  {HEAD}  .+\n)+", call(*migrate, "status", file)[1])
    assert call(*migrate, "status", "--up-to-date", file)[:2] == (0, "false\n")
    assert re.fullmatch(rf"({HEAD}  .+\n)+", call(*migrate, "up", "--dry-run", file)[1])
    assert call(*migrate, "version", file)[1] == "none\n"

    code, output, _ = call(*migrate, "up", "--partitions", "2", file)
    assert code == 0
    assert re.search(r"^OK: applied \d+ migration\(s\) in \d+\.\ds$", output, re.MULTILINE)
    assert call(*migrate, "up", REGISTRY_CONFIGURATION_PATH=str(file))[1].startswith("nothing to do")
    assert call(*migrate, "status", "-u", file)[1] == "true\n"
    assert re.fullmatch(rf"(applied  {HEAD}  .+\n)+", call(*migrate, "status", file)[1])
    assert re.fullmatch(rf"{HEAD}\n", call(*migrate, "version", file)[1])

    code, output, errors = call(*migrate, "down", file)
    assert code == 1
    assert errors.endswith("registry: nothing was done\n")
    assert call(*migrate, "status", "-u", file)[1] == "true\n"
    assert call(*migrate, "down", "--force", file)[1].startswith("OK: undid ")
    assert call(*migrate, "version", file)[1] == "none\n"
    assert call(*migrate, "down", "--force", file)[1].startswith("nothing to do")


def test_migrations_when_the_database_cannot_be_reached_then_one_sentence_says_so(tmp_path: Path) -> None:
    file = configuration(tmp_path, None, database={"host": "127.0.0.1", "port": 1, "sslmode": "disable"})
    for code, output, errors in (
        call("database", "migrate", "up", file),
        call("database", "migrate", "version", file),
        call_serve(file),
    ):
        assert (code, output) == (1, "")
        assert errors.startswith("registry: cannot connect to the metadata database")
        assert errors.count("\n") == 1


def test_migrations_when_no_database_is_named_then_the_key_is(tmp_path: Path) -> None:
    code, _, errors = call("database", "migrate", "version", configuration(tmp_path, None))
    assert code == 2
    assert errors.startswith("registry: database.host: required")


def test_serve_when_the_storage_is_empty_and_the_database_is_not_then_it_refuses_to_start(
    tmp_path: Path, database: Target
) -> None:
    async def name_an_object() -> None:
        async with connected(database) as connection:
            await connection.execute(
                "INSERT INTO blobs (digest, size, storage_key) VALUES (decode('01' || repeat('ab', 32), 'hex'), 1, 'k')"
            )

    asyncio.run(name_an_object())
    code, output, errors = call_serve(configuration(tmp_path, database))
    assert (code, output) == (1, "")
    assert errors.startswith(
        "registry: the storage's root directory is not there, but the database names objects in it"
    )
    assert errors.count("\n") == 1
    (tmp_path / "blobs").mkdir()
    code, _, errors = call_serve(tmp_path / "config.yml")
    assert code == 1
    assert errors.startswith("registry: the storage is empty, but the database names objects in it")


def test_serve_when_migrations_are_pending_then_the_command_is_named(
    tmp_path: Path, empty_database: Target
) -> None:
    file = configuration(tmp_path, empty_database)
    code, output, errors = call_serve(file)
    assert (code, output) == (1, "")
    remedy = f"registry database migrate up {file}"
    assert errors == f"registry: the metadata database lacks migrations; apply them first: {remedy}\n"


def test_serve_when_the_configuration_is_good_then_it_answers_until_sigterm(
    tmp_path: Path, database: Target
) -> None:
    file = configuration(tmp_path, database, redis={"addr": "localhost:6379"}, log={"formatter": "json"})
    with served(file, cwd=tmp_path, REGISTRY_HTTP_WORKERS="2") as (process, line):
        assert re.fullmatch(r"registry: ready on http://127\.0\.0\.1:\d+\n", line)
        answer = httpx.get(f"{url_in(line)}/v2/", headers={"X-Request-ID": "mine"})
        assert answer.status_code == 200
        assert answer.headers["x-request-id"] == "mine"
        process.terminate()
        assert process.wait(20) == 0
    lines = [json.loads(text) for text in (tmp_path / "stderr").read_text().splitlines()]
    # Each warning once, not once per worker.
    assert len([entry for entry in lines if entry["msg"].startswith("redis")]) == 1


def test_serve_when_the_debug_server_is_on_then_health_and_metrics_tell_of_the_registry(
    tmp_path: Path, database: Target
) -> None:
    http = {"addr": "127.0.0.1:0", "workers": 2, "debug": {"addr": "127.0.0.1:0"}}
    file = configuration(tmp_path, database, http=http)
    with served(file, cwd=tmp_path) as (_, line):
        debug = eventually(lambda: re.search(r"at (http://\S+)", (tmp_path / "stderr").read_text()))[1]
        assert httpx.get(f"{debug}/debug/health", timeout=20).json() == {}
        httpx.get(f"{url_in(line)}/v2/_catalog").raise_for_status()
        page = httpx.get(f"{debug}/metrics").text
        assert re.search(
            r'^registry_http_requests_total\{code="200",method="GET",.*\} 1\.0$', page, re.MULTILINE
        )
        assert "registry_database_query_duration_seconds_count" in page
        assert "registry_database_pool_connections" in page


def test_serve_local_when_it_is_started_again_then_it_finds_its_data(tmp_path: Path) -> None:
    variables = {"REGISTRY_HTTP_ADDR": "127.0.0.1:0", "REGISTRY_HTTP_WORKERS": "2"}
    # Where podman keeps logins. Taken for a provider of ours, it would have the accounts count for nothing.
    variables["REGISTRY_AUTH_FILE"] = "/run/containers/0/auth.json"
    with served("--local", cwd=tmp_path, **variables) as (process, line):
        assert "auth.issuer: until the first account is made" in (tmp_path / "stderr").read_text()
        data = tmp_path / "data"
        url = url_in(line)
        host = url.removeprefix("http://")
        assert line == f"registry: ready on {url}, data in {data}; try: docker push {host}/hello:latest\n"
        content = b"some content"
        pushed = push(url, content)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "stderr"]

        code, _, errors = call_serve("--local", "--data", data, REGISTRY_HTTP_ADDR="127.0.0.1:0")
        assert code == 1
        assert errors.startswith(f"registry: another registry (process {process.pid}) is using {data}")

        everything = descendants(process.pid)
        assert len(everything) >= 3
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""
        assert not any(alive(pid) for pid in everything)

    with served("--local", "--data", data, cwd=tmp_path, **variables) as (process, line):
        assert httpx.get(f"{url_in(line)}{pushed}").content == content
        everything = descendants(process.pid)
        process.kill()
        process.wait()
        eventually(lambda: not any(alive(pid) for pid in everything))

    with served("--local", "--data", data, cwd=tmp_path, **variables) as (process, line):
        assert httpx.get(f"{url_in(line)}{pushed}").content == content
        [postmaster] = [pid for pid in children(process.pid) if "postgres" in command_line(pid)]
        os.kill(postmaster, signal.SIGKILL)
        assert process.wait(60) == 1
    assert "the embedded PostgreSQL has ended" in (tmp_path / "stderr").read_text()


def push(url: str, content: bytes) -> str:
    """Push a blob; returns its path."""
    import hashlib  # noqa: PLC0415

    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    answer = httpx.post(f"{url}/v2/hello/blobs/uploads/", params={"digest": digest}, content=content)
    assert answer.status_code == 201, answer.text
    return f"/v2/hello/blobs/{digest}"


def test_serve_local_when_it_is_stopped_while_it_starts_then_nothing_is_left(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--local"],
        cwd=tmp_path,
        env=environment(REGISTRY_HTTP_ADDR="127.0.0.1:0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    eventually(lambda: any("initdb" in command_line(pid) for pid in descendants(process.pid)))
    everything = descendants(process.pid)
    process.terminate()
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert output == ""
    assert "Traceback" not in errors
    eventually(lambda: not any(alive(pid) for pid in everything))


def test_serve_when_a_client_forges_headers_then_its_log_lines_are_one_each(
    tmp_path: Path, database: Target
) -> None:
    file = configuration(tmp_path, database, log={"accesslog": {"formatter": "text"}})
    with served(file, cwd=tmp_path) as (process, line):
        host, _, port = url_in(line).removeprefix("http://").partition(":")
        with Raw((host, int(port))) as client:
            client.send(
                b"GET /v2/%0a127.0.0.1%20forged HTTP/1.1\r\nHost: x\r\nX-Request-ID: a b\r\n"
                b'User-Agent: "\xc2\x85 \xe2\x80\xa8 forged\r\n\r\n'
            )
            assert client.answer()[0] == 404
        process.terminate()
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    assert len(lines) == 1
    assert re.fullmatch(r'[ -~]+"\\"\\xc2\\x85 \\xe2\\x80\\xa8 forged" \d\.\d{6} [0-9a-f]{32}', lines[0])
