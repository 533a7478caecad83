"""The registry's own check, in this process: how a suite ends, beside `assert_invariants`.

    await assert_fsck_clean(target, driver)             nothing may be wrong
    result = await run_fsck(target, driver, repair=True)
    assert result.kinds == ["lost"]

It may run while the registry is at work: then too it must find nothing.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.runtime.threads import Threads
from app.services.fsck import Finding, Kind, Phase, Plan, Summary, check
from app.store.engine import Database

if TYPE_CHECKING:
    from app.blobs.driver import Driver
    from app.store.engine import Target


@dataclass
class Result:
    """What a run has found, and what it was told on the way."""

    findings: list[Finding] = field(default_factory=list[Finding])
    phases: list[Phase] = field(default_factory=list[Phase])
    steps: int = 0
    summary: Summary = field(default_factory=Summary)

    @property
    def kinds(self) -> list[str]:
        return sorted(finding.kind.value for finding in self.findings)

    def one(self, kind: Kind) -> Finding:
        found = [finding for finding in self.findings if finding.kind is kind]
        assert len(found) == 1, self.findings
        return found[0]

    def found(self, finding: Finding) -> None:
        self.findings.append(finding)

    def began(self, phase: Phase, about: int) -> None:
        assert about >= 0
        self.phases.append(phase)

    def advanced(self, steps: int) -> None:
        self.steps += steps


async def run_fsck(
    target: Target, driver: Driver, *, prepared_statements: bool = True, **plan: Any
) -> Result:
    """Check everything; `plan` are fields of `Plan`."""
    result = Result()
    async with AsyncExitStack() as stack:
        database = await Database.open(target, connections_max=2, prepared_statements=prepared_statements)
        stack.push_async_callback(database.close)
        hashers = Threads("fsck", 2)
        stack.push_async_callback(hashers.close)
        result.summary = await check(
            target=target,
            database=database,
            driver=driver,
            hashers=hashers,
            plan=Plan(**plan),
            listener=result,
        )
    return result


async def assert_fsck_clean(target: Target, driver: Driver, **plan: Any) -> Summary:
    """Nothing is wrong, whether somebody is at work or not."""
    result = await run_fsck(target, driver, **plan)
    assert not result.findings, "\n".join(map(str, result.findings))
    return result.summary
