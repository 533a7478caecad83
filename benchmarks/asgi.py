"""The registry as a plain ASGI application, for servers that are no part of it: they call `create` in each process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.config import load
from app.runtime.metrics import Metrics
from app.server import choices
from app.wiring.serving import Assembly, assemble

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CONFIGURATION: Final = "BENCH_CONFIGURATION"


class Lifespan:
    """Builds the registry when the server starts, and passes it the requests."""

    def __init__(self, configuration: Path) -> None:
        self._configuration = configuration
        self._assembly: Assembly | None = None

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._assembly is not None:
            await self._assembly.app(scope, receive, send)

    async def _live(
        self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        await receive()
        settings = load(self._configuration, {}).settings
        choices.configure_logs(settings)
        self._assembly = await assemble(settings, Metrics())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._assembly.close()
        await send({"type": "lifespan.shutdown.complete"})


def create() -> Lifespan:
    """The application that the environment names the configuration of."""
    return Lifespan(Path(os.environ[CONFIGURATION]))
