"""From bytes of the wire to values: queries, numbers, ids, validators. Whatever comes, there is no third outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from app.domain.errors import BlobUploadUnknown, PaginationNumberInvalid, SizeInvalid
from app.http.routes import ENDPOINTS, match
from app.http.wire import Origin, Query, content_length, matches_etag, next_link, parse_upload

if TYPE_CHECKING:
    from uuid import UUID

MODEST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# What urlencode can write: no lone surrogates.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
raw = st.binary(max_size=80) | st.text("n=last&%0a1-;+", max_size=40).map(str.encode)


@MODEST
@given(st.lists(st.tuples(text.filter(bool), text), max_size=6))
def test_query_when_written_and_read_is_the_same(pairs: list[tuple[str, str]]) -> None:
    query = Query(urlencode(pairs).encode())
    for key, _ in pairs:
        values = [value for name, value in pairs if name == key]
        assert query.all(key) == values
        assert query.first(key) == values[0]
    assert query.first("never there") is None
    assert query.all("never there") == []


@MODEST
@given(raw)
def test_query_when_any_bytes_gives_bounded_values_or_a_refusal(query_string: bytes) -> None:
    query = Query(query_string)
    try:
        assert 0 <= query.count(100) < 10**18
    except PaginationNumberInvalid as error:
        assert error.detail.keys() == {"n", "expected"}  # noqa: PT017
    try:
        last = query.last()
    except PaginationNumberInvalid as error:
        assert error.detail.keys() == {"last", "expected"}  # noqa: PT017
    else:
        assert len(last) <= 512
        assert "\0" not in last
        last.encode()  # what the database is given is text


@pytest.mark.parametrize(
    "query", ["digest=x", "&digest=x", "&&digest=x&", "=&digest=x", "digest=x&digest=y", "a&digest=x"]
)
def test_query_when_it_has_empty_pairs_skips_them(query: str) -> None:
    assert Query(query.encode()).first("digest") == "x"


@pytest.mark.parametrize(
    ("query", "expected"),
    [("", 7), ("n=", 7), ("n=0", 0), ("n=007", 7), ("n=5&n=x", 5), ("n=" + "9" * 18, 10**18 - 1)],
)
def test_count_when_a_whole_number_is_that(query: str, expected: int) -> None:
    assert Query(query.encode()).count(7) == expected


@MODEST
@given(st.uuids())
def test_upload_id_when_written_and_read_is_the_same(upload: UUID) -> None:
    assert parse_upload(str(upload)) == upload


@MODEST
@given(st.text(max_size=60) | st.text("0123456789abcdefABCDEF-{}", min_size=30, max_size=40))
def test_upload_id_when_any_text_is_itself_or_unknown(upload: str) -> None:
    try:
        assert str(parse_upload(upload)) == upload
    except BlobUploadUnknown:
        return
    assert len(upload) == 36


@MODEST
@given(st.text(st.characters(max_codepoint=255), max_size=25) | st.text("0123456789-+. ", max_size=25))
def test_content_length_when_any_text_is_a_number_or_refused(value: str) -> None:
    headers = Headers({"content-length": value})
    try:
        assert content_length(headers) == int(value)
    except SizeInvalid:
        return
    assert value.isascii()
    assert value.isdigit()
    assert content_length(Headers({})) is None


@MODEST
@given(st.text(st.characters(max_codepoint=255), max_size=50))
def test_etag_when_any_condition_matches_only_what_names_it(condition: str) -> None:
    headers = Headers({"if-none-match": condition})
    assert matches_etag(headers, "sha256:abc") == (condition.strip() == "*" or "sha256:abc" in condition)
    assert matches_etag(
        Headers({"if-none-match": f'{condition.replace(",", "")}, "sha256:abc"'}), "sha256:abc"
    )


parts = st.sampled_from(
    ["v2", "a", "blobs", "uploads", "manifests", "tags", "list", "", "_catalog", "referrers", "%", "\ud800"]
)


@MODEST
@given(st.text(max_size=60) | st.lists(parts, max_size=8).map("/".join).map("/".__add__))
def test_path_when_any_text_is_an_endpoint_or_nothing(path: str) -> None:
    found = match(path)
    if found is None:
        return
    endpoint, parameters = found
    assert endpoint in ENDPOINTS
    assert set(parameters) == {part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")}
    rebuilt = endpoint.path.format(**parameters)
    assert rebuilt.rstrip("/") == path.removesuffix("/").rstrip("/")


def scope(path: str, headers: dict[str, str]) -> dict[str, Any]:
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "path": path, "scheme": "http", "headers": pairs}


@MODEST
@given(
    st.dictionaries(
        st.sampled_from(["Host", "Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto"]),
        st.text(st.characters(max_codepoint=255), max_size=40)
        | st.sampled_from(["a.example", "host=b.example;proto=https", "https", "[::1]:5000"]),
    )
)
def test_url_when_any_headers_come_is_a_url_of_that_path_and_nothing_else(headers: dict[str, str]) -> None:
    url = Origin().url(scope("/v2/a/blobs/uploads/", headers), "/v2/a/blobs/uploads/x")
    split = urlsplit(url)
    assert (split.path, split.query, split.fragment) == ("/v2/a/blobs/uploads/x", "", "")
    assert split.scheme in (("http", "https") if split.netloc else ("",))
    assert split.username is None
    assert url.isascii()
    assert url.isprintable()
    assert " " not in url


@MODEST
@given(text, st.integers(0, 1000))
def test_link_when_written_is_one_header_that_reads_back(last: str, n: int) -> None:
    header = next_link(scope("/p/v2/_catalog", {}), "/v2/_catalog", [("last", last), ("n", str(n))])["Link"]
    assert header.isascii()
    assert header.isprintable()
    target = header.removeprefix("<").removesuffix('>; rel="next"')
    assert ">" not in target
    path, _, query = target.partition("?")
    assert path == "/p/v2/_catalog"
    assert (Query(query.encode()).first("last"), Query(query.encode()).count(0)) == (last, n)
