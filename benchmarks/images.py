"""What is pushed and pulled: the same bytes in every run, unless they have to be new."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from typing import Any, Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
# What docker sends, so that both sides may answer with what they have.
ACCEPT: Final = (
    f"{MANIFEST_TYPE}, application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json"
)
_CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Image:
    """A manifest and its blobs."""

    manifest: bytes
    blobs: tuple[bytes, ...]


def digest_of(content: bytes) -> str:
    """Its digest as clients write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def noise(seed: str, size: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)  # noqa: S311  (nothing secret)


def image(seed: str, *, layers: int = 5, layer_bytes: int = 10 * KIB, variant: str = "") -> Image:
    """An image. Those of one seed share their blobs; each variant has a manifest of its own."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "seed": seed}).encode()
    contents = [noise(f"{seed} layer {number}", layer_bytes) for number in range(layers)]
    return Image(manifest_of(config, contents, variant), (config, *contents))


def manifest_of(config: bytes, layers: list[bytes], variant: str = "") -> bytes:
    """The manifest of these blobs."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _descriptor(config, _CONFIG_TYPE),
        "layers": [_descriptor(layer, _LAYER_TYPE) for layer in layers],
    }
    if variant:
        document["annotations"] = {"org.opencontainers.image.version": variant}
    return json.dumps(document).encode()


def _descriptor(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}
