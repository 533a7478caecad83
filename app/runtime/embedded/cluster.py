"""The cluster on disk. A directory with a PG_VERSION is complete: it is made beside its place and renamed.

A crash at any point of the making leaves only a directory `….new`, which the next start throws away.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Final

from app.runtime.embedded import binaries
from app.runtime.embedded.errors import EmbeddedError

if TYPE_CHECKING:
    from pathlib import Path

    from app.runtime.embedded.identity import Identity

USER: Final = "registry"
DATABASE: Final = "registry"

_MAKING_SECONDS: Final = 300
_LINES_SHOWN: Final = 3
_STAMP: Final = re.compile(r"^\S+ \S+ UTC \[\d+\] ")


def environment() -> dict[str, str]:
    """What PostgreSQL's programs are told of ours: no secret, no PG* variable, and messages in English."""
    kept = ("PATH", "LD_LIBRARY_PATH")
    return {"LC_ALL": "C", **{name: os.environ[name] for name in kept if name in os.environ}}


def version(cluster: Path) -> int | None:
    """The major version of the cluster, or None if there is none yet. Anything else is an EmbeddedError."""
    try:
        text = (cluster / "PG_VERSION").read_text()
    except FileNotFoundError:
        if cluster.is_dir() and any(cluster.iterdir()):
            raise EmbeddedError(
                f"{cluster} is not empty, and what is in it is not a PostgreSQL cluster"
            ) from None
        return None
    except OSError as error:
        raise EmbeddedError(f"the database in {cluster} cannot be read: {error.strerror}") from error
    try:
        return int(text)
    except ValueError:
        raise EmbeddedError(
            f"{cluster / 'PG_VERSION'} should hold a version and holds {text[:20]!r}"
        ) from None


def make(cluster: Path, identity: Identity, *, durable: bool) -> None:
    """Make a cluster of the newest version with an empty database in it."""
    programs = binaries.locate(binaries.NEWEST)
    fresh = cluster.with_name(f"{cluster.name}.new")
    if fresh.exists():
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    give(fresh, identity)
    _run(identity, fresh, str(programs / "initdb"), *_initdb_options(fresh, durable=durable))
    _run(
        identity,
        fresh,
        *(str(programs / "postgres"), "--single", "-j", "-D", str(fresh)),
        *("-c", "exit_on_error=on", "-c", "log_checkpoints=off", "postgres"),
        words=f"CREATE DATABASE {DATABASE};\n",
    )
    fresh.rename(cluster)
    if durable:
        _sync_directory(cluster.parent)


def give(cluster: Path, identity: Identity) -> None:
    """Make the cluster's files the identity's, if they are not: PostgreSQL reads no others."""
    if cluster.stat().st_uid == identity.owner:
        return
    for path in (*cluster.rglob("*"), cluster):
        os.chown(path, identity.owner, identity.group, follow_symlinks=False)


def last_lines(text: str) -> str:
    """The end of a program's output without its time stamps, as the end of a sentence."""
    lines = [_STAMP.sub("", line).strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-_LINES_SHOWN:]) or "it said nothing"


def _initdb_options(cluster: Path, *, durable: bool) -> list[str]:
    options = [
        "-D",
        str(cluster),
        "-U",
        USER,
        "--encoding=UTF8",
        "--locale=C",
        "--data-checksums",
        "--no-instructions",
    ]
    # Only the socket's directory, which is closed to everyone else, leads to this server.
    return [*options, "--auth=trust", *([] if durable else ["--no-sync"])]


def _run(identity: Identity, cluster: Path, program: str, *arguments: str, words: str = "") -> None:
    try:
        done = subprocess.run(  # noqa: S603  (our own words)
            identity.command(cluster, signal.SIGTERM, program, *arguments),
            input=words,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_MAKING_SECONDS,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EmbeddedError(
            f"PostgreSQL could not make {cluster} within {_MAKING_SECONDS} seconds"
        ) from error
    if done.returncode != 0:
        raise EmbeddedError(
            f"PostgreSQL could not make its database in {cluster.parent}: {last_lines(done.stdout)}"
        )


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
