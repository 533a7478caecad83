"""Bytes from the wire → values of the domain, and back: query, headers, error documents, links, URLs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from starlette.datastructures import Headers
from starlette.responses import Response

from app.domain.errors import BlobUploadUnknown, PaginationNumberInvalid, RegistryError, SizeInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

JSON_TYPE: Final = "application/json"
_UPLOAD: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_HOST: Final = re.compile(r"[A-Za-z0-9._~-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")
_LAST_CHARS_MAX: Final = 512


class Query:
    """The query string's parameters. Empty pairs are skipped: GitLab's Geo client sends `?&digest=…`."""

    def __init__(self, query_string: bytes) -> None:
        pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, errors="replace")
        self._values: dict[str, list[str]] = {}
        for key, value in pairs:
            self._values.setdefault(key, []).append(value)

    def first(self, key: str) -> str | None:
        """The first value, None if the parameter is not there."""
        values = self._values.get(key)
        return values[0] if values else None

    def all(self, key: str) -> list[str]:
        """Every value, in order."""
        return self._values.get(key, [])

    def count(self, default: int) -> int:
        """`n`: how many results are wanted. Raises PaginationNumberInvalid."""
        text = self.first("n")
        if text is None or text == "":
            return default
        if _NUMBER.fullmatch(text) is None:
            raise PaginationNumberInvalid({"n": text[:64], "expected": "a whole number, 0 or more"})
        return int(text)

    def last(self) -> str:
        """`last`: the entry after which the page begins, empty for the first. It need not exist."""
        text = self.first("last") or ""
        if len(text) > _LAST_CHARS_MAX or "\0" in text:
            raise PaginationNumberInvalid({"last": text[:64], "expected": "an entry of the page before"})
        return text


def parse_upload(text: str) -> UUID:
    """An upload session's id. Raises BlobUploadUnknown: what we did not give out, we do not know."""
    if _UPLOAD.fullmatch(text) is None:
        raise BlobUploadUnknown({"upload": text[:64]})
    return UUID(text)


def content_length(headers: Headers) -> int | None:
    """The body's stated length in bytes. Raises SizeInvalid."""
    text = headers.get("content-length")
    if text is None:
        return None
    if _NUMBER.fullmatch(text) is None:
        raise SizeInvalid(f"Content-Length {text[:64]!r}: expected a number of bytes")
    return int(text)


def matches_etag(headers: Headers, etag: str) -> bool:
    """Whether If-None-Match names this entity (RFC 9110 §13.1.2); a missing pair of quotes is forgiven."""
    header = headers.get("if-none-match")
    if header is None:
        return False
    if header.strip() == "*":
        return True
    return any(entry.strip().removeprefix("W/").strip('"') == etag for entry in header.split(","))


def error_response(error: RegistryError) -> Response:
    """The OCI error document. It ends with a newline, as Distribution's does."""
    document: dict[str, Any] = {"errors": error.documents()}
    if error.oauth:
        document = {"error": error.oauth, "error_description": error.message, **document}
    body = json.dumps(document, separators=(",", ":")) + "\n"
    return Response(body, error.status, dict(error.headers), JSON_TYPE)


def json_response(
    document: Any, headers: Mapping[str, str] | None = None, media_type: str = JSON_TYPE
) -> Response:
    """A JSON body without a charset parameter, which some clients compare literally."""
    body = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    return Response(body, headers={"Content-Type": media_type, **(headers or {})})


@dataclass(frozen=True)
class Origin:
    """How clients reach us, for Location headers (protocol of Distribution's URL builder).

    `host` (scheme and host) wins; else `relative` gives paths; else the request's own Host or what proxies say.
    """

    host: str = ""
    relative: bool = False

    def url(self, scope: Mapping[str, Any], path: str, query: Iterable[tuple[str, str]] = ()) -> str:
        """The URL of `path`, which begins with `/v2/`, below whatever prefix the request came by."""
        suffix = f"{path_prefix(scope)}{path}"
        if pairs := list(query):
            suffix += "?" + urlencode(pairs, safe=":/")
        if self.host:
            return self.host + suffix
        return suffix if self.relative else _origin_of(scope) + suffix

    def absolute(self, scope: Mapping[str, Any], path: str) -> str:
        """The URL of `path`, which is told to people who come from elsewhere: never a relative one."""
        return (self.host or _origin_of(scope)) + path


def peer_of(scope: Mapping[str, Any]) -> str:
    """The address that a request's connection comes from, empty if it has none."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def path_prefix(scope: Mapping[str, Any]) -> str:
    """What stands before the first `/v2/` in the request's path."""
    return str(scope["path"]).partition("/v2/")[0]


def next_link(scope: Mapping[str, Any], path: str, query: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The Link header to the next page (RFC 8288), with a path that works behind any proxy."""
    return {"Link": f'<{path_prefix(scope)}{path}?{urlencode(list(query))}>; rel="next"'}


def _origin_of(scope: Mapping[str, Any]) -> str:
    headers = Headers(scope=dict(scope))
    forwarded = _forwarded(headers.get("forwarded"))
    if forwarded is not None:
        scheme, host = forwarded.get("proto"), forwarded.get("host")
    else:
        scheme = (headers.get("x-forwarded-proto") or "").partition(",")[0]
        host = (headers.get("x-forwarded-host") or "").partition(",")[0].strip()
    scheme = (scheme or "").strip().lower()
    if scheme not in ("http", "https"):
        scheme = scope["scheme"]
    for candidate in (host, headers.get("host")):
        if candidate and _HOST.fullmatch(candidate):
            return f"{scheme}://{candidate}"
    return ""


def _forwarded(header: str | None) -> dict[str, str] | None:
    """The first element of a Forwarded header (RFC 7239)."""
    if header is None:
        return None
    pairs = (pair.partition("=") for pair in header.partition(",")[0].split(";"))
    return {key.strip().lower(): value.strip().strip('"') for key, _, value in pairs}
