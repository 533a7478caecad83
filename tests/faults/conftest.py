"""One cluster for all, and for each module a registry on a database of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from app.blobs.drivers.filesystem import Filesystem
from tests.faults.client import Client
from tests.faults.place import Cluster, Registry, running
from tests.support.fsck import assert_fsck_clean
from tests.support.invariants import assert_invariants

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def registry(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running(cluster, tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def client(registry: Registry) -> Iterator[Client]:
    with Client(registry.address) as client:
        yield client


@pytest.fixture(autouse=True)
def invariants(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test with a registry: what must hold whenever nobody is at work."""
    registry = request.getfixturevalue("registry") if "registry" in request.fixturenames else None
    yield
    if registry is not None:
        asyncio.run(_check(registry))


async def _check(registry: Registry) -> None:
    driver = Filesystem(registry.root)
    try:
        await assert_invariants(registry.target, driver)
        await assert_fsck_clean(registry.target, driver)
    finally:
        await driver.close()
