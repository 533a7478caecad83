"""Request targets as bytes, through the real server: none of them leads around the access table.

Each is sent with every method, without credentials and with a token for another repository, over HTTP/1.1 and HTTP/2,
with and without TLS.
What lies in a repository that the caller may not see never comes back, nothing there changes, and below 300 nothing is
answered but the open door. Stands for Nexus CVE-2024-4956 (`%2f..`), and for every proxy and server that read a path
in another way than whoever checked it.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.badinput.frames import converse, headers, request
from tests.badinput.support import differences
from tests.badinput.wire import PRESCRIBED, Attacked
from tests.security.support import Outside, entry, running
from tests.server.certificates import root
from tests.support.effort import EFFORT
from tests.support.postgres import connected
from tests.support.registry import digest_of, image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from app.store.engine import Target

TRY: Final = settings(
    max_examples=40 * EFFORT,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
)
METHODS: Final = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS")
CANARY: Final = b"what only its owners read"
BLOB: Final = b"a layer of " + CANARY
IMAGE: Final = image(BLOB, annotations={"note": CANARY.decode()})
SECRET_DIGESTS: Final = (digest_of(BLOB), IMAGE.digest())
OWNED: Final = "team/app"
# Everything of one repository that a request could change.
_OF_REPOSITORY: Final = """
    SELECT (SELECT string_agg(m::text, '|' ORDER BY m::text) FROM manifests AS m WHERE m.repository_id = r.id) AS a,
        (SELECT string_agg(t::text, '|' ORDER BY t::text) FROM tags AS t WHERE t.repository_id = r.id) AS b,
        (SELECT string_agg(l::text, '|' ORDER BY l::text) FROM repository_blobs AS l WHERE l.repository_id = r.id) AS c,
        (SELECT string_agg(u::text, '|' ORDER BY u::text) FROM blob_uploads AS u WHERE u.repository_id = r.id) AS d
    FROM repositories AS r WHERE r.path = $1
"""


@dataclass(frozen=True)
class Guarded:
    """A real server with one private image and one upload under way; `stranger` is a token for something else."""

    server: Attacked
    session: str
    stranger: str

    def send(self, target: bytes, credentials: str) -> list[tuple[str, int, bytes]]:
        """The target with every method on one connection, up to the first that ends it. Method, status, answer."""
        payload = b"".join(_request(method, target, credentials) for method in METHODS)
        heads = [method == "HEAD" for method in METHODS]
        # TLS has no half of a connection.
        exchange = self.server.send(
            payload, answers=len(METHODS), ends=not self.server.is_encrypted, heads=heads
        )
        finals = [reply for reply in exchange.replies if reply.status >= 200]
        return [
            (method, reply.status, repr(reply.headers).encode() + reply.body)
            for method, reply in zip(METHODS, finals, strict=False)
        ]

    def send_in_frames(self, target: bytes, credentials: str) -> list[tuple[str, int, bytes]]:
        """The same in HTTP/2."""
        more = [("authorization", credentials)] if credentials else []
        with self.server.connect("h2") as connection:
            streams = {2 * number + 1: method for number, method in enumerate(METHODS)}
            frames = b"".join(
                headers(stream, request(method, target, *more, scheme=self.server.scheme))
                for stream, method in streams.items()
            )
            outcome = converse(connection, frames, wanted=streams)
        return [
            (method, outcome.statuses[stream], outcome.bodies.get(stream, b""))
            for stream, method in streams.items()
            if stream in outcome.statuses
        ]

    def owned(self) -> Any:
        async def look() -> Any:
            async with connected(self.server.target) as connection:
                return tuple(await connection.fetchrow(_OF_REPOSITORY, OWNED))

        return asyncio.run(look())


def _request(method: str, target: bytes, credentials: str) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method.encode(), target), b"Host: registry.test"]
    lines += [b"Authorization: %b" % credentials.encode()] if credentials else []
    body = b"{}" if method in {"PUT", "POST", "PATCH"} else b""
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", b""]) + body


@pytest.fixture(scope="module", params=["plain", "encrypted"])
def guarded(
    migrated_database: Any,
    postgres_server: Target,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Guarded]:
    """Needs the template that `migrated_database` has made."""
    name = "paths_" + getattr(request.config, "workerinput", {}).get("workerid", "alone")
    directory = tmp_path_factory.mktemp("paths")
    outside = Outside(directory)
    authority, settings = None, {"HTTP_H2C_ENABLED": "true"}
    if request.param == "encrypted":
        authority, settings = encryption(directory)
    with running(postgres_server, name, directory, outside.auth(), **settings) as served:
        right = {"Authorization": f"Bearer {outside.token(entry(OWNED, '*'))}"}
        trusted = ssl.create_default_context(cafile=authority)
        with served.apart(headers=right, verify=trusted) as owner:
            for blob in IMAGE.blobs:
                digest = digest_of(blob)
                owner.client.post(f"{owner.url}/v2/{OWNED}/blobs/uploads/?digest={digest}", content=blob)
            owner.put(OWNED, IMAGE, "latest")
            opened = owner.client.post(f"{owner.url}/v2/{OWNED}/blobs/uploads/")
            session = opened.headers["Location"].rpartition("/")[2]
            server = Attacked(served, replace(postgres_server, database=name), authority)
            yield Guarded(server, session, f"Bearer {outside.token(entry('other/app', '*'))}")
            pulled = owner.client.get(f"{owner.url}/v2/{OWNED}/blobs/{SECRET_DIGESTS[0]}")
            assert pulled.content == BLOB


def encryption(directory: Path) -> tuple[Path, dict[str, str]]:
    """The certificate of an authority, and the settings of a server that it vouches for."""
    vouching = root("authority")
    authority = directory / "authority.pem"
    authority.write_bytes(vouching.pem)
    files = vouching.issue("server").written(directory, "server")
    return authority, {f"HTTP_TLS_{key.upper()}": file for key, file in files.items()}


# The targets. `{session}` stands for the upload's id.

WANTED: Final = (
    *(b"/v2/team/app/manifests/latest", b"/v2/team/app/blobs/" + SECRET_DIGESTS[0].encode(), b"/v2/_catalog"),
    *(b"/v2/team/app/tags/list", b"/v2/team/app/blobs/uploads/", b"/v2/team/app/blobs/uploads/{session}"),
    b"/v2/team/app/manifests/" + SECRET_DIGESTS[1].encode(),
    b"/v2/team/app/referrers/" + SECRET_DIGESTS[1].encode(),
    b"/v2/",
)  # fmt: skip
BEFORE: Final = (
    *(b"/", b"//", b"/.", b"/..", b"/%2e", b"/%2e%2e", b"/x/.."),
    *(b"/x/%2e%2e", b"\\", b"/\\", b"/%5c", b"/;", b"/;x=y"),
    *(b"http://registry.test", b"http://evil.test", b"http://x?", b"http://x#", b"*?://x", b"/?://x", b"://x"),
    *(b"https://a:b@registry.test:5000", b"HTTP://x", b"file://", b"x:"),
    *(b"//registry.test", b"http:/", b"http:///"),
    *(b"http://registry.test/../", b"/v2", b"/v2/..", b"/v2/..;", b"/V2/.."),
    *(b"/v2/other/app/../..", b"/v2/other/app/..%2f.."),
    *(b"/v2/other/app/%2e%2e/%2e%2e", b"/v2/other/app/manifests/../.."),
    b"/v2/other/app/manifests/latest/../../../../..",
    *(b"/auth/token/..", b"/auth/token/..;", b"/auth/token%2f..", b"/?"),
    *(b"/v2/other/app/tags/list?", b"/v2/other/app/tags/list%3f"),
    *(b"/v2/other/app/tags/list#", b"/v2/other/app/tags/list;"),
    *(b"*", b"", b"%2f", b"%00", b"\x00", b"\t", b"\xc0\xaf"),
    *(b"/%c0%ae%c0%ae", b"/%e0%80%ae", b"\xef\xbb\xbf", b"\xa0"),
)  # fmt: skip
BEHIND: Final = (
    *(b"/", b"//", b"/.", b"/..", b"/./", b"/%2e", b"%2f"),
    *(b"%2f..", b"?", b"??", b"?x", b"?x=/v2/", b"#", b"#/", b";"),
    *(b";x", b";/../", b"/..;/", b".", b"%2e", b"..", b"%00"),
    *(b"%0a", b"%0d%0aX:y", b"%20", b"+", b"~", b"*", b".json"),
    *(b"\\", b"%5c..", b"&x", b"%3f", b"%23", b"%ff", b"\xff", b"%"),
    *(b"%2", b"%u002f", b"?ns=other/app", b"?from=x&mount=y"),
    *(b"/../../../other/app/tags/list", b"/../../../../", b"/../../..", b"?../../../..", b"%2e%2e%2f" * 5),
)  # fmt: skip
SLASHES: Final = (
    *(b"//", b"/./", b"/x/../", b"%2f", b"%2F", b"%252f", b"\\"),
    *(b"%5c", b"/;x/", b"/%2e/", b"/..;/", b"%c0%af", b"\xc0\xaf"),
    *(b"%e0%80%af", b"/.%00/", b"/ /", b"/%20/", b"/\xa0/", b"///", b"\xe2\x88\x95", b"%ef%bc%8f"),
)  # fmt: skip


def changed(target: bytes, number: int, slash: bytes) -> bytes:
    """The target with its slash of that number written in another way."""
    parts = target.split(b"/")
    place = 1 + number % (len(parts) - 1)
    return b"/".join(parts[:place]) + slash + b"/".join(parts[place:])


def respelt(target: bytes, number: int, how: int) -> bytes:
    """The target with one of its letters written in another way."""
    letters = [match.start() for match in re.finditer(rb"[a-z]", target)]
    if not letters:
        return target
    place = letters[number % len(letters)]
    letter = target[place : place + 1]
    others = (
        b"%%%02x" % letter[0],
        letter.upper(),
        b"%%25%02x" % letter[0],
        letter + b"%00",
        b"%%%02X" % letter.upper()[0],
        b"\xef\xbd" + bytes([letter[0] + 0x20]),
    )
    return target[:place] + others[how % len(others)] + target[place + 1 :]


PLACES: Final = st.integers(0, 40)
CHANGES: Final = st.one_of(
    st.tuples(st.just("before"), st.sampled_from(BEFORE), PLACES),
    st.tuples(st.just("behind"), st.sampled_from(BEHIND), PLACES),
    st.tuples(st.just("slash"), st.sampled_from(SLASHES), PLACES),
    st.tuples(st.just("letter"), st.just(b""), PLACES),
    st.tuples(st.just("insert"), st.binary(min_size=1, max_size=3), PLACES),
)


def made(target: bytes, changes: Sequence[tuple[str, bytes, int]]) -> bytes:
    for kind, text, number in changes:
        if kind == "before":
            target = text + target
        elif kind == "behind":
            target += text
        elif kind == "slash" and b"/" in target:
            target = changed(target, number, text)
        elif kind == "letter":
            target = respelt(target, number, number)
        elif kind == "insert":
            place = number % (len(target) + 1)
            target = target[:place] + text + target[place:]
    return target


def check(guarded: Guarded, target: bytes, *, in_frames: bool) -> None:
    target = target.replace(b"{session}", guarded.session.encode())
    send = guarded.send_in_frames if in_frames else guarded.send
    for method, status, answer in send(target, ""):
        assert status < 500 or status in PRESCRIBED, (target, method, status, answer)
        # `/` is open, and tells nothing.
        assert status >= 300 or (method in {"GET", "HEAD"} and is_open(target)), (target, method, status)
        assert CANARY not in answer, (target, method)
    for method, status, answer in send(target, guarded.stranger):
        assert status < 500 or status in PRESCRIBED, (target, method, status, answer)
        assert CANARY not in answer, (target, method)
        if status < 300:
            assert not any(digest.encode() in answer for digest in SECRET_DIGESTS), (target, method, answer)
            assert OWNED.encode() not in answer, (target, method, answer)
            assert guarded.session.encode() not in answer, (target, method)


def is_open(target: bytes) -> bool:
    """Whether the path is `/`, in whatever spelling."""
    path = re.sub(rb"\A[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*/?", b"/", target).partition(b"?")[0]
    return path.lower().replace(b"%2f", b"/") == b"/"


@pytest.mark.parametrize("in_frames", [False, True])
def test_target_when_it_is_any_bytes_leads_nowhere_that_the_caller_may_not_go(
    guarded: Guarded, in_frames: bool
) -> None:
    before, owned = guarded.server.holdings(), guarded.owned()
    workers = guarded.server.served.workers()
    errors = len(guarded.server.served.errors.read_bytes())
    # Each trick once; which of the targets it is played on goes round.
    tricks = [
        *(("before", text, 0) for text in BEFORE),
        *(("behind", text, 0) for text in BEHIND),
        *(("slash", text, number) for number, text in enumerate(SLASHES * 2)),
        *(("letter", b"", number) for number in range(12)),
    ]
    if guarded.server.is_encrypted:
        # Paths are read in the same way: some will do to see that.
        tricks = tricks[::5]
    for number, trick in enumerate(tricks):
        check(guarded, made(WANTED[number % 2], [trick]), in_frames=in_frames)
    for target in WANTED:
        check(guarded, target, in_frames=in_frames)

    @TRY
    @given(target=st.sampled_from(WANTED), changes=st.lists(CHANGES, min_size=1, max_size=3))
    @example(target=b"/", changes=[])
    def attempt(target: bytes, changes: list[tuple[str, bytes, int]]) -> None:
        check(guarded, made(target, changes)[:2000], in_frames=in_frames)

    if not guarded.server.is_encrypted:
        attempt()
    assert guarded.owned() == owned
    # The stranger may write, where it has the right to; in no other table does anything come or go.
    other = (
        "blob_uploads",
        "repositories",
        "gc_",
        "file ",
        "blobs",
        "layers",
        "manifests",
        "tags",
        "repository_",
    )
    changed = differences(before, guarded.server.holdings())
    assert [name for name in changed if not name.startswith(other)] == []
    assert guarded.server.served.workers() == workers
    said = guarded.server.served.errors.read_bytes()[errors:]
    assert b"ERROR" not in said, said.decode(errors="replace")[:3000]
    assert CANARY not in said


def test_target_when_nobody_says_who_they_are_changes_no_row_and_no_file(guarded: Guarded) -> None:
    before = guarded.server.holdings()
    for target in WANTED:
        for trick in (*BEFORE[:12], *SLASHES[:4]):
            guarded.send(
                made(target, [("before", trick, 0)]).replace(b"{session}", guarded.session.encode()), ""
            )
        answers = guarded.send(target.replace(b"{session}", guarded.session.encode()), "")
        assert {status for _, status, _ in answers} <= {401, 405}
        assert len(answers) == len(METHODS)
    assert differences(before, guarded.server.holdings()) == []
