"""In the place of `app.wiring`: the same registry on a disk that does as it is told (`tests.faults.disk`).

Run as a module it is a whole registry, but for the command line: `python -m tests.faults.launch SETTINGS-JSON`.
"""

from __future__ import annotations

import json
import sys

from app import wiring
from app.blobs.drivers import DRIVERS
from app.config import load
from app.server import choices, supervisor
from app.server.errors import ServerError
from tests.faults.disk import FaultyFilesystem

DRIVERS["filesystem"] = f"{FaultyFilesystem.__module__}:{FaultyFilesystem.__qualname__}"
assemble = wiring.assemble
checks = wiring.checks


def main() -> None:
    settings = load(None, {}, base=json.loads(sys.argv[1])).settings
    choices.configure_logs(settings)
    try:
        doors = choices.open_doors(settings)
        assert doors.debug is not None
        names = doors.url, f"http://{doors.debug.name}"

        def ready() -> None:
            sys.stdout.write(json.dumps(names) + "\n")
            sys.stdout.flush()

        supervisor.run(supervisor.Site(settings, doors, ready=ready, wiring=__spec__.name))
    except ServerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
