"""PostgreSQL stopped in the midst of everything (`pg_ctl stop -m immediate`), on a cluster set up as an operator's is.

The registry's process lives on and finds its database again. Whatever was acknowledged has come through the recovery:
the registry does not trade commits for speed (`synchronous_commit`).
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import pytest

from app.runtime.embedded import EmbeddedPostgres
from app.store.engine import Target
from tests.crashes.client import UNAVAILABLE, Client
from tests.crashes.scenes import SCENES, chunks, deletions, overtaken, whole
from tests.crashes.stage import Place, look, play
from tests.crashes.steps import Strike
from tests.support.effort import EFFORT
from tests.support.postgres import connected, make_template, rows
from tests.support.processes import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.crashes.scenes import Scene
    from tests.crashes.stage import Nursery

# At this effort: every scene, and a strike at every second of its points that are about a statement.
EVERYTHING: Final = 12
# Without the one in which a request is held up: the process lives on, and would go on with it when we look.
WHILE_IT_CRASHES: Final = [
    scene for scene in SCENES if scene in (chunks, deletions) or (EFFORT >= EVERYTHING and scene != overtaken)
]
# pg_ctl(1): what `stop -m immediate` sends.
IMMEDIATE: Final = signal.SIGQUIT


class Cluster:
    """A PostgreSQL of one's own, which keeps what it has acknowledged once it is made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "postgres"
        with EmbeddedPostgres(self._directory, durable=False) as address:
            asyncio.run(_prepare(Target(**asdict(address))))
        self._server = EmbeddedPostgres(self._directory, max_connections=30)
        self.target = Target(**asdict(self._server.start()))

    @property
    def process(self) -> int:
        return int((self._directory / "postmaster.pid").read_text().splitlines()[0])

    def crash(self) -> None:
        """Stop it at once."""
        Strike(IMMEDIATE, self.process)()
        self.recover()

    def recover(self) -> None:
        """Wait until it has stopped, and start it again."""
        assert wait_for(lambda: not self._server.running), "it was not struck"
        assert Target(**asdict(self._server.start())) == self.target

    def stop(self) -> None:
        self._server.stop()


async def _prepare(target: Target) -> None:
    await make_template(target)
    # What a server has written outlives the server. To flush it as well is for the machine's crash, and slow.
    await _alter(target, "SET fsync = off")


async def _alter(target: Target, *changes: str) -> None:
    async with connected(target) as connection:
        for change in changes:
            await connection.execute(f"ALTER SYSTEM {change}")
        await connection.execute("SELECT pg_reload_conf()")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path, nursery: Nursery) -> Iterator[Place]:
    """An empty registry on the cluster, that nobody serves yet."""
    place = Place(cluster.target, tmp_path, nursery, asyncio.run(rows(cluster.target)))
    place.clear()
    yield place
    place.clear()
    place.close()


def survive(place: Place, cluster: Cluster, scene: Scene, client: Client) -> None:
    """The same process goes on, with the database as it was before; then the database crashes once more."""
    wait_until_well(place, client)
    found = look(place, client)
    assert found in client.expected()
    place.check()
    client.accept(found)
    with place.served(client):
        client.resume()
    assert play(place, scene, client)
    cluster.crash()
    wait_until_well(place, client)
    assert look(place, client) == client.world
    place.check()


def wait_until_well(place: Place, client: Client) -> None:
    """Return once the registry has found its database again."""
    with place.served(client):
        assert wait_for(client.is_well), "the registry does not find its database again"


def crash_and_survive(place: Place, cluster: Cluster, scene: Scene, point: int) -> None:
    """The database crashes at the point."""
    place.clear()
    client = Client(crashed_by={UNAVAILABLE})
    place.live(chosen=point, strike=Strike(IMMEDIATE, cluster.process))
    play(place, scene, client)
    died_at = place.points()[point]
    cluster.recover()
    try:
        survive(place, cluster, scene, client)
    except Exception as error:
        error.add_note(f"the database was stopped at point {point} of {scene.__name__}, {died_at}")
        raise


def statements_of(place: Place, scene: Scene) -> list[int]:
    """Those of the scene's points that are about a statement."""
    place.clear()
    place.live()
    assert play(place, scene, Client())
    return [number for number, label in enumerate(place.points()) if "." in label]


def test_registry_when_its_database_crashes_then_nothing_acknowledged_is_lost_and_the_process_goes_on(
    place: Place, cluster: Cluster
) -> None:
    # One test, since another one might be another process's, which would need a cluster of its own.
    for scene in WHILE_IT_CRASHES:
        points = statements_of(place, scene)
        step = 2 if EFFORT >= EVERYTHING else max(1, len(points) // EFFORT)
        for point in points[step // 2 :: step]:
            crash_and_survive(place, cluster, scene, point)


def test_database_crash_when_commits_are_not_flushed_then_it_is_noticed(
    place: Place, cluster: Cluster
) -> None:
    client = Client()
    lazy = ("synchronous_commit = off", "wal_writer_delay = '10s'")
    asyncio.run(_alter(cluster.target, *(f"SET {setting}" for setting in lazy)))
    try:
        place.live()
        assert play(place, whole, client)
        cluster.crash()
        with pytest.raises(AssertionError):
            survive(place, cluster, whole, client)
    finally:
        asyncio.run(_alter(cluster.target, "RESET synchronous_commit", "RESET wal_writer_delay"))
