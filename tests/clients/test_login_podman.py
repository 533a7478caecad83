"""podman and buildah with a password: what one of them stored or was told, the registry takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.clients.guarded import PASSWORDS, is_refusal
from tests.support.images import make_image, unpacked, write_archive
from tests.support.registry import digest_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.guarded import Guarded
    from tests.clients.programs import Sandbox

PLAIN = "--tls-verify=false"


@pytest.mark.needs("podman", "root")
def test_podman_when_logged_in_then_pushes_and_pulls(
    guarded: Guarded, sandbox: Sandbox, tmp_path: Path
) -> None:
    image = make_image("of podman and alice", docker=True)
    archive = write_archive(tmp_path / "image.tar", image, "local/image:v1")
    there = f"{guarded.address}/team/podman:v1"
    words = ("login", PLAIN, "--username=alice", "--password-stdin", guarded.address)
    assert is_refusal(sandbox.podman(*words, given="wrong", fails=True))
    sandbox.podman("load", "--quiet", "--input", str(archive))
    assert is_refusal(sandbox.podman("push", PLAIN, "local/image:v1", there, fails=True))

    assert "Login Succeeded!" in sandbox.podman(*words, given=PASSWORDS["alice"])
    sandbox.podman("push", "--quiet", PLAIN, f"--digestfile={tmp_path / 'digest'}", "local/image:v1", there)
    sandbox.podman("rmi", "--force", "local/image:v1")
    sandbox.podman("pull", "--quiet", PLAIN, there)

    (told,) = json.loads(sandbox.podman("image", "inspect", there))
    assert told["Digest"] == (tmp_path / "digest").read_text()
    assert told["RootFS"]["Layers"] == [digest_of(tar) for tar in unpacked(image)]


@pytest.mark.needs("podman", "root")
def test_podman_when_nobody_is_logged_in_then_pulls_what_is_public(
    guarded: Guarded, sandbox: Sandbox
) -> None:
    image = make_image("of podman and everybody")
    for name in ("public/podman", "team/podman-private"):
        guarded.push("alice", name, image)

    sandbox.podman("pull", "--quiet", PLAIN, f"{guarded.address}/public/podman:v1")

    private = f"{guarded.address}/team/podman-private:v1"
    assert is_refusal(sandbox.podman("pull", PLAIN, private, fails=True))


@pytest.mark.needs("buildah", "root")
def test_buildah_when_given_credentials_then_pushes_what_they_allow(
    guarded: Guarded, sandbox: Sandbox, tmp_path: Path
) -> None:
    image = make_image("of buildah and alice", docker=True)
    archive = write_archive(tmp_path / "image.tar", image, "local/image:v1")
    there = f"docker://{guarded.address}/team/buildah:v1"
    sandbox.buildah("pull", "--quiet", f"docker-archive:{archive}")
    push = ("push", "--quiet", PLAIN, f"--digestfile={tmp_path / 'digest'}")

    refused = sandbox.buildah(*push, f"--creds=bob:{PASSWORDS['bob']}", "local/image:v1", there, fails=True)
    assert is_refusal(refused)
    sandbox.buildah(*push, f"--creds=alice:{PASSWORDS['alice']}", "local/image:v1", there)

    with guarded.seen_by("bob", "team/buildah") as registry:
        manifest = registry.client.get(f"{registry.url}/v2/team/buildah/manifests/v1")
    assert digest_of(manifest.content) == (tmp_path / "digest").read_text()
