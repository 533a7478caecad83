"""Time that passes as soon as nobody has anything else to do."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


class _Clock(selectors.SelectSelector):
    """Waiting for nothing makes the time pass at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "all are waiting for something that nobody will do"
            self.now += timeout
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: _Clock) -> None:
        super().__init__(clock)
        self._clock = clock

    def time(self) -> float:
        return self._clock.now


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run it in no time, whatever the event loop's clock says in the end."""
    with asyncio.Runner(loop_factory=lambda: _Loop(_Clock())) as runner:
        runner.run(scenario)
