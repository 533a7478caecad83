"""The docker engine: a daemon of the test's own pushes and pulls, and keeps every image what it was."""

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.images import Package, make_image, make_index, unpacked
from tests.support.registry import digest_of

if TYPE_CHECKING:
    from tests.clients.engine import Engine
    from tests.support.served import Served

pytestmark = pytest.mark.needs("dockerd", "docker", "root")


def manifest_of(registry: Served, name: str, reference: str) -> tuple[str, dict[str, Any]]:
    answer = registry.client.get(f"{registry.url}/v2/{name}/manifests/{reference}")
    assert answer.headers["Docker-Content-Digest"] == digest_of(answer.content)
    return digest_of(answer.content), answer.json()


def blob_of(registry: Served, name: str, entry: dict[str, Any]) -> bytes:
    content = registry.client.get(f"{registry.url}/v2/{name}/blobs/{entry['digest']}").content
    assert (digest_of(content), len(content)) == (entry["digest"], entry["size"])
    return content


def test_engine_when_it_pushes_then_pulls_the_same_image(registry: Served, docker: Engine) -> None:
    image = make_image("of docker", docker=True)
    there = f"{registry.address}/docker/pushed:v1"
    docker.load(image, there)

    said = docker("push", there)

    digest, manifest = manifest_of(registry, "docker/pushed", "v1")
    assert re.findall(r"v1: digest: (\S+) size: \d+", said) == [digest]
    assert blob_of(registry, "docker/pushed", manifest["config"]) == image.blobs[0]
    layers = [gzip.decompress(blob_of(registry, "docker/pushed", entry)) for entry in manifest["layers"]]
    assert layers == unpacked(image)

    docker.remove_all()
    docker("pull", "--quiet", there)
    (told,) = json.loads(docker("inspect", there))
    assert told["Id"] == digest_of(image.blobs[0])
    assert told["RepoDigests"] == [f"{registry.address}/docker/pushed@{digest}"]
    assert docker.saved(there) == (image.blobs[0], unpacked(image))


def test_engine_when_it_pushes_again_then_the_layers_already_exist(registry: Served, docker: Engine) -> None:
    image = make_image("of docker, twice", docker=True)
    there = f"{registry.address}/docker/twice:v1"
    docker.load(image, there)
    docker("push", there)
    first = manifest_of(registry, "docker/twice", "v1")

    said = docker("push", there)

    assert said.count("Layer already exists") == 2
    assert manifest_of(registry, "docker/twice", "v1") == first


def test_engine_when_it_pushes_to_another_repository_then_the_layers_are_mounted(
    registry: Served, docker: Engine
) -> None:
    image = make_image("of docker, elsewhere", docker=True)
    here, elsewhere = (f"{registry.address}/docker/{name}:v1" for name in ("here", "elsewhere"))
    docker.load(image, here)
    docker("push", here)
    docker("tag", here, elsewhere)

    said = docker("push", elsewhere)

    assert said.count("Mounted from docker/here") == 2
    assert registry.mounts("docker/elsewhere") == [201, 201]
    assert manifest_of(registry, "docker/elsewhere", "v1") == manifest_of(registry, "docker/here", "v1")


@pytest.mark.parametrize("form", ["oci-image", "docker-image"])
def test_engine_when_it_pulls_what_others_pushed_then_has_the_same_image(
    form: str, registry: Served, docker: Engine
) -> None:
    image = make_image("for docker", docker=form == "docker-image")
    registry.push(f"docker/{form}", "v1", Package(image))
    there = f"{registry.address}/docker/{form}"

    docker("pull", "--quiet", f"{there}:v1")

    (told,) = json.loads(docker("inspect", f"{there}:v1"))
    assert told["Id"] == digest_of(image.blobs[0])
    assert told["RepoDigests"] == [f"{there}@{image.digest()}"]
    assert docker.saved(f"{there}:v1") == (image.blobs[0], unpacked(image))


@pytest.mark.parametrize("form", ["oci-index", "docker-list"])
@pytest.mark.parametrize(("place", "platform"), [(0, "linux/amd64"), (1, "linux/arm64")])
def test_engine_when_it_pulls_an_index_then_has_the_platform_asked_for(
    form: str, place: int, platform: str, registry: Served, docker: Engine
) -> None:
    package = make_index("for docker", docker=form == "docker-list")
    registry.push(f"docker/{form}", "v1", package)
    there = f"{registry.address}/docker/{form}"

    docker("pull", "--quiet", "--platform", platform, f"{there}:v1")

    (told,) = json.loads(docker("inspect", f"{there}:v1"))
    assert told["Id"] == digest_of(package.children[place].blobs[0])
    assert told["RepoDigests"] == [f"{there}@{package.root.digest()}"]
