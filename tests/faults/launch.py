"""In the place of `app.wiring`: the same registry on a disk that does as it is told (`tests.faults.disk`).

Run as a module it is a whole registry, but for the command line: `python -m tests.faults.launch SETTINGS-JSON`.
"""

from __future__ import annotations

import json
import sys

from app.blobs.drivers import DRIVERS
from app.config import load
from app.server import choices, supervisor
from app.server.errors import ServerError
from app.wiring import checks as health
from app.wiring import collection, serving
from tests.faults.disk import FaultyFilesystem

DRIVERS["filesystem"] = f"{FaultyFilesystem.__module__}:{FaultyFilesystem.__qualname__}"
assemble = serving.assemble
open_crew = collection.open_crew
checks = health.checks


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

        name = __spec__.name
        collecting = name if choices.collecting(settings) else None
        supervisor.run(
            supervisor.Site(settings, doors, ready=ready, serving=name, collecting=collecting, checks=name)
        )
    except ServerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
