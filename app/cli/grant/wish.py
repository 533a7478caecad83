"""What is to be granted or taken back, as it is typed: ACCOUNT ACTIONS PATTERN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from app.cli.errors import Failure
from app.domain.access import Action
from app.domain.accounts import ANONYMOUS, AccountNameInvalid, parse_account_name
from app.domain.patterns import PathPattern, PatternInvalid
from app.store import accounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.store.engine import Database

_EVERYWHERE: Final = "**"
_FOR_EVERYBODY: Final = frozenset({Action.PULL, Action.CATALOG})
_ACTIONS: Final = ", ".join(Action)


def parse_account(text: str) -> str:
    """An account's name, or `anonymous`. Raises BadParameter."""
    try:
        return text if text == ANONYMOUS else parse_account_name(text)
    except AccountNameInvalid as error:
        raise click.BadParameter(str(error), param_hint="ACCOUNT") from None


def _checked_account(_: click.Context, __: click.Parameter, value: str) -> str:
    return parse_account(value)


def _checked_actions(_: click.Context, __: click.Parameter, value: str) -> frozenset[Action]:
    try:
        return frozenset(map(Action, value.split(",")))
    except ValueError:
        raise click.BadParameter(f"{value!r}: expected some of {_ACTIONS}, joined by commas") from None


def _checked_pattern(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return str(PathPattern.parse(value))
    except PatternInvalid as error:
        raise click.BadParameter(str(error)) from None


def arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """The three arguments."""
    for name, callback in (
        ("pattern", _checked_pattern),
        ("actions", _checked_actions),
        ("account", _checked_account),
    ):
        command = click.argument(name, callback=callback)(command)
    return command


def parts(account: str, actions: frozenset[Action], pattern: str) -> Iterator[tuple[str, frozenset[Action]]]:
    """(pattern, actions) of each grant. The catalog is about no repository. Raises UsageError."""
    if account == ANONYMOUS and not actions <= _FOR_EVERYBODY:
        raise click.UsageError(
            f"{ANONYMOUS} may be granted pull and catalog: whoever pushes or deletes has to say who they are"
        )
    if Action.CATALOG in actions:
        if pattern != _EVERYWHERE:
            raise click.UsageError(f"catalog is about the whole registry: its pattern is '{_EVERYWHERE}'")
        yield "", frozenset({Action.CATALOG})
    if others := actions - {Action.CATALOG}:
        yield pattern, others


async def id_of(database: Database, account: str) -> int | None:
    """The account's id; None stands for everybody. Raises Failure."""
    if account == ANONYMOUS:
        return None
    found = await database.read(lambda c: accounts.find(c, account))
    if found is None:
        raise Failure(f"there is no account {account}; registry user list and registry robot list show all")
    return found.id
