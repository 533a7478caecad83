"""The content as files: objects of ours, and the tree that Distribution keeps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from benchmarks.gc.content import repositories

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.gc.content import Blob, Repository, Size

_TREE: Final = "docker/registry/v2"


def write_objects(root: Path, size: Size) -> None:
    """Have the content below `root`, where our storage driver looks for it, and nothing else there."""
    for number in range(256):
        (root / "objects" / f"{number:02x}").mkdir(mode=0o700, parents=True, exist_ok=True)
    there = {
        f"objects/{part.name}/{entry.name}"
        for part in os.scandir(root / "objects")
        for entry in os.scandir(part)
    }
    for repository in repositories(size):
        for blob in repository.blobs.values():
            key = blob.key
            if key in there:
                there.remove(key)
            else:
                _write(f"{root}/{key}", blob.content)
    for key in there:
        os.unlink(f"{root}/{key}")  # noqa: PTH108


def count_objects(root: Path) -> int:
    """Objects below our root."""
    return sum(1 for directory in os.scandir(root / "objects") for _ in os.scandir(directory))


def write_tree(root: Path, size: Size) -> None:
    """Write what Distribution would have after pushes of every build, one after the other, to its tag."""
    base = root / _TREE
    for number in range(256):
        (base / "blobs" / "sha256" / f"{number:02x}").mkdir(parents=True, exist_ok=True)
    for repository in repositories(size):
        manifests = [image.manifest for image in repository.images]
        for blob in (*repository.blobs.values(), *manifests):
            _write_in(f"{base}/blobs/sha256/{blob.hash.hex()[:2]}/{blob.hash.hex()}", "data", blob.content)
        _write_links(base / "repositories" / repository.name, repository)


def count_tree(root: Path) -> int:
    """Blobs in Distribution's tree, manifests among them."""
    blobs = root / _TREE / "blobs" / "sha256"
    return sum(1 for directory in os.scandir(blobs) for _ in os.scandir(directory))


def _write_links(directory: Path, repository: Repository) -> None:
    layers, manifests = directory / "_layers/sha256", directory / "_manifests"
    revisions = manifests / "revisions/sha256"
    for made in (layers, revisions):
        made.mkdir(parents=True)
    for blob in repository.blobs.values():
        _link(layers, blob)
    for image in repository.images:
        _link(revisions, image.manifest)
        tag = manifests / "tags" / image.tag
        if image.is_tagged:
            (tag / "index/sha256").mkdir(parents=True)
            _write_in(f"{tag}/current", "link", image.manifest.digest.encode())
        _link(tag / "index/sha256", image.manifest)


def _link(directory: Path, blob: Blob) -> None:
    _write_in(f"{directory}/{blob.hash.hex()}", "link", blob.digest.encode())


# Strings, and no context managers around: there are a million of these files.
def _write_in(directory: str, name: str, content: bytes) -> None:
    os.mkdir(directory)  # noqa: PTH102
    _write(f"{directory}/{name}", content)


def _write(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, content)
    os.close(descriptor)
