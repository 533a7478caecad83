"""Blobs: GET and HEAD with ranges, DELETE."""

from __future__ import annotations

import secrets
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.responses import Response

from app.domain.digest import Digest
from app.domain.errors import BlobUnknown, DigestUnsupported
from app.domain.ranges import ByteRange, parse_ranges
from app.http.streaming import StreamedResponse
from app.http.wire import matches_etag

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from app.http.call import Call
    from app.store.lookups import FoundBlob

_OCTETS = "application/octet-stream"


async def get(call: Call) -> Response:
    digest = _known_digest(call.parameters["digest"])
    pull = call.services.pull
    blob = await (pull.blob_head if call.is_head else pull.blob)(call.name, digest)
    headers = {
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
        "Cache-Control": "max-age=31536000",
        "Accept-Ranges": "bytes",
    }
    if matches_etag(call.headers, str(digest)):
        return Response(status_code=304, headers=headers)
    ranges = _ranges(call, blob)
    if ranges is None:
        headers |= {"Content-Type": _OCTETS, "Content-Length": str(blob.size)}
        return _answer(call, 200, headers, pull.content(blob, 0, blob.size))
    if len(ranges) == 1:
        return _part(call, blob, ranges[0], headers)
    return _parts(call, blob, ranges, headers)


async def delete(call: Call) -> Response:
    await call.services.remove.blob(call.name, _known_digest(call.parameters["digest"]))
    return Response(status_code=202)


def _known_digest(text: str) -> Digest:
    """The digest of a blob to find. One that could never have been pushed is simply not there."""
    try:
        return Digest.parse(text)
    except DigestUnsupported as error:
        raise BlobUnknown(error.detail) from None


def _ranges(call: Call, blob: FoundBlob) -> list[ByteRange] | None:
    """The ranges to serve, None for the whole blob (RFC 9110 §14.2 and §13.1.5)."""
    header = None if call.is_head else call.headers.get("range")
    condition = call.headers.get("if-range")
    if header is None or (condition is not None and condition.strip('"') != str(blob.digest)):
        return None
    return parse_ranges(header, blob.size)


def _part(call: Call, blob: FoundBlob, part: ByteRange, headers: dict[str, str]) -> Response:
    start, stop = part
    headers |= {
        "Content-Type": _OCTETS,
        "Content-Length": str(stop - start),
        "Content-Range": f"bytes {start}-{stop - 1}/{blob.size}",
    }
    return _answer(call, 206, headers, call.services.pull.content(blob, start, stop))


def _parts(call: Call, blob: FoundBlob, parts: list[ByteRange], headers: dict[str, str]) -> Response:
    """Several ranges as multipart/byteranges (RFC 9110 §14.6): what podman's partial pulls ask for."""
    boundary = secrets.token_hex(16)
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: {_OCTETS}\r\n"
        f"Content-Range: bytes {start}-{stop - 1}/{blob.size}\r\n\r\n".encode()
        for start, stop in parts
    ]
    tail = f"\r\n--{boundary}--\r\n".encode()

    async def body() -> AsyncGenerator[bytes, None]:
        for head, (start, stop) in zip(heads, parts, strict=True):
            yield head
            async with aclosing(call.services.pull.content(blob, start, stop)) as blocks:
                async for block in blocks:
                    yield block
        yield tail

    length = sum(map(len, heads)) + sum(stop - start for start, stop in parts) + len(tail)
    headers |= {
        "Content-Type": f"multipart/byteranges; boundary={boundary}",
        "Content-Length": str(length),
    }
    return _answer(call, 206, headers, body())


def _answer(
    call: Call, status: int, headers: dict[str, str], content: AsyncGenerator[bytes, None]
) -> Response:
    if call.is_head:
        return Response(status_code=status, headers=headers)
    return StreamedResponse(content, status, headers)
