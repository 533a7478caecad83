"""What `registry robot` does: programs that log in with random secrets, at the built-in token service."""

from __future__ import annotations

from typing import Final

from app.cli.root import LazyGroup

# A command NAME is `command` in the module app.cli.robot.NAME.
_COMMANDS: Final = {
    "add": "Add a robot, and print its first secret.",
    "list": "List all robots.",
    "secret": "Look after a robot's secrets.",
    "disable": "Let a robot log in no more.",
    "enable": "Let a robot log in again.",
    "remove": "Remove a robot.",
}

command = LazyGroup(
    _COMMANDS, "app.cli.robot", name="robot", help="Look after the programs that may log in (auth.issuer)."
)
