"""Every refusal the registry can give, one class each.

The class carries the wire code and the HTTP status (OCI distribution spec, "Error Codes"; Distribution's
`registry/api/errcode`), its docstring is the message that a client prints. `detail` says what was wrong with
this request and, where it helps, what would have been right. It is sent as JSON, so it holds plain values only
and never a secret, a file name or a database error.
"""

from __future__ import annotations

from typing import Any, ClassVar


class RegistryError(Exception):
    """unknown error"""

    code: ClassVar[str] = "UNKNOWN"
    status: ClassVar[int] = 500
    # What OAuth 2 calls it (RFC 6749 §5.2), for the errors of the token service.
    oauth: ClassVar[str] = ""

    def __init__(self, detail: Any = None, *, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers

    @property
    def message(self) -> str:
        """The class's docstring: a sentence for the person at the client."""
        return (self.__doc__ or "").strip()

    def documents(self) -> list[dict[str, Any]]:
        """The entries of the OCI error body's `errors` list."""
        document: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.detail is not None:
            document["detail"] = self.detail
        return [document]


class Unsupported(RegistryError):
    """The operation is unsupported."""

    code, status = "UNSUPPORTED", 405


class NotFound(RegistryError):
    """no such API endpoint"""

    code, status = "NOT_FOUND", 404


class Unauthorized(RegistryError):
    """authentication required"""

    code, status = "UNAUTHORIZED", 401


class TooManyRequests(RegistryError):
    """too many failed logins; wait a while"""

    code, status = "TOOMANYREQUESTS", 429

    def __init__(self, detail: Any = None, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail, headers=(("Retry-After", str(retry_after_seconds)),))


class Unavailable(RegistryError):
    """service unavailable"""

    code, status = "UNAVAILABLE", 503

    def __init__(self, detail: Any = None, *, retry_after_seconds: int = 2) -> None:
        super().__init__(detail, headers=(("Retry-After", str(retry_after_seconds)),))


class DigestInvalid(RegistryError):
    """provided digest did not match uploaded content"""

    code, status = "DIGEST_INVALID", 400


class DigestUnsupported(DigestInvalid):
    """the digest's algorithm is not supported"""


class SizeInvalid(RegistryError):
    """provided length did not match content length"""

    code, status = "SIZE_INVALID", 400


class RangeInvalid(RegistryError):
    """invalid content range"""

    code, status = "RANGE_INVALID", 416


class NameInvalid(RegistryError):
    """invalid repository name"""

    code, status = "NAME_INVALID", 400


class TagInvalid(RegistryError):
    """manifest tag did not match URI"""

    code, status = "TAG_INVALID", 400


class NameUnknown(RegistryError):
    """repository name not known to registry"""

    code, status = "NAME_UNKNOWN", 404


class ManifestUnknown(RegistryError):
    """manifest unknown"""

    code, status = "MANIFEST_UNKNOWN", 404


class ManifestInvalid(RegistryError):
    """manifest invalid"""

    code, status = "MANIFEST_INVALID", 400


class ManifestTooLarge(RegistryError):
    """manifest invalid"""

    code, status = "MANIFEST_INVALID", 413


class TooManyTags(RegistryError):
    """too many tags in one request"""

    code, status = "TAG_INVALID", 414


class ManifestBlobUnknown(RegistryError):
    """blob unknown to registry"""

    code, status = "MANIFEST_BLOB_UNKNOWN", 400

    def __init__(self, digests: list[str]) -> None:
        super().__init__(digests)
        self.digests = digests

    def documents(self) -> list[dict[str, Any]]:
        """One entry per missing item, as clients expect (OCI spec, "Pushing Manifests")."""
        return [{"code": self.code, "message": self.message, "detail": {"digest": d}} for d in self.digests]


class TokenRequestInvalid(RegistryError):
    """the request for a token is not valid"""

    code, status = "TOKEN_REQUEST_INVALID", 400
    oauth = "invalid_request"


class ScopeInvalid(TokenRequestInvalid):
    """the scope is not valid"""

    oauth = "invalid_scope"


class GrantUnsupported(TokenRequestInvalid):
    """the grant type is not supported"""

    oauth = "unsupported_grant_type"


class LoginFailed(RegistryError):
    """incorrect username or password"""

    code, status = "UNAUTHORIZED", 401
    oauth = "invalid_grant"


class ProtectedTag(RegistryError):
    """the tag is protected, and your credentials may not change it"""

    code, status = "PROTECTED_TAG", 401


class ImmutableTag(RegistryError):
    """the tag is immutable: once pushed, it can be neither moved nor deleted"""

    code, status = "IMMUTABLE_TAG", 401


class ProtectedManifest(RegistryError):
    """tags of this repository are protected, so no manifest may be deleted by its digest"""

    code, status = "PROTECTED_MANIFEST", 401


class TagProtectionPatternInvalid(RegistryError):
    """a pattern of protected tags in the token is not valid"""

    code, status = "TAG_PROTECTION_PATTERN_INVALID", 400


class TagImmutabilityPatternInvalid(RegistryError):
    """a pattern of immutable tags in the token is not valid"""

    code, status = "TAG_IMMUTABILITY_PATTERN_INVALID", 400


class TagPatternCountLimitExceeded(RegistryError):
    """the token has too many patterns of protected and immutable tags"""

    code, status = "TAG_PATTERN_COUNT_LIMIT_EXCEEDED", 400


class ManifestReferenced(RegistryError):
    """manifest referenced by a manifest list"""

    code, status = "MANIFEST_REFERENCED", 409


class BlobUnknown(RegistryError):
    """blob unknown to registry"""

    code, status = "BLOB_UNKNOWN", 404


class BlobUploadUnknown(RegistryError):
    """blob upload unknown to registry"""

    code, status = "BLOB_UPLOAD_UNKNOWN", 404


class PaginationNumberInvalid(RegistryError):
    """invalid number of results requested"""

    code, status = "PAGINATION_NUMBER_INVALID", 400


class ClientGone(RegistryError):
    """the client closed the connection before the request was complete"""

    code, status = "REQUEST_CANCELED", 499


class ClientStalled(ClientGone):
    """the client took too long to send its request's body"""

    code, status = "REQUEST_TIMEOUT", 408
