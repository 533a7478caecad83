"""What `serve` tells, whatever the set-up."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.config.auth import Auth

_log = logging.getLogger("registry.config")


def tell_warnings(warnings: Iterable[str]) -> None:
    """Log what the operator should know of the configuration."""
    for warning in warnings:
        _log.warning("%s", warning)


def tell_access(auth: Auth) -> None:
    """Log who is let in, so that an open registry is not open unnoticed."""
    everybody = "everybody who can reach the registry may do everything"
    if auth.provider in {"none", "silly"}:
        _log.info("auth.%s: %s", auth.provider, everybody)
    elif auth.issuer is not None and auth.issuer.onceusersexist:
        _log.info("auth.issuer: until the first account is made %s", everybody)
    else:
        _log.info("auth.%s: access is controlled", auth.provider)


def tell_ready(url: str, *more: str) -> None:
    """Print the one line that says that requests are answered, and where."""
    click.echo(", ".join((f"registry: ready on {url}", *more)))
