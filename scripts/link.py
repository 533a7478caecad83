# ruff: noqa: INP001  (a script, not a package)

"""Make the checkout itself a part of the virtual environment that runs this: importable, and a command `registry`.

By hand rather than by `pip install --editable`, which needs a build system to be downloaded first and writes absolute
paths: a checkout that was moved or copied together with its .venv goes on working, with its own code.
"""

from __future__ import annotations

import os
import sysconfig
import tomllib
from pathlib import Path
from typing import Final

LAUNCHER: Final = """\
#!/bin/sh
'''exec' "${0%/*}/python" "$0" "$@"
'''
import sys
from app.cli import main
sys.exit(main())
"""


def link(project: Path, site: Path, scripts: Path) -> None:
    """Write the path file, the package's name and version, and the command."""
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    (site / "registry-checkout.pth").write_text(f"{os.path.relpath(project, site)}\n")
    metadata = site / "registry.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
    )
    command = scripts / "registry"
    command.write_text(LAUNCHER)
    command.chmod(0o755)


if __name__ == "__main__":
    paths = sysconfig.get_paths()
    link(Path(__file__).resolve().parents[1], Path(paths["purelib"]), Path(paths["scripts"]))
