"""The certificates that a token brings (`x5c`), verified up to a certificate that this registry trusts.

The path is built and checked by the library of X.509: signatures, dates, `basicConstraints` and `keyUsage` of every
issuer, name constraints, critical extensions. What the signer's own certificate may be used for is not asked: those
of token services are made without names of hosts and without extended key usage. A trusted certificate needs no
issuer and no extensions to be the signer's.

What a client without a key can make us compute is bounded: a few certificates, and one way at most from each of them
to the next, since no two issuers among them may have one name.
"""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from app.auth.compact import TokenRefused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

# What the library raises for bytes that it takes for no certificate.
UNREADABLE: Final = (ValueError, UnsupportedAlgorithm, x509.InvalidVersion)
# The signer's, and those between it and the trusted one.
CERTIFICATES_MAX: Final = 5


def verified(
    chain: Sequence[bytes], roots: Sequence[x509.Certificate], now: float
) -> tuple[x509.Certificate, float]:
    """The signer's certificate, and the moment until which all of its path is valid. Raises TokenRefused."""
    if len(chain) > CERTIFICATES_MAX:
        raise refused(f"the token brings {len(chain)} certificates; at most {CERTIFICATES_MAX} are accepted")
    try:
        with unwarned():
            leaf, *between = (x509.load_der_x509_certificate(one) for one in chain)
            names = {one.subject for one in between}
    except UNREADABLE:
        raise refused("a certificate that the token brings (`x5c`) cannot be read") from None
    if len(names) < len(between):
        raise refused("two issuers among the certificates that the token brings (`x5c`) have one name")
    try:
        path = _verifier(roots, now).verify(leaf, between).chain
    except (VerificationError, *UNREADABLE) as error:
        raise refused(
            f"the certificates that the token brings (`x5c`) lead to no trusted certificate: {_why(error)}"
        ) from None
    return leaf, min(one.not_valid_after_utc for one in path).timestamp()


def unwarned() -> AbstractContextManager[object]:
    """Certificates are read without a word about what is unusual: those that GitLab makes have the serial number 0."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def refused(reason: str) -> TokenRefused:
    """The refusal of a token for the sake of its certificates."""
    return TokenRefused("certificates", reason)


def _verifier(roots: Sequence[x509.Certificate], now: float) -> x509.verification.ClientVerifier:
    issuers = (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _may_issue)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign_certificates)
    )
    return (
        PolicyBuilder()
        .store(Store(list(roots)))
        .time(datetime.fromtimestamp(now, UTC).replace(tzinfo=None))
        .max_chain_depth(CERTIFICATES_MAX)
        .extension_policies(ca_policy=issuers, ee_policy=ExtensionPolicy.permit_all())
        .build_client_verifier()
    )


def _may_issue(_: Policy, __: x509.Certificate, extension: x509.BasicConstraints) -> None:
    # The library asks this as well, whatever the policy says; it does not promise to.
    if not extension.ca:
        raise ValueError("a certificate issued another, but is not one of an authority")


def _may_sign_certificates(_: Policy, __: x509.Certificate, extension: x509.KeyUsage | None) -> None:
    if extension is not None and not extension.key_cert_sign:
        raise ValueError("a certificate issued another, but its key is not for signing certificates")


def _why(error: Exception) -> str:
    """The library's words, without the certificates' names, which the client has written."""
    return str(error).split(" (encountered processing", 1)[0].removeprefix("validation failed: ")[:200]
