"""skopeo with credentials: each of its commands gets the tokens that it needs, and no more than the user may."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.clients.guarded import PASSWORDS, is_refusal
from tests.support.images import Package, directory_files, make_image, make_index, read_files, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.guarded import Guarded
    from tests.clients.programs import Sandbox

pytestmark = pytest.mark.needs("skopeo")

PLAIN = "--tls-verify=false"
PLAIN_IN = "--dest-tls-verify=false"
# Or else it takes any layer of the same content that it knows to be there, which podman may have packed.
UNCHANGED = "--preserve-digests"
PLAIN_OUT = "--src-tls-verify=false"


def creds(user: str) -> str:
    return f"{user}:{PASSWORDS[user]}"


def test_commands_when_given_credentials_then_do_what_the_user_may(
    guarded: Guarded, sandbox: Sandbox, tmp_path: Path
) -> None:
    files = directory_files(make_index("of skopeo and alice"))
    write_files(tmp_path / "in", files)
    here, there = f"dir:{tmp_path / 'in'}", f"docker://{guarded.address}/team/skopeo"
    alice, bob = (f"--creds={creds(user)}" for user in ("alice", "bob"))

    sandbox.skopeo(
        "copy", "--all", UNCHANGED, PLAIN_IN, f"--dest-creds={creds('alice')}", here, f"{there}:v1"
    )
    back = f"dir:{tmp_path / 'out'}"
    sandbox.skopeo("copy", "--all", PLAIN_OUT, f"--src-creds={creds('bob')}", f"{there}:v1", back)
    assert read_files(tmp_path / "out") == files
    assert json.loads(sandbox.skopeo("inspect", PLAIN, bob, f"{there}:v1"))["RepoTags"] == ["v1"]
    assert json.loads(sandbox.skopeo("list-tags", PLAIN, bob, there))["Tags"] == ["v1"]

    refused = [
        sandbox.skopeo("copy", PLAIN_IN, f"--dest-creds={creds('bob')}", here, f"{there}:v2", fails=True),
        sandbox.skopeo("copy", PLAIN_IN, "--dest-creds=alice:wrong", here, f"{there}:v2", fails=True),
        sandbox.skopeo("inspect", PLAIN, f"{there}:v1", fails=True),
        sandbox.skopeo("delete", PLAIN, bob, f"{there}:v1", fails=True),
        sandbox.skopeo("inspect", PLAIN, f"--creds={creds('carol')}", f"{there}:v1", fails=True),
    ]
    assert [said for said in refused if not is_refusal(said)] == []

    sandbox.skopeo("delete", PLAIN, alice, f"{there}:v1")
    assert "manifest unknown" in sandbox.skopeo("inspect", PLAIN, alice, f"{there}:v1", fails=True)


@pytest.mark.parametrize(("owner", "source"), [("alice", "team"), ("carol", "hidden")])
def test_copy_when_the_blobs_are_in_another_repository_then_they_are_mounted_if_they_may_be_read(
    owner: str, source: str, guarded: Guarded, sandbox: Sandbox, tmp_path: Path
) -> None:
    package = Package(make_image(f"of skopeo, {owner} and alice"))
    write_files(tmp_path / "in", directory_files(package))
    here, target = f"dir:{tmp_path / 'in'}", f"team/skopeo-from-{owner}"
    first, second = f"{source}/skopeo-source", target
    for user, name in ((owner, first), ("alice", second)):
        there = f"docker://{guarded.address}/{name}:v1"
        sandbox.skopeo("copy", UNCHANGED, PLAIN_IN, f"--dest-creds={creds(user)}", here, there)

    with guarded.seen_by("bob", target) as registry:
        registry.check(target, "v1", package)
    # What it may not read it does not ask to have mounted.
    assert guarded.mounts(target, first) == ({201} if owner == "alice" else set())


def test_sync_when_given_credentials_then_copies_every_tag(
    guarded: Guarded, sandbox: Sandbox, tmp_path: Path
) -> None:
    image = make_image("of skopeo, to be copied whole")
    for tag in ("v1", "v2"):
        guarded.push("alice", "team/skopeo-sync", image, tag)
    there = f"{guarded.address}/team/skopeo-sync"

    alice = f"--src-creds={creds('bob')}", f"--dest-creds={creds('alice')}"
    sandbox.skopeo(
        *("sync", UNCHANGED, PLAIN_OUT, PLAIN_IN, *alice, "--src=docker", "--dest=docker"),
        *(there, f"{guarded.address}/public"),
    )

    with guarded.seen_by("", "public/skopeo-sync") as registry:
        for tag in ("v1", "v2"):
            registry.check("public/skopeo-sync", tag, Package(image))


def test_robot_when_its_secret_is_the_password_then_may_what_it_was_granted(
    own_tokens: Guarded, sandbox: Sandbox, tmp_path: Path
) -> None:
    image = make_image("of a robot")
    write_files(tmp_path / "in", directory_files(Package(image)))
    there = f"docker://{own_tokens.address}/team/robots:v1"
    secret = own_tokens.command("robot", "add", "ci+builds").strip()
    own_tokens.command("grant", "add", "ci+builds", "pull,push", "team/robots")

    words = ("copy", UNCHANGED, PLAIN_IN, f"--dest-creds=ci+builds:{secret}", f"dir:{tmp_path / 'in'}")
    sandbox.skopeo(*words, there)

    elsewhere = there.replace("team/robots", "team/others")
    assert is_refusal(sandbox.skopeo(*words, elsewhere, fails=True))
    with own_tokens.seen_by("bob", "team/robots") as registry:
        registry.check("team/robots", "v1", Package(image))
