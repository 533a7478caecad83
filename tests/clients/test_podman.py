"""podman and buildah: images that others pushed arrive whole, and images that they push are what they had."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.images import (
    Package,
    layout_files,
    make_image,
    make_index,
    unpacked,
    write_archive,
    write_files,
)
from tests.support.registry import digest_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.programs import Sandbox
    from tests.support.registry import Image
    from tests.support.served import Served


def pushed(registry: Served, name: str, reference: str) -> tuple[str, bytes, list[bytes]]:
    """What the registry has: the manifest's digest, the config, and the layers as tars."""
    manifest = registry.client.get(f"{registry.url}/v2/{name}/manifests/{reference}")
    document: dict[str, Any] = manifest.json()
    contents: list[bytes] = []
    for entry in (document["config"], *document["layers"]):
        content = registry.client.get(f"{registry.url}/v2/{name}/blobs/{entry['digest']}").content
        assert (digest_of(content), len(content)) == (entry["digest"], entry["size"])
        contents.append(content)
    assert manifest.headers["Docker-Content-Digest"] == digest_of(manifest.content)
    return digest_of(manifest.content), contents[0], [gzip.decompress(layer) for layer in contents[1:]]


def id_of(image: Image) -> str:
    return digest_of(image.blobs[0]).removeprefix("sha256:")


@pytest.mark.needs("podman", "root")
@pytest.mark.parametrize("docker", [False, True], ids=["oci-image", "docker-image"])
def test_podman_when_it_pulls_what_was_pushed_then_has_the_same_image(
    docker: bool, registry: Served, sandbox: Sandbox
) -> None:
    image = make_image("for podman", docker=docker)
    name = f"podman/pulled-{'docker' if docker else 'oci'}"
    registry.push(name, "v1", Package(image))

    there = f"{registry.address}/{name}:v1"
    assert sandbox.podman("pull", "--quiet", "--tls-verify=false", there).strip() == id_of(image)

    (told,) = json.loads(sandbox.podman("image", "inspect", there))
    assert told["Digest"] == image.digest()
    assert told["RootFS"]["Layers"] == [digest_of(tar) for tar in unpacked(image)]


@pytest.mark.needs("podman", "root")
def test_podman_when_it_pulls_an_index_then_has_the_platform_asked_for(
    registry: Served, sandbox: Sandbox
) -> None:
    package = make_index("for podman")
    registry.push("podman/index", "v1", package)
    there = f"{registry.address}/podman/index:v1"

    pulled = sandbox.podman("pull", "--quiet", "--tls-verify=false", "--platform=linux/arm64", there)

    assert pulled.strip() == id_of(package.children[1])


@pytest.mark.needs("podman", "root")
@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_podman_when_it_pushes_then_pulls_the_same_image(
    form: str, registry: Served, sandbox: Sandbox, tmp_path: Path
) -> None:
    image = make_image("of podman", docker=True)
    there = f"{registry.address}/podman/pushed:{form}"
    sandbox.podman(
        "load", "--quiet", "--input", str(write_archive(tmp_path / "image.tar", image, "local/of-podman:v1"))
    )

    options = ("--quiet", "--tls-verify=false", f"--format={form}", f"--digestfile={tmp_path / 'digest'}")
    sandbox.podman("push", *options, "local/of-podman:v1", there)

    digest, config, layers = pushed(registry, "podman/pushed", form)
    assert digest == (tmp_path / "digest").read_text()
    assert layers == unpacked(image)
    sandbox.podman("rmi", "--force", "local/of-podman:v1")
    pulled = sandbox.podman("pull", "--quiet", "--tls-verify=false", there)
    assert pulled.strip() == digest_of(config).removeprefix("sha256:")


@pytest.mark.needs("podman", "root")
def test_podman_when_it_pushes_a_list_with_its_images_then_all_are_there(
    registry: Served, sandbox: Sandbox, tmp_path: Path
) -> None:
    children = [Package(image) for image in make_index("a list of podman").children]
    sandbox.podman("manifest", "create", "several")
    for number, child in enumerate(children):
        layout = write_files(tmp_path / str(number), layout_files(child, "v1"))
        sandbox.podman("manifest", "add", "several", f"oci:{layout}:v1")

    there = f"docker://{registry.address}/podman/several:v1"
    sandbox.podman("manifest", "push", "--all", "--quiet", "--tls-verify=false", "several", there)

    index = registry.client.get(f"{registry.url}/v2/podman/several/manifests/v1").json()
    assert [entry["digest"] for entry in index["manifests"]] == [child.root.digest() for child in children]
    for child in children:
        registry.check("podman/several", child.root.digest(), child)


@pytest.mark.needs("buildah", "root")
def test_buildah_when_it_pulls_what_was_pushed_then_has_the_same_image(
    registry: Served, sandbox: Sandbox
) -> None:
    image = make_image("for buildah")
    registry.push("buildah/pulled", "v1", Package(image))

    there = f"{registry.address}/buildah/pulled:v1"
    assert sandbox.buildah("pull", "--quiet", "--tls-verify=false", there).strip() == id_of(image)

    (told,) = json.loads(sandbox.buildah("images", "--json", there))
    assert told["digest"] == image.digest()


@pytest.mark.needs("buildah", "root")
def test_buildah_when_it_pushes_what_it_built_then_pulls_the_same_image(
    registry: Served, sandbox: Sandbox, tmp_path: Path
) -> None:
    there = f"{registry.address}/buildah/built:v1"
    (tmp_path / "hello").write_bytes(b"built by buildah")
    container = sandbox.buildah("from", "scratch").strip()
    sandbox.buildah("copy", "--quiet", container, str(tmp_path / "hello"), "/hello")
    built = sandbox.buildah("commit", "--quiet", "--rm", container, "local/built:v1").strip()

    digest_file = tmp_path / "digest"
    sandbox.buildah(
        "push",
        "--quiet",
        "--tls-verify=false",
        f"--digestfile={digest_file}",
        "local/built:v1",
        f"docker://{there}",
    )

    digest, config, layers = pushed(registry, "buildah/built", "v1")
    assert digest == digest_file.read_text()
    assert digest_of(config) == f"sha256:{built}"
    assert b"built by buildah" in layers[0]
    sandbox.buildah("rmi", "--all", "--force")
    assert sandbox.buildah("pull", "--quiet", "--tls-verify=false", there).strip() == built
