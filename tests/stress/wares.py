"""What the pushers push: images of a few blobs that they all share, some the same for all, some one pusher's own."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from tests.support.registry import descriptor, digest_of, image, index

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.registry import Image

BLOBS: Final = 40
# So many images are the same for everybody.
COMMON_IMAGES: Final = 16
_LAYERS: Final = (1, 1, 1, 2, 2, 4)
_BLOB_BYTES_MAX: Final = 20_000


@dataclass(frozen=True)
class Ware:
    """A manifest with what it needs: blobs by digest, and children that are manifests."""

    manifest: Image
    blobs: Mapping[str, bytes]
    children: tuple[Ware, ...] = ()
    subject: str = ""

    @cached_property
    def digest(self) -> str:
        return self.manifest.digest()


class Wares:
    """All that can be pushed. Two with one seed have the same."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        sizes = [chance.randint(1, _BLOB_BYTES_MAX) for _ in range(BLOBS - 1)]
        self._blobs = [b"{}", *(chance.randbytes(size) for size in sizes)]
        self.common = [self._image(chance, {}) for _ in range(COMMON_IMAGES)]

    def image(self, chance: random.Random, mark: str) -> Ware:
        """An image that nobody else has; `mark` says whose it is."""
        return self._image(chance, {"org.example.mark": mark})

    def index(self, mark: str, *children: Ware) -> Ware:
        made = index(*(child.manifest for child in children), annotations={"org.example.mark": mark})
        return Ware(made, {}, tuple({child.digest: child for child in children}.values()))

    def referrer(self, chance: random.Random, mark: str, subject: Ware) -> Ware:
        """Something about the subject: its config and its layer may be the same two bytes."""
        about = descriptor(subject.manifest.payload, subject.manifest.media_type)
        layer = chance.choice((b"{}", self._blobs[1], chance.choice(self._blobs)))
        made = image(
            layer, config=b"{}", artifactType="a/b", subject=about, annotations={"org.example.mark": mark}
        )
        return Ware(made, _by_digest(made), subject=subject.digest)

    def _image(self, chance: random.Random, annotations: dict[str, str]) -> Ware:
        layers = chance.sample(self._blobs, chance.choice(_LAYERS))
        config = chance.choice((b"{}", b"{}", chance.choice(self._blobs)))
        made = image(*layers, config=config, annotations=annotations)
        return Ware(made, _by_digest(made))


def _by_digest(made: Image) -> dict[str, bytes]:
    return {digest_of(blob): blob for blob in made.blobs}
