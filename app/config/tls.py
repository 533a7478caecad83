"""`http.tls`: certificates, and the cipher suites by the names that Go gives them."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, model_validator

from app.config.section import Section, Status, section, setting
from app.config.values import Flag, Text, Texts, folded, refusal

ClientAuth = Annotated[
    Literal[
        "request-client-cert",
        "require-any-client-cert",
        "verify-client-cert-if-given",
        "require-and-verify-client-cert",
    ],
    folded(),
]
MinimumTls = Annotated[Literal["tls1.2", "tls1.3"], folded()]

# Go's names of the TLS 1.2 suites that OpenSSL still offers, strongest first.
OPENSSL_NAMES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
}
# The six that Distribution and the GitLab registry take when none are named.
DEFAULT_SUITES: Final = tuple(OPENSSL_NAMES)[:6]
TLS_1_3_SUITES: Final = frozenset(
    {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
)
_BROKEN: Final = ("RC4", "3DES")


def _known_suite(name: str) -> str:
    if name in OPENSSL_NAMES or name in TLS_1_3_SUITES:
        return name
    if any(word in name for word in _BROKEN):
        raise refusal(f"names {name[:60]!r}, which is broken and no longer offered; leave it out")
    raise refusal(f"names {name[:60]!r}, which is no cipher suite; write them as in {DEFAULT_SUITES[0]}")


Suite = Annotated[Text, AfterValidator(_known_suite)]


class LetsEncrypt(Section):
    """`http.tls.letsencrypt`."""

    cachefile: Text = setting("File that keeps the certificates.", default="")
    email: Text = setting("Address to register with.", default="")
    hosts: Texts = setting("Host names to get certificates for.", default=())
    directoryurl: Text = setting("Another ACME server than Let's Encrypt.", default="")


class Tls(Section):
    """`http.tls`."""

    certificate: Text = setting(
        "File with the certificate chain (PEM). It and `key` turn TLS on. Both are read again when they change.",
        default="",
    )
    key: Text = setting("File with the private key (PEM).", default="")
    clientcas: Texts = setting(
        "Files with the CAs of client certificates (PEM); none: clients need none. Read again when they change.",
        default=(),
    )
    clientauth: ClientAuth = setting(
        "What is asked of clients once `clientcas` is set: `verify-client-cert-if-given` or "
        "`require-and-verify-client-cert`. `request-client-cert` asks nothing, and `require-any-client-cert`, "
        "which takes a certificate of anybody's, is refused at start.",
        default="require-and-verify-client-cert",
    )
    minimumtls: MinimumTls = setting("`tls1.2` or `tls1.3`.", default="tls1.2")
    ciphersuites: tuple[Suite, ...] = setting(
        "TLS 1.2 cipher suites by Go's names. None given: ECDHE with AES-GCM or CHACHA20. TLS 1.3's suites "
        "may be named but not chosen among; naming no others means TLS 1.3 only.",
        default=(),
    )
    letsencrypt: LetsEncrypt = section(
        LetsEncrypt,
        "Certificates from Let's Encrypt.",
        status=Status.LATER,
        note="not supported yet; without http.tls.certificate `registry serve` refuses to start",
    )

    @model_validator(mode="after")
    def _complete(self) -> Tls:
        if bool(self.certificate) != bool(self.key):
            missing, given = ("key", "certificate") if self.certificate else ("certificate", "key")
            raise refusal(f"required, because http.tls.{given} is set", missing)
        if self.clientcas and not self.certificate and self.letsencrypt == LetsEncrypt():
            raise refusal(
                "needs http.tls.certificate and http.tls.key: without TLS no client can be told", "clientcas"
            )
        return self

    @property
    def enabled(self) -> bool:
        """Whether connections are encrypted."""
        return bool(self.certificate)

    @property
    def only_tls13(self) -> bool:
        """Whether TLS 1.2 is out: by `minimumtls`, or because no cipher suite is left to it."""
        named = set(self.ciphersuites)
        return self.minimumtls == "tls1.3" or (bool(named) and named <= TLS_1_3_SUITES)

    @property
    def openssl_ciphers(self) -> str:
        """The TLS 1.2 suites as `ssl.SSLContext.set_ciphers` takes them; TLS 1.3's are always on."""
        chosen = [name for name in self.ciphersuites if name in OPENSSL_NAMES]
        return ":".join(OPENSSL_NAMES[name] for name in chosen or DEFAULT_SUITES)


class DebugTls(Section):
    """`http.debug.tls`."""

    enabled: Flag = setting("Serve the debug address over TLS.", default=False)
    certificate: Text = setting("File with the certificate chain; that of `http.tls` if not set.", default="")
    key: Text = setting("File with the private key; that of `http.tls` if not set.", default="")
    clientcas: Texts = setting(
        "Files with the CAs of client certificates, which clients must show then; those of `http.tls` do not "
        "count here.",
        default=(),
    )
    minimumtls: MinimumTls | None = setting(
        "Lowest TLS version; that of `http.tls` if not set.", default=None
    )
    ciphersuites: tuple[Suite, ...] = setting(
        "TLS 1.2 cipher suites by Go's names; those of `http.tls` if none are given.", default=()
    )

    @model_validator(mode="after")
    def _complete(self) -> DebugTls:
        if bool(self.certificate) != bool(self.key):
            missing, given = ("key", "certificate") if self.certificate else ("certificate", "key")
            raise refusal(f"required, because http.debug.tls.{given} is set", missing)
        return self

    def beside(self, tls: Tls) -> Tls | None:
        """What the debug address is served with, where the API is served with `tls`. None: without TLS."""
        if not self.enabled:
            return None
        own = self if self.certificate else tls
        return Tls(
            certificate=own.certificate,
            key=own.key,
            clientcas=self.clientcas,
            minimumtls=self.minimumtls or tls.minimumtls,
            ciphersuites=self.ciphersuites or tls.ciphersuites,
        )
