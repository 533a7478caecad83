"""What the examples push: a few blobs, and manifests of every kind over them, each known by a label.

A pool's contents are its own, so that nothing that a process remembers of one example helps or hurts the next; their
lengths are the same in every pool. What is known of a manifest is written down here beside it, not read from its bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from app.domain.manifests import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.support.registry import CONFIG_TYPE, LAYER_TYPE, descriptor, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENTS: Final = ("nothing", "{}", "byte", "short", "other", "config", "long")
DOCKER_LISTS: Final = ("docker list", "docker list without amd64", "docker list of an OCI image")
ABOUT_IMAGE: Final = ("signature", "sbom", "index about the image")
MANIFESTS: Final = (
    "image", "second", "bare", "same blob twice", "by sha512", "foreign layers", "docker",
    "index", "nested index", "empty index", "same child twice", "cache index", "index by sha512",
    *DOCKER_LISTS, *ABOUT_IMAGE, "sbom of the index", "signature of the sbom", "orphan",
)  # fmt: skip
# Digests that something may be asked about, and that no pool has.
GHOST: Final = "ghost"
SBOM_TYPE: Final = "application/vnd.example.sbom+json"
EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
DOCKER_CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_TYPE: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
FOREIGN_TYPE: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
LONG_BYTES: Final = 70_000


@dataclass(frozen=True)
class Manifest:
    """A manifest's bytes, and what a registry must know of them.

    `blobs` are needed, by digest. `children` are needed as manifests under these digests. `subject` and
    `artifact_type` are what makes it a referrer. `amd64` is what takes a Docker list's place for those who know none.
    """

    media_type: str
    payload: bytes
    blobs: dict[str, bytes]
    children: dict[str, Manifest]
    subject: str | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None
    amd64: str | None = None

    def digest(self, algorithm: str = "sha256") -> str:
        return digest_of(self.payload, algorithm)


class Pool:
    """Contents and manifests of one example. `salt` has always the same length."""

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._manifests: dict[str, Manifest] = {}
        self._digests: dict[tuple[str, str], str] = {}

    @cached_property
    def contents(self) -> dict[str, bytes]:
        long = f"long {self._salt} ".encode()
        return {
            "nothing": b"",
            "{}": b"{}",
            "byte": b"x",
            "short": f"short {self._salt}".encode(),
            "other": f"another {self._salt}".encode(),
            "config": json.dumps({"architecture": "amd64", "os": "linux", "salt": self._salt}).encode(),
            "long": (long * (LONG_BYTES // len(long) + 1))[:LONG_BYTES],
        }

    def manifest(self, label: str) -> Manifest:
        if label not in self._manifests:
            self._manifests[label] = _MAKERS[label](self)
        return self._manifests[label]

    def digest(self, label: str, algorithm: str = "sha256") -> str:
        """The digest of a content."""
        return self._known(label, algorithm, lambda: self.contents[label])

    def subject(self, label: str, algorithm: str = "sha256") -> str:
        """The digest of a manifest, or of one that nobody has."""
        return self._known(
            label, algorithm, lambda: b"ghost" if label == GHOST else self.manifest(label).payload
        )

    def image(
        self,
        *layers: str,
        config: str = "config",
        config_type: str = CONFIG_TYPE,
        docker: bool = False,
        algorithm: str = "sha256",
        foreign: tuple[str, ...] = (),
        **more: Any,
    ) -> Manifest:
        """An image of contents by label; `foreign` are layers that live elsewhere."""
        layer_type = DOCKER_LAYER_TYPE if docker else LAYER_TYPE
        entries = [descriptor(self.contents[label], layer_type, algorithm) for label in layers]
        entries += [
            descriptor(text.encode(), FOREIGN_TYPE, urls=[f"https://layers.example/{text}"])
            for text in foreign
        ]
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
            "config": descriptor(
                self.contents[config], DOCKER_CONFIG_TYPE if docker else config_type, algorithm
            ),
            "layers": entries,
            **more,
        }
        needed = (self.contents[label] for label in (config, *layers))
        blobs = {digest_of(content, algorithm): content for content in needed}
        kind = None if docker else more.get("artifactType", config_type)
        return self._made(document, blobs, {}, kind)

    def index(
        self,
        *children: str,
        docker: bool = False,
        algorithm: str = "sha256",
        blob: str = "",
        platforms: tuple[str, ...] = ("arm64", "amd64", "s390x"),
        **more: Any,
    ) -> Manifest:
        """An index of manifests by label, each for its platform; `blob` is an entry that is no manifest."""
        parts = {platform: self.manifest(label) for platform, label in zip(platforms, children, strict=False)}
        entries = [
            descriptor(
                part.payload, part.media_type, algorithm, platform={"os": "linux", "architecture": platform}
            )
            for platform, part in parts.items()
        ]
        blobs: dict[str, bytes] = {}
        if blob:
            entries.append(descriptor(self.contents[blob], LAYER_TYPE))
            blobs[digest_of(self.contents[blob])] = self.contents[blob]
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": DOCKER_LIST if docker else OCI_INDEX,
            "manifests": entries,
            **more,
        }
        needed = {part.digest(algorithm): part for part in parts.values()}
        amd64 = parts["amd64"].digest(algorithm) if docker and "amd64" in parts else None
        return self._made(document, blobs, needed, more.get("artifactType"), amd64)

    def about(self, label: str) -> dict[str, Any]:
        """The descriptor of a subject."""
        known = {"mediaType": OCI_MANIFEST, "size": 7, "digest": self.subject(label)}
        return known if label == GHOST else {**known, "mediaType": self.manifest(label).media_type}

    def _known(self, label: str, algorithm: str, content: Callable[[], bytes]) -> str:
        if (label, algorithm) not in self._digests:
            self._digests[label, algorithm] = digest_of(content(), algorithm)
        return self._digests[label, algorithm]

    def _made(
        self,
        document: dict[str, Any],
        blobs: dict[str, bytes],
        children: dict[str, Manifest],
        kind: str | None,
        amd64: str | None = None,
    ) -> Manifest:
        subject = document.get("subject")
        return Manifest(
            document["mediaType"],
            json.dumps(document).encode(),
            blobs,
            children,
            subject=None if subject is None else subject["digest"],
            artifact_type=kind,
            annotations=document.get("annotations"),
            amd64=amd64,
        )


_MAKERS: Final[dict[str, Callable[[Pool], Manifest]]] = {
    "image": lambda p: p.image("short", config="{}"),
    "second": lambda p: p.image("short", "long"),
    "bare": lambda p: p.image(),
    "same blob twice": lambda p: p.image("{}", "other", "other", config="{}"),
    "by sha512": lambda p: p.image("short", "nothing", algorithm="sha512"),
    "foreign layers": lambda p: p.image("byte", config="{}", foreign=("one", "two")),
    "docker": lambda p: p.image("other", docker=True),
    "index": lambda p: p.index("image", "second"),
    "nested index": lambda p: p.index("index", "docker"),
    "empty index": lambda p: p.index(),
    "same child twice": lambda p: p.index("image", "image"),
    "cache index": lambda p: p.index("bare", blob="other"),
    "index by sha512": lambda p: p.index("image", "by sha512", algorithm="sha512"),
    "docker list": lambda p: p.index("image", "docker", docker=True),
    "docker list without amd64": lambda p: p.index("docker", docker=True),
    "docker list of an OCI image": lambda p: p.index("image", docker=True, platforms=("amd64",)),
    "signature": lambda p: p.image("byte", config="{}", subject=p.about("image")),
    "sbom": lambda p: p.image(
        "other",
        config="{}",
        config_type=EMPTY_TYPE,
        artifactType=SBOM_TYPE,
        subject=p.about("image"),
        annotations={"org.example.of": "image", "": "\u00e9"},
    ),
    "sbom of the index": lambda p: p.image(
        "{}", config="{}", artifactType=SBOM_TYPE, subject=p.about("index")
    ),
    "index about the image": lambda p: p.index("bare", subject=p.about("image"), annotations={}),
    "signature of the sbom": lambda p: p.image("byte", subject=p.about("sbom")),
    "orphan": lambda p: p.image(config="{}", artifactType="a/b+c", subject=p.about(GHOST)),
}
