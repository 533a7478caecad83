"""Behind PgBouncer in transaction mode: consecutive statements of one client may reach different servers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from app.domain.errors import Unavailable
from app.runtime.embedded import binaries, identity
from app.store.engine import Database
from tests.support.invariants import assert_invariants
from tests.support.needs import program
from tests.support.postgres import connected
from tests.support.registry import digest_of, image, index, open_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.store.engine import Target
    from tests.support.registry import Registry

pytestmark = pytest.mark.needs("pgbouncer")

PORT: Final = 6432
SERVERS: Final = 2
CONFIGURATION: Final = """
[databases]
* = host={host} port={port} user={user}

[pgbouncer]
pool_mode = transaction
default_pool_size = {servers}
max_client_conn = 200
auth_type = any
listen_addr =
listen_port = {listen}
unix_socket_dir = {directory}
logfile = {directory}/log
# Statements that are prepared on one server and carried out on another are what is tested.
server_round_robin = 1
"""


@pytest.fixture
def bouncer(database: Target) -> Iterator[Target]:
    """PgBouncer before the database, as the identity that the database runs as: it refuses to be root as well."""
    found = program("pgbouncer")
    assert found is not None
    directory = Path(tempfile.mkdtemp(prefix="registry-pgbouncer-"))
    who = identity.choose(directory, Path(database.host), binaries.locate(binaries.NEWEST))
    (directory / "pgbouncer.ini").write_text(
        CONFIGURATION.format(
            host=database.host,
            port=database.port,
            user=database.user,
            servers=SERVERS,
            listen=PORT,
            directory=directory,
        )
    )
    if who.owner != os.geteuid():
        os.chown(directory, who.owner, who.group)
    command = who.command(directory, signal.SIGTERM, found, "-q", "pgbouncer.ini")
    with (directory / "out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        target = replace(database, host=str(directory), port=PORT)
        asyncio.run(answers(target, process, directory))
        yield target
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


async def answers(target: Target, process: subprocess.Popen[bytes], directory: Path) -> None:
    async with asyncio.timeout(20):
        while True:
            assert process.poll() is None, (directory / "out").read_text()
            try:
                connection = await asyncpg.connect(**target.arguments(), statement_cache_size=0)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                await connection.close()
                return


async def servers(target: Target) -> int:
    """How many connections PgBouncer has to the database."""
    async with connected(target) as connection:
        return await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def push_and_pull(registry: Registry, name: str) -> None:
    """All that a client does, and that what it gets is what it gave."""
    pushed = image(f"layer of {name}".encode(), b"shared", config=b"{}")
    await registry.push_image(name, "latest", pushed)
    chunked = await upload_in_chunks(registry, name, f"chunks of {name}".encode() * 3)
    parent = index(pushed)
    assert (await registry.put_manifest(name, "all", parent)).status_code == 201
    mounted = await registry.client.post(f"/v2/{name}/mounted/blobs/uploads/?mount={chunked}&from={name}")
    assert mounted.status_code == 201
    for reference, manifest in (("latest", pushed), (pushed.digest(), pushed), ("all", parent)):
        answer = await registry.client.get(f"/v2/{name}/manifests/{reference}")
        assert answer.content == manifest.payload
        head = await registry.client.head(f"/v2/{name}/manifests/{reference}")
        assert head.headers["Docker-Content-Digest"] == manifest.digest()
    for blob in pushed.blobs:
        answer = await registry.client.get(f"/v2/{name}/blobs/{digest_of(blob)}")
        assert answer.content == blob
        assert (await registry.client.head(f"/v2/{name}/blobs/{digest_of(blob)}")).status_code == 200
    answer = await registry.client.get(f"/v2/{name}/tags/list")
    assert answer.json()["tags"] == ["all", "latest"]
    assert (await registry.client.get(f"/v2/{name}/referrers/{pushed.digest()}")).json()["manifests"] == []
    assert (await registry.client.delete(f"/v2/{name}/manifests/{pushed.digest()}")).status_code == 409
    assert (await registry.client.delete(f"/v2/{name}/manifests/all")).status_code == 202


async def upload_in_chunks(registry: Registry, name: str, content: bytes) -> str:
    answer = await registry.client.post(f"/v2/{name}/blobs/uploads/")
    assert answer.status_code == 202
    half = len(content) // 2
    for start, part in ((0, content[:half]), (half, content[half:])):
        answer = await registry.client.patch(
            answer.headers["Location"],
            content=part,
            headers={"Content-Range": f"{start}-{start + len(part) - 1}"},
        )
        assert answer.status_code == 202, answer.text
    location, digest = answer.headers["Location"], digest_of(content)
    answer = await registry.client.put(location + ("&" if "?" in location else "?") + f"digest={digest}")
    assert answer.status_code == 201, answer.text
    return digest


def test_push_and_pull_when_many_clients_share_two_servers_then_all_is_well(
    database: Target, bouncer: Target, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with (
            asyncio.timeout(60),
            open_registry(bouncer, tmp_path, prepared_statements=False) as one,
            open_registry(bouncer, tmp_path, prepared_statements=False) as two,
        ):
            async with asyncio.TaskGroup() as group:
                for n in range(10):
                    group.create_task(push_and_pull((one, two)[n % 2], f"team/project-{n}"))
            assert await servers(database) <= SERVERS
        await assert_invariants(database, None)

    asyncio.run(scenario())


def test_open_when_session_settings_are_sent_then_pgbouncer_refuses_and_the_registry_says_so(
    bouncer: Target,
) -> None:
    """Why there is a setting: with prepared statements the pool would send what PgBouncer does not take."""

    async def scenario() -> None:
        with pytest.raises(Unavailable):
            await Database.open(bouncer, connections_max=1)

    asyncio.run(scenario())
