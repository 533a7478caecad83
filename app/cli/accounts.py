"""What `registry user`, `registry robot` and `registry grant` share.

Passwords and secrets come from a terminal or from standard input and never from arguments, which everybody on the
machine can read. A command that prints one prints nothing else on standard output, so that it can be piped; whatever
there is to say goes to standard error.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from app.auth.passwords import PASSWORD_BYTES_MAX, UnfitPassword, hash_password
from app.cli import words
from app.cli.errors import Failure
from app.cli.gc.place import Place
from app.domain.accounts import FIRST_ACCOUNT_SECONDS, AccountNameInvalid, parse_account_name
from app.store import accounts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from app.store.accounts import Account, Kind
    from app.store.engine import Connection, Database

LOCAL_CONFIG: Final = Path("data", "config.yml")
PASSWORD_CHARS_MIN: Final = 8
TEXT_CHARS_MAX: Final = 100
# Of a list that is read page by page.
PAGE: Final = 500

_GENERATED_BYTES: Final = 18
_CONFIG_VARIABLE: Final = "REGISTRY_CONFIGURATION_PATH"
_LIFETIME: Final = re.compile(r"([1-9][0-9]{0,5})([dhm])")
_LIFETIME_UNITS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}
_LIFETIME_MAX: Final = timedelta(days=3650)
_CALLED: Final[dict[Kind, str]] = {"person": "user", "robot": "robot"}


def config_of(config: Path | None) -> Path | None:
    """The file that is named, or where none is, that of the registry that `serve --local` runs in this directory."""
    if config is None and not os.environ.get(_CONFIG_VARIABLE) and LOCAL_CONFIG.is_file():
        click.echo(f"registry: using {LOCAL_CONFIG}, as no CONFIG is named", err=True)
        return LOCAL_CONFIG
    return config


def place_of(config: Path | None) -> Place:
    """The registry that `config_of` finds."""
    return Place(config_of(config))


def _checked_name(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return parse_account_name(value)
    except AccountNameInvalid as error:
        raise click.BadParameter(str(error)) from None


def _checked_text(_: click.Context, __: click.Parameter, value: str) -> str:
    if len(value) > TEXT_CHARS_MAX or not value.isprintable():
        raise click.BadParameter(f"one line of at most {TEXT_CHARS_MAX} printable characters")
    return value


def _checked_lifetime(_: click.Context, __: click.Parameter, value: str | None) -> timedelta | None:
    if value is None:
        return None
    found = _LIFETIME.fullmatch(value)
    lifetime = None if found is None else int(found[1]) * _LIFETIME_UNITS[found[2]]
    if lifetime is None or lifetime > _LIFETIME_MAX:
        raise click.BadParameter("a number and one of d, h and m, up to 3650d, such as 90d")
    return lifetime


name_argument: Callable[[Callable[..., Any]], Callable[..., Any]] = click.argument(
    "name", callback=_checked_name
)
description_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--description", default="", callback=_checked_text, help="Who or what that is, for lists."
)
label_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--label", default="", callback=_checked_text, help="What the secret is for, for lists."
)
expires_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--expires",
    "lifetime",
    callback=_checked_lifetime,
    help="For how long the secret can be used, such as 90d.  [default: for ever]",
)
json_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--json", "is_json", is_flag=True, help="Print one JSON document."
)
yes_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--yes", "is_sure", is_flag=True, help="Do not ask."
)


def password_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The two other ways to give a password than at a prompt."""
    command = click.option(
        "--generate", "is_generated", is_flag=True, help="Make a password, and print it and nothing else."
    )(command)
    return click.option(
        "--password-stdin", "is_stdin", is_flag=True, help="Read the password from standard input."
    )(command)


def chosen_password(*, is_stdin: bool, is_generated: bool) -> tuple[str, str]:
    """A password and its hash. Raises Failure with a sentence that does not hold the password."""
    if is_stdin and is_generated:
        raise click.UsageError("--password-stdin and --generate exclude each other")
    password = (
        secrets.token_urlsafe(_GENERATED_BYTES) if is_generated else _read() if is_stdin else _prompted()
    )
    if len(password) < PASSWORD_CHARS_MIN:
        raise Failure(f"a password must have at least {PASSWORD_CHARS_MIN} characters")
    try:
        return password, hash_password(password)
    except UnfitPassword as error:
        # Without the first error, whose frames know the password.
        raise Failure(str(error)) from None


def _read() -> str:
    """The one line of standard input; a line break at its end is not part of it."""
    raw = getattr(sys.stdin, "buffer", sys.stdin).read(PASSWORD_BYTES_MAX + 3)
    if len(raw) > PASSWORD_BYTES_MAX + 2:
        raise Failure(f"a password must be text of at most {PASSWORD_BYTES_MAX} bytes")
    try:
        text = raw.decode() if isinstance(raw, bytes) else str(raw)
    except UnicodeDecodeError:
        raise Failure("the password on standard input is not UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")


def _prompted() -> str:
    if not sys.stdin.isatty():
        raise click.UsageError("no terminal to ask for the password on: use --password-stdin or --generate")
    return click.prompt("Password", hide_input=True, confirmation_prompt="Once more", err=True)


def add(place: Place, name: str, kind: Kind, **columns: Any) -> None:
    """Add the account, as `app.store.accounts.add` has it. Raises AccountExists, Failure.

    When this returns, a registry that was open until the first account is closed. Where accounts have no effect, it
    says so.
    """
    issuer = place.settings.auth.issuer

    async def work(database: Database) -> None:
        is_first = not await database.read(accounts.any_exists)
        await database.write(lambda c: accounts.add(c, name, kind, **columns))
        if is_first and issuer is not None and issuer.onceusersexist:
            await asyncio.sleep(FIRST_ACCOUNT_SECONDS)

    place.change(work)
    if issuer is None:
        click.echo("registry: accounts have no effect until auth.issuer is configured", err=True)


async def account_of(database: Database, name: str, kind: Kind) -> Account:
    """The account of that name and kind. Raises Failure."""
    found = await database.read(lambda c: accounts.find(c, name))
    called = _CALLED[kind]
    if found is None:
        raise Failure(f"there is no {called} {name}; registry {called} list shows all")
    if found.kind != kind:
        raise Failure(f"{name} is no {called} but a {found.kind}: see registry {_CALLED[found.kind]} --help")
    return found


def change(
    config: Path | None, name: str, kind: Kind, step: Callable[[Connection, Account], Awaitable[Any]]
) -> Any:
    """Carry out `step`, one statement, on that account. Returns what it does. Raises Failure."""

    async def work(database: Database) -> Any:
        account = await account_of(database, name, kind)
        return await database.write(lambda c: step(c, account))

    return place_of(config).change(work)


def set_disabled(config: Path | None, name: str, kind: Kind, *, is_disabled: bool) -> None:
    """Disable or enable, and say so."""
    change(config, name, kind, lambda c, _: accounts.set_disabled(c, name, is_disabled=is_disabled))
    click.echo(
        f"disabled {name}: it cannot log in; tokens that it has are good for some minutes yet"
        if is_disabled
        else f"enabled {name}"
    )


def remove(config: Path | None, name: str, kind: Kind, *, is_sure: bool) -> None:
    """Remove the account, after a question, and say so."""

    async def look(database: Database) -> Account:
        return await account_of(database, name, kind)

    async def work(database: Database) -> bool:
        await account_of(database, name, kind)
        return await database.write(lambda c: accounts.remove(c, name))

    place = place_of(config)
    place.change(look)
    if not is_sure:
        click.confirm(f"Remove {_CALLED[kind]} {name} with all its grants?", abort=True, err=True)
    place.change(work)
    click.echo(f"removed {name}")


def list_accounts(config: Path | None, kind: Kind, *, is_json: bool) -> None:
    """Print all accounts of that kind."""

    async def work(database: Database) -> list[Account]:
        found: list[Account] = []
        last = ""
        while page := await database.read(lambda c: accounts.page(c, kind, last, PAGE)):  # noqa: B023
            found += page
            last = page[-1].name
        return found

    found = place_of(config).change(work)
    if is_json:
        click.echo(words.document([words.plain(one) for one in found]))
        return
    head = ("NAME", "MAY LOG IN", "ADMIN", "CREATED", "LAST USED", "DESCRIPTION")
    tell_table(head, [_line(one) for one in found], f"there is no {_CALLED[kind]}")


def tell_table(head: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> None:
    """Print the rows, or on standard error that there are none."""
    if not rows:
        click.echo(nothing, err=True)
    for line in words.table(head, rows, indent="") if rows else ():
        click.echo(line)


def shown_actions(actions: Iterable[str]) -> str:
    """Actions as they are typed."""
    return ",".join(actions)


def _line(one: Account) -> tuple[str, ...]:
    return (
        one.name,
        "yes" if one.disabled_at is None else "no",
        "yes" if one.is_admin else "no",
        words.moment(one.created_at),
        "never" if one.last_used_at is None else words.moment(one.last_used_at),
        words.printable(one.description),
    )
