"""Run as a script: changes who it is, ties its life to its parent's, and turns into the program it was given.

    python -I -S launcher.py PARENT SIGNAL IDENTITY DIRECTORY PROGRAM [ARGUMENT…]

A small process of its own, because none of this can be done safely between fork and exec in a program that
has threads. It may import nothing but the standard library, and little of that: it runs before each program
of the embedded PostgreSQL. On failure it writes one line to standard error and ends with REFUSED.

IDENTITY is one of
    self                  who we are already
    namespace:UID:GID     a user namespace in which we are called UID: outside nothing has changed, our files
                          stay ours, and no capability is left
    user:UID:GID          that user, if we are root
    guest:UID:GID         that user, who may besides pass directories that are closed to it (CAP_DAC_OVERRIDE)
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

REFUSED: Final = 126

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_SECUREBITS: Final = 28
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_SECBIT_NO_SETUID_FIXUP: Final = 4
_CAP_DAC_OVERRIDE: Final = 1
_CAPABILITY_VERSION_3: Final = 0x20080522
_CLONE_NEWUSER: Final = 0x10000000


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library; raise OSError if it fails."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _prctl(option: int, *values: int) -> None:
    padded = (*values, 0, 0, 0, 0)[:4]
    _call("prctl", option, *(ctypes.c_ulong(value) for value in padded))


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _enter_namespace(uid: int, gid: int) -> None:
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    _call("unshare", _CLONE_NEWUSER)
    # The kernel takes a group map from an unprivileged process only once setgroups is off for good.
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {outer_uid} 1")
    _write("/proc/self/gid_map", f"{gid} {outer_gid} 1")


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _become_guest(uid: int, gid: int) -> None:
    # Keeps the capabilities over the change of user, and lets access(2), by which PostgreSQL looks for its own
    # programs, go by them too.
    _prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
    _become(uid, gid)
    wanted = 1 << _CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # effective, permitted, inheritable: capabilities 0 to 31, then 32 to 63
    sets = (ctypes.c_uint32 * 6)(wanted, wanted, wanted, 0, 0, 0)
    _call("capset", header, sets)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE)


def _assume(identity: str) -> None:
    kind, *ids = identity.split(":")
    change = {"namespace": _enter_namespace, "user": _become, "guest": _become_guest}.get(kind)
    if change is not None:
        uid, gid = (int(text) for text in ids)
        change(uid, gid)


def _die_with_parent(parent: int, signal: int) -> None:
    if sys.platform != "linux":
        return
    # After the change of identity, which clears it. A parent that died before this line sends no signal.
    _prctl(_PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:
        raise OSError("the process that asked for it has ended")


def main(arguments: list[str]) -> None:
    """Do what the module's docstring says. Returns only on failure, after saying why."""
    parent, signal, identity, directory, program, *rest = arguments
    try:
        _assume(identity)
        _die_with_parent(int(parent), int(signal))
        os.chdir(directory)
        os.execv(program, [program, *rest])  # noqa: S606  (no shell is the point)
    except OSError as error:
        sys.stderr.write(f"{error}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.exit(REFUSED)
