"""Actors whose transactions stop between any two statements, also inside of the database's functions.

The functions of `db/schema` are copied from the database's own source, with a checkpoint before each statement and one
before the end, which is the commit. At a checkpoint an actor waits for an advisory lock that the stage holds; the stage
gives it back, and the actor goes on to its next checkpoint. Whether somebody waits there or for another actor's lock
the server says (`pg_blocking_pids`), so nothing depends on how long anything takes.

    outcome = await theatre.perform([pusher, collector], Moves([0, 1, 1]))              draws decide who goes next
    outcome = await theatre.perform([pusher, collector], Directed((1, "WITH gone"), (0, None)))   a forced schedule

A twin is a function with one rule taken out:

    async with theatre.without(Cut("keep_blob", "FOR KEY SHARE", "")): ...
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from tests.store.scenes import Actor
from tests.support.postgres import connected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
    from contextlib import AsyncExitStack

    from app.store.engine import Target

ACTORS_MAX: Final = 4
STEPS_MAX: Final = 120
PATIENCE_SECONDS: Final = 20.0

# At checkpoint n an actor waits for (its pid, n). What it waits with, (label, its pid), tells where in the text it is.
CHECKPOINT: Final = """
    CREATE FUNCTION checkpoint(p_label integer) RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE
        v_step integer := coalesce(nullif(current_setting('stage.step', true), ''), '-1')::integer;
    BEGIN
        IF v_step < 0 THEN
            RETURN true;
        END IF;
        PERFORM set_config('stage.step', (v_step + 1)::text, false);
        PERFORM pg_advisory_lock_shared(p_label, pg_backend_pid());
        PERFORM pg_advisory_lock_shared(pg_backend_pid(), v_step);
        PERFORM pg_advisory_unlock_shared(pg_backend_pid(), v_step);
        PERFORM pg_advisory_unlock_shared(p_label, pg_backend_pid());
        RETURN true;
    END $$
"""
FUNCTIONS: Final = (
    "keep_blob", "keep_manifest", "finish_upload", "mount_blob", "unlink_blob", "put_manifest", "delete_manifest",
    "settle_has_tags", "gc_collect_blobs", "gc_collect_manifests", "gc_expire_uploads", "gc_take_tombstones",
    "gc_settle_tombstones", "gc_may_delete", "gc_set_paused",
)  # fmt: skip
# Statements that read or write, and the ways out of a function.
_STOPS: Final = re.compile(r"(SELECT|INSERT|UPDATE|DELETE|PERFORM|WITH|RETURN|IF EXISTS|END$|\w+ := gc_)\b")
_ENDS: Final = (";", "THEN", "ELSE", "LOOP", "BEGIN")
_WAITING: Final = "SELECT pg_blocking_pids(pid) FROM unnest($1::integer[]) AS a (pid)"
_LABELS: Final = """
    SELECT l.pid, l.classid::integer FROM pg_locks AS l
    WHERE l.pid = ANY ($1) AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.objid = l.pid::oid
"""


@dataclass(frozen=True)
class Cut:
    """A rule taken out of a function: the text must be there."""

    function: str
    text: str
    instead: str = ""


@dataclass
class Outcome:
    """What became of the actors, by their number: what they returned, or the error; and who ever waited for whom."""

    results: list[Any] = field(default_factory=list[Any])
    waited: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])

    @property
    def errors(self) -> list[str]:
        return [repr(result) for result in self.results if isinstance(result, BaseException)]


class Schedule(Protocol):
    """Says who of those that can move does: actor → the statement that it is about to carry out, if it `reads` them."""

    reads: bool

    def choose(self, ready: Mapping[int, str]) -> int: ...


class Moves:
    """One number per move; when they are used up, one after the other goes on to its end."""

    reads = False

    def __init__(self, moves: Sequence[int]) -> None:
        self._moves = list(reversed(moves))

    def choose(self, ready: Mapping[int, str]) -> int:
        move = self._moves.pop() if self._moves else 0
        return sorted(ready)[move % len(ready)]


class Directed:
    """(actor, text): the actor goes on until it is about to carry out a statement with the text (None: to its end).

    One that waits for somebody, or has come to its end, is left for the next part. Then all go on to their ends.
    """

    reads = True

    def __init__(self, *parts: tuple[int, str | None]) -> None:
        self._parts = list(parts)

    def choose(self, ready: Mapping[int, str]) -> int:
        while self._parts:
            actor, text = self._parts[0]
            if actor in ready and (text is None or text not in ready[actor]):
                return actor
            del self._parts[0]
        return min(ready)


class Theatre:
    """A stage, and actors that are used again and again."""

    def __init__(self, target: Target, stage: Any, actors: list[Actor]) -> None:
        self.target = target
        self._stage = stage
        self._stage_pid: int = stage.get_server_pid()
        self._actors = actors
        self._labels: list[str] = []
        self.crew = actors[-1]  # for what happens before and after

    @classmethod
    async def open(cls, target: Target, closing: AsyncExitStack) -> Theatre:
        stage = await closing.enter_async_context(connected(target))
        raw = [await closing.enter_async_context(connected(target)) for _ in range(ACTORS_MAX + 1)]
        for connection in raw:
            await connection.execute(
                "SET deadlock_timeout = '20ms'; SET jit = off; SET statement_timeout = '15s'"
            )
        theatre = cls(target, stage, [Actor(connection) for connection in raw])
        await stage.execute(CHECKPOINT)
        for function in FUNCTIONS:
            await theatre._install(await theatre.definition(function))
        return theatre

    async def definition(self, function: str) -> str:
        return await self._stage.fetchval("SELECT pg_get_functiondef($1::text::regproc)", function)

    async def _install(self, definition: str) -> None:
        await self._stage.execute(with_checkpoints(definition, self._label))

    def _label(self, statement: str) -> int:
        self._labels.append(statement)
        return len(self._labels)

    @asynccontextmanager
    async def without(self, *cuts: Cut) -> AsyncGenerator[None]:
        """The functions with these rules taken out, until the block ends."""
        before = {cut.function: await self.definition(cut.function) for cut in cuts}
        changed = {function: without_checkpoints(text) for function, text in before.items()}
        for cut in cuts:
            text = changed[cut.function]
            if text.count(cut.text) != 1:
                raise LookupError(f"{cut.text!r} stands {text.count(cut.text)} times in {text}")
            changed[cut.function] = text.replace(cut.text, cut.instead)
        try:
            for text in changed.values():
                await self._install(text)
            yield
        finally:
            for text in before.values():
                await self._stage.execute(text)

    async def pause(self, actor: Actor, what: str) -> None:
        """A checkpoint between two statements of an actor."""
        await actor.value("SELECT checkpoint($1)", self._label(what))

    async def perform(
        self, scripts: Sequence[Callable[[Actor], Awaitable[Any]]], schedule: Schedule
    ) -> Outcome:
        """Begin the scripts one after the other, each up to its first checkpoint, and move them until all are over."""
        cast = self._actors[: len(scripts)]
        pids = [actor.pid for actor in cast]
        await self._stage.execute(
            f"SELECT pg_advisory_lock(p, n) FROM unnest(ARRAY{pids}) AS p, generate_series(0, {STEPS_MAX}) AS n"
        )
        outcome = Outcome()
        show = _Show(self._stage, self._stage_pid, pids, self._labels, outcome)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                for actor, script in zip(cast, scripts, strict=True):
                    await actor.value("SELECT set_config('stage.step', '0', false)")
                    show.tasks.append(asyncio.ensure_future(script(actor)))
                    await show.look()
                while ready := await show.look():
                    await show.move(schedule.choose(await show.texts(ready) if schedule.reads else ready))
        finally:
            await self._stage.execute("SELECT pg_advisory_unlock_all()")
            if show.tasks:
                await asyncio.wait(show.tasks)
            outcome.results = [task.exception() or task.result() for task in show.tasks]
            for actor in cast:
                await actor.value("SELECT set_config('stage.step', '', false)")
        return outcome


class _Show:
    """One performance under way."""

    def __init__(
        self, stage: Any, stage_pid: int, pids: list[int], labels: list[str], outcome: Outcome
    ) -> None:
        self.tasks: list[asyncio.Future[Any]] = []
        self._stage = stage
        self._stage_pid = stage_pid
        self._pids = pids
        self._labels = labels
        self._outcome = outcome
        self._steps = [0] * len(pids)

    async def look(self) -> dict[int, str]:
        """Who stands at a checkpoint once nobody moves. Empty: all are over."""
        while True:
            under_way = [n for n, task in enumerate(self.tasks) if not task.done()]
            if not under_way:
                return {}
            rows = await self._stage.fetch(_WAITING, [self._pids[n] for n in under_way])
            blockers = {n: row[0] for n, row in zip(under_way, rows, strict=True) if row[0]}
            ready = [n for n in blockers if self._stage_pid in blockers[n]]
            for n in blockers.keys() - ready:
                self._outcome.waited |= {(n, self._pids.index(p)) for p in blockers[n] if p in self._pids}
            if ready and len(blockers) == len(under_way):
                return dict.fromkeys(ready, "")
            await asyncio.sleep(0)

    async def texts(self, ready: Mapping[int, str]) -> dict[int, str]:
        """The statements before which they stand."""
        labels = dict(await self._stage.fetch(_LABELS, [self._pids[n] for n in ready]))
        return {n: self._labels[labels[self._pids[n]] - 1] for n in ready}

    async def move(self, n: int) -> None:
        await self._stage.execute(f"SELECT pg_advisory_unlock({self._pids[n]}, {self._steps[n]})")
        self._steps[n] += 1
        assert self._steps[n] <= STEPS_MAX, "too many steps"


def with_checkpoints(definition: str, label: Callable[[str], int]) -> str:
    """The function with a checkpoint before each of its statements. ASSERT leaves FOUND and ROW_COUNT alone."""
    out: list[str] = []
    lines = definition.splitlines()
    begin = lines.index("BEGIN")
    ended = True
    for number, line in enumerate(lines):
        text = re.sub(r"\s*--.*$", "", line).strip()
        if number > begin and text:
            if ended and _STOPS.match(text):
                out.append(f"ASSERT checkpoint({label(statement_at(lines, number))});")
            ended = text.endswith(_ENDS)
        out.append(line)
    return "\n".join(out)


def statement_at(lines: list[str], number: int) -> str:
    """The whole statement that begins in this line."""
    return "\n".join(lines[number:]).partition(";")[0].partition("\n$")[0].strip()


def without_checkpoints(definition: str) -> str:
    return re.sub(r"^ASSERT checkpoint\(\d+\);\n", "", definition, flags=re.MULTILINE)
