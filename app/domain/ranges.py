"""Byte ranges: `Range` of a download (RFC 9110 §14) and `Content-Range` of an upload's chunk (OCI distribution spec).

All results are half-open: `start` is the first byte, `stop` the one after the last.
"""

from __future__ import annotations

import re
from typing import Final

from app.domain.errors import RangeInvalid
from app.domain.limits import RANGES_MAX

ByteRange = tuple[int, int]

# HTTP's white space (RFC 9110 §5.6.3). Python's has more, such as the no-break space, which no number may stand beside.
_BLANKS: Final = " \t"
# 18 digits always fit a bigint, which is what the database compares them with.
_CHUNK: Final = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")
_RANGE: Final = re.compile(r"([0-9]{0,30})-([0-9]{0,30})")


def parse_chunk_range(text: str) -> ByteRange:
    """A chunk's `Content-Range: first-last`, without a unit and without a total. Raises RangeInvalid."""
    match = _CHUNK.fullmatch(text.strip(_BLANKS))
    if match is None:
        raise RangeInvalid(f"Content-Range {text[:64]!r}: expected first-last, as in 0-1023")
    first, last = int(match[1]), int(match[2])
    if first > last:
        raise RangeInvalid(f"Content-Range {text[:64]!r}: the first byte lies behind the last")
    return first, last + 1


def parse_ranges(header: str, size: int) -> list[ByteRange] | None:
    """The ranges of a `Range` header that a body of `size` bytes can serve, in the order asked for.

    None: serve the whole body, because the unit is not bytes, because the body is empty (some clients ask for
    `bytes=0-` of everything), or because so many or so large ranges are asked for that they would cost more than the
    whole. Raises RangeInvalid (416) if the header is malformed or nothing that it
    asks for exists.
    """
    unit, _, text = header.partition("=")
    if unit.strip(_BLANKS).lower() != "bytes" or size == 0:
        return None
    specs = [spec for item in text.split(",") if (spec := item.strip(_BLANKS))]
    if len(specs) > RANGES_MAX:
        return None
    ranges = [found for spec in specs if (found := _one(spec, header, size)) is not None]
    if not ranges:
        raise _unsatisfiable(header, size)
    if len(ranges) > 1 and sum(stop - start for start, stop in ranges) > size:
        return None
    return ranges


def _one(spec: str, header: str, size: int) -> ByteRange | None:
    match = _RANGE.fullmatch(spec)
    if match is None or not (match[1] or match[2]):
        raise _unsatisfiable(header, size)
    if not match[1]:
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            raise _unsatisfiable(header, size)
    return (start, stop) if start < stop else None


def _unsatisfiable(header: str, size: int) -> RangeInvalid:
    return RangeInvalid(
        f"Range {header[:128]!r} asks for nothing that a body of {size} bytes has",
        headers=(("Content-Range", f"bytes */{size}"),),
    )
