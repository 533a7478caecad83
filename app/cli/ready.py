"""What `serve` tells, whatever the set-up."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

_log = logging.getLogger("registry.config")


def tell_warnings(warnings: Iterable[str]) -> None:
    """Log what the operator should know of the configuration."""
    for warning in warnings:
        _log.warning("%s", warning)


def tell_ready(url: str, *more: str) -> None:
    """Print the one line that says that requests are answered, and where."""
    click.echo(", ".join((f"registry: ready on {url}", *more)))
