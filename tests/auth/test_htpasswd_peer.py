"""The same file of users and the same credentials, here and at Distribution: both let in the same.

Where they do not, it is listed with the reason. An operator who comes from there finds nobody locked out.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import bcrypt
import httpx
import pytest

from app.auth.htpasswd import HtpasswdError, read_htpasswd
from app.auth.passwords import check
from app.http.wire import peer_of
from app.services.access.basic import parse_basic
from app.services.access.controller import Presented, Refused
from tests.support.needs import program
from tests.support.processes import wait_for

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

pytestmark = pytest.mark.needs("docker-registry")


def hashed(password: bytes, prefix: str = "2y", cost: int = 4) -> bytes:
    made = bcrypt.hashpw(password[:72], b"$2b$%02d$abcdefghijklmnopqrstuu" % cost)
    return made.replace(b"$2b$", f"${prefix}$".encode())


def basic(user: bytes, password: bytes) -> str:
    return "Basic " + base64.b64encode(user + b":" + password).decode()


RIGHT: Final = b"wonder"
ALICE: Final = b"alice:" + hashed(RIGHT)
LOGIN: Final = basic(b"alice", RIGHT)
ENCODED: Final = LOGIN.removeprefix("Basic ")
LONG: Final = b"alice:" + hashed(b"x" * 72)

Case = tuple[bytes, str]
ALIKE: Final[dict[str, Case]] = {
    "a line": (ALICE + b"\n", LOGIN),
    "no line end": (ALICE, LOGIN),
    "line ends of Windows": (ALICE + b"\r\nbob:x\r\n", LOGIN),
    "line ends of old Macs": (ALICE + b"\rbob:" + hashed(RIGHT), LOGIN),
    "line ends of old Macs, the second user": (ALICE + b"\rbob:" + hashed(RIGHT), basic(b"bob", RIGHT)),
    "spaces around it": (b" \t" + ALICE + b" \t\n", LOGIN),
    "odd spaces around it": (b"\xc2\xa0" + ALICE + b"\xc2\x85\n", LOGIN),
    "a space before the colon": (b"alice :" + hashed(RIGHT), LOGIN),
    "a space behind the colon": (b"alice: " + hashed(RIGHT), LOGIN),
    "comments and blank lines": (b"# users\n\n \n" + ALICE, LOGIN),
    "a comment that looks like a user": (b"#" + ALICE, basic(b"#alice", RIGHT)),
    "twice, the last": (b"alice:" + hashed(b"old") + b"\n" + ALICE, LOGIN),
    "twice, the first": (b"alice:" + hashed(b"old") + b"\n" + ALICE, basic(b"alice", b"old")),
    "twice, the last no hash": (ALICE + b"\nalice:plain", LOGIN),
    "a colon behind the hash": (ALICE + b":a comment", LOGIN),
    "a comment behind the hash": (ALICE + b" # since June", LOGIN),
    "a letter behind the hash": (ALICE + b"a", LOGIN),
    "a hash that is cut": (ALICE[:-1], LOGIN),
    "a hash that is another": (ALICE[:-1] + b"!", LOGIN),
    **{f"prefix {prefix}": (b"alice:" + hashed(RIGHT, prefix), LOGIN) for prefix in ("2a", "2b", "2x", "3a")},
    **{f"cost {cost}": (b"alice:" + hashed(RIGHT, cost=cost), LOGIN) for cost in (5, 10)},
    "cost 3": (ALICE.replace(b"$04$", b"$03$"), LOGIN),
    "cost 32": (ALICE.replace(b"$04$", b"$32$"), LOGIN),
    "MD5": (b"alice:$apr1$zk1Ebvg6$jhNoFZV4Ap4zIVeVwGAFy.", LOGIN),
    "SHA": (b"alice:{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc=", LOGIN),
    "plain text": (b"alice:wonder", LOGIN),
    "no hash": (b"alice:", basic(b"alice", b"")),
    "an empty file": (b"", LOGIN),
    "another name's case": (ALICE, basic(b"ALICE", RIGHT)),
    "a wrong password": (ALICE, basic(b"alice", b"wonde")),
    "an empty password": (ALICE, basic(b"alice", b"")),
    "a NUL behind the password": (ALICE, basic(b"alice", RIGHT + b"\0")),
    "a colon in the password": (b"alice:" + hashed(b"a:b"), basic(b"alice", b"a:b")),
    "a name and a password that are no ASCII": (
        "zoë:".encode() + hashed("wöndér".encode()),
        basic("zoë".encode(), "wöndér".encode()),
    ),
    "72 bytes": (LONG, basic(b"alice", b"x" * 72)),
    "73 bytes": (LONG, basic(b"alice", b"x" * 73)),
    "71 bytes": (LONG, basic(b"alice", b"x" * 71)),
    "scheme in lower case": (ALICE, f"basic {ENCODED}"),
    "no scheme": (ALICE, ENCODED),
    "another scheme": (ALICE, f"Bearer {ENCODED}"),
    "scheme alone": (ALICE, "Basic"),
    "a tab behind the scheme": (ALICE, f"Basic\t{ENCODED}"),
    "no colon": (ALICE, "Basic " + base64.b64encode(b"alice").decode()),
    "something behind the base64": (ALICE, LOGIN + "!"),
}
# What Distribution answers, what is answered here, and why.
OTHERWISE: Final[dict[str, tuple[Case, int, int | None, str]]] = {
    "a file from Windows' editor": ((b"\xef\xbb\xbf" + ALICE, LOGIN), 401, 200, "its mark is no part of a name"),
    "no user": ((b":" + hashed(RIGHT), basic(b"", RIGHT)), 200, 401, "nobody has no name"),
    "an empty password": ((b"alice:" + hashed(b""), basic(b"alice", b"")), 200, 401, "that is no password"),
    "a NUL": ((ALICE, basic(b"alice", RIGHT + b"\0" + RIGHT)), 200, 401, "bcrypt goes round: it is another one"),
    "2000 bytes": ((LONG, basic(b"alice", b"x" * 2000)), 200, 401, "passwords have at most 1024 bytes"),
    "Latin-1": ((b"alice:" + hashed(b"w\xf6"), basic(b"alice", b"w\xf6")), 200, 401, "credentials are UTF-8"),
    "the salt's last bits": ((ALICE[:34] + b"v" + ALICE[35:], LOGIN), 200, 401, "refused by the library; logged"),
    "a line without a colon": ((b"x\n" + ALICE, LOGIN), 400, None, "said at start; later the old users stay"),
}  # fmt: skip


@contextmanager
def peer(directory: Path, users: Path) -> Generator[str]:
    """Distribution with that file; its URL."""
    config, log = directory / "peer.json", directory / "peer.log"
    tree: dict[str, Any] = {
        "version": "0.1",
        "log": {"formatter": "text"},
        "storage": {"inmemory": {}},
        "http": {"addr": "127.0.0.1:0"},
        "auth": {"htpasswd": {"realm": "ours", "path": str(users)}},
    }
    config.write_text(json.dumps(tree))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(program("docker-registry")), "serve", config], stdout=output, stderr=output
        )
    try:
        found = wait_for(lambda: re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text()))
        assert isinstance(found, re.Match), log.read_text()
        yield f"http://{found[1]}"
    finally:
        process.kill()
        process.wait()


def ours(users: Path, authorization: str) -> int | None:
    """The status of `/v2/`; None if the file is refused as a whole."""
    try:
        read = read_htpasswd(users)
        login = parse_basic(Presented((authorization,), peer_of, {}).credentials("basic"))
    except HtpasswdError:
        return None
    except Refused:
        return 401
    return 401 if check(read.hashes_of(login.name), login.password) is None else 200


def test_htpasswd_when_distribution_has_the_same_then_lets_in_the_same(tmp_path: Path) -> None:
    users = tmp_path / "htpasswd"
    users.write_bytes(ALICE)
    wanted: list[tuple[str, Case, int | None, int | None]] = [
        *((name, case, None, None) for name, case in ALIKE.items()),
        *((name, case, there, here) for name, (case, there, here, _) in OTHERWISE.items()),
    ]
    seen: set[int | None] = set()
    with peer(tmp_path, users) as url, httpx.Client(trust_env=False) as client:
        for number, (name, (content, authorization), there, here) in enumerate(wanted, 1):
            users.write_bytes(content)
            os.utime(
                users, (number, number)
            )  # It goes by the time alone, and may not see a second change in it.
            found = client.get(f"{url}/v2/", headers={"Authorization": authorization}).status_code
            mine = ours(users, authorization)
            assert (found, mine) == ((found, found) if there is None else (there, here)), name
            seen |= {found, mine}
    assert seen == {200, 401, 400, None}
