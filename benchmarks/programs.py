"""The programs that the benchmark runs, and how they get here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from benchmarks.errors import BenchError

CHECKOUT: Final = Path(__file__).parents[1]
PEER: Final = "docker-registry"
# program → Debian package
PACKAGES: Final = {"wrk": "wrk", PEER: "docker-registry", "curl": "curl"}


def install_missing() -> None:
    """Install what is missing where that is allowed, and say so. Raises BenchError if something stays missing."""
    missing = _missing()
    if missing and _obstacle() is None:
        subprocess.run([str(CHECKOUT / "scripts" / "apt.sh"), *missing], check=False)  # noqa: S603  (our own words)
        missing = _missing()
    if missing:
        reason = _obstacle() or "apt could not"
        raise BenchError(f"the benchmark needs {', '.join(missing)}, and nothing was installed: {reason}")


def path_of(program: str) -> str:
    """Where the program is. Raises BenchError if it is nowhere."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise BenchError(f"there is no {program}")
    return found


def version_of(program: str, *words: str) -> str:
    """The first line that it prints about itself."""
    done = subprocess.run([path_of(program), *words], capture_output=True, text=True, check=False)  # noqa: S603  (our own words)
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def _missing() -> list[str]:
    return [package for program, package in PACKAGES.items() if shutil.which(program) is None]


def _obstacle() -> str | None:
    """Why we may not install packages, None if we may."""
    if os.environ.get("NO_APT") == "1":
        return "NO_APT=1 is set"
    if os.geteuid() != 0:
        return "only root may install packages"
    if shutil.which("apt-get") is None:
        return "there is no apt-get"
    return None
