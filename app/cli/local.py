"""`registry serve --local`: everything in one directory, with a PostgreSQL of its own.

The directory holds the blobs, the database (`postgres`), the lock that keeps a second instance out, and a configuration
file for other commands. Whatever ends the registry ends the database too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.cli.errors import Failure
from app.cli.ready import tell_access, tell_ready, tell_warnings
from app.cli.settings import loaded, refuse_unserved
from app.config.environment import is_ours
from app.domain.errors import RegistryError
from app.runtime.embedded import EmbeddedPostgres, InstanceLock
from app.server import choices, supervisor
from app.store import migrate
from app.store.engine import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.config import Settings
    from app.runtime.embedded import Address
    from app.server.choices import Doors

CONFIGURATION: Final = "config.yml"
SIGNING_KEY: Final = "signing-key.pem"
# Enough for one machine; each of the sixteen that a server gets by default makes the first start slower.
PARTITIONS: Final = 4
# For an operator's psql, and for what the registry opens beside its pools.
SPARE_CONNECTIONS: Final = 20

# In place of a host, until the server runs; the environment may name another host.
_EMBEDDED: Final = "(embedded)"

_log = logging.getLogger("registry.server")


def serve(data: Path) -> None:
    """Serve until told to stop. Raises ServerError, EmbeddedError, Failure or BadConfiguration."""
    result = loaded(None, base=_base(data.absolute(), with_accounts=not _names_a_provider(os.environ)))
    settings = result.settings
    root = Path(settings.storage.parameters.get("rootdirectory", data)).absolute()
    settings = _with_key(settings, root)
    choices.configure_logs(settings)
    tell_warnings(result.warnings)
    with ExitStack() as stack:
        stack.enter_context(InstanceLock(root))
        doors = choices.open_doors(settings)
        stack.callback(doors.close)
        trouble: Callable[[], str] = str
        if settings.database.host == _EMBEDDED:
            server = EmbeddedPostgres(root / "postgres", max_connections=_connections(settings))
            address = stack.enter_context(server)
            settings, target = _with_database(settings, address), Target(**asdict(address))
            _write_configuration(root, settings)
            trouble = partial(_trouble, server)
        else:
            target = _own_target(settings)
        refuse_unserved(settings)
        _prepare_access(settings)
        _migrate(target)
        tell_access(settings.auth)
        collecting = None if _is_emptied(root, settings) else choices.collecting(settings)
        supervisor.run(
            supervisor.Site(
                settings,
                doors,
                ready=partial(_tell_ready, doors, root),
                trouble=trouble,
                collecting=collecting,
            )
        )


def _names_a_provider(environment: Mapping[str, str]) -> bool:
    """Whether the environment chooses how access is controlled."""
    return any(is_ours(name) and (name + "_").startswith("REGISTRY_AUTH_") for name in environment)


def _base(root: Path, *, with_accounts: bool) -> dict[str, Any]:
    auth = {"issuer": {"key": SIGNING_KEY, "onceusersexist": True}}
    return {
        "auth": auth if with_accounts else {},
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "http": {"addr": "127.0.0.1:5000"},
        "storage": {"filesystem": {"rootdirectory": str(root)}, "delete": {"enabled": True}},
        "database": {"host": _EMBEDDED, "preparedstatements": True},
    }


def _with_key(settings: Settings, root: Path) -> Settings:
    """The settings with the signing key beside the rest of the data, wherever the environment has put that."""
    auth = settings.auth
    if auth.issuer is None or auth.issuer.key != SIGNING_KEY:
        return settings
    issuer = auth.issuer.model_copy(update={"key": str(root / SIGNING_KEY)})
    return settings.model_copy(update={"auth": auth.model_copy(update={"issuer": issuer})})


def _connections(settings: Settings) -> int:
    return choices.worker_count(settings) * settings.database.pool.maxopen + SPARE_CONNECTIONS


def _with_database(settings: Settings, address: Address) -> Settings:
    """The settings with the embedded server's address, whatever part of another one the environment has."""
    keys = {
        "host": address.host,
        "port": address.port,
        "user": address.user,
        "dbname": address.database,
        "sslmode": "disable",
    }
    return settings.model_copy(update={"database": settings.database.model_copy(update=keys)})


def _prepare_access(settings: Settings) -> None:
    issuer = settings.auth.issuer
    if issuer is not None and Path(issuer.key).exists():
        return  # the usual local start, which need not wait for cryptography to be loaded
    from app.cli.configured import prepare_access  # noqa: PLC0415

    prepare_access(settings)


def _write_configuration(root: Path, settings: Settings) -> None:
    """A file with which other commands find this registry while it runs."""
    database = settings.database
    content = {
        "version": "0.1",
        "http": {"addr": settings.http.addr},
        "storage": {"filesystem": {"rootdirectory": str(root)}},
        "database": {
            "host": database.host,
            "port": database.port,
            "user": database.user,
            "dbname": database.dbname,
            "sslmode": database.sslmode,
            "preparedstatements": True,
        },
        "auth": settings.auth.model_dump(mode="json", exclude_none=True),
    }
    path = root / CONFIGURATION
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"# Written at each start of registry serve --local, for: registry gc status {path}\n")
        file.write(json.dumps(content, indent=2) + "\n")  # JSON is YAML, and needs no module to be loaded


def _own_target(settings: Settings) -> Target:
    # The whole registry comes with it, which the usual local start does without: it takes half a second.
    from app.wiring.parts import target_of  # noqa: PLC0415

    return target_of(settings)


def _migrate(target: Target) -> None:
    try:
        if not asyncio.run(migrate.is_current(target)):
            _log.info("bringing the database up to date")
            asyncio.run(migrate.upgrade(target, partitions=PARTITIONS))
    except RegistryError as error:
        raise Failure(str(error)) from error


def _is_emptied(root: Path, settings: Settings) -> bool:
    """Whether the objects are gone that the database names. Served all the same: the database runs with it alone."""
    if any((root / "objects").glob("*/*")):
        return False
    # It takes a while to load, and is not needed but now.
    from app.wiring.checks import refuse_empty_storage  # noqa: PLC0415

    try:
        asyncio.run(refuse_empty_storage(settings))
    except RegistryError as error:
        _log.warning("%s; until the next start nothing is collected", error)
        return True
    return False


def _trouble(server: EmbeddedPostgres) -> str:
    return (
        ""
        if server.running
        else "the embedded PostgreSQL has ended, and the registry cannot go on without it"
    )


def _tell_ready(doors: Doors, root: Path) -> None:
    more = f"data in {root}"
    if doors.main is not None and doors.main.path is None:
        host, _, port = doors.main.name.rpartition(":")
        host = "localhost" if host in {"0.0.0.0", "[::]"} else host  # noqa: S104  (compared, not bound)
        more += f"; try: docker push {host}:{port}/hello:latest"
    tell_ready(doors.url, more)
