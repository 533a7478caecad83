"""Every parser of what clients send, under one property: a value that reads back as it came, or a refusal below 500.

Nothing else comes out, within a bounded time, and a refusal says something that fits into an answer. The texts are
made of what has broken parsers before; what each parser means is tested in tests/unit and tests/http/test_wire.py.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from app.domain.digest import Algorithm, Digest
from app.domain.errors import RegistryError
from app.domain.limits import SIZE_BYTES_MAX
from app.domain.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    Manifest,
    parse_manifest,
)
from app.domain.names import parse_name, parse_reference, parse_tag
from app.domain.negotiation import Accepted, linux_amd64_child
from app.domain.ranges import parse_chunk_range, parse_ranges
from app.http.wire import Query, content_length, parse_upload
from tests.badinput.support import DETAIL_CHARS_MAX
from tests.support.effort import EFFORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRY = settings(max_examples=60 * EFFORT, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Far more than any of them takes, on any machine.
SECONDS_MAX = 5.0

PIECES: Final = [
    "", "a", "Z", "0", "9", "-", "_", ".", "..", "/", "//", ":", "@", "=", ",", ";", "%", "%2f", "%00", "+", "*", "?",
    "#", "&", " ", "\t", "\n", "\r\n", "\x00", "\x0b", "\x7f", "\x85", "\xa0", "\xad", "\xb2", "\xe9", "\xff", "\u0131",
    "\u0660", "\u200b", "\u202e", "\u2028", "\u212a", "\ud800", "\ufeff", "\uff10", "\uff41", "\U0001d7d8", "sha256:",
    "sha512:", "md5:", "0" * 64, "f" * 128, "A" * 64, "latest", "bytes=", "0-", "-1", "1e9", "0x10", "1_0", "NaN",
    "9" * 18, "9" * 19, "9" * 400, "a" * 256, "a/" * 128, "*/*", "application/*", ";q=0", OCI_MANIFEST, DOCKER_LIST,
    "n=",
    "last=", "digest=", "00000000-0000-4000-8000-000000000000",
]  # fmt: skip
Texts = st.SearchStrategy[str]
pieces = st.sampled_from(PIECES)
REPEATED: Texts = st.tuples(pieces, st.integers(1, 5000)).map(lambda pair: pair[0] * pair[1])
TEXTS: Texts = st.lists(pieces | st.text(max_size=4), max_size=12).map("".join) | REPEATED


@st.composite
def nearly(draw: st.DrawFn, *valid: str) -> str:
    """What the parser takes, with at most one thing wrong: the texts that a check forgotten lets through."""
    text = draw(st.sampled_from(valid))
    at = draw(st.integers(0, len(text)))
    change = draw(st.integers(0, 4))
    if change == 0:
        raised = text[:8] + text[8:].upper()
        return draw(
            st.sampled_from([raised, text.upper(), text * 2, text[:-1], text[1:], text[::-1], f" {text}"])
        )
    if change == 1:
        return text + draw(pieces)
    return text[:at] + draw(pieces | st.characters()) + text[at + draw(st.integers(0, 2)) :]


def as_header(text: str) -> str:
    """What Starlette makes of a header's bytes."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def read_chunk_range(text: str) -> str:
    start, stop = parse_chunk_range(text)
    assert 0 <= start < stop <= SIZE_BYTES_MAX
    first, last = text.strip(" \t").split("-")
    assert (int(first), int(last) + 1) == (start, stop)
    return text


def read_length(text: str) -> str:
    size = content_length(Headers({"content-length": text}))
    return text if size == int(text) else ""


def read_ranges(text: str) -> str:
    for size in (0, 1, 10, 2**63 - 1):
        found = parse_ranges(text, size)
        assert found is None or all(0 <= start < stop <= size for start, stop in found)
        assert found is None or len(found) == 1 or sum(stop - start for start, stop in found) <= size
    return text


def read_accept(text: str) -> str:
    accepted = Accepted([text, text])
    for media_type in MANIFEST_TYPES:
        refusal = accepted.refusal(media_type)
        named = media_type in text
        assert refusal is None or (not named or f"{media_type}" not in [t.strip() for t in text.split(",")])
        assert refusal is None or refusal.isascii()
        accepted.wants_child_of(media_type)
    return text


def read_query(text: str) -> str:
    raw = text.encode("utf-8", "surrogatepass")
    query = Query(raw)
    assert 0 <= query.count(7) < 10**18
    last = query.last()
    assert "\0" not in last
    last.encode()
    for key in ("digest", "mount", "from", "tag", "artifactType"):
        first, every = query.first(key), query.all(key)
        assert (first is None) == (every == [])
        assert first is None or first == every[0]
    return text


@dataclass(frozen=True)
class Parser:
    """How to read a text, and to write what was read; `texts` are those that can come."""

    read: Callable[[str], str]
    texts: Texts
    is_address: bool = False


def is_safe(text: str) -> bool:
    """Whether it may stand in a URL, a header, a line of a log and a statement as it is."""
    return text.isascii() and text.isprintable() and not set(text) & set(" %?#&\\'\"<>") and len(text) <= 255


HEADERS: Final = frozenset({"length", "chunk range", "ranges", "accept"})
UPLOAD: Final = "00000000-0000-4000-8000-00000000000f"
DIGESTS: Final = (f"sha256:{'0a' * 32}", f"sha512:{'f9' * 64}")
PARSERS: dict[str, Parser] = {
    "name": Parser(parse_name, nearly("a", "a/b", "a.b/c_d/e__f/g-h"), is_address=True),
    "tag": Parser(parse_tag, nearly("a", "latest", "_A.b-c", "x" * 128), is_address=True),
    "reference": Parser(lambda text: str(parse_reference(text)), nearly("latest", *DIGESTS), is_address=True),
    "digest": Parser(lambda text: str(Digest.unpack(Digest.parse(text).packed)), nearly(*DIGESTS), is_address=True),
    "algorithm": Parser(lambda text: Algorithm.parse(text).label, nearly("sha256", "sha512"), is_address=True),
    "session": Parser(lambda text: str(parse_upload(text)), nearly(UPLOAD), is_address=True),
    "length": Parser(read_length, nearly("0", "17", "9" * 18).map(as_header)),
    "chunk range": Parser(read_chunk_range, nearly("0-0", "5-10", f"0-{'9' * 18}").map(as_header)),
    "ranges": Parser(read_ranges, nearly("bytes=0-0", "bytes=-5,2-", "bytes=1-2, 4-9,12-").map(as_header)),
    "accept": Parser(read_accept, nearly("*/*", OCI_MANIFEST, f"{DOCKER_LIST}, {OCI_INDEX};q=0.5").map(as_header)),
    "query": Parser(read_query, nearly("n=1", "n=10&last=a", "digest=x&tag=a&tag=b", "&&n=&last=%25")),
}  # fmt: skip


@pytest.mark.parametrize("name", PARSERS)
def test_parser_when_given_any_text_then_reads_back_or_refuses(name: str) -> None:
    parser = PARSERS[name]

    @TRY
    @given(parser.texts | TEXTS.map(as_header if name in HEADERS else str))
    def check(text: str) -> None:
        began = time.process_time()
        try:
            assert parser.read(text) == text
            assert not parser.is_address or is_safe(text)
        except RegistryError as error:
            assert 400 <= error.status < 500  # noqa: PT017
            assert error.detail  # noqa: PT017
            # What does not fit into an answer, or into a line of a log, is cut.
            assert len(json.dumps(error.documents())) < DETAIL_CHARS_MAX * 2  # noqa: PT017
        assert time.process_time() - began < SECONDS_MAX

    check()


# Valid manifests of every kind, and what becomes of them.
hexes = st.binary(min_size=32, max_size=32).map(bytes.hex)
digests = hexes.map("sha256:".__add__) | hexes.map(lambda text: f"sha512:{text}{text}")
media_types = st.sampled_from([
    "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip", "text/plain", "a",
    "application/vnd.oci.image.layer.nondistributable.v1.tar", "application/vnd.oci.empty.v1+json", "x/" + "y" * 253,
])  # fmt: skip
strings = st.text(max_size=8)
notes: st.SearchStrategy[dict[str, str]] = st.dictionaries(strings, strings, max_size=3)
platforms = st.fixed_dictionaries(
    {"os": strings, "architecture": strings},
    optional={"variant": strings, "os.features": st.lists(strings, max_size=2)},
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | strings,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3),
    max_leaves=5,
)


def descriptors(types: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"mediaType": types, "digest": digests, "size": st.integers(0, 2**40)},
        optional={
            "urls": st.lists(strings, max_size=2),
            "annotations": notes,
            "platform": platforms,
            "data": strings,
            "artifactType": strings,
            "org.example.unknown": anything,
        },
    )


def extras() -> dict[str, st.SearchStrategy[Any]]:
    return {
        "annotations": notes,
        "artifactType": media_types,
        "subject": descriptors(st.sampled_from([OCI_MANIFEST, OCI_INDEX, "text/plain"])),
        "org.example.unknown": anything,
    }


images = st.fixed_dictionaries(
    {
        "schemaVersion": st.just(2),
        "mediaType": st.sampled_from([OCI_MANIFEST, DOCKER_MANIFEST]),
        "config": descriptors(media_types),
        "layers": st.lists(descriptors(media_types), max_size=4),
    },
    optional=extras(),
)
indexes = st.fixed_dictionaries(
    {
        "schemaVersion": st.just(2),
        "mediaType": st.sampled_from([OCI_INDEX, DOCKER_LIST]),
        "manifests": st.lists(descriptors(st.sampled_from(sorted(MANIFEST_TYPES)) | media_types), max_size=4),
    },
    optional=extras(),
)
documents = images | indexes
EXTREMES: st.SearchStrategy[Any] = st.sampled_from(
    [2**63, 2**63 - 1, 2**64, -1, -(2**63), 0.5, True, None, "", "\0", "\ud800", [], {}]
)
# Pieces of JSON, and of what is none, to put into a manifest's text.
SPLICES = st.sampled_from([
    b"", b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"\x00", b"\xff", b"\xed\xa0\x80",
    b"\xef\xbb\xbf", b"NaN", b"null",
    b"true", b"-1", b"1e400", b"2.0", b"9" * 400, b"9" * 5000, b"[" * 2000, b'{"a":' * 2000, b'"mediaType":"x",',
    b'"manifests":[],', b'"layers":null,',
    b'"size":-1,', b'"size":9223372036854775808,', b'"digest":"sha256:..",', b'"config":{},', b'"subject":[],', b"/*",
    b"\n" * 100,
])  # fmt: skip


@TRY
@given(documents, st.booleans(), st.integers(0, 3))
def test_manifest_when_valid_then_says_what_is_in_it(
    document: dict[str, Any], typed: bool, indent: int
) -> None:
    payload = json.dumps(document, indent=indent or None, ensure_ascii=bool(indent % 2)).encode(
        "utf-8", "replace"
    )
    content_type = f" {document['mediaType']} ;charset=utf-8" if typed else None
    found = parse_manifest(payload, content_type)
    assert (found.payload, found.media_type) == (payload, document["mediaType"])
    is_oci = found.media_type in (OCI_MANIFEST, OCI_INDEX)
    subject = document.get("subject") if is_oci else None
    assert (found.subject and str(found.subject)) == (subject and subject["digest"])
    entries = [*found.layers, *found.children]
    listed = document["manifests"] if found.media_type in INDEX_TYPES else document["layers"]
    assert sorted((str(e.digest), e.size, e.media_type) for e in entries) == sorted(
        (entry["digest"], entry["size"], entry["mediaType"]) for entry in listed
    )
    assert (found.config is None) == (found.media_type in INDEX_TYPES)
    assert all(child.media_type in MANIFEST_TYPES for child in found.children)
    if found.media_type == DOCKER_LIST:
        child = linux_amd64_child(payload)
        assert child is None or str(child) in [entry["digest"] for entry in listed]


def read_or_refused(payload: bytes, content_type: str | None) -> None:
    began = time.process_time()
    try:
        found = parse_manifest(payload, content_type)
    except RegistryError as error:
        assert 400 <= error.status < 500  # noqa: PT017
        assert isinstance(error.detail, str)  # noqa: PT017
        assert 0 < len(error.detail) < DETAIL_CHARS_MAX  # noqa: PT017
        json.dumps(error.documents())
    else:
        assert_storable(found)
    assert time.process_time() - began < SECONDS_MAX


def assert_storable(found: Manifest) -> None:
    """Every value is one that the tables take: bounded, and text without what a database refuses."""
    assert found.media_type in MANIFEST_TYPES
    assert 0 <= found.size_bytes <= SIZE_BYTES_MAX
    for entry in (*found.layers, *found.children, *([found.config] if found.config else [])):
        assert Digest.parse(str(entry.digest)) == entry.digest
        assert 0 <= entry.size <= SIZE_BYTES_MAX
        assert entry.media_type.isascii()
        assert entry.media_type.isprintable()
        assert len(entry.media_type) <= 255
    assert found.artifact_type is None or (
        found.artifact_type.isascii() and found.artifact_type.isprintable()
    )
    # JSON is stored as text of ASCII, whatever its strings hold.
    assert json.loads(json.dumps(found.annotations)) == found.annotations
    if found.media_type == DOCKER_LIST:
        linux_amd64_child(found.payload)


@TRY
@given(st.data())
def test_manifest_when_a_valid_one_is_mutated_then_is_read_or_refused(data: st.DataObject) -> None:
    payload = bytearray(json.dumps(data.draw(documents)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(payload)))
        stop = min(len(payload), start + data.draw(st.integers(0, 20)))
        payload[start:stop] = data.draw(SPLICES | st.binary(max_size=4))
    content_type = data.draw(st.none() | st.sampled_from(sorted(MANIFEST_TYPES)) | TEXTS.map(as_header))
    read_or_refused(bytes(payload), content_type)


@TRY
@given(st.data())
def test_manifest_when_a_part_of_a_valid_one_is_something_else_then_is_read_or_refused(
    data: st.DataObject,
) -> None:
    document = copy.deepcopy(data.draw(documents))
    every = list(places(document))
    known = data.draw(st.sampled_from(["size", "digest", "mediaType", "subject", "annotations", "anything"]))
    holder, key = data.draw(st.sampled_from([place for place in every if place[1] == known] or every))
    holder[key] = data.draw(anything | TEXTS | documents | EXTREMES)
    content_type = data.draw(st.none() | st.sampled_from(sorted(MANIFEST_TYPES)))
    read_or_refused(json.dumps(document).encode(), content_type)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value in a document by what holds it, a dictionary or a list, and the key there."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        pairs = list(cast("dict[str, Any]", value).items())
    elif isinstance(value, list):
        pairs = list(enumerate(cast("list[Any]", value)))
    for key, inner in pairs:
        yield value, key
        yield from places(inner)
