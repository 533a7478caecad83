"""The directory of the server's socket: closed to everyone else, and short enough for an address.

It is the cluster's own directory where that works. It does not where the path is longer than a socket address
may be (107 bytes on Linux, 103 on macOS) or the file system knows no sockets; then it is one in the directory
for temporary files, whose name follows from the cluster's path, so that a run that was killed leaves nothing
that the next one does not reuse.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.runtime.embedded.errors import EmbeddedError

if TYPE_CHECKING:
    from app.runtime.embedded.identity import Identity

PORT: Final = 5432
# As long as the name that PostgreSQL will use.
_TRIAL: Final = ".s.PGSQL.test"


def prepare(cluster: Path, identity: Identity) -> Path:
    """The directory for the server's socket, ready for use."""
    if _holds_sockets(cluster):
        return cluster
    directory = _temporary(cluster)
    _remove(directory, {os.geteuid(), identity.owner})
    directory.mkdir(mode=0o700)
    if identity.owner != os.geteuid():
        os.chown(directory, identity.owner, identity.group)
    if not _holds_sockets(directory):
        raise EmbeddedError(f"no socket can be made in {directory}: set TMPDIR to a short, local directory")
    return directory


def discard(directory: Path, cluster: Path) -> None:
    """Remove the directory that `prepare` made, if it made one."""
    if directory != cluster:
        shutil.rmtree(directory, ignore_errors=True)


def _temporary(cluster: Path) -> Path:
    name = hashlib.sha256(os.fsencode(cluster)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"registry-{name}"


def _remove(directory: Path, owners: set[int]) -> None:
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return
    if directory.is_symlink() or not directory.is_dir() or status.st_uid not in owners:
        raise EmbeddedError(
            f"{directory} was made by somebody else, and the registry needs the name: remove it"
        )
    shutil.rmtree(directory)


def _holds_sockets(directory: Path) -> bool:
    path = directory / _TRIAL
    trial = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        trial.bind(str(path))
        path.unlink()
    except OSError:
        return False
    finally:
        trial.close()
    return True
