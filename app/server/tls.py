"""`http.tls` as OpenSSL takes it. What the files hold is looked at here, before anything starts."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.server.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.config import Settings

# A server that asks for a certificate and looks at none of it is beyond Python's ssl module; since nothing here reads
# client certificates but to check them, not asking comes to the same.
_VERIFY: Final = {
    "request-client-cert": ssl.CERT_NONE,
    "verify-client-cert-if-given": ssl.CERT_OPTIONAL,
    "require-and-verify-client-cert": ssl.CERT_REQUIRED,
}


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """The context of `http.tls`, None if it is off. Raises ServerError, naming the key and the file."""
    tls = settings.http.tls
    if not tls.enabled:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if tls.only_tls13 else ssl.TLSVersion.TLSv1_2
    # RFC 9113, 9.2.1: without compression and renegotiation.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(tls.openssl_ciphers)
    context.set_alpn_protocols(alpn(http2=not settings.http.http2.disabled))
    _load_certificate(context, tls.certificate, tls.key)
    if tls.clientcas:
        _verify_clients(context, tls.clientcas, tls.clientauth)
    return context


def alpn(*, http2: bool) -> list[str]:
    """The protocols that TLS offers, best first."""
    return ["h2", "http/1.1"] if http2 else ["http/1.1"]


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    _check_readable("http.tls.certificate", certificate)
    _check_readable("http.tls.key", key)
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except _PasswordWanted as error:
        raise ServerError(
            f"http.tls.key: {key} is protected by a password, which nobody is there to type"
        ) from error
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ServerError(
                f"http.tls.key: {key} does not belong to the certificate in {certificate}"
            ) from error
        raise ServerError(
            f"http.tls: {certificate} and {key} must hold a certificate chain and its private key in PEM form"
            f" ({error.reason or error})"
        ) from error


def _verify_clients(context: ssl.SSLContext, files: Sequence[str], mode: str) -> None:
    if mode not in _VERIFY:
        raise ServerError(
            f"http.tls.clientauth: {mode} is not supported; use require-and-verify-client-cert, which also "
            "checks who signed the certificate"
        )
    for file in files:
        _check_readable("http.tls.clientcas", file)
        try:
            context.load_verify_locations(cafile=file)
        except ssl.SSLError as error:
            raise ServerError(f"http.tls.clientcas: {file} holds no certificates in PEM form") from error
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
