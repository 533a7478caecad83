"""Many clients at once, each in a thread, and what is looked at while they are at work."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from tests.soak.actor import Actor
from tests.soak.watch import connections, uploads_under_way
from tests.support.processes import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.store.engine import Target
    from tests.soak.shelf import Content

LOOK_SECONDS: Final = 0.5


class Crowd:
    """The clients of one registry. `connections_most` is how many connections the database had at most."""

    def __init__(self, count: int, seed: int, port: int, database: Target) -> None:
        mountable: list[tuple[str, Content]] = []
        self._actors = [Actor(number, seed, port, mountable) for number in range(count)]
        self._database = database
        self._faults: list[str] = []
        self.connections_most = 0

    @property
    def requests(self) -> int:
        """Answers so far."""
        return sum(actor.talk.statuses.total() for actor in self._actors)

    @property
    def done(self) -> Counter[str]:
        """What was done, and how it was answered."""
        done: Counter[str] = Counter()
        for actor in self._actors:
            done.update(actor.done)
            done.update({f"status {status}": count for status, count in actor.talk.statuses.items()})
        return done

    @property
    def left_open(self) -> int:
        """Uploads that nobody ends."""
        return sum(actor.left_open for actor in self._actors)

    def warm_up(self) -> None:
        """Let everybody move large bodies at the same time. Raises AssertionError if anybody is not content."""
        self._all(Actor.warm_up)

    def play(self, seconds: float) -> None:
        """Let everybody do as they please until the time is up. Raises AssertionError if anybody is not content."""
        until = time.monotonic() + seconds

        def act(actor: Actor) -> None:
            while time.monotonic() < until and not self._faults:
                actor.act()

        self._all(act)

    def _all(self, work: Callable[[Actor], None]) -> None:
        threads = [
            threading.Thread(target=self._do, args=(work, number), name=f"client {number}")
            for number in range(len(self._actors))
        ]
        for thread in threads:
            thread.start()
        while working := [thread for thread in threads if thread.is_alive()]:
            self.connections_most = max(self.connections_most, connections(self._database))
            working[0].join(LOOK_SECONDS)
        self._settle()

    def finish(self) -> None:
        """Everybody looks once more whether all is there, and leaves."""
        for actor in self._actors:
            actor.finish()

    def _do(self, work: Callable[[Actor], None], number: int) -> None:
        actor = self._actors[number]
        try:
            work(actor)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test must say so
            self._faults.append(f"client {number} in {actor.step}: {type(error).__name__}: {error}")

    def _settle(self) -> None:
        """Wait until the registry has noticed who left in the middle."""
        assert not self._faults, "\n".join(self._faults)
        assert wait_for(lambda: not uploads_under_way(self._database)), "an upload is still being written to"
