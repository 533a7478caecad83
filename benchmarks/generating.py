"""Runs `generator` and reads what it counted."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from benchmarks import children
from benchmarks.generator import Job
from benchmarks.loads import Load, check
from benchmarks.running import clean_environment

if TYPE_CHECKING:
    from collections.abc import Sequence


async def run(
    url: str,
    kind: str,
    *,
    seconds: float,
    connections: int,
    paths: Sequence[str] = (),
    accept: str = "",
    repository: str = "",
    requests_per_operation: float = 1,
) -> Load:
    """Load the server at `url`. Raises CaseError as `loads.check` does."""
    parts = urlsplit(url)
    job = Job(
        kind, parts.hostname or "", parts.port or 80, connections, seconds, tuple(paths), accept, repository
    )
    done = await children.run(
        [sys.executable, "-m", "benchmarks.generator"], clean_environment(), json.dumps(asdict(job))
    )
    counts: dict[str, Any] = json.loads(done.output)
    figures = {name: value for name, value in counts.items() if isinstance(value, (int, float))}
    check(figures, counts["words"])
    return Load(
        operations=counts["requests"] / requests_per_operation,
        seconds=counts["seconds"],
        generator_seconds=counts["cpu_seconds"],
        latencies_ms=counts["latencies_ms"],
    )
