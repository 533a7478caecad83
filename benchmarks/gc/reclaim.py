"""How long it takes to get the disk back: the peer with its server stopped, ours while it serves a steady load.

Both begin with the same blobs and end with the same, or there is no figure. On our side everything is due at the
beginning; what the collectors make suspect meanwhile falls due at once. They look every five seconds for work that they
had none of, and not every minute: what waits here for hours elsewhere is all there at once.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import TYPE_CHECKING, Final

from benchmarks import children
from benchmarks.errors import CaseError
from benchmarks.gc import latency, storing
from benchmarks.gc.figures import Row
from benchmarks.gc.latency import LOADS
from benchmarks.programs import PEER, path_of
from benchmarks.report import number, say
from benchmarks.running import clean_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.gc.stand import Stand

_POLL_SECONDS: Final = 0.25
_LOAD_SECONDS: Final = 10.0
_PEER_CONFIG: Final = """\
version: 0.1
log:
  level: error
storage:
  filesystem:
    rootdirectory: {root}
  delete:
    enabled: true
http:
  addr: 127.0.0.1:0
"""
_LEFT: Final = """
SELECT (SELECT count(*) FROM blobs), (SELECT count(*) FROM blob_uploads),
       (SELECT count(*) FROM gc_storage_deletions),
       (SELECT count(*) FROM manifests AS m JOIN repositories AS r ON r.id = m.repository_id
        WHERE r.path LIKE 'group-%')
"""


async def measure(
    stand: Stand, partitions: int, paces: Sequence[str], rounds: int, seconds: float, *, with_peer: bool
) -> list[Row]:
    """Reclaim in turns, each side from the beginning. Raises CaseError if something is left, or too much is gone."""
    modes = [mode for mode in paces if LOADS[mode]]
    times: dict[str, list[float]] = {"peer": [], **{mode: [] for mode in modes}}
    for _ in range(rounds):
        if with_peer:
            times["peer"].append(await _peer(stand))
        for mode in modes:
            times[mode].append(await _ours(stand, partitions, LOADS[mode], min(seconds, _LOAD_SECONDS)))
    peer = Row("reclaim", "s", "peer", times["peer"])
    beside = peer if with_peer else None
    ours = [Row("reclaim", "s", f"ours, {mode}", times[mode], beside=beside) for mode in modes]
    freed = stand.size.going
    rates = [
        Row("reclaim-blobs", "blobs/s", row.variant, [freed / t for t in row.values]) for row in (peer, *ours)
    ]
    return [peer, *ours, *rates]


async def _peer(stand: Stand) -> float:
    root = stand.directory / "peer"
    say("filling in: the peer's tree")
    await asyncio.to_thread(storing.write_tree, root, stand.size)
    await stand.settle()
    config = stand.directory / "peer.yml"
    config.write_text(_PEER_CONFIG.format(root=root))
    command = [path_of(PEER), "garbage-collect", "--delete-untagged", str(config)]
    try:
        began = time.perf_counter()
        await children.run(command, clean_environment())
        took = time.perf_counter() - began
        # Its manifests are blobs, too.
        _compare("peer", storing.count_tree(root), stand.size.staying + stand.size.tagged)
    finally:
        await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)
    say(f"    peer {number(took)} s")
    return took


async def _ours(stand: Stand, partitions: int, pace: float, seconds: float) -> float:
    await stand.renew(partitions)
    async with stand.serving() as server:
        await latency.prepare(server.url)
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(_keep_busy(stand, server.url, seconds, stopping))
            async with stand.collecting(pace) as collectors:
                began = time.perf_counter()
                while any(await stand.due()):
                    if collectors.obituary:
                        raise CaseError(collectors.obituary)
                    await asyncio.sleep(_POLL_SECONDS)
                took = time.perf_counter() - began
            stopping.set()
        await _check(stand)
    say(f"    ours at load {pace:g}: {number(took)} s")
    return took


async def _keep_busy(stand: Stand, url: str, seconds: float, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        latencies = await latency.load(stand, url, seconds)
        say(f"    meanwhile {latency.words(latencies)}")


async def _check(stand: Stand) -> None:
    """What was pushed meanwhile is there as well, and has objects like everything else."""
    async with stand.connected() as connection:
        blobs, uploads, tombstones, manifests = await connection.fetchrow(_LEFT)
        pushed = await connection.fetchval(
            "SELECT count(DISTINCT blob_digest) FROM repository_blobs AS b JOIN repositories AS r"
            " ON r.id = b.repository_id WHERE r.path NOT LIKE 'group-%'"
        )
    _compare("ours, manifests", manifests, stand.size.tagged)
    _compare("ours, blobs", blobs, stand.size.staying + pushed)
    _compare("ours, objects", storing.count_objects(stand.root), blobs + uploads + tombstones)


def _compare(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise CaseError(f"{what}: {found} are left, and {expected} should be")
