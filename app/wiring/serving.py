"""The objects that serve the API, built from the settings and closed in order again."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from app.blobs import hashing
from app.blobs.drivers import open_driver
from app.config import Settings, compile_pattern
from app.domain.manifests import Platform
from app.http.addresses import Addresses, bucket
from app.http.app import Application
from app.http.call import ApiRules, Services
from app.http.wire import Origin
from app.runtime.observe import Observer
from app.runtime.threads import Threads
from app.services.listings import Listings
from app.services.pull import Pull
from app.services.push_blob import PushBlob
from app.services.push_manifest import ManifestRules, PushManifest
from app.services.remove import Remove
from app.services.repository_ids import RepositoryIds
from app.wiring.admission import admission
from app.wiring.parts import open_database

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.blobs.driver import Driver
    from app.runtime.metrics import Metrics
    from app.store.engine import Database
    from app.wiring.admission import Access

_POOL_WATCH_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Assembly:
    """A running registry: the ASGI application and what `close` must give back."""

    app: Application
    database: Database
    driver: Driver
    _closing: AsyncExitStack

    async def close(self) -> None:
        """Close in the reverse order of opening."""
        await self._closing.aclose()


async def assemble(settings: Settings, metrics: Metrics) -> Assembly:
    """Build everything that serves requests. Raises Unavailable if the database cannot be reached."""
    async with AsyncExitStack() as stack:
        database = await open_database(settings, metrics)
        stack.push_async_callback(database.close)
        watch = asyncio.ensure_future(_watch_pool(database, metrics))
        stack.callback(watch.cancel)
        if lifetime := settings.database.pool.maxlifetime.seconds:
            renewal = asyncio.ensure_future(_renew_connections(database, lifetime))
            stack.callback(renewal.cancel)
        hashing.is_resumable()  # chosen now, so that the first upload does not pay for it
        driver = open_driver(settings.storage.driver, settings.storage.parameters)
        stack.push_async_callback(driver.close)
        hashers = Threads("hash", max(2, os.cpu_count() or 2))
        stack.push_async_callback(hashers.close)
        access = await admission(settings, database, stack)
        services = _services(settings, database, driver, hashers, access)
        addresses = Addresses(settings.http.trustedproxies)
        rules, observer = _rules(settings, addresses), Observer(metrics, addresses.of)
        app = Application(services, rules, access.controller, observer)
        return Assembly(app, database, driver, stack.pop_all())
    raise AssertionError


async def _watch_pool(database: Database, metrics: Metrics) -> None:
    while True:
        metrics.pool(*database.occupancy())
        await asyncio.sleep(_POOL_WATCH_SECONDS)


async def _renew_connections(database: Database, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        await database.renew()


def _services(
    settings: Settings, database: Database, driver: Driver, hashers: Threads, access: Access
) -> Services:
    ids = RepositoryIds(database)
    return Services(
        pull=Pull(database, driver, ids),
        push_blob=PushBlob(database, driver, ids, hashers),
        push_manifest=PushManifest(database, ids, _manifest_rules(settings)),
        remove=Remove(database, ids),
        listings=Listings(database, ids),
        tokens=access.tokens,
    )


def _rules(settings: Settings, addresses: Addresses) -> ApiRules:
    return ApiRules(
        origin=Origin(settings.http.host.rstrip("/"), settings.http.relativeurls),
        prefix=settings.http.prefix.rstrip("/"),
        headers=tuple(
            (name.lower().encode(), value.encode())
            for name, values in settings.http.headers.items()
            for value in values
        ),
        delete_enabled=settings.storage.delete.enabled,
        read_only=settings.storage.maintenance.readonly.enabled,
        catalog_entries_max=settings.catalog.maxentries,
        tags_max=settings.tags.maxtags,
        catalog_open=settings.catalog.open,
        login_bucket=lambda scope: bucket(addresses.of(scope)),
    )


def _manifest_rules(settings: Settings) -> ManifestRules:
    if settings.validation.disabled:
        return ManifestRules()
    manifests = settings.validation.manifests
    return ManifestRules(
        url_allowed=_url_judge(manifests.urls.allow, manifests.urls.deny),
        platforms=manifests.indexes.platforms,
        listed_platforms=frozenset(Platform(p.architecture, p.os) for p in manifests.indexes.platformlist),
        references_max=manifests.referencelimit,
        payload_bytes_max=manifests.payloadsizelimit,
    )


def _url_judge(allow: tuple[str, ...], deny: tuple[str, ...]) -> Callable[[str], bool] | None:
    """Whether a layer may have a URL. Without any pattern every URL may be, as the OCI specification wants it."""
    if not allow and not deny:
        return None
    allowed: list[Any] = [compile_pattern(text) for text in allow]
    denied: list[Any] = [compile_pattern(text) for text in deny]

    def judge(url: str) -> bool:
        return any(p.search(url) for p in allowed) and not any(p.search(url) for p in denied)

    return judge
