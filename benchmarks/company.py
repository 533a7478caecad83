"""Who takes part in a run: started and filled when a case first needs them, stopped when none does any more."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING

from benchmarks import seeds
from benchmarks.contenders import BOTH, ISSUER, OURS, OURS_GUARDED, PEER, PEER_GUARDED
from benchmarks.ours import Ours
from benchmarks.outside import OutsideIssuer
from benchmarks.peer import Peer
from benchmarks.report import say
from benchmarks.seeds import SEEDS
from benchmarks.sides import Side

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AsyncExitStack
    from pathlib import Path

    from benchmarks.contenders import Contender, Seedable
    from benchmarks.kinds import Case


class Company:
    """Those that `cases` need, with their data below `work`; `stack` stops them whatever happens."""

    def __init__(
        self, cases: Sequence[Case], sides: Sequence[str], work: Path, stack: AsyncExitStack
    ) -> None:
        self._cases = cases
        self._sides = sides
        self._work = work
        self._stack = stack
        self._makers: dict[str, Callable[[], Seedable]] = {
            OURS: partial(Ours, work),
            PEER: partial(Peer, work),
            OURS_GUARDED: lambda: guarded_ours(work, self._outside),
            PEER_GUARDED: lambda: guarded_peer(work, self._outside),
            ISSUER: partial(Ours, work, ISSUER),
        }
        self._there: dict[str, Contender] = {}

    async def of(self, case: Case) -> list[Contender]:
        """Those of the case, in the order of their turns. Raises BenchError."""
        for name in case.contenders:
            if name not in self._there:
                await self._welcome(name)
        if case.contenders == BOTH:
            for name in self._sides:
                if name not in self._there:
                    self._there[name] = self._side(name)
            return [self._there[name] for name in (*BOTH, *self._sides)]
        return [self._there[name] for name in case.contenders]

    async def part(self, left: Sequence[Case]) -> None:
        """Stop those whom none of the cases that are left needs."""
        for name in self._makers.keys() & self._there.keys():
            if not any(name in case.contenders for case in left):
                await self._there[name].running.stop()

    async def _welcome(self, name: str) -> None:
        say(f"starting {name}")
        contender = self._there[name] = self._makers[name]()
        self._stack.push_async_callback(contender.running.stop)
        await contender.running.start()
        needs = {need for case in self._cases if name in case.contenders for need in case.needs}
        for need, seed in SEEDS.items():
            if need in needs:
                say(f"filling {name}: {need}")
                await seed(contender)

    def _side(self, name: str) -> Side:
        ours = self._there[OURS]
        assert isinstance(ours, Ours)
        side = Side(name, ours, self._work)
        self._stack.push_async_callback(side.running.stop)
        return side

    @cached_property
    def _outside(self) -> OutsideIssuer:
        return OutsideIssuer(self._work)


def guarded_ours(work: Path, issuer: OutsideIssuer) -> Ours:
    """Ours, which wants a token of the issuer."""
    environment = {f"REGISTRY_AUTH_TOKEN_{key.upper()}": value for key, value in issuer.settings().items()}
    return Ours(work, OURS_GUARDED, environment=environment, headers=issuer.headers(seeds.IMAGES))


def guarded_peer(work: Path, issuer: OutsideIssuer) -> Peer:
    """The peer, which wants the same."""
    return Peer(work, PEER_GUARDED, token=issuer.settings(), headers=issuer.headers(seeds.IMAGES))
