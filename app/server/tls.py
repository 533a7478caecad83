"""`http.tls` and `http.debug.tls` as OpenSSL takes them. What the files hold is looked at here, before anything starts.

When the files change, connections that come from then on are served with what they hold by then; those that are
there go on. Certificate, key and client CAs change together or not at all: what is half-written or broken is not used.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from app.runtime.watched import Watched
from app.server.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.config import Settings
    from app.config.tls import Tls

# A server that asks for a certificate and looks at none of it is beyond Python's ssl module; since nothing here reads
# client certificates but to check them, not asking comes to the same.
_VERIFY: Final = {
    "request-client-cert": ssl.CERT_NONE,
    "verify-client-cert-if-given": ssl.CERT_OPTIONAL,
    "require-and-verify-client-cert": ssl.CERT_REQUIRED,
}
# The last two: the key is not even of the kind that the certificate has.
_MISFITS: Final = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
# RSA of less than 2048 bits, SHA-1.
_WEAK: Final = frozenset({"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"})


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """The context of `http.tls`, None if it is off. Raises ServerError, naming the key and the file."""
    tls = settings.http.tls
    return _context(tls, "http.tls", settings) if tls.enabled else None


def debug_context(settings: Settings) -> ssl.SSLContext | None:
    """The context of the debug address, None if it is without TLS. Raises ServerError, as above."""
    tls = settings.http.debug_tls
    if tls is None or settings.http.debug.address is None:
        return None
    return _context(tls, "http.debug.tls", settings)


def alpn(*, http2: bool) -> list[str]:
    """The protocols that TLS offers, best first."""
    return ["h2", "http/1.1"] if http2 else ["http/1.1"]


class _Renewed(ssl.SSLContext):
    """Serves each connection with the newest of the contexts that are made of the files.

    A context that connections use cannot be changed safely: a certificate whose key does not fit would stay in it,
    a client CA cannot be taken out, and session tickets given out under the old CAs would let their holders in. A
    new context has keys of its own for tickets, so that a session never outlives what it was checked against. This
    one has neither certificate nor key itself; nothing could be served with it past `wrap_bio`.
    """

    _contexts: Watched[ssl.SSLContext]

    def __new__(cls, contexts: Watched[ssl.SSLContext]) -> Self:
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made._contexts = contexts
        return made

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """What asyncio's and uvloop's servers call for each connection."""
        return self._contexts.current().wrap_bio(*args, **options)


def _context(tls: Tls, key: str, settings: Settings) -> ssl.SSLContext:
    files = [Path(file) for file in (tls.certificate, tls.key, *tls.clientcas)]
    http2 = not settings.http.http2.disabled
    return _Renewed(Watched(files, lambda: _read(tls, key, http2=http2), told=(ServerError,)))


def _read(tls: Tls, key: str, *, http2: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if tls.only_tls13 else ssl.TLSVersion.TLSv1_2
    # RFC 9113, 9.2.1: without compression and renegotiation.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(tls.openssl_ciphers)
    context.set_alpn_protocols(alpn(http2=http2))
    _load_certificate(context, key, tls.certificate, tls.key)
    if tls.clientcas:
        _verify_clients(context, key, tls.clientcas, tls.clientauth)
    return context


def _load_certificate(context: ssl.SSLContext, name: str, certificate: str, key: str) -> None:
    _check_readable(f"{name}.certificate", certificate)
    _check_readable(f"{name}.key", key)
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except _PasswordWanted as error:
        raise ServerError(
            f"{name}.key: {key} is protected by a password, which nobody is there to type"
        ) from error
    except ssl.SSLError as error:
        if error.reason in _MISFITS:
            raise ServerError(
                f"{name}.key: {key} does not belong to the certificate in {certificate}"
            ) from error
        if error.reason in _WEAK:
            raise ServerError(
                f"{name}.certificate: {certificate} is too weak for clients of today ({error.reason})"
            ) from error
        why = f" ({error.reason})" if error.reason else ""
        raise ServerError(
            f"{name}: {certificate} and {key} must hold a certificate chain and its private key in PEM form{why}"
        ) from error


def _verify_clients(context: ssl.SSLContext, name: str, files: Sequence[str], mode: str) -> None:
    if mode not in _VERIFY:
        raise ServerError(
            f"{name}.clientauth: {mode} is not supported; use require-and-verify-client-cert, which also "
            "checks who signed the certificate"
        )
    for file in files:
        _check_readable(f"{name}.clientcas", file)
        try:
            context.load_verify_locations(cafile=file)
        except ssl.SSLError as error:
            raise ServerError(f"{name}.clientcas: {file} holds no certificates in PEM form") from error
    # As in Go: whoever is named is trusted, also where it is not the root.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_mode = _VERIFY[mode]


def _check_readable(key: str, file: str) -> None:
    try:
        with Path(file).open("rb") as content:
            content.read(1)
    except OSError as error:
        raise ServerError(f"{key}: {file} cannot be read: {error.strerror}") from error


class _PasswordWanted(Exception):
    pass


def _refuse_password() -> str:
    raise _PasswordWanted
