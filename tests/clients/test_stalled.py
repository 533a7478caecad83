"""A hundred uploads that stall in the middle: what others notice of them."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.clients.wire import Wire
from tests.support.images import make_index

if TYPE_CHECKING:
    from tests.support.served import Served

STALLED = 100
# Far above what is normal, far below what waiting for a stalled upload would take.
SLOWER_MAX = 5
SLACK_SECONDS = 0.25


def test_uploads_when_a_hundred_stall_then_the_others_are_served_as_before(registry: Served) -> None:
    registry.push("stalled/others", "v1", make_index("stalled"))

    def pull_and_push() -> float:
        """Seconds of a pull and a small push, the median of many."""
        seconds: list[float] = []
        for number in range(40):
            began = time.monotonic()
            pulled = registry.client.get(f"{registry.url}/v2/stalled/others/manifests/v1")
            assert pulled.status_code == 200
            pushed = registry.client.post(f"{registry.url}/v2/stalled/others/blobs/uploads/")
            assert pushed.status_code == 202, number
            seconds.append(time.monotonic() - began)
        return statistics.median(seconds)

    before = pull_and_push()
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(registry.port)) for _ in range(STALLED)]
        for wire in wires:
            started = registry.client.post(f"{registry.url}/v2/stalled/uploads/blobs/uploads/")
            path = urlsplit(started.headers["Location"]).path
            wire.ask("PATCH", path, bytes(300_000), Content_Length="1000000")
        assert pull_and_push() < before * SLOWER_MAX + SLACK_SECONDS
        # And those that are cut off go on from what they had sent.
        wires[0].reset()
