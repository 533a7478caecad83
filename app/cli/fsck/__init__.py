"""What `registry fsck` does: checking that nothing is lost, leaked or damaged, while the registry serves."""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import click

from app.blobs import hashing
from app.blobs.driver import StorageError
from app.blobs.drivers import open_driver
from app.cli.errors import FAILED, BadConfiguration, Failure
from app.cli.fsck import words
from app.cli.fsck.teller import Teller
from app.cli.settings import command_line, config_argument, loaded
from app.domain.errors import RegistryError
from app.domain.manifests import Platform
from app.runtime.threads import Threads
from app.services.fsck import Plan, StorageLooksWrong, Summary, check
from app.store import migrate
from app.wiring.parts import open_database, target_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from app.config import Settings
    from app.domain.manifests import Descriptor

_PERCENT: Final = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%")


class _Share(click.ParamType[float]):
    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The share of one, from `5%`."""
        if isinstance(value, float):
            return value
        found = _PERCENT.fullmatch(str(value))
        share = float(found[1]) / 100 if found else 0.0
        if not 0 < share <= 1:
            self.fail(f"{value!r} is not a share: write it like 5%, and at most 100%", param, ctx)
        return share


@click.command(name="fsck")
@click.option(
    "--rehash",
    "share",
    type=_Share(),
    metavar="SHARE",
    default=0.0,
    help="Also read this share of the blobs, such as 5%, and compare their bytes with their digests. Which ones is "
    "drawn anew each time; 100% reads all.",
)
@click.option(
    "--repair",
    "is_repair",
    is_flag=True,
    help="Repair what can be repaired without risk: a blob whose bytes are gone or wrong is uploaded again by the next "
    "push of it, an object that belongs to nothing is deleted by the collectors after a day, the catalog is set right.",
)
@click.option(
    "--all-lost",
    "is_loss_believed",
    is_flag=True,
    help="With --repair: go on although storage holds none of the registry's objects. Without this it is taken for a "
    "volume that is not mounted.",
)
@click.option(
    "--json",
    "is_json",
    is_flag=True,
    help="Print one JSON document a line: each finding, and the summary last.",
)
@config_argument
@click.pass_context
def command(
    context: click.Context,
    *,
    share: float,
    is_repair: bool,
    is_loss_believed: bool,
    is_json: bool,
    config: Path | None,
) -> None:
    """Check that every object belongs to something, and that every image has all its parts.

    The registry and its collectors may work meanwhile, and need not be told. CONFIG is the configuration file that
    serve uses; without it REGISTRY_CONFIGURATION_PATH names it.

    Each finding is a line on standard output, and a summary is the last one. Standard error shows how far it is.
    Exit code 0: nothing is wrong. Exit code 1: something is, also if it was repaired, or the check could not be done,
    which standard error then says.
    """
    if is_loss_believed and not is_repair:
        raise click.UsageError("--all-lost goes with --repair")
    settings = loaded(config).settings
    if not settings.database.host:
        raise BadConfiguration(["database.host: required, because it says which database to check"])
    plan = Plan(
        share=share,
        repair=is_repair,
        is_loss_believed=is_loss_believed,
        is_required=_requirement(settings),
    )
    teller = Teller(is_json=is_json, is_repair=is_repair)
    summary = _run(settings, plan, teller, command_line("database migrate up", config))
    teller.end(summary)
    if not summary.is_clean:
        context.exit(FAILED)


def _run(settings: Settings, plan: Plan, teller: Teller, remedy: str) -> Summary:
    try:
        return asyncio.run(_check(settings, plan, teller, remedy))
    except StorageLooksWrong as error:
        raise Failure(words.LOOKS_WRONG) from error
    except RegistryError as error:
        raise Failure(str(error)) from error
    except StorageError as error:
        reason = getattr(error.__cause__, "strerror", None)
        raise Failure(f"{error}: {reason}" if reason else str(error)) from error
    finally:
        teller.close()


async def _check(settings: Settings, plan: Plan, teller: Teller, remedy: str) -> Summary:
    target = target_of(settings)
    if not await migrate.is_current(target):
        raise Failure(f"the metadata database lacks migrations; apply them first: {remedy}")
    try:
        driver = open_driver(settings.storage.driver, settings.storage.parameters)
    except ValueError as error:
        raise BadConfiguration([str(error)]) from error
    async with AsyncExitStack() as stack:
        stack.push_async_callback(driver.close)
        database = await open_database(settings, None)
        stack.push_async_callback(database.close)
        hashing.is_resumable()
        hashers = Threads("hash", max(2, os.cpu_count() or 2))
        stack.push_async_callback(hashers.close)
        return await check(
            target=target, database=database, driver=driver, hashers=hashers, plan=plan, listener=teller
        )
    raise AssertionError


def _requirement(settings: Settings) -> Callable[[Descriptor], bool]:
    """Which children of an index must be there: those without which it could not be pushed."""
    indexes = settings.validation.manifests.indexes
    rule = "all" if settings.validation.disabled else indexes.platforms
    listed = {Platform(one.architecture, one.os) for one in indexes.platformlist}

    def is_required(child: Descriptor) -> bool:
        return rule == "all" or (rule == "list" and child.platform in listed)

    return is_required
