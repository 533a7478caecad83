"""Names, tags, digests and session ids of every malformed kind, in every place of a path that takes one.

CVE-2024-4956 (Nexus, `%2f..`), CVE-2024-3727 (containers/image, unchecked digests): what is not of the grammar is
refused with a sentence before anything is looked up with it. The wire forms go past every HTTP client, which would
tidy them up.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from app.domain.errors import (
    BlobUnknown,
    BlobUploadUnknown,
    DigestInvalid,
    DigestUnsupported,
    ManifestUnknown,
    NameInvalid,
    NotFound,
    TagInvalid,
)
from tests.badinput.support import METHODS, expect_refusal, unchanged
from tests.http.support import ABSENT, ask, open_upload, patch, served
from tests.support.registry import digest_of, image

if TYPE_CHECKING:
    from pathlib import Path

    from app.domain.errors import RegistryError
    from tests.support.registry import Registry

UPLOAD = "00000000-0000-4000-8000-000000000000"
HEX = ABSENT.removeprefix("sha256:")
# What may not be in a name, a tag, a digest or an id, as it comes over the wire. None of it has a slash once decoded.
HOSTILE: dict[str, tuple[str, ...]] = {
    "traversal": ("..", ".", "...", "%2e%2e", "%2E%2e", "..%5c..", "..\\..", "..;", "~", "%252e%252e", "%252f"),
    "percent": ("%", "%2", "%zz", "a%25", "%2500", "%u0061"),
    "overlong UTF-8": ("%c0%ae%c0%ae", "%c0%80", "%e0%80%ae", "%f0%80%80%ae", "a%c1%a1"),
    "invalid UTF-8": ("%ff", "%fe%ff", "%80", "%c3", "%ed%a0%80", "%f8%88%80%80%80", "%f4%90%80%80"),
    "NUL": ("%00", "a%00", "%00a", "a%00.txt"),
    "line ends": ("a%0a", "%0aa", "a%0d", "a%0d%0aX-Injected=1", "a%0b", "a%0c", "a%c2%85", "a%e2%80%a8"),
    "other controls": ("a%01", "a%1b%5b2J", "a%7f", "a%c2%9b"),
    "white space": ("%20", "a%20", "%20a", "a%09", "a%20b", "a%c2%a0", "a%e3%80%80", "+", "a+b"),
    "digits of other scripts": ("%d9%a3", "%ef%bc%91", "%c2%b2", "%e2%91%a0", "%f0%9d%9f%98"),
    "lookalikes": ("%d0%b0", "%ef%bd%81", "%e2%84%aa", "%c4%b1", "%cf%83", "%e1%b4%80", "a%cc%81", "%ef%ac%81"),
    "invisible": ("a%e2%80%8bb", "%ef%bb%bfa", "a%e2%80%ae", "a%c2%ad", "%f3%a0%81%a1"),
    "quoting": ("'%20OR%201=1--", "%22", "$(id)", "`id`", "{{7*7}}", "%3cscript%3e", "a;b", "a,b", "*", "[a]"),
}  # fmt: skip
EVERY_HOSTILE = [text for texts in HOSTILE.values() for text in texts]
NAMES = [
    *EVERY_HOSTILE,
    "../a", "a/../b", "a/..", "a/.", "./a", "a/%2e%2e/b", "a%2f..%2fb", "%2fa", "a%2f", "a%2f%2fb", "a//b",
    "..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%252e%252e%252fa", "..%c0%afa", "a%5cb",
    "A", "a/B", "ALPINE", "_catalog", "a/_oci", "a_", "-a", "a-", "a..b", "a___b", "a._b", "localhost:5000/a", "a@b",
    f"a@{ABSENT}", "a" * 256, "a/" * 128 + "a", "%61" * 256, "a" * 65_536,
]  # fmt: skip
TAGS = [*EVERY_HOSTILE, "-a", ".a", "a@b", "a" * 129, "%61" * 129, "a" * 65_536]
# Whatever is wrong with them, they are meant as digests: there is a colon.
DIGESTS = [
    *(f"sha256:{text}" for text in EVERY_HOSTILE),
    *(f"{ABSENT}{text}" for text in EVERY_HOSTILE),
    *(f"{ABSENT[:-1]}{text}" for text in EVERY_HOSTILE),
    ":", "sha256:", f":{HEX}", f"sha256:{HEX.upper()}", f"SHA256:{HEX}", f"Sha256:{HEX}", f"sha256:{HEX[:-1]}",
    f"sha256:{HEX}0", f"sha512:{HEX}", f"sha512:{HEX}{HEX}0", f"sha512:{(HEX * 2)[:-1]}", f"sha256::{HEX}",
    f"sha256:sha256:{HEX}", f"sha256:{'g' * 64}", f"sha256:0x{HEX[2:]}", f"sha256:{'%d9%a3' * 64}",
    f"sha256:{'%ef%bc%91' * 64}", f"sha256:{HEX}%0a", f"%20sha256:{HEX}", f"sha256:%20{HEX}", f"sha256%3a{HEX[1:]}",
    f"sha256:-{HEX[1:]}", f"sha256:{HEX},sha256:{HEX}", "sha256:" + "a" * 65_536, "+:a", "md5+:a", "MD5:abc",
    "a:" * 100,
]  # fmt: skip
# Well-formed digests of algorithms that nobody here has.
SOMEBODY_ELSES = [
    "md5:d41d8cd98f00b204e9800998ecf8427e",
    f"blake3:{HEX}",
    f"sha384:{HEX}{HEX[:32]}",
    "a.b-c_d+e:=_-Z",
]
IDS = [
    *EVERY_HOSTILE, "0", "a" * 36, "0" * 32, UPLOAD.upper().replace("0", "A"), f"{{{UPLOAD}}}", f"urn:uuid:{UPLOAD}",
    f"{UPLOAD}%0a", f"%20{UPLOAD}", f"{UPLOAD}0", UPLOAD[:-1], UPLOAD.replace("0", "%d9%a0"), "a" * 65_536,
]  # fmt: skip


def with_name(name: str) -> list[tuple[str, str]]:
    """Every request that has a repository's name in it."""
    places = [
        ("GET", "tags/list"), ("HEAD", "tags/list"), ("GET", f"referrers/{ABSENT}"),
        ("GET", "manifests/latest"), ("HEAD", "manifests/latest"), ("PUT", "manifests/latest"),
        ("PUT", f"manifests/{image().digest()}?tag=a"), ("DELETE", "manifests/latest"),
        ("DELETE", f"manifests/{ABSENT}"),
        ("GET", f"blobs/{ABSENT}"), ("HEAD", f"blobs/{ABSENT}"), ("DELETE", f"blobs/{ABSENT}"),
        ("POST", "blobs/uploads/"), ("POST", f"blobs/uploads/?digest={digest_of(b'{}')}"),
        ("POST", f"blobs/uploads/?mount={digest_of(b'{}')}&from=a/b"),
        *((method, f"blobs/uploads/{UPLOAD}?digest={ABSENT}") for method in ("GET", "PATCH", "PUT", "DELETE")),
    ]  # fmt: skip
    return [(method, f"/v2/{name}/{rest}") for method, rest in places]


async def an_image(registry: Registry) -> None:
    """Something that could be changed: an image, a blob of its own and a session with bytes in it."""
    await registry.push_image("a/b", "latest")
    await registry.push_blob("a/b", b"a blob of its own")
    await patch(registry, await open_upload(registry, "a/b"), b"held")


@served()
async def test_name_when_malformed_in_any_way_and_place_then_gets_400_with_the_grammar_and_changes_nothing(
    registry: Registry, tmp_path: Path
) -> None:
    await an_image(registry)
    async with unchanged(registry, tmp_path):
        for number, name in enumerate(NAMES):
            # Every place for some of them, and for each of them some places that change from one to the next.
            requests = with_name(name) if number % 20 == 0 else with_name(name)[number % 3 :: 3]
            for method, target in requests:
                await expect_refusal(registry, method, target, NameInvalid, body=b"{}")


@served()
async def test_name_when_at_its_longest_then_is_taken_and_one_more_is_not(registry: Registry) -> None:
    await registry.push_image("a" * 255, "t" * 128)
    answer = await ask(registry, "GET", f"/v2/{'a' * 255}/manifests/{'t' * 128}")
    assert answer.status_code == 200
    await expect_refusal(registry, "GET", f"/v2/{'a' * 256}/manifests/x", NameInvalid, "at most 255")
    await expect_refusal(
        registry, "PUT", f"/v2/a/manifests/{'t' * 129}", TagInvalid, "at most 127 of", body=b"{}"
    )


NO_PATHS = [
    "/v2//tags/list", "//v2/a/tags/list", "//v2/", "/v2//_catalog", "/v2/_catalog//x", "/%76%32x/", "/v2%00/",
    "/v2/%00",
    "/v2/a/tags/list%00", "/v2/a/tags/list%0a", "/v2/a/tags/%6cist/x", "/v2/;/", "/../v2/", "/./v2/",
    "/v2/../../etc/passwd",
    "/v2/..%2f..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/etc/passwd", "\\v2\\", "*", "v2/", "/v2/#", "/v2/\u00e9", "/%ff",
    "/" * 65_536, "/v2/" + "a/" * 30_000,
]  # fmt: skip


@served()
async def test_path_when_it_is_none_of_the_api_then_gets_404_for_every_method(
    registry: Registry, tmp_path: Path
) -> None:
    await an_image(registry)
    async with unchanged(registry, tmp_path):
        for path in NO_PATHS:
            for method in (*METHODS, "OPTIONS", "TRACE", "PROPFIND"):
                await expect_refusal(registry, method, path, NotFound, "below /v2/", body=b"{}")


@served()
async def test_tag_when_malformed_then_a_put_gets_400_and_changes_nothing(
    registry: Registry, tmp_path: Path
) -> None:
    await an_image(registry)
    payload = image().payload
    async with unchanged(registry, tmp_path):
        for tag in TAGS:
            target = f"/v2/a/b/manifests/{tag}"
            await expect_refusal(
                registry, "PUT", target, TagInvalid, "expected a letter, digit or '_'", body=payload
            )
        for tag in TAGS:
            # In a query `;` does not separate, `+` is a space, `#` does not come, and `,` is no list.
            target = f"/v2/a/b/manifests/{image().digest()}?tag=fine&tag={tag}"
            await expect_refusal(
                registry, "PUT", target, TagInvalid, "expected a letter, digit or '_'", body=payload
            )


@served()
async def test_tag_when_malformed_then_there_is_no_such_manifest_and_the_detail_says_why(
    registry: Registry, tmp_path: Path
) -> None:
    await an_image(registry)
    async with unchanged(registry, tmp_path):
        for tag in TAGS:
            for method in ("GET", "HEAD", "DELETE"):
                target = f"/v2/a/b/manifests/{tag}"
                await expect_refusal(
                    registry, method, target, ManifestUnknown, "expected a letter, digit or '_'"
                )


DIGEST_PLACES: list[tuple[str, str]] = [
    ("GET", "blobs/{}"), ("HEAD", "blobs/{}"), ("DELETE", "blobs/{}"), ("GET", "manifests/{}"),
    ("HEAD", "manifests/{}"),
    ("PUT", "manifests/{}"), ("PUT", "manifests/{}?tag=a"), ("DELETE", "manifests/{}"), ("GET", "referrers/{}"),
    ("POST", "blobs/uploads/?digest={}"), ("POST", "blobs/uploads/?mount={}"),
    ("POST", "blobs/uploads/?mount={}&from=a/b"),
]  # fmt: skip


@pytest.mark.parametrize("part", ["blobs", "manifests", "referrers", "uploads"])
@served()
async def test_digest_when_malformed_then_gets_400_in_every_place_and_changes_nothing(
    registry: Registry, part: str, tmp_path: Path
) -> None:
    await an_image(registry)
    places = [(method, place) for method, place in DIGEST_PLACES if part in place.split("?")[0].split("/")]
    async with unchanged(registry, tmp_path):
        for digest in DIGESTS:
            for method, place in places:
                target = f"/v2/a/b/{place.format(digest)}"
                await expect_refusal(registry, method, target, DigestInvalid, body=image().payload)


# What is asked for, and what the refusal's detail must say of it: what came, and what would have been right.
DETAILS: list[tuple[str, str, type[RegistryError], tuple[str, ...]]] = [
    ("GET", "/v2/A/tags/list", NameInvalid, ("'A'", "expected lower-case letters")),
    ("GET", "/v2/../tags/list", NameInvalid, ("'..'", "expected lower-case letters")),
    ("GET", "/v2/a%0a/tags/list", NameInvalid, (r"'a\\n'", "expected lower-case letters")),
    ("GET", "/v2/a%00/tags/list", NameInvalid, (r"'a\\x00'", "expected lower-case letters")),
    ("GET", "/v2/%ef%bd%81/tags/list", NameInvalid, ("'\uff41'", "expected lower-case letters")),
    ("GET", f"/v2/{'a' * 256}/tags/list", NameInvalid, ("at most 255 characters, this one has 256",)),
    ("GET", f"/v2/{'a' * 65_536}/tags/list", NameInvalid, ("at most 255 characters, this one has 65536",)),
    ("PUT", "/v2/a/manifests/-x", TagInvalid, ("'-x'", "expected a letter, digit or '_', then at most 127 of")),
    ("PUT", f"/v2/a/manifests/{'x' * 129}", TagInvalid, ("xxx", "then at most 127 of")),
    ("GET", "/v2/a/blobs/sha256:abc", DigestInvalid, ("'sha256:abc'", "expected 64 lower-case hex digits")),
    ("GET", f"/v2/a/blobs/sha256:{HEX.upper()}", DigestInvalid, (HEX.upper(), "expected 64 lower-case hex digits")),
    ("GET", f"/v2/a/blobs/sha512:{HEX}", DigestInvalid, (HEX, "expected 128 lower-case hex digits")),
    ("GET", f"/v2/a/blobs/sha256:{HEX[1:]}%00", DigestInvalid, (r"\\x00", "expected algorithm:hex")),
    ("GET", "/v2/a/blobs/latest", DigestInvalid, ("'latest'", "expected algorithm:hex")),
    ("GET", f"/v2/a/blobs/SHA256:{HEX}", DigestInvalid, ("'SHA256'", "use sha256 or sha512")),
    ("POST", "/v2/a/blobs/uploads/?digest=sha256:../x", DigestInvalid, ("'sha256:../x'", "expected algorithm:hex")),
    ("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", DigestUnsupported, ("'md5'", "use sha256 or sha512")),
    ("POST", "/v2/a/blobs/uploads/?digest-algorithm=%00", DigestInvalid, (r"'\\x00'", "use sha256 or sha512")),
    ("GET", "/v2/a/blobs/uploads/..", BlobUploadUnknown, ('{"upload": ".."}',)),
]  # fmt: skip


@served()
async def test_address_when_refused_then_the_detail_quotes_it_and_says_what_would_be_right(
    registry: Registry,
) -> None:
    for method, target, kind, words in DETAILS:
        await expect_refusal(registry, method, target, kind, *words, body=b"{}")
    assert await registry.rows("SELECT 1 FROM repositories") == []


@served()
async def test_digest_when_of_an_algorithm_that_nobody_has_then_is_unknown_to_pulls_and_refused_by_pushes(
    registry: Registry, tmp_path: Path
) -> None:
    kinds: dict[tuple[str, str], type[RegistryError]] = {
        ("GET", "blobs/{}"): BlobUnknown,
        ("DELETE", "blobs/{}"): BlobUnknown,
        ("GET", "manifests/{}"): ManifestUnknown,
        ("DELETE", "manifests/{}"): ManifestUnknown,
        ("PUT", "manifests/{}"): DigestUnsupported,
        ("GET", "referrers/{}"): DigestUnsupported,
        ("POST", "blobs/uploads/?digest={}"): DigestUnsupported,
        ("POST", "blobs/uploads/?mount={}&from=a/b"): DigestUnsupported,
    }
    await an_image(registry)
    async with unchanged(registry, tmp_path):
        for digest in SOMEBODY_ELSES:
            for (method, place), kind in kinds.items():
                # The plus of an algorithm's name is a space in a query unless it is encoded.
                target = f"/v2/a/b/{place.format(digest.replace('+', '%2b'))}"
                body = image().payload
                await expect_refusal(registry, method, target, kind, "use sha256 or sha512", body=body)


@served()
async def test_session_id_when_malformed_then_is_unknown_and_changes_nothing(
    registry: Registry, tmp_path: Path
) -> None:
    await an_image(registry)
    async with unchanged(registry, tmp_path):
        for upload in IDS:
            for method in ("GET", "HEAD", "PATCH", "PUT", "DELETE"):
                target = f"/v2/a/b/blobs/uploads/{upload}?digest={ABSENT}"
                await expect_refusal(registry, method, target, BlobUploadUnknown, '"upload"', body=b"x")


@served()
async def test_addresses_when_made_to_be_slow_to_read_then_are_refused_at_once(registry: Registry) -> None:
    began = time.process_time()
    for filler in ("a", "a/", "a-", "a__", "a.", "%61", "%", "%2f", "..%2f", "-", ":", "sha256:"):
        text = filler * (65_536 // len(filler))
        for target in (
            f"/v2/{text}!/tags/list",
            f"/v2/a/manifests/{text}!",
            f"/v2/a/blobs/{text}!",
            f"/{text}",
        ):
            assert (await ask(registry, "GET", target)).status_code in (400, 404)
    assert time.process_time() - began < 10
