"""A registry with a file of users: docker and skopeo get in with a password of it, and nobody without."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import bcrypt
import pytest

from tests.clients.guarded import is_refusal
from tests.support.images import make_image
from tests.support.served import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clients.conftest import Seeded
    from tests.clients.engine import Engine
    from tests.clients.programs import Sandbox
    from tests.support.served import Served

PASSWORD = "the password of erin"


@pytest.fixture(scope="module")
def with_file(seeded: Seeded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("htpasswd")
    (directory / "users").write_bytes(b"erin:" + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)) + b"\n")
    auth = json.dumps({"htpasswd": {"realm": "the test's", "path": str(directory / "users")}})
    with (
        seeded.copy(directory) as data,
        serve(data, HTTP_WORKERS="1", GC_DISABLED="true", AUTH=auth) as registry,
    ):
        yield registry


@pytest.mark.needs("dockerd", "docker", "root")
def test_docker_when_it_logs_in_with_a_password_of_the_file_then_pushes_and_pulls(
    with_file: Served, docker: Engine
) -> None:
    there = f"{with_file.address}/erin/docker:v1"
    docker.load(make_image("of erin", docker=True), there)
    words = ("login", "--username=erin", "--password-stdin", with_file.address)

    assert is_refusal(docker(*words, given="wrong", fails=True))
    said = docker("push", there, fails=True)
    assert is_refusal(said) or "no basic auth credentials" in said
    docker(*words, given=PASSWORD)
    docker("push", there)
    docker.remove_images()

    docker("pull", "--quiet", there)


@pytest.mark.needs("skopeo")
def test_skopeo_when_given_a_password_of_the_file_then_reads_what_is_there(
    with_file: Served, seeded: Seeded, sandbox: Sandbox
) -> None:
    there = f"docker://{with_file.address}/seeded/package:v1"
    raw = ("inspect", "--raw", "--tls-verify=false")

    assert is_refusal(sandbox.skopeo(*raw, there, fails=True))
    assert is_refusal(sandbox.skopeo(*raw, "--creds=erin:wrong", there, fails=True))
    assert sandbox.skopeo(*raw, f"--creds=erin:{PASSWORD}", there).encode() == seeded.package.root.payload
