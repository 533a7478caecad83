"""More clients than can be served: few connections, an answer for most, and a quick 503 for the others."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from tests.faults.crowd import Crowd, slowest
from tests.faults.place import CONNECTIONS, WORKERS, running
from tests.support.effort import EFFORT
from tests.support.processes import wait_for
from tests.support.registry import digest_of, image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.client import Client
    from tests.faults.place import Cluster, Registry

CLIENTS: Final = 1000
QUEUE_SECONDS: Final = 3.0


@pytest.fixture(scope="module")
def registry(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One whose requests wait for longer than those of a thousand clients need."""
    with running(cluster, tmp_path_factory.mktemp("registry"), queue_seconds=QUEUE_SECONDS) as registry:
        yield registry


def test_registry_when_a_thousand_clients_come_then_it_has_few_connections_and_serves_most_of_them(
    registry: Registry, client: Client
) -> None:
    pushed = image(b"a layer")
    for number in range(20):
        client.push(f"crowd/{number}", "latest", pushed)

    def requests(number: int) -> list[str]:
        name = f"/v2/crowd/{number % 20}"
        return [
            f"GET {name}/manifests/latest",
            f"HEAD {name}/blobs/{digest_of(b'a layer')}",
            f"POST {name}/blobs/uploads/",
            f"GET {name}/tags/list",
        ] * EFFORT

    with _counting(registry) as counts:
        crowd = Crowd.of(CLIENTS, registry.address, requests)
    assert not crowd.failures
    assert crowd.statuses() <= {200, 202, 503}
    assert len(crowd.answers) == 4 * CLIENTS * EFFORT
    # All of them, where there is nothing else to do.
    assert len(crowd.served()) > len(crowd.answers) / 2
    assert slowest(crowd.served()) < 2 * QUEUE_SECONDS
    assert 0 < max(counts) <= WORKERS * CONNECTIONS


def test_registry_when_the_database_is_too_slow_for_all_then_those_that_would_wait_in_vain_are_refused_soon(
    registry: Registry, client: Client
) -> None:
    assert client.start("slow/a").status == 202
    # Eight connections of a fifth of a second each: forty sessions a second.
    with _slow_uploads(registry, 0.2), _counting(registry) as counts:
        crowd = Crowd.of(CLIENTS, registry.address, lambda _: ["POST /v2/slow/a/blobs/uploads/"])
    assert not crowd.failures
    assert crowd.statuses() == {202, 503}
    refused = crowd.refused()
    assert len(crowd.answers) == CLIENTS
    assert CLIENTS / 2 < len(refused) < CLIENTS
    # A fifth of the longest wait is what it takes to find out, but for those on the verge.
    assert slowest(refused, 0.9) < QUEUE_SECONDS
    assert slowest(crowd.served()) < 2 * QUEUE_SECONDS
    assert max(counts) <= WORKERS * CONNECTIONS
    assert wait_for(lambda: client.start("slow/a").status == 202, QUEUE_SECONDS)


@contextmanager
def _slow_uploads(registry: Registry, seconds: float) -> Iterator[None]:
    registry.execute(
        f"""CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$""",
        "CREATE TRIGGER dawdle BEFORE INSERT ON blob_uploads FOR EACH ROW EXECUTE FUNCTION dawdle()",
    )
    try:
        yield
    finally:
        registry.execute("DROP TRIGGER dawdle ON blob_uploads", "DROP FUNCTION dawdle")


@contextmanager
def _counting(registry: Registry) -> Iterator[list[int]]:
    """The registry's connections, counted again and again."""
    over, counts = threading.Event(), list[int]()

    def count() -> None:
        while not over.wait(0.1):
            counts.append(registry.sessions())

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()
