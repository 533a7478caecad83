"""oras with a password: artifacts and what refers to them go in and come out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from oras.client import OrasClient
from oras.oci import Subject

from tests.clients.guarded import PASSWORDS, is_refusal
from tests.support.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.guarded import Guarded


@pytest.fixture
def oras(guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OrasClient:
    monkeypatch.setenv("HOME", str(tmp_path))  # it looks for credentials there
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    client = OrasClient(hostname=guarded.address, insecure=True)
    client.session.trust_env = False
    return client


def as_user(client: OrasClient, user: str) -> OrasClient:
    """The client with the user's password and no token of before. (Its `login` would ask a docker daemon to log in.)"""
    client.auth.logout("")
    client.auth.set_basic_auth(user, PASSWORDS[user])
    return client


def test_artifact_when_pushed_with_a_password_then_is_a_referrer_and_pulled_back(
    guarded: Guarded, oras: OrasClient, tmp_path: Path
) -> None:
    subject = make_image("of oras and alice")
    guarded.push("alice", "team/oras", subject)
    there = f"{guarded.address}/team/oras:report"
    (tmp_path / "report").write_bytes(b"nothing found")
    what = {
        "files": [f"{tmp_path / 'report'}:application/vnd.example.report"],
        "disable_path_validation": True,
        "manifest_config": "/dev/null:application/vnd.example.report",
        "subject": Subject(subject.media_type, subject.digest(), len(subject.payload)),
        "quiet": True,
    }

    with pytest.raises(ValueError, match=r".") as refused:
        as_user(oras, "bob").push(there, **what)
    assert is_refusal(str(refused.value))
    # It asks for a token to pull with, and then tries to push with that (oras-py's issue 187).
    oras.auth.set_token_auth(guarded.token("alice", "repository:team/oras:pull,push"))
    answer = oras.push(there, **what)

    assert answer.headers["OCI-Subject"] == subject.digest()
    assert as_user(oras, "bob").pull(there, outdir=str(tmp_path / "out")) == [str(tmp_path / "out/report")]
    assert (tmp_path / "out/report").read_bytes() == b"nothing found"
    assert oras.get_tags(f"{guarded.address}/team/oras") == ["report", "v1"]
    with guarded.seen_by("bob", "team/oras") as registry:
        listed = registry.client.get(f"{registry.url}/v2/team/oras/referrers/{subject.digest()}").json()
    (entry,) = listed["manifests"]
    assert entry["digest"] == answer.headers["Docker-Content-Digest"]
