"""What `registry issuer` does: the keys of the built-in token service."""

from __future__ import annotations

from typing import Final

from app.cli.root import LazyGroup

# A command NAME is `command` in the module app.cli.issuer.NAME.
_COMMANDS: Final = {
    "keys": "Say which keys tokens may be signed with, until when, and which one is this machine's.",
    "rotate": "Have this machine sign with a new key. No token that is out is refused.",
    "distrust": "Refuse all tokens of a key from now on.",
}

command = LazyGroup(
    _COMMANDS, "app.cli.issuer", name="issuer", help="Look after the keys of the built-in token service."
)
