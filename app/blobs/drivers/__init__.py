"""The storage drivers by their names in the configuration. A new driver is one line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.blobs.driver import Driver

DRIVERS: Final = {
    "filesystem": "app.blobs.drivers.filesystem:Filesystem",
    "inmemory": "app.blobs.drivers.memory:Memory",
}


class DriverClass(Protocol):
    """What stands behind a name of DRIVERS."""

    def from_parameters(self, parameters: Mapping[str, object]) -> Driver:
        """The driver of these settings; missing ones have Distribution's defaults. Touches no storage yet.

        Raises ValueError, one sentence, on a setting that is unknown or wrong.
        """
        ...


def open_driver(name: str, parameters: Mapping[str, object]) -> Driver:
    """The driver of that name and its section of the settings. Raises ValueError, one sentence."""
    if name not in DRIVERS:
        raise ValueError(f"there is no storage driver {name!r}: use one of {', '.join(sorted(DRIVERS))}")
    module, _, attribute = DRIVERS[name].partition(":")
    driver_class = cast("DriverClass", getattr(import_module(module), attribute))
    return driver_class.from_parameters(parameters)
