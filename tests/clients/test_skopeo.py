"""skopeo copies between the registry and the disk: what comes back is what went in, byte by byte."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

from tests.support.images import (
    Package,
    directory_files,
    layout_blobs,
    layout_files,
    make_artifact,
    make_image,
    make_index,
    read_files,
    unpacked,
    write_files,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.programs import Sandbox
    from tests.support.served import Served

pytestmark = pytest.mark.needs("skopeo")

# Otherwise a layer may be replaced by one that has the same files, was packed differently, and is there already.
UNCHANGED = "--preserve-digests"

PACKAGES = {
    "oci-image": Package(make_image("an oci image")),
    "docker-image": Package(make_image("a docker image", docker=True)),
    "oci-index": make_index("an oci index"),
    "docker-list": make_index("a docker list", docker=True),
}


@pytest.mark.parametrize("kind", PACKAGES)
def test_copy_when_in_and_out_again_then_is_identical(
    kind: str, registry: Served, sandbox: Sandbox, tmp_path: Path
) -> None:
    package, name = PACKAGES[kind], f"skopeo/{kind}"
    there = f"docker://{registry.address}/{name}:v1"
    files = directory_files(package)
    write_files(tmp_path / "in", files)

    sandbox.skopeo("copy", UNCHANGED, "--all", "--dest-tls-verify=false", f"dir:{tmp_path / 'in'}", there)
    sandbox.skopeo("copy", UNCHANGED, "--all", "--src-tls-verify=false", there, f"dir:{tmp_path / 'out'}")

    assert read_files(tmp_path / "out") == files
    registry.check(name, "v1", package)
    assert registry.stored(package) == package.blobs.keys()


def test_layout_when_copied_in_and_out_then_is_identical(
    registry: Served, sandbox: Sandbox, tmp_path: Path
) -> None:
    package = make_index("an oci layout")
    there = f"docker://{registry.address}/skopeo/layout:v1"
    write_files(tmp_path / "in", layout_files(package, "v1"))

    sandbox.skopeo("copy", UNCHANGED, "--all", "--dest-tls-verify=false", f"oci:{tmp_path / 'in'}:v1", there)
    sandbox.skopeo("copy", UNCHANGED, "--all", "--src-tls-verify=false", there, f"oci:{tmp_path / 'out'}:v1")

    files = read_files(tmp_path / "out")
    assert {name: content for name, content in files.items() if name.startswith("blobs/")} == layout_blobs(
        package
    )
    registry.check("skopeo/layout", "v1", package)


def test_copy_when_the_image_is_converted_on_the_way_then_arrives_as_docker_schema_2(
    registry: Served, sandbox: Sandbox, tmp_path: Path
) -> None:
    image = make_image("to be converted")
    there = f"docker://{registry.address}/skopeo/converted:v1"
    write_files(tmp_path / "in", layout_files(Package(image), "v1"))

    sandbox.skopeo("copy", "--format=v2s2", "--dest-tls-verify=false", f"oci:{tmp_path / 'in'}:v1", there)

    raw = sandbox.skopeo("inspect", "--raw", "--tls-verify=false", there)
    manifest = json.loads(raw)
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    blobs = f"{registry.url}/v2/skopeo/converted/blobs"
    layers = [registry.client.get(f"{blobs}/{entry['digest']}").content for entry in manifest["layers"]]
    assert [gzip.decompress(layer) for layer in layers] == unpacked(image)


def test_copy_when_the_client_knows_where_the_blobs_are_then_they_are_mounted(
    registry: Served, sandbox: Sandbox
) -> None:
    package = Package(make_image("to be mounted"))
    registry.push("skopeo/first", "v1", package)
    trust = ("--src-tls-verify=false", "--dest-tls-verify=false")
    first, second, third = (
        f"docker://{registry.address}/skopeo/{name}:v1" for name in ("first", "second", "third")
    )

    sandbox.skopeo("copy", UNCHANGED, *trust, first, second)
    sandbox.skopeo("copy", UNCHANGED, *trust, first, third)

    registry.check("skopeo/second", "v1", package)
    registry.check("skopeo/third", "v1", package)
    assert registry.mounts("skopeo/third") == [201] * len(package.root.blobs[1:]), "every layer"


def test_inspect_when_an_image_was_pushed_then_tells_of_it(registry: Served, sandbox: Sandbox) -> None:
    image = make_image("inspected")
    registry.push("skopeo/inspected", "v1", Package(image))
    registry.put("skopeo/inspected", image, "v2")
    there = f"docker://{registry.address}/skopeo/inspected:v1"

    told = json.loads(sandbox.skopeo("inspect", "--tls-verify=false", there))

    assert told["Digest"] == image.digest()
    assert told["RepoTags"] == ["v1", "v2"]
    assert told["Layers"] == list(Package(image).blobs)[1:]
    assert told["Architecture"] == "amd64"


def test_list_tags_when_some_were_pushed_then_names_them_in_order(registry: Served, sandbox: Sandbox) -> None:
    package = Package(make_image("tagged"))
    registry.push("skopeo/tagged", "b", package)
    for tag in ("c", "A", "_"):
        registry.put("skopeo/tagged", package.root, tag)

    told = json.loads(
        sandbox.skopeo("list-tags", "--tls-verify=false", f"docker://{registry.address}/skopeo/tagged")
    )

    assert told["Tags"] == ["A", "_", "b", "c"]


def test_delete_when_an_image_was_pushed_then_it_is_gone_at_once(registry: Served, sandbox: Sandbox) -> None:
    registry.push("skopeo/deleted", "v1", Package(make_image("to be deleted")))
    there = f"docker://{registry.address}/skopeo/deleted:v1"

    sandbox.skopeo("delete", "--tls-verify=false", there)

    assert "manifest unknown" in sandbox.skopeo("inspect", "--raw", "--tls-verify=false", there, fails=True)


def test_artifact_when_copied_with_its_subject_then_is_listed_as_a_referrer(
    registry: Served, sandbox: Sandbox, tmp_path: Path
) -> None:
    subject = make_image("signed")
    artifact = Package(make_artifact("a signature", subject, "application/vnd.example.signature"))
    registry.push("skopeo/signed", "v1", Package(subject))
    there = f"docker://{registry.address}/skopeo/signed:signature"
    files = directory_files(artifact)
    write_files(tmp_path / "in", files)

    sandbox.skopeo("copy", UNCHANGED, "--dest-tls-verify=false", f"dir:{tmp_path / 'in'}", there)
    sandbox.skopeo("copy", UNCHANGED, "--src-tls-verify=false", there, f"dir:{tmp_path / 'out'}")

    assert read_files(tmp_path / "out") == files
    answer = registry.client.get(f"{registry.url}/v2/skopeo/signed/referrers/{subject.digest()}")
    assert [(entry["digest"], entry["artifactType"]) for entry in answer.json()["manifests"]] == [
        (artifact.root.digest(), "application/vnd.example.signature")
    ]
