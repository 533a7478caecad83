"""PostgreSQL in trouble: clients are told so, at once when it has lasted, and nothing needs to be restarted."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tests.faults.client import Client, Load, together
from tests.faults.place import CONNECTIONS, QUEUE_SECONDS, WORKERS
from tests.support.effort import EFFORT
from tests.support.processes import wait_for
from tests.support.registry import image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.client import Answer
    from tests.faults.place import Cluster, Registry

# A second until somebody tries again, and the machine has other things to do.
RECOVERY_SECONDS: Final = 5.0
# What "at once" may take here.
SOON_SECONDS: Final = 0.9 * QUEUE_SECONDS


def test_registry_when_postgresql_is_killed_under_load_then_it_recovers_and_keeps_what_it_acknowledged(
    registry: Registry, cluster: Cluster
) -> None:
    processes = registry.workers()
    with Load(registry.address).begin("killed", pullers=4, pushers=3) as load:
        for _ in range(EFFORT):
            load.goes_on()
            with cluster.down():
                assert "database" in registry.becomes_unwell()
                refused = load.refused
                time.sleep(2 * QUEUE_SECONDS)
                assert load.refused > refused
            assert load.goes_on() < RECOVERY_SECONDS
            registry.becomes_well()
    load.check()
    assert load.slowest < QUEUE_SECONDS + RECOVERY_SECONDS
    assert registry.workers() == processes
    assert registry.log.count("no new connection to the metadata database") <= WORKERS * EFFORT


def test_registry_when_postgresql_hangs_then_requests_are_refused_at_once_until_it_goes_on(
    registry: Registry, cluster: Cluster
) -> None:
    with Client(registry.address) as client:
        assert client.start("hangs").status == 202
        with cluster.frozen(), ThreadPoolExecutor(61) as pool:
            health = pool.submit(registry.becomes_unwell)
            asked = [pool.submit(_start, registry) for _ in range(60)]
            # Some have a connection and hang with it. The others are refused when they have waited as long as they may.
            assert wait_for(lambda: sum(not one.done() for one in asked) <= WORKERS * CONNECTIONS)
            for answer in together(40, lambda _: _start(registry)):
                assert answer.is_refusal
                assert answer.seconds < SOON_SECONDS
            assert "database" in health.result()
            cluster.thaw()
            answers = [one.result() for one in asked]
        assert {answer.status for answer in answers if not answer.is_refusal} <= {202}
        assert max(answer.seconds for answer in answers if answer.is_refusal) < 2 * QUEUE_SECONDS
        assert wait_for(lambda: client.start("hangs").status == 202, RECOVERY_SECONDS)
    registry.becomes_well()


def _start(registry: Registry) -> Answer:
    with Client(registry.address) as client:
        return client.start("hangs")


def test_registry_when_its_idle_connections_have_died_then_nobody_notices(
    registry: Registry,
) -> None:
    for _ in range(2 * EFFORT):
        assert {answer.status for answer in together(20, lambda _: _start(registry))} == {202}
        registry.end_sessions()
        assert wait_for(lambda: registry.sessions() == 0)


def test_registry_when_postgresql_becomes_read_only_then_pulls_go_on_and_pushes_are_refused(
    registry: Registry, client: Client
) -> None:
    seed = image(b"a layer")
    client.push("read-only", "latest", seed)
    with _read_only(registry):
        assert wait_for(lambda: "read-only" in registry.health().get("database", ""))
        refused = client.push_blob("read-only", b"another layer")
        assert refused.is_refusal
        assert refused.detail == "the metadata database is read-only"
        client.check("read-only", "latest", seed)
    # The sessions that are open stay read-only, as those do that lead to the old primary after a fail-over.
    assert wait_for(
        lambda: client.push_blob("read-only", b"another layer").status == 201, 2 * RECOVERY_SECONDS
    )
    registry.becomes_well()


@contextmanager
def _read_only(registry: Registry) -> Iterator[None]:
    setting = f'DATABASE "{registry.target.database}"'
    registry.execute(f"ALTER {setting} SET default_transaction_read_only = on")
    registry.end_sessions()
    try:
        yield
    finally:
        registry.execute(
            "SET default_transaction_read_only = off",
            f"ALTER {setting} RESET default_transaction_read_only",
        )
