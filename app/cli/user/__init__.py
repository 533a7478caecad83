"""What `registry user` does: people who log in with a password, at the built-in token service."""

from __future__ import annotations

from typing import Final

from app.cli.root import LazyGroup

# A command NAME is `command` in the module app.cli.user.NAME.
_COMMANDS: Final = {
    "add": "Add a user.",
    "list": "List all users.",
    "passwd": "Give a user a new password.",
    "admin": "Let a user do everything, or no more than is granted.",
    "revoke": "Have a user log in again everywhere.",
    "disable": "Let a user log in no more.",
    "enable": "Let a user log in again.",
    "remove": "Remove a user.",
}

command = LazyGroup(
    _COMMANDS, "app.cli.user", name="user", help="Look after the people who may log in (auth.issuer)."
)
