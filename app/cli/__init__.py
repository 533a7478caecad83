"""The command line. Every command is a module, loaded when it is called: the others' imports cost a second.

Whatever goes wrong is told in one sentence on standard error, without a traceback. Exit codes: 2 is a mistake in the
command or the configuration, 1 everything else, 130 an interruption from the keyboard.
"""

from __future__ import annotations

import sys

from app.cli.errors import report
from app.cli.root import registry


def main() -> None:
    """Run the command that the arguments name, and end the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command. Returns its exit code."""
    try:
        result = registry.main(arguments, prog_name="registry", standalone_mode=False)
    except BaseException as error:  # noqa: BLE001  (the last place to turn it into a sentence)
        return report(error)
    return result if isinstance(result, int) else 0
