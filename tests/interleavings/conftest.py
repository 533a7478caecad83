"""One theatre per worker, in a database of its own, and one event loop that its connections belong to."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.interleavings.play import Playhouse
from tests.interleavings.theatre import Theatre
from tests.support.postgres import create, drop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.store.engine import Target


@pytest.fixture(scope="session")
def playhouse(
    postgres_server: Target, migrated_database: tuple[Target, Any], request: pytest.FixtureRequest
) -> Iterator[Playhouse]:
    worker = getattr(request.config, "workerinput", {}).get("workerid", "alone")
    with asyncio.Runner() as runner:
        closing = AsyncExitStack()
        target = runner.run(create(postgres_server, f"theatre_{worker}", template="registry_template"))
        theatre = runner.run(Theatre.open(target, closing))
        yield Playhouse(runner, theatre)
        runner.run(closing.aclose())
        runner.run(drop(postgres_server, target.database))
