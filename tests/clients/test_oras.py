"""oras: files become artifacts, artifacts refer to one another, and the files come back as they were."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from oras.client import OrasClient
from oras.oci import Subject

from tests.support.images import Package, make_image
from tests.support.registry import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.registry import Image
    from tests.support.served import Served


@pytest.fixture
def oras(registry: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OrasClient]:
    monkeypatch.setenv("HOME", str(tmp_path))  # it looks for credentials there
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    client = OrasClient(hostname=registry.address, insecure=True)
    client.session.trust_env = False
    with client.session:
        yield client


def written(directory: Path, **contents: bytes) -> list[str]:
    """The files, each with its media type as oras takes it."""
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    return [f"{directory / name}:application/vnd.example.{name}" for name in contents]


def subject_of(image: Image) -> Subject:
    return Subject(image.media_type, image.digest(), len(image.payload))


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_files_when_pushed_then_pulled_unchanged(
    chunked: bool, registry: Served, oras: OrasClient, tmp_path: Path
) -> None:
    contents = {"text": b"some text\n", "noise": random.Random(1).randbytes(300_000)}
    files = written(tmp_path, **contents)
    there = f"{registry.address}/oras/files-{'chunked' if chunked else 'whole'}:v1"

    answer = oras.push(
        there, files=files, disable_path_validation=True, do_chunked=chunked, chunk_size=100_000, quiet=True
    )
    pulled = oras.pull(there, outdir=str(tmp_path / "out"))

    assert answer.headers["Docker-Content-Digest"] == digest_of(answer.request.body)
    assert sorted(pulled) == [str(tmp_path / "out" / name) for name in ("noise", "text")]
    assert {name: (tmp_path / "out" / name).read_bytes() for name in contents} == contents


def test_artifact_when_attached_to_an_image_then_is_its_referrer(
    registry: Served, oras: OrasClient, tmp_path: Path
) -> None:
    subject = make_image("with a report")
    registry.push("oras/attached", "v1", Package(subject))
    there = f"{registry.address}/oras/attached:report"
    files = written(tmp_path, report=b"nothing found")

    answer = oras.push(
        there,
        files=files,
        disable_path_validation=True,
        manifest_config="/dev/null:application/vnd.example.report",
        manifest_annotations={"org.example.kind": "scan"},
        subject=subject_of(subject),
        quiet=True,
    )

    assert answer.headers["OCI-Subject"] == subject.digest()
    listed = registry.client.get(f"{registry.url}/v2/oras/attached/referrers/{subject.digest()}").json()
    (entry,) = listed["manifests"]
    assert entry["digest"] == answer.headers["Docker-Content-Digest"]
    assert entry["annotations"] == {"org.example.kind": "scan"}
    pulled = oras.pull(f"{registry.address}/oras/attached@{entry['digest']}", outdir=str(tmp_path / "out"))
    assert pulled == [str(tmp_path / "out/report")]
    assert (tmp_path / "out/report").read_bytes() == b"nothing found"


def test_tags_when_one_is_deleted_then_the_others_are_listed(
    registry: Served, oras: OrasClient, tmp_path: Path
) -> None:
    for tag in ("b", "a", "c"):
        files = written(tmp_path, text=tag.encode())
        oras.push(
            f"{registry.address}/oras/tags:{tag}", files=files, disable_path_validation=True, quiet=True
        )

    assert oras.delete_tag(f"{registry.address}/oras/tags", "b")

    assert oras.get_tags(f"{registry.address}/oras/tags") == ["a", "c"]
    assert oras.get_tags(f"{registry.address}/oras/tags", N=1) == ["a"]
