"""A process that serves the real registry until it is told, or has been told, to die.

Run as a module it is a nursery: it imports everything once and then, for each order on its standard input, forks a
process that serves at once. On its standard output it tells of their births and deaths, a line of JSON each.

A victim is assembled by `app.wiring` and served by `app.server.serving` on a socket of its own, as a worker is. Or it
runs the collectors that `app.wiring` builds, in the order of a pass, one after the other, until nothing more is due.
Underneath it are a disk and a database whose every step is counted.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop

from app import store
from app.blobs import hashing
from app.blobs.drivers import DRIVERS, open_driver
from app.config import Settings
from app.runtime.metrics import Metrics
from app.server import choices
from app.server.serving import serve
from app.store.statements import Statement
from app.wiring import collection, serving
from gc_workers.passes import full_pass
from tests.crashes import flaws
from tests.crashes.disks import CountedDisk, CountedFilesystem, Record
from tests.crashes.steps import Steps, Strike, count_statements

if TYPE_CHECKING:
    from collections.abc import Collection

_BACKLOG: Final = 64


@dataclass(frozen=True)
class Chores:
    """What a victim collects: those of the collectors that are named in `only`, `limit` things at a time.

    The file `done` appears when nothing more is due. `flaw`: see tests/crashes/flaws.py.
    """

    only: tuple[str, ...]
    limit: int
    done: str
    flaw: str = ""


@dataclass(frozen=True)
class Order:
    """A life, which serves unless it has chores.

    `settings` is JSON; `log`, `armed` and `chosen` as for Steps; `record` is a directory.
    """

    settings: str
    root: str
    log: str
    armed: str
    record: str
    chosen: int | None = None
    strike: Strike = field(default_factory=Strike)
    skipped: tuple[str, ...] = ()
    chores: Chores | None = None


def live(order: Order) -> None:
    """Serve, or collect. Does not return."""
    steps = Steps(Path(order.log), Path(order.armed), order.chosen, order.strike)
    steps.watch_names(Path(order.root))
    CountedFilesystem.disk = CountedDisk(steps, Record(Path(order.record)), order.skipped)
    DRIVERS["filesystem"] = f"{CountedFilesystem.__module__}:{CountedFilesystem.__qualname__}"
    settings = Settings.model_validate_json(order.settings)
    if order.chores is None:
        uvloop.run(_serve(settings, steps, order.skipped))
    else:
        uvloop.run(_collect(settings, steps, order.chores))


async def _serve(settings: Settings, steps: Steps, skipped: Collection[str]) -> None:
    choices.configure_logs(settings)
    assembly = await serving.assemble(settings, Metrics())
    wrapped = not settings.database.preparedstatements
    count_statements(assembly.database, steps, wrapped=wrapped, skipped=skipped)
    listening = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    port = listening.getsockname()[1]
    await serve(
        assembly.app,
        [listening],
        choices.manner(settings),
        stop=asyncio.Event().wait,
        started=lambda: _say(ready=os.getpid(), port=port),
    )


async def _collect(settings: Settings, steps: Steps, chores: Chores) -> None:
    choices.configure_logs(settings)
    database = await collection.open_gc_database(settings, None)
    count_statements(database, steps, wrapped=not settings.database.preparedstatements)
    driver = open_driver(settings.storage.driver, settings.storage.parameters)
    found = flaws.put_into(collection.collectors(settings, database, driver), chores.flaw, database, driver)
    _say(ready=os.getpid(), port=0)
    chosen = [one for one in found if one.name in chores.only]
    while sum(tally.taken for tally in await full_pass(chosen, chores.limit)):
        pass
    Path(chores.done).touch()
    await asyncio.Event().wait()


def warm() -> None:
    """Do beforehand what every life would do anew."""
    hashing.is_resumable()
    for module in pkgutil.iter_modules(store.__path__, f"{store.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Statement):
                assert value.text
    gc.collect()
    gc.freeze()


def main() -> None:
    """The nursery. Ends, and ends everyone, when its standard input does."""
    warm()
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, _ignore)
    orders = sys.stdin.buffer
    children: set[int] = set()
    while True:
        readable, _, _ = select.select([orders, wake], [], [])
        if wake in readable:
            os.read(wake, 1024)
            _bury(children)
        if orders in readable:
            line = orders.readline()
            if not line:
                break
            children.add(_bear(line))
    for child in children:
        os.kill(child, signal.SIGKILL)


def _bear(line: bytes) -> int:
    child = os.fork()
    if child:
        return child
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        given: dict[str, Any] = json.loads(line)
        strike, chores = Strike(**given.pop("strike")), given.pop("chores")
        live(Order(strike=strike, chores=chores and Chores(**chores), **given))
    except BaseException:  # noqa: BLE001  (nothing may get past here into the nursery's own loop)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


def _bury(children: set[int]) -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            children.discard(ended[0])
            _say(ended=ended[0], status=os.waitstatus_to_exitcode(ended[1]))


def _ignore(number: int, frame: object) -> None:
    """A signal that is only to wake us: the default action would not."""


def _say(**words: int) -> None:
    os.write(1, json.dumps(words).encode() + b"\n")


if __name__ == "__main__":
    main()
