"""What `/debug/health` asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

from app.blobs.driver import StorageError
from app.blobs.drivers import open_driver
from app.domain.errors import Unavailable
from app.store import health, migrate
from app.wiring.parts import target_of

if TYPE_CHECKING:
    from app.config import Settings

Check = Callable[[], Awaitable[None]]


def checks(settings: Settings) -> Mapping[str, Check]:
    """What `/debug/health` asks. Each opens what it needs, so that it tells of the world and not of a pool."""
    driver = open_driver(settings.storage.driver, settings.storage.parameters)
    target = target_of(settings)

    async def database() -> None:
        await health.ping(target)

    async def migrations() -> None:
        if not await migrate.is_current(target):
            raise Unavailable("migrations are pending; run: registry database migrate up")

    async def storage() -> None:
        try:
            await driver.check()
        except StorageError as error:
            reason = getattr(error.__cause__, "strerror", None)
            raise Unavailable(f"{error}: {reason}" if reason else str(error)) from error

    async def collection() -> None:
        await health.refuse_overdue(target, settings.gc.overdueafter.seconds)

    every: dict[str, Check] = {"database": database, "migrations": migrations, "storage": storage}
    if settings.gc.overdueafter.seconds > 0 and not settings.storage.maintenance.readonly.enabled:
        every["gc"] = collection
    thresholds = {
        "database": settings.health.database.threshold,
        "migrations": settings.health.database.threshold,  # fails whenever the database does
        "gc": settings.health.database.threshold,
        "storage": settings.health.storagedriver.threshold,
    }
    return {name: _patient(check, thresholds.get(name, 1)) for name, check in every.items()}


async def refuse_empty_storage(settings: Settings) -> None:
    """Raises Unavailable if nothing can be read from the storage, and the database names objects in it.

    Most likely a volume is not mounted, or a bucket is another one. Asked before anything is served or collected.
    """
    if settings.storage.driver == "inmemory":
        return
    driver = open_driver(settings.storage.driver, settings.storage.parameters)
    finding = "the storage is empty"
    try:
        async with aclosing(driver.list()) as objects:
            async for _ in objects:
                return
    except StorageError as error:
        # Its directory is made by the first push.
        finding = str(error)
    finally:
        await driver.close()
    if await health.names_objects(target_of(settings)):
        raise Unavailable(
            f"{finding}, but the database names objects in it: is the right volume mounted? If they are lost indeed,"
            " registry fsck --repair --all-lost says so to the database"
        )


def _patient(check: Check, threshold: int) -> Check:
    """The same check, failing only once it has failed `threshold` times in a row."""
    failures = 0

    async def run() -> None:
        nonlocal failures
        try:
            await check()
        except Exception:
            failures += 1
            if failures >= threshold:
                raise
        else:
            failures = 0

    return run
