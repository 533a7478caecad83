"""What `registry gc` does: looking at garbage collection, running it, and telling it to wait."""

from __future__ import annotations

from typing import Final

from app.cli.root import LazyGroup

# A command NAME is `command` in the module app.cli.gc.NAME.
_COMMANDS: Final = {
    "status": "Say what waits to be reviewed or deleted, what is late, and what was deleted.",
    "plan": "Say what would be deleted now, and why. Nothing is deleted.",
    "explain": "Say why a manifest or blob is kept, when it goes, or what became of it.",
    "run": "Review and delete now what is due, once.",
    "suspect": "Have everything reviewed that is unused and not suspect yet.",
    "work": "Run the collectors until told to stop, without serving the API.",
    "pause": "Delete nothing until told to resume, on every replica.",
    "resume": "Delete again.",
}

command = LazyGroup(
    _COMMANDS, "app.cli.gc", name="gc", help="Look at garbage collection, run it, or have it wait."
)
