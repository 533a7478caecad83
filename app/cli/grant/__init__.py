"""What `registry grant` does: who may do what, at the built-in token service."""

from __future__ import annotations

from typing import Final

from app.cli.root import LazyGroup

# A command NAME is `command` in the module app.cli.grant.NAME.
_COMMANDS: Final = {
    "add": "Let an account, or everybody, do something.",
    "remove": "Take back what was granted.",
    "list": "List what is granted.",
}

command = LazyGroup(
    _COMMANDS, "app.cli.grant", name="grant", help="Say who may do what to which repositories (auth.issuer)."
)
