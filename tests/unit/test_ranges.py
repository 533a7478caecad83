"""Byte ranges of downloads and of chunks."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.errors import RangeInvalid
from app.domain.limits import RANGES_MAX
from app.domain.ranges import parse_chunk_range, parse_ranges

MODEST = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
positions = st.integers(0, 10**18 - 1)
# Texts that are nearly ranges, and texts that are nothing.
nearly = st.lists(st.from_regex(r"[0-9]{0,4}-[0-9]{0,4}", fullmatch=True), max_size=6).map(",".join)
headers = st.text(max_size=60) | st.text("bytes=0123-, ", max_size=40) | nearly.map("bytes=".__add__)


@MODEST
@given(positions, positions)
def test_chunk_range_when_written_and_read_is_the_same(one: int, other: int) -> None:
    first, last = sorted((one, other))
    assert parse_chunk_range(f"{first}-{last}") == (first, last + 1)
    assert parse_chunk_range(f" {first}-{last} ") == (first, last + 1)
    if first != last:
        with pytest.raises(RangeInvalid, match="behind"):
            parse_chunk_range(f"{last}-{first}")


@MODEST
@given(st.text(max_size=60) | st.text("0123456789- ", max_size=50))
def test_chunk_range_when_any_text_fits_a_bigint_or_is_refused(text: str) -> None:
    try:
        start, stop = parse_chunk_range(text)
    except RangeInvalid as error:
        assert len(error.detail) < 600  # noqa: PT017
        return
    assert 0 <= start < stop <= 2**63 - 1
    assert text.strip().lstrip("0").startswith(str(start).lstrip("0"))


@pytest.mark.parametrize(
    ("wanted", "size", "expected"),
    [
        ("0-0", 10, [(0, 1)]),
        ("2-4", 10, [(2, 5)]),
        ("5-", 10, [(5, 10)]),
        ("-3", 10, [(7, 10)]),
        ("-30", 10, [(0, 10)]),
        ("8-99", 10, [(8, 10)]),
        ("9-", 10, [(9, 10)]),
        ("0-1,4-5", 10, [(0, 2), (4, 6)]),
        ("4-5,0-1", 10, [(4, 6), (0, 2)]),
        ("0-1,10-,-0", 10, [(0, 2)]),
        ("0-4,2-6", 10, [(0, 5), (2, 7)]),
        ("0-,0-", 10, None),
        ("0-5,1-6", 10, None),
        ("0-", 0, None),
        ("nonsense", 0, None),
    ],
)
def test_ranges_when_asked_for_are_half_open_and_in_order(
    wanted: str, size: int, expected: list[tuple[int, int]] | None
) -> None:
    assert parse_ranges(f"bytes={wanted}", size) == expected


@pytest.mark.parametrize("header", ["", "bytes", "items=0-1", "0-1", "byte=0-1", "=0-1", "Range: bytes=0-1"])
def test_ranges_when_the_unit_is_not_bytes_are_ignored(header: str) -> None:
    unit = header.partition("=")[0].strip().lower()
    if unit == "bytes":
        with pytest.raises(RangeInvalid):
            parse_ranges(header, 10)
    else:
        assert parse_ranges(header, 10) is None


def test_ranges_when_too_many_are_ignored() -> None:
    assert parse_ranges("bytes=" + ",".join(["0-0"] * (RANGES_MAX + 1)), 10**9) is None
    assert parse_ranges("bytes=" + ",".join(["0-0"] * RANGES_MAX), 10**9) == [(0, 1)] * RANGES_MAX


@pytest.mark.parametrize(
    "wanted", ["", "-", "-0", "10-", "10-20", "5-4", "a-b", "0-1,5-4", "0-1,x", "1", "0-1-2", "9" * 31 + "-"]
)
def test_ranges_when_nothing_can_be_served_are_refused_with_the_size(wanted: str) -> None:
    with pytest.raises(RangeInvalid) as refused:
        parse_ranges(f"bytes={wanted}", 10)
    assert dict(refused.value.headers) == {"Content-Range": "bytes */10"}
    assert refused.value.status == 416


@MODEST
@given(headers, st.integers(0, 5000))
def test_ranges_when_any_text_lie_inside_the_body_and_cost_no_more_than_it_or_are_refused(
    header: str, size: int
) -> None:
    try:
        found = parse_ranges(header, size)
    except RangeInvalid as error:
        assert len(error.detail) < 1000  # noqa: PT017
        return
    if found is None:
        return
    assert 0 < len(found) <= RANGES_MAX
    assert all(0 <= start < stop <= size for start, stop in found)
    assert len(found) == 1 or sum(stop - start for start, stop in found) <= size


@MODEST
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)).map(sorted), min_size=1, max_size=5))
def test_ranges_when_satisfiable_are_those_asked_for(wanted: list[list[int]]) -> None:
    header = "bytes=" + ", ".join(f"{first}-{last}" for first, last in wanted)
    expected = [(first, last + 1) for first, last in wanted]
    found = parse_ranges(header, 100)
    assert found == expected or (found is None and sum(stop - start for start, stop in expected) > 100)
