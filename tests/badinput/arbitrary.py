"""Requests of every kind, as hypothesis makes them: of parts that exist, that do not, and that cannot.

Half of them are meant for some operation of the API and have what it reads; of the others any part may be anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hypothesis import assume
from hypothesis import strategies as st

from app.domain.manifests import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.http.support import ABSENT
from tests.support.registry import digest_of, image, index

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE: Final = image(b"a layer")
OTHER: Final = image(b"another layer")
LIST: Final = index(IMAGE)
BLOB: Final = digest_of(b"a layer")
UPLOAD: Final = "00000000-0000-4000-8000-000000000000"
Texts = st.SearchStrategy[str]


@dataclass(frozen=True)
class Request:
    """As it is sent. `{session}` in the path stands for an upload session of `a/b`."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes

    def target(self, session: str) -> str:
        """Path and query."""
        path = self.path.replace("{session}", session)
        return f"{path}?{self.query}" if self.query else path


def mostly(usual: Sequence[str], odd: Sequence[str]) -> Texts:
    """One of `usual` in two cases of three."""
    return st.integers(0, 2).flatmap(lambda number: st.sampled_from(usual if number else odd))


ODD: Final = [
    "..", "%00", "%0d%0aX:%20y", "%ff", "%c0%af", "%", "", "x" * 5000, "%252e", "'", "sha256:", "\x7f", "~", "{}",
    "%e2%80%ae", "1", "-1",
]  # fmt: skip
names = mostly(["a/b"] * 3 + ["other"], [
    "a", "never/pushed", "A", "..", "a%2fb", "%2e%2e", "a%00", "a//b", "", "_catalog", "blobs", "a/blobs/uploads",
    "x" * 256, "%ff",
])  # fmt: skip
digests = mostly(
    [BLOB, digest_of(b"{}"), IMAGE.digest(), LIST.digest(), OTHER.digest(), digest_of(b"new content")],
    [ABSENT, IMAGE.digest("sha512"), BLOB.upper(), BLOB[:-1], "md5:abc", "sha256:..", *ODD],
)
references = digests | mostly(["latest", "list"], ["none", "-x", "a" * 129, *ODD])
sessions = mostly(["{session}"], [UPLOAD, "x", UPLOAD.upper(), *ODD])
numbers = mostly(["0", "1", "2"], ["-1", "x", "", "9" * 18, "9" * 19, "%00", "%D9%A3", "1.0", "01", *ODD])
odd = st.sampled_from(ODD)

n, last = numbers.map("n={}".format), (numbers | references).map("last={}".format)
digest = digests.map("digest={}".format)
mount = st.builds("mount={}&from={}".format, digests, names)
tag = references.map("tag={}".format)
algorithm = mostly(["sha256", "sha512"], ["md5", *ODD]).map("digest-algorithm={}".format)
artifact_type = odd.map("artifactType={}".format)
parameters = n | last | digest | mount | tag | algorithm | artifact_type | odd

manifest = st.builds("/v2/{}/manifests/{}".format, names, references)
blob = st.builds("/v2/{}/blobs/{}".format, names, digests)
uploads = st.builds("/v2/{}/blobs/uploads/".format, names)
upload = st.builds("/v2/{}/blobs/uploads/{}".format, names, sessions)
tags = st.builds("/v2/{}/tags/list".format, names)
referrers = st.builds("/v2/{}/referrers/{}".format, names, digests)
fixed = st.sampled_from(
    ["/", "/v2/", "/v2", "/v2/_catalog", "//", "/v2//", "*", "/nope", "/v2/x", "/v2/../x"]
)
paths = manifest | blob | uploads | upload | tags | referrers | fixed | st.text("/v2abz._-%0F:", max_size=40)

content_types = mostly(
    [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST],
    ["text/plain", "", "x" * 300, "\xff", f"{OCI_INDEX}; a=b", "*/*"],
)
ranges = mostly(
    ["0-3", "0-10", "bytes=0-3", "bytes=-1", "bytes=0-0,2-3"],
    ["4-10", "bytes=5-", "bytes=9-1", "x", "", "\xa0", "9" * 40],
)
validators = digests.map('"{}"'.format) | odd
spoken = [
    "Host",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "Forwarded",
    "X-Request-ID",
    "Authorization",
    "Origin",
]
ignored = ["Cookie", "User-Agent", "Te", "Via", "X-HTTP-Method-Override"]
fields = (
    st.tuples(st.just("Content-Type"), content_types)
    | st.tuples(st.sampled_from(["Range", "Content-Range", "If-Range"]), ranges)
    | st.tuples(st.just("Accept"), content_types)
    | st.tuples(st.sampled_from(["If-None-Match", "If-Match"]), validators)
    | st.tuples(st.sampled_from(spoken + ignored), odd | st.just("DELETE"))
)
bodies = st.sampled_from([
    b"", b"{}", b"new content", b"a layer", IMAGE.payload, OTHER.payload, LIST.payload, IMAGE.payload[:-1],
    b"\x00" * 100, b"x" * 70_000, b"[" * 5000, b'{"schemaVersion":2}', b'{"schemaVersion":2,"manifests":[]}',
]) | st.binary(max_size=50)  # fmt: skip

# Each path with its methods and what its query may have.
MEANT: Final = [
    (manifest, ["GET", "HEAD", "PUT", "PUT", "DELETE"], tag),
    (blob, ["GET", "HEAD", "DELETE"], odd),
    (uploads, ["POST"], digest | mount | algorithm),
    (upload, ["GET", "HEAD", "PATCH", "PUT", "DELETE"], digest),
    (tags, ["GET", "HEAD"], n | last),
    (referrers, ["GET", "HEAD"], n | last | artifact_type),
    (st.just("/v2/_catalog"), ["GET", "HEAD"], n | last),
]
METHODS: Final = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "BREW",
    "get",
    "CONNECT",
]


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Any request."""
    headers, body = draw(st.lists(fields, max_size=3)), draw(bodies)
    if draw(st.booleans()):
        path, methods, known = draw(st.sampled_from(MEANT))
        query = "&".join(draw(st.lists(known, max_size=2)))
        return Request(draw(st.sampled_from(methods)), draw(path), query, headers, body)
    query = "&".join(draw(st.lists(parameters, max_size=4)))
    return Request(draw(st.sampled_from(METHODS)), "/" + draw(paths).removeprefix("/"), query, headers, body)


@st.composite
def sendable(draw: st.DrawFn) -> Request:
    """A request whose line is one: what else there is belongs to test_http1.py."""
    request = draw(requests())
    target = request.path + request.query
    assume(target.isascii() and target.isprintable() and " " not in target)
    return request
