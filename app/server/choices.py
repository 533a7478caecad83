"""What the settings mean for the processes."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.runtime import logs
from app.server.manner import DRAIN_SECONDS, Manner
from app.server.sockets import Listeners, listen_tcp, listen_unix
from app.server.tls import debug_context, server_context

if TYPE_CHECKING:
    from app.config import Settings

# The module that builds the collectors.
COLLECTING: Final = "app.wiring.collection"
DEBUG_DRAIN_SECONDS: Final = 1.0
_CPU_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Doors:
    """Where requests come in: the API's address, if it is served, and, if there is one, the debug server's."""

    main: Listeners | None
    debug: Listeners | None
    url: str

    def close(self) -> None:
        """Close both."""
        if self.main is not None:
            self.main.close()
        if self.debug is not None:
            self.debug.close()


def open_doors(settings: Settings) -> Doors:
    """Listen, and check what TLS needs. Raises ServerError. Nothing is answered before there are workers."""
    scheme = "http" if server_context(settings) is None else "https"
    http = settings.http
    if http.net == "unix":
        main = listen_unix(Path(http.addr))
        url = main.name
    else:
        main = listen_tcp(http.address, worker_count(settings))
        url = f"{scheme}://{main.name}"
    try:
        debug = open_debug_door(settings)
    except BaseException:
        main.close()
        raise
    return Doors(main, debug, url)


def open_debug_door(settings: Settings) -> Listeners | None:
    """Listen where health and metrics are asked for, if anywhere, and check what TLS needs. Raises ServerError."""
    debug_context(settings)
    address = settings.http.debug.address
    return listen_tcp(address, key="http.debug.addr") if address is not None else None


def collecting(settings: Settings) -> str | None:
    """The module that builds the collectors that work beside the API. None: there are to be none.

    Of what is kept in memory only the process that keeps it could delete anything.
    """
    read_only = settings.storage.maintenance.readonly.enabled
    if settings.gc.disabled or read_only or settings.storage.driver == "inmemory":
        return None
    return COLLECTING


def worker_count(settings: Settings) -> int:
    """How many workers serve. What is kept in memory only one process has."""
    if settings.storage.driver == "inmemory":
        return 1
    return settings.http.workers or cores()


def cores() -> int:
    """The processors that we may use: a container's share counts, not the machine it runs on."""
    have = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = _CPU_QUOTA.read_text().split()
        if quota != "max":
            have = min(have, math.ceil(int(quota) / int(period)))
    return max(have, 1)


def drain_seconds(settings: Settings) -> float:
    """How long requests under way may go on once the registry stops."""
    return settings.http.draintimeout.seconds or DRAIN_SECONDS


def manner(settings: Settings) -> Manner:
    """How a worker serves the API. Raises ServerError if TLS lacks something."""
    return Manner(
        drain_seconds=drain_seconds(settings), tls=server_context(settings), h2c=settings.http.h2c.enabled
    )


def debug_manner(settings: Settings) -> Manner:
    """How the debug address is served. Raises ServerError if TLS lacks something."""
    return Manner(drain_seconds=DEBUG_DRAIN_SECONDS, tls=debug_context(settings))


def configure_logs(settings: Settings) -> None:
    """Log as `log` says, in this process."""
    log = settings.log
    logs.configure(
        level=log.level,
        formatter=log.formatter,
        output=log.output,
        fields=log.fields,
        access=None if log.accesslog.disabled else log.accesslog.formatter,
    )
