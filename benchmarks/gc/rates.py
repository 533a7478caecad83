"""How fast each collector is alone: one worker of one kind at a time, at full speed, nothing else going on."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

from benchmarks import children
from benchmarks.errors import CaseError
from benchmarks.gc.figures import Row, Target
from benchmarks.images import MIB
from benchmarks.report import number, say
from benchmarks.running import clean_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.gc.stand import Stand

BLOB_REVIEWS: Final = Target(2000)
MANIFEST_DELETIONS: Final = Target(300)


async def measure(stand: Stand, partitions: Sequence[int]) -> list[Row]:
    """Collect the whole stock once for each number of partitions. Raises CaseError if not all of it was."""
    return [row for count in partitions for row in await _measure(stand, count)]


async def _measure(stand: Stand, partitions: int) -> list[Row]:
    size, variant = stand.size, f"{partitions} partitions"
    await stand.renew(partitions)
    # In this order, so that each finds the queue that was put there and nothing of what another one left.
    blobs = await _collect(stand, "blobs", size.dangling)
    objects = await _collect(stand, "objects", size.dangling)
    manifests = await _collect(stand, "manifests", size.untagged)
    return [
        _row("blob-reviews", "reviews/s", variant, blobs, lambda part: part["taken"], BLOB_REVIEWS),
        _row("blob-deletions", "blobs/s", variant, blobs, lambda part: part["deleted"]),
        _row("manifest-deletions", "manifests/s", variant, manifests, _deleted, MANIFEST_DELETIONS),
        _row("object-removals", "objects/s", variant, objects, _deleted),
        _row("object-bytes", "MiB/s", variant, objects, lambda part: part["bytes"] / MIB),
    ]


async def _collect(stand: Stand, name: str, expected: int) -> dict[str, Any]:
    before = stand.cpu_seconds().database
    config = stand.configuration(name)
    done = await children.run(
        [sys.executable, "-m", "benchmarks.gc.worker", str(config), name], clean_environment()
    )
    # Warnings come first.
    found: dict[str, Any] = json.loads(done.output.splitlines()[-1])
    deleted: int = found["deleted"]
    if found["failures"]:
        raise CaseError(f"{name}: {found['failures']} batches failed: {done.output}")
    if deleted != expected:
        raise CaseError(f"{name}: {deleted} were deleted, and there were {expected} to delete")
    database = stand.cpu_seconds().database - before
    found["per_thousand"] = {
        "cpu_seconds_worker": 1000 * found["cpu_seconds"] / max(deleted, 1),
        "cpu_seconds_postgres": 1000 * database / max(deleted, 1),
    }
    rate = sum(part["deleted"] for part in found["parts"]) / sum(part["seconds"] for part in found["parts"])
    say(
        f"    {name:10} {number(rate):>8} deleted/s, a batch {number(found['batch_ms'])} ms, "
        f"CPU {number(found['cpu_seconds'])} s and PostgreSQL's {number(database)} s"
    )
    return found


def _deleted(part: dict[str, Any]) -> float:
    return part["deleted"]


def _row(  # noqa: PLR0917  (the columns of the table)
    case: str,
    unit: str,
    variant: str,
    found: dict[str, Any],
    of: Callable[[dict[str, Any]], float],
    target: Target | None = None,
) -> Row:
    values = [of(part) / part["seconds"] for part in found["parts"]]
    return Row(
        case,
        unit,
        variant,
        values,
        target=target,
        notes={"batch_ms": found["batch_ms"], **found["per_thousand"]},
    )
