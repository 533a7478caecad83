"""What lies in the registries: computed from the number of a repository, so that nobody has to keep it.

A repository has ten tags. Each names an image of ten layers, all its own, and had two earlier builds, which are
untagged now: they share five layers with it and have five of their own. Beside them lie blobs that no manifest names.
Every layer, config and such blob is a file of 4 KiB. A thousand repositories make the full size:

    20,000 untagged manifests    with 100,000 layers and 20,000 configs that go with them
    10,000 tagged manifests      with 100,000 layers and 10,000 configs that stay, half of the layers in three manifests
    100,000 dangling blobs
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks.images import MANIFEST_TYPE, noise

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOB_BYTES: Final = 4096
TAGS: Final = 10
BUILDS: Final = 2
LAYERS: Final = 10
SHARED: Final = 5
DANGLING: Final = 100
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_GROUP: Final = 100
_FILLING: Final = noise("gc", BLOB_BYTES)


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes, and their SHA-256."""

    content: bytes
    hash: bytes

    @property
    def digest(self) -> str:
        """As clients write it."""
        return f"sha256:{self.hash.hex()}"

    @property
    def key(self) -> str:
        """Its storage key on our side: of the form of app/blobs/keys.py, and always the same."""
        name = hashlib.blake2b(self.hash, digest_size=16).hexdigest()
        return f"objects/{name[:2]}/{name}"


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest and what it names. `is_tagged` is false for an earlier build of the tag."""

    tag: str
    is_tagged: bool
    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository; `images` has each tag's image first, then its earlier builds."""

    name: str
    images: tuple[Image, ...]
    dangling: tuple[Blob, ...]

    @property
    def blobs(self) -> dict[bytes, Blob]:
        """Every blob but the manifests, by its hash."""
        named = [blob for image in self.images for blob in (image.config, *image.layers)]
        return {blob.hash: blob for blob in (*named, *self.dangling)}


@dataclass(frozen=True)
class Size:
    """How much there is of everything."""

    repositories: int

    @property
    def untagged(self) -> int:
        """Manifests that go."""
        return self.repositories * TAGS * BUILDS

    @property
    def tagged(self) -> int:
        """Manifests that stay."""
        return self.repositories * TAGS

    @property
    def dangling(self) -> int:
        """Blobs that no manifest names."""
        return self.repositories * DANGLING

    @property
    def referenced(self) -> int:
        """Layers that stay."""
        return self.tagged * LAYERS

    @property
    def going(self) -> int:
        """Blobs that go, manifests not counted."""
        return self.dangling + self.untagged * (LAYERS - SHARED + 1)

    @property
    def staying(self) -> int:
        """Blobs that stay, manifests not counted."""
        return self.referenced + self.tagged


def repositories(size: Size) -> Iterator[Repository]:
    """All of them, each made when it is its turn."""
    return (repository(number) for number in range(size.repositories))


def repository(number: int) -> Repository:
    """One of them."""
    name = f"group-{number // _GROUP:03}/project-{number:05}"
    images: list[Image] = []
    for tag in range(TAGS):
        seed = f"{number} {tag}"
        own = tuple(_blob(f"{seed} layer {layer}") for layer in range(LAYERS))
        images.append(_image(f"v{tag}", own, _blob(f"{seed} config"), is_tagged=True))
        for build in range(BUILDS):
            changed = tuple(_blob(f"{seed} {build} layer {layer}") for layer in range(LAYERS - SHARED))
            layers, config = own[:SHARED] + changed, _blob(f"{seed} {build} config")
            images.append(_image(f"v{tag}", layers, config, is_tagged=False))
    return Repository(name, tuple(images), tuple(_blob(f"{number} dangling {at}") for at in range(DANGLING)))


def _image(tag: str, layers: tuple[Blob, ...], config: Blob, *, is_tagged: bool) -> Image:
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _descriptor(config, CONFIG_TYPE),
        "layers": [_descriptor(layer, LAYER_TYPE) for layer in layers],
    }
    content = json.dumps(document).encode()
    return Image(tag, is_tagged, Blob(content, hashlib.sha256(content).digest()), config, layers)


def _blob(seed: str) -> Blob:
    head = f"{seed}\n".encode()
    content = head + _FILLING[len(head) :]
    return Blob(content, hashlib.sha256(content).digest())


def _descriptor(blob: Blob, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": blob.digest, "size": len(blob.content)}
