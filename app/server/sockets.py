"""Listening sockets, made before any worker starts and handed down to them.

The supervisor keeps them, so that connections wait instead of being refused while a dead worker is replaced. On
Linux each worker has a socket of its own and the kernel spreads connections over them; elsewhere, and for Unix
sockets, all share one. An address that somebody listens on is never taken over, not even from ourselves.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from app.server.errors import ServerError

if TYPE_CHECKING:
    from pathlib import Path

    from app.config import Address

BACKLOG: Final = 2048
# A peer that vanished without a word is noticed after about two minutes.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))


@dataclass(frozen=True)
class Listeners:
    """The sockets of one address. `name` is what a client may call it, `path` that of a Unix socket."""

    sockets: tuple[socket.socket, ...]
    name: str
    path: Path | None = None

    def of(self, place: int) -> socket.socket:
        """The socket that the worker at `place` serves."""
        return self.sockets[place % len(self.sockets)]

    def close(self) -> None:
        """Let go of the sockets, and of the file. Who was handed one goes on. A second time does nothing."""
        if self.sockets[0].fileno() < 0:
            return
        for listening in self.sockets:
            listening.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def listen_tcp(address: Address, workers: int = 1, *, key: str = "http.addr") -> Listeners:
    """Listen for `workers` workers. `key` is the setting to name if that does not work."""
    try:
        with ExitStack() as undo:
            sockets = _tcp_sockets(address, workers, undo)
            undo.pop_all()
    except OSError as error:
        raise ServerError(f"cannot listen on {_shown(address)} ({key}): {_reason(error)}") from error
    host, port = sockets[0].getsockname()[:2]
    return Listeners(sockets, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def listen_unix(path: Path) -> Listeners:
    """Listen on a Unix socket. A socket file that nobody listens on any more is replaced."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        listening.bind(str(path))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ServerError(f"cannot listen on {path} (http.addr): {_reason(error)}") from error
    listening.settimeout(0)
    return Listeners((listening,), f"unix:{path}", path)


def _tcp_sockets(address: Address, workers: int, undo: ExitStack) -> tuple[socket.socket, ...]:
    family, place = _resolved(address)
    first = undo.enter_context(_tcp_socket(family))
    first.bind(place)
    first.listen(BACKLOG)
    if workers == 1 or sys.platform != "linux":
        return (first,)
    # Only now that it is ours alone: a second registry of the same user could share it as well.
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    others = [undo.enter_context(_tcp_socket(family)) for _ in range(workers - 1)]
    for other in others:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(first.getsockname())
        other.listen(BACKLOG)
    return (first, *others)


def _tcp_socket(family: int) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    # Connections of an earlier run that linger do not keep us from the address; a listener does.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if family == socket.AF_INET6:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listening.settimeout(0)
    return listening


def _resolved(address: Address) -> tuple[int, Any]:
    if not address.host:
        # Every interface: one socket for IPv6 takes IPv4 as well, where there is IPv6 at all.
        return (
            (socket.AF_INET6, ("::", address.port)) if _has_ipv6() else (socket.AF_INET, ("", address.port))
        )
    flags = socket.AI_PASSIVE
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
    # As Go does: a name that has both means IPv4.
    family, _, _, _, place = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, place


def _has_ipv6() -> bool:
    if not socket.has_dualstack_ipv6():
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as trial:
            trial.bind(("::1", 0))
    except OSError:
        return False
    return True


def _clear(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is a file of that name, and it is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(1)
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                path.unlink()
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _shown(address: Address) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another process is listening there; stop it, or choose another address"
    return (error.strerror or str(error)).lower()
