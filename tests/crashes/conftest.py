"""What the tests of crashes share: a nursery per run, a place per test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.crashes.stage import Nursery, Place
from tests.support.postgres import rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.store.engine import Target


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """What victims are forked from."""
    nursery = Nursery(tmp_path_factory.mktemp("nursery") / "errors")
    yield nursery
    nursery.close()


@pytest.fixture
def place(database: Target, tmp_path: Path, nursery: Nursery) -> Iterator[Place]:
    """An empty registry that nobody serves yet."""
    place = Place(database, tmp_path, nursery, asyncio.run(rows(database)))
    place.clear()
    yield place
    place.close()
