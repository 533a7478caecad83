"""Images with real layers and configs, and the forms in which clients take them from disk.

Made from nothing but their names: the same bytes in every run, so that a digest in a failure can be looked up.
What clients bring home is compared with `directory_files` and `layout_files`, byte by byte.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from app.domain.manifests import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.support.registry import CONFIG_TYPE, Image, descriptor, digest_of, encoded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_TYPE: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"

# manifest, config, layer
_OCI: Final = (OCI_MANIFEST, CONFIG_TYPE, LAYER_TYPE)
_DOCKER: Final = (DOCKER_MANIFEST, DOCKER_CONFIG_TYPE, DOCKER_LAYER_TYPE)


@dataclass(frozen=True)
class Package:
    """What one tag stands for: an image, or an index with the images that it lists."""

    root: Image
    children: tuple[Image, ...] = ()

    @property
    def manifests(self) -> tuple[Image, ...]:
        """All of them, each behind what it refers to."""
        return (*self.children, self.root)

    @property
    def blobs(self) -> dict[str, bytes]:
        """Every config and layer by its digest."""
        return {digest_of(blob): blob for manifest in self.manifests for blob in manifest.blobs}


def layer(files: Mapping[str, bytes]) -> bytes:
    """A tar of these files, which root owns."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), 1_700_000_000, 0o644
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def make_image(
    seed: str, *, docker: bool = False, architecture: str = "amd64", size: int = 200_000, **more: Any
) -> Image:
    """An image that container engines take: two layers, of which one is the same for every seed."""
    noise = random.Random(seed).randbytes(size)  # incompressible, so that it stays of that size
    tars = [layer({"etc/os-release": b"NAME=nothing\n"}), layer({"hello": seed.encode(), "noise": noise})]
    config = encoded(
        {
            "architecture": architecture,
            "os": "linux",
            "created": "2023-11-14T22:13:20Z",
            "config": {"Cmd": ["/hello"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
            "history": [{"created": "2023-11-14T22:13:20Z", "created_by": f"{seed} {i}"} for i in (1, 2)],
        }
    )
    manifest_type, config_type, layer_type = _DOCKER if docker else _OCI
    layers = [gzip.compress(tar, mtime=0) for tar in tars]
    document = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": descriptor(config, config_type),
        "layers": [descriptor(content, layer_type) for content in layers],
        **more,
    }
    return Image(encoded(document), manifest_type, (config, *layers))


def make_index(seed: str, *, docker: bool = False) -> Package:
    """An index, or a Docker manifest list, of images for two platforms."""
    children = {
        architecture: make_image(f"{seed} {architecture}", docker=docker, architecture=architecture)
        for architecture in ("amd64", "arm64")
    }
    media_type = DOCKER_LIST if docker else OCI_INDEX
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [
            descriptor(
                image.payload, image.media_type, platform={"architecture": architecture, "os": "linux"}
            )
            for architecture, image in children.items()
        ],
    }
    return Package(Image(encoded(document), media_type), tuple(children.values()))


def make_artifact(seed: str, subject: Image, artifact_type: str) -> Image:
    """Something about `subject`, such as a signature: an OCI manifest whose config is empty."""
    content = f"about {digest_of(subject.payload)}: {seed}".encode()
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": descriptor(b"{}", EMPTY_TYPE),
        "layers": [descriptor(content, "text/plain")],
        "subject": descriptor(subject.payload, subject.media_type),
        "annotations": {"org.example.seed": seed},
    }
    return Image(encoded(document), OCI_MANIFEST, (b"{}", content))


def unpacked(image: Image) -> list[bytes]:
    """The image's layers as the tars that they were."""
    return [gzip.decompress(content) for content in image.blobs[1:]]


def directory_files(package: Package) -> dict[str, bytes]:
    """The files of containers-dir(5), skopeo's `dir:`."""
    files = {hex_of(digest): blob for digest, blob in package.blobs.items()}
    files |= {f"{hex_of(child.digest())}.manifest.json": child.payload for child in package.children}
    return files | {"manifest.json": package.root.payload, "version": b"Directory Transport Version: 1.1\n"}


def layout_files(package: Package, tag: str) -> dict[str, bytes]:
    """The files of an OCI image layout, skopeo's `oci:`."""
    root = package.root
    entry = descriptor(root.payload, root.media_type, annotations={"org.opencontainers.image.ref.name": tag})
    return {
        "oci-layout": encoded({"imageLayoutVersion": "1.0.0"}),
        "index.json": encoded({"schemaVersion": 2, "manifests": [entry]}),
    } | layout_blobs(package)


def layout_blobs(package: Package) -> dict[str, bytes]:
    """Those of its files whose names are digests."""
    contents = package.blobs | {manifest.digest(): manifest.payload for manifest in package.manifests}
    return {f"blobs/sha256/{hex_of(digest)}": content for digest, content in contents.items()}


def write_files(directory: Path, files: Mapping[str, bytes]) -> Path:
    """Write them below the directory, which is returned."""
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


def read_files(directory: Path) -> dict[str, bytes]:
    """Every file below the directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def write_archive(path: Path, image: Image, reference: str) -> Path:
    """What `docker save` writes and `docker load` reads. Returns the path."""
    config_name = f"{hex_of(digest_of(image.blobs[0]))}.json"
    names = [f"{number}/layer.tar" for number in range(len(image.blobs) - 1)]
    index = json.dumps([{"Config": config_name, "RepoTags": [reference], "Layers": names}]).encode()
    contents = {"manifest.json": index, config_name: image.blobs[0]}
    path.write_bytes(layer(contents | dict(zip(names, unpacked(image), strict=True))))
    return path


def read_archive(path: Path) -> tuple[bytes, list[bytes]]:
    """The config and the layers, as tars, of the one image in what `docker save` wrote."""
    with tarfile.open(path) as archive:
        (entry,) = json.loads(_member(archive, "manifest.json"))
        layers = [_member(archive, name) for name in entry["Layers"]]
        return _member(archive, entry["Config"]), layers


def hex_of(digest: str) -> str:
    """A digest without its algorithm."""
    return digest.partition(":")[2]


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    content = archive.extractfile(name)
    assert content is not None
    return content.read()
