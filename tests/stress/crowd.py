"""The pushers, a thread each."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.stress.pusher import Pusher
from tests.stress.wares import Wares

if TYPE_CHECKING:
    from collections.abc import Callable


class Crowd:
    """Clients at one registry. The first of them that is not content ends it for all."""

    def __init__(self, count: int, seed: int, port: int, grace_seconds: float) -> None:
        # Each with images of its own making, the same for all: nothing is shared between threads.
        self._pushers = [Pusher(n, seed, port, Wares(seed), grace_seconds) for n in range(count)]
        self._faults: list[str] = []

    @property
    def done(self) -> Counter[str]:
        return sum((pusher.done for pusher in self._pushers), Counter[str]())

    def tagged(self) -> set[tuple[str, str, str]]:
        """Repository, tag and digest of all that must be tagged."""
        return {tagged for pusher in self._pushers for tagged in pusher.tagged()}

    def play(self, seconds: float) -> None:
        """Let everybody do as they please until the time is up. Raises AssertionError if anybody is not content."""
        until = time.monotonic() + seconds

        def act(pusher: Pusher) -> None:
            while time.monotonic() < until and not self._faults:
                pusher.act()

        self._all(act)

    def finish(self) -> None:
        """Everybody pulls once more all that must be there, and leaves."""
        self._all(Pusher.finish)

    def _all(self, work: Callable[[Pusher], None]) -> None:
        threads = [
            threading.Thread(target=self._do, args=(work, number), name=f"pusher {number}")
            for number in range(len(self._pushers))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not self._faults, "\n".join(self._faults)

    def _do(self, work: Callable[[Pusher], None], number: int) -> None:
        pusher = self._pushers[number]
        try:
            work(pusher)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test must say so
            self._faults.append(f"pusher {number} in {pusher.step}: {type(error).__name__}: {error}")
