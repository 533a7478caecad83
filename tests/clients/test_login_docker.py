"""The docker engine with a password: it gets in, and only as far as its user may."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.guarded import PASSWORDS, is_refusal
from tests.support.images import make_image, unpacked
from tests.support.registry import digest_of

if TYPE_CHECKING:
    from tests.clients.engine import Engine
    from tests.clients.guarded import Guarded

pytestmark = pytest.mark.needs("dockerd", "docker", "root")


def login(docker: Engine, guarded: Guarded, user: str) -> None:
    docker("login", "--username", user, "--password-stdin", guarded.address, given=PASSWORDS[user])


def stored(docker: Engine, guarded: Guarded) -> dict[str, Any]:
    """What docker keeps of the login."""
    return json.loads(docker.logins.read_text())["auths"][guarded.address]


def test_login_when_the_password_is_wrong_then_fails(guarded: Guarded, docker: Engine) -> None:
    said = docker("login", "--username=alice", "--password-stdin", guarded.address, given="wrong", fails=True)

    assert is_refusal(said), said
    assert not docker.logins.exists()


def test_login_when_it_is_right_then_pushes_and_pulls(guarded: Guarded, docker: Engine) -> None:
    image = make_image("of alice", docker=True)
    there = f"{guarded.address}/team/docker"
    docker.load(image, f"{there}:v1")

    login(docker, guarded, "alice")
    said = docker("push", f"{there}:v1")

    (digest,) = re.findall(r"v1: digest: (\S+) size: \d+", said)
    for reference in (f"{there}:v1", f"{there}@{digest}"):
        docker("rmi", "--force", digest_of(image.blobs[0]))
        docker("pull", "--quiet", reference)
        (told,) = json.loads(docker("inspect", reference))
        assert (told["Id"], told["RepoDigests"]) == (digest_of(image.blobs[0]), [f"{there}@{digest}"])
    docker("tag", digest_of(image.blobs[0]), f"{there}:again")
    assert docker.saved(f"{there}:again") == (image.blobs[0], unpacked(image))


def test_push_when_it_is_not_allowed_then_is_refused_in_words(guarded: Guarded, docker: Engine) -> None:
    there = f"{guarded.address}/team/docker-refused:v1"
    docker.load(make_image("of bob", docker=True), there)
    login(docker, guarded, "bob")

    said = docker("push", there, fails=True)

    assert is_refusal(said), said
    with guarded.seen_by("alice", "team/docker-refused") as registry:
        assert registry.client.get(f"{registry.url}/v2/team/docker-refused/tags/list").status_code == 404


def test_pull_when_logged_out_then_only_what_is_public(guarded: Guarded, docker: Engine) -> None:
    image = make_image("for everybody", docker=True)
    for name in ("public/docker", "team/docker-private"):
        guarded.push("alice", name, image)
    login(docker, guarded, "bob")
    docker("pull", "--quiet", f"{guarded.address}/team/docker-private:v1")
    docker.remove_images()

    docker("logout", guarded.address)

    docker("pull", "--quiet", f"{guarded.address}/public/docker:v1")
    said = docker("pull", f"{guarded.address}/team/docker-private:v1", fails=True)
    assert is_refusal(said), said


@pytest.mark.parametrize(("user", "answer"), [("alice", 201), ("carol", 202)])
def test_push_when_the_layers_are_elsewhere_then_they_are_mounted_if_they_may_be_read(
    user: str, answer: int, guarded: Guarded, docker: Engine
) -> None:
    image = make_image(f"elsewhere, of {user}", docker=True)
    source = {"alice": "team/docker-source", "carol": "hidden/docker-source"}[user]
    target = f"public/docker-from-{user}"
    docker.load(image, f"{guarded.address}/{source}:v1")
    login(docker, guarded, user)
    docker("push", f"{guarded.address}/{source}:v1")
    docker("tag", f"{guarded.address}/{source}:v1", f"{guarded.address}/{target}:v1")
    login(docker, guarded, "alice")

    docker("push", f"{guarded.address}/{target}:v1")

    assert guarded.mounts(target, source) == {answer}
    with guarded.seen_by("", target) as registry:
        manifest = registry.client.get(f"{registry.url}/v2/{target}/manifests/v1").json()
        for entry in (manifest["config"], *manifest["layers"]):
            blob = registry.client.get(f"{registry.url}/v2/{target}/blobs/{entry['digest']}").content
            assert digest_of(blob) == entry["digest"]


def test_login_when_the_registry_issues_the_tokens_then_keeps_no_password_until_it_is_revoked(
    own_tokens: Guarded, docker: Engine
) -> None:
    there = f"{own_tokens.address}/team/docker-identity:v1"
    docker.load(make_image("of dora", docker=True), there)
    own_tokens.command("user", "add", "dora", "--password-stdin", given="the password of dora")
    own_tokens.command("grant", "add", "dora", "pull,push", "team/**")
    docker("login", "--username=dora", "--password-stdin", own_tokens.address, given="the password of dora")

    kept = stored(docker, own_tokens)
    assert kept["identitytoken"]
    assert "the password" not in docker.logins.read_text()
    docker("push", there)
    docker.remove_images()
    docker("pull", "--quiet", there)
    forms = [access for access in own_tokens.registry.accesses() if access.target.startswith("/auth/token")]
    assert ("POST", 200) in {(access.method, access.status) for access in forms}

    own_tokens.command("user", "revoke", "dora")

    docker.remove_images()
    assert is_refusal(docker("pull", there, fails=True))
