"""What one client has in one repository of its own: since nobody else writes there, it knows every answer."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from app.domain.manifests import OCI_MANIFEST
from tests.support.registry import CONFIG_TYPE, LAYER_TYPE, encoded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Blobs that no image needs are forgotten when there are more.
BLOBS_MAX: Final = 200


@dataclass(frozen=True)
class Content:
    """Random bytes, made again from their seed whenever they are looked at: a long soak keeps none of them."""

    seed: int
    size: int

    def read(self) -> bytes:
        return random.Random(self.seed).randbytes(self.size)

    @cached_property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.read()).hexdigest()}"

    def descriptor(self, media_type: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Image:
    """A manifest and what it needs, by digest. `subject` is another manifest's digest."""

    payload: bytes
    contents: Mapping[str, Content]
    subject: str | None = None

    @cached_property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.payload).hexdigest()}"

    @property
    def subject_descriptor(self) -> dict[str, Any]:
        return {"mediaType": OCI_MANIFEST, "digest": self.digest, "size": len(self.payload)}


def make_image(config: Content, layers: Sequence[Content], subject: Image | None = None) -> Image:
    """An image, or something about another one."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.descriptor(CONFIG_TYPE),
        "layers": [layer.descriptor(LAYER_TYPE) for layer in layers],
    }
    if subject is not None:
        document["subject"] = subject.subject_descriptor
    return Image(
        encoded(document),
        {content.digest: content for content in (config, *layers)},
        None if subject is None else subject.digest,
    )


@dataclass
class Shelf:
    """The repository `name`: blobs and images by digest, images also by tag."""

    name: str
    blobs: dict[str, Content] = field(default_factory=dict[str, Content])
    images: dict[str, Image] = field(default_factory=dict[str, Image])
    tags: dict[str, str] = field(default_factory=dict[str, str])

    def referrers(self, image: Image) -> set[str]:
        """What is about the image."""
        return {other.digest for other in self.images.values() if other.subject == image.digest}

    def needs(self, digest: str) -> bool:
        """Whether an image needs the blob."""
        return any(digest in image.contents for image in self.images.values())

    def add(self, image: Image) -> None:
        """Put the image there, as the youngest."""
        self.images.pop(image.digest, None)
        self.images[image.digest] = image

    def remove(self, image: Image) -> None:
        """Take the image away, with its tags."""
        del self.images[image.digest]
        self.tags = {tag: digest for tag, digest in self.tags.items() if digest != image.digest}
        if len(self.blobs) > BLOBS_MAX:
            self.blobs = {digest: content for digest, content in self.blobs.items() if self.needs(digest)}
