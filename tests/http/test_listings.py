"""Tags and catalog: order, pages, links, and numbers that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from app.http.call import ApiRules
from app.http.wire import Origin
from tests.http.support import open_upload, put, refused, served
from tests.support.registry import image, index

if TYPE_CHECKING:
    import httpx

    from tests.support.registry import Registry

# In the order of their bytes, which is neither the alphabet's nor a locale's.
TAGS = ["0", "1.10", "1.9", "A", "Z", "_x", "a", "a-b", "a.b", "a_b", "ab", "b", "z", "z" * 128]
NAMES = ["a", "a-b", "a.b", "a/b", "a/c", "a0", "aa", "b", "b/c/d", "c__d"]
BAD_NUMBERS = [
    "-1", "-0", "+1", "1.0", "1e3", "x", "NaN", "Infinity", "0x10", "1_000", "%201", "1%20", "%00", "1%00", "\u0663",
    "--1", "1,2", "9" * 19, "9" * 5000, f"{-(2**63)}", f"{2**64}",
]  # fmt: skip
BAD_LASTS = ["%00", "a%00b", "x" * 513, "x" * 10_000]


async def tagged(registry: Registry, name: str = "a/b", tags: list[str] = TAGS, prefix: str = "") -> None:
    """A repository with these tags, on one manifest."""
    manifest = image()
    base = f"{prefix}/v2/{name}"
    target = f"{base}/blobs/uploads/?digest={manifest.digest()}"
    del target
    answer = await registry.client.post(f"{base}/blobs/uploads/")
    location = answer.headers["Location"]
    digest = image().blobs[0]
    del digest
    config = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    answer = await registry.client.put(f"{location}?digest={config}", content=b"{}")
    assert answer.status_code == 201, answer.text
    query = "&".join(f"tag={tag}" for tag in tags)
    answer = await registry.client.put(
        f"{base}/manifests/{manifest.digest()}?{query}",
        content=manifest.payload,
        headers={"Content-Type": manifest.media_type},
    )
    assert answer.status_code == 201, answer.text
