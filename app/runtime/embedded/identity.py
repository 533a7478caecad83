"""Who PostgreSQL runs as: it refuses to be root, and nothing may be added or opened up to please it.

An ordinary user stays who they are. Root becomes, in this order of preference,

1. the owner of the data directory, if that is somebody else;
2. root under another name, in a user namespace: outside it nothing changes;
3. where namespaces are forbidden, as in most containers: `nobody`, who then owns the cluster's own directory,
   with leave to pass the directories above it if they are closed.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.runtime.embedded import launcher
from app.runtime.embedded.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROBE_SECONDS: Final = 30
# The kernel's own "nobody", for systems whose list of users names none.
_OVERFLOW_ID: Final = 65534


@dataclass(frozen=True)
class Identity:
    """A way to run a program.

    `kind`, `uid` and `gid` are the launcher's; `owner` and `group` are whose the program's files are.
    """

    kind: str
    uid: int
    gid: int
    owner: int
    group: int

    def command(self, directory: Path, death_signal: signal.Signals, *program: str) -> list[str]:
        """The command that runs `program` as this identity in `directory`, and no longer than we live."""
        return [
            *(sys.executable, "-I", "-S", str(Path(launcher.__file__))),
            *(str(os.getpid()), str(int(death_signal))),
            f"{self.kind}:{self.uid}:{self.gid}",
            str(directory),
            *program,
        ]


def choose(root: Path, cluster: Path, programs: Path, *, namespaces: bool = True) -> Identity:
    """The first identity that can reach `root` and the programs. Raises EmbeddedError if there is none."""
    reasons: list[str] = []
    for identity in _candidates(root, cluster, namespaces=namespaces):
        reason = _refusal(identity, root, programs)
        if reason is None:
            return identity
        reasons.append(f"{identity.kind}: {reason}")
    raise EmbeddedError(
        "PostgreSQL runs neither as root nor as a user without a name, and there is no other identity for "
        f"user id {os.geteuid()} to take here ({'; '.join(reasons)}): start the registry as an ordinary user "
        f"who may write to {root}, or give it a PostgreSQL of your own"
    )


def _candidates(root: Path, cluster: Path, *, namespaces: bool) -> Iterator[Identity]:
    if os.geteuid() != 0:
        yield _ordinary(cluster, namespaces=namespaces)
        return
    owner = (cluster if cluster.exists() else root).stat()
    uid, gid = owner.st_uid, owner.st_gid
    # initdb wants a name for its user; the server itself does not.
    if uid == 0 or not (cluster.exists() or _has_name(uid)):
        uid, gid = _nobody()
        if namespaces and sys.platform == "linux":
            yield Identity("namespace", uid, gid, 0, os.getegid())
    yield Identity("user", uid, gid, uid, gid)
    if sys.platform == "linux":
        yield Identity("guest", uid, gid, uid, gid)


def _ordinary(cluster: Path, *, namespaces: bool) -> Identity:
    uid, gid = os.geteuid(), os.getegid()
    if cluster.exists() and cluster.stat().st_uid != uid:
        raise EmbeddedError(
            f"the database in {cluster} belongs to user id {cluster.stat().st_uid}, and this is {uid}: "
            "start the registry as that user or as root, or choose another data directory"
        )
    if namespaces and sys.platform == "linux" and not (cluster.exists() or _has_name(uid)):
        return Identity("namespace", *_nobody(), uid, gid)
    return Identity("self", uid, gid, uid, gid)


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _nobody() -> tuple[int, int]:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return _OVERFLOW_ID, _OVERFLOW_ID
    return entry.pw_uid, entry.pw_gid


def _refusal(identity: Identity, root: Path, programs: Path) -> str | None:
    """Why this identity cannot run PostgreSQL in `root`, or None if it can."""
    if identity.kind == "self":
        return None
    # A program that looks for itself first, as the server does.
    command = identity.command(root, signal.SIGTERM, str(programs / "pg_config"), "--bindir")
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, check=False)  # noqa: S603  (our own words)
    except subprocess.TimeoutExpired:
        return "it does not answer"
    if done.returncode == 0:
        return None
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with status {done.returncode}"
