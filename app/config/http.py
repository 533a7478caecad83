"""`http`: where the registry listens, what it calls itself, and the debug server."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from app.config.section import Section, Status, section, setting
from app.config.tls import DebugTls, Tls
from app.config.values import (
    NO_SECRET,
    Address,
    Count,
    Flag,
    ListenAddress,
    Secret,
    Span,
    Text,
    Texts,
    checked,
    folded,
    refusal,
    shown,
    span,
)

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")


def _prefix(text: str) -> str | None:
    if text.startswith("/") and text.endswith("/") and not re.search(r"[?#\s]|//", text):
        return None
    return f"must start and end with a slash, such as /registry/, not {shown(text)}"


def _public_url(text: str) -> str | None:
    try:
        url = urlsplit(text)
        good = url.scheme in {"http", "https"} and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        return "must be an absolute URL such as https://registry.example.com"
    if good and url.username is None and not url.query and not url.fragment:
        return None
    return "must be an absolute URL such as https://registry.example.com, without user, query or fragment"


def _metrics_path(text: str) -> str | None:
    return None if text.startswith("/") else f"must start with a slash, not {shown(text)}"


def _headers(headers: dict[str, Texts]) -> dict[str, Texts]:
    for name, values in headers.items():
        if _HEADER_NAME.fullmatch(name) is None:
            raise refusal(f"has {shown(name)}, which is no header name")
        if any(_HEADER_VALUE.fullmatch(value) is None for value in values):
            raise refusal("has a value that no header can carry (a line break or control character)", name)
    return headers


def _proxy(text: str) -> str:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        network = None
    if network is None or "%" in text:
        raise refusal(f"names {shown(text)}, which is no address or network such as 10.0.0.1 or 10.0.0.0/8")
    if network.prefixlen == 0:
        raise refusal(f"names {shown(text)}: if everybody is believed, clients choose their own addresses")
    try:
        ip_network(text)
    except ValueError:
        address = text.partition("/")[0]
        raise refusal(
            f"names {shown(text)}, which is both an address and a network; write {address} or {network}"
        ) from None
    return text


Headers = Annotated[dict[str, Texts], AfterValidator(_headers)]
Proxies = tuple[Annotated[Text, AfterValidator(_proxy)], ...]
Net = Annotated[Literal["tcp", "unix"], folded()]


class Prometheus(Section):
    """`http.debug.prometheus`."""

    enabled: Flag | None = setting(
        "Serve metrics at the debug address. Not given: yes, as soon as `http.debug.addr` is set.",
        default=None,
    )
    path: Annotated[Text, checked(_metrics_path)] = setting("Path of the metrics.", default="/metrics")


class Pprof(Section):
    """`http.debug.pprof`."""

    enabled: Flag = setting(
        "Go's profiler, which there is none of here.", default=False, status=Status.IGNORED
    )


class Debug(Section):
    """`http.debug`."""

    addr: ListenAddress = setting(
        "`HOST:PORT` of health and metrics. Keep it from the public. Not given: neither is served.",
        default="",
    )
    prometheus: Prometheus = section(Prometheus, "Metrics.")
    tls: DebugTls = section(DebugTls, "TLS of the debug server.")
    pprof: Pprof = section(Pprof, "Profiling.")

    @property
    def address(self) -> Address | None:
        """Where the debug server listens, if it does."""
        return Address.parse(self.addr) if self.addr else None

    @property
    def metrics_path(self) -> str | None:
        """The path of the metrics, or None if they are off."""
        wanted = self.prometheus.enabled is not False
        return self.prometheus.path if self.addr and wanted else None


class Http2(Section):
    """`http.http2`."""

    disabled: Flag = setting("Speak only HTTP/1.1 over TLS.", default=False)


class H2c(Section):
    """`http.h2c`."""

    enabled: Flag = setting("Speak HTTP/2 also without TLS, behind a proxy that does.", default=False)


class Http(Section):
    """`http`."""

    addr: Text = Field(
        description="Where to listen: `:5000`, `host:5000`, `[::1]:5000`; with `net: unix` a socket's path."
    )
    net: Net = setting("`tcp` or `unix`.", default="tcp")
    prefix: Annotated[Text, checked(_prefix)] = setting(
        "Path below which everything is served, with both slashes: `/registry/`.", default=""
    )
    host: Annotated[Text, checked(_public_url)] = setting(
        "URL that clients reach the registry by, as `https://registry.example.com`. Not given: taken from "
        "each request and its `Forwarded` or `X-Forwarded-*` headers.",
        default="",
    )
    relativeurls: Flag = setting(
        "Send relative URLs in `Location`; not used if `http.host` is set.", default=False
    )
    trustedproxies: Proxies = setting(
        "Addresses and networks (`10.0.0.0/8`, `2001:db8::1`) of the proxies in front of the registry. Of them it "
        "believes `Forwarded` (RFC 7239) or `X-Forwarded-For` about a client's address, which failed logins are "
        "counted by and the access log has. Where both headers are there and differ, neither is believed: let "
        "the proxy set one and remove the other. A proxy on a Unix socket is always believed.",
        default=(),
    )
    draintimeout: Span = setting(
        "How long requests in flight may go on after SIGTERM; 0 is ten seconds.", default=span("0s")
    )
    headers: Headers = setting("Headers of every response, each name with a list of values.", default={})
    tls: Tls = section(Tls, "TLS.")
    http2: Http2 = section(Http2, "HTTP/2 over TLS.")
    h2c: H2c = section(H2c, "HTTP/2 without TLS.")
    debug: Debug = section(Debug, "The debug server.")
    workers: Count = setting("Worker processes; 0 is one per core.", default=0)
    secret: Secret = setting(
        "Signs upload state in Distribution; here that state is in the database.",
        default=NO_SECRET,
        status=Status.IGNORED,
    )

    @model_validator(mode="after")
    def _addressed(self) -> Http:
        if not self.addr:
            raise refusal("required; write where to listen, such as :5000", "addr")
        if self.net == "tcp":
            try:
                Address.parse(self.addr)
            except ValueError as error:
                raise refusal(str(error), "addr") from None
        if self.debug.tls.enabled and not (self.debug.tls.certificate or self.tls.certificate):
            raise refusal(
                "required, because http.debug.tls.enabled is set and http.tls.certificate is not",
                "debug.tls.certificate",
            )
        return self

    @property
    def address(self) -> Address:
        """Where a `tcp` server listens."""
        return Address.parse(self.addr)

    @property
    def debug_tls(self) -> Tls | None:
        """What the debug address is served with; None: without TLS."""
        return self.debug.tls.beside(self.tls)
