"""The refusals as classes: the wire code and status of each, which clients rely on."""

from __future__ import annotations

import json

import pytest

from app.domain import errors
from app.domain.errors import ManifestBlobUnknown, RangeInvalid, RegistryError, Unavailable

# Code and status of every class. A class that is not here yet has not been thought about.
KNOWN = {
    "RegistryError": ("UNKNOWN", 500, "unknown error"),
    "Unsupported": ("UNSUPPORTED", 405, "The operation is unsupported."),
    "NotFound": ("NOT_FOUND", 404, "no such API endpoint"),
    "Unauthorized": ("UNAUTHORIZED", 401, "authentication required"),
    "TooManyRequests": ("TOOMANYREQUESTS", 429, "too many failed logins; wait a while"),
    "TokenRequestInvalid": ("TOKEN_REQUEST_INVALID", 400, "the request for a token is not valid"),
    "ScopeInvalid": ("TOKEN_REQUEST_INVALID", 400, "the scope is not valid"),
    "GrantUnsupported": ("TOKEN_REQUEST_INVALID", 400, "the grant type is not supported"),
    "LoginFailed": ("UNAUTHORIZED", 401, "incorrect username or password"),
    "ProtectedTag": ("PROTECTED_TAG", 401, "the tag is protected, and your credentials may not change it"),
    "ImmutableTag": (
        "IMMUTABLE_TAG",
        401,
        "the tag is immutable: once pushed, it can be neither moved nor deleted",
    ),
    "ProtectedManifest": (
        "PROTECTED_MANIFEST",
        401,
        "tags of this repository are protected, so no manifest may be deleted by its digest",
    ),
    "TagProtectionPatternInvalid": (
        "TAG_PROTECTION_PATTERN_INVALID",
        400,
        "a pattern of protected tags in the token is not valid",
    ),
    "TagImmutabilityPatternInvalid": (
        "TAG_IMMUTABILITY_PATTERN_INVALID",
        400,
        "a pattern of immutable tags in the token is not valid",
    ),
    "TagPatternCountLimitExceeded": (
        "TAG_PATTERN_COUNT_LIMIT_EXCEEDED",
        400,
        "the token has too many patterns of protected and immutable tags",
    ),
    "Unavailable": ("UNAVAILABLE", 503, "service unavailable"),
    "DigestInvalid": ("DIGEST_INVALID", 400, "provided digest did not match uploaded content"),
    "DigestUnsupported": ("DIGEST_INVALID", 400, "the digest's algorithm is not supported"),
    "SizeInvalid": ("SIZE_INVALID", 400, "provided length did not match content length"),
    "RangeInvalid": ("RANGE_INVALID", 416, "invalid content range"),
    "NameInvalid": ("NAME_INVALID", 400, "invalid repository name"),
    "TagInvalid": ("TAG_INVALID", 400, "manifest tag did not match URI"),
    "NameUnknown": ("NAME_UNKNOWN", 404, "repository name not known to registry"),
    "ManifestUnknown": ("MANIFEST_UNKNOWN", 404, "manifest unknown"),
    "ManifestInvalid": ("MANIFEST_INVALID", 400, "manifest invalid"),
    "ManifestTooLarge": ("MANIFEST_INVALID", 413, "manifest invalid"),
    "TooManyTags": ("TAG_INVALID", 414, "too many tags in one request"),
    "ManifestBlobUnknown": ("MANIFEST_BLOB_UNKNOWN", 400, "blob unknown to registry"),
    "ManifestReferenced": ("MANIFEST_REFERENCED", 409, "manifest referenced by a manifest list"),
    "BlobUnknown": ("BLOB_UNKNOWN", 404, "blob unknown to registry"),
    "BlobUploadUnknown": ("BLOB_UPLOAD_UNKNOWN", 404, "blob upload unknown to registry"),
    "PaginationNumberInvalid": ("PAGINATION_NUMBER_INVALID", 400, "invalid number of results requested"),
    "ClientGone": (
        "REQUEST_CANCELED",
        499,
        "the client closed the connection before the request was complete",
    ),
    "ClientStalled": ("REQUEST_TIMEOUT", 408, "the client took too long to send its request's body"),
}
CLASSES: dict[str, type[RegistryError]] = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, RegistryError)
}


def test_errors_when_listed_are_all_known_and_no_others() -> None:
    assert {name: (c.code, c.status, (c.__doc__ or "").strip()) for name, c in CLASSES.items()} == KNOWN


@pytest.mark.parametrize("name", sorted(KNOWN.keys() - {"ManifestBlobUnknown"}))
def test_error_when_documented_has_its_message_and_a_detail_only_if_there_is_one(name: str) -> None:
    code, _, message = KNOWN[name]
    assert CLASSES[name]().documents() == [{"code": code, "message": message}]
    for detail in ("a sentence", {"k": 1}, ["x"], 0, False, ""):
        documents = CLASSES[name](detail).documents()
        assert documents == [{"code": code, "message": message, "detail": detail}]
        json.dumps(documents)


def test_missing_blobs_when_documented_have_an_entry_each() -> None:
    documents = ManifestBlobUnknown(["sha256:a", "sha256:b"]).documents()
    assert [document["detail"] for document in documents] == [{"digest": "sha256:a"}, {"digest": "sha256:b"}]
    assert {document["code"] for document in documents} == {"MANIFEST_BLOB_UNKNOWN"}


def test_unavailable_when_raised_says_when_to_come_again() -> None:
    assert Unavailable("busy").headers == (("Retry-After", "2"),)
    assert Unavailable("busy", retry_after_seconds=30).headers == (("Retry-After", "30"),)


def test_error_when_given_headers_carries_them() -> None:
    assert RangeInvalid("x", headers=(("Content-Range", "bytes */5"),)).headers == (
        ("Content-Range", "bytes */5"),
    )
    assert RangeInvalid("x").headers == ()
