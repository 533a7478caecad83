"""Client programs, run so that they find no configuration, images, credentials and proxies of this machine."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

from tests.support.needs import program

if TYPE_CHECKING:
    from pathlib import Path

_SECONDS = 120
_TRUST_ALL = {"default": [{"type": "insecureAcceptAnything"}]}


class Sandbox:
    """A home, a configuration and an image store of the test's own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        home = root / "home"
        policy = home / ".config/containers/policy.json"
        policy.parent.mkdir(parents=True)
        policy.write_text(json.dumps(_TRUST_ALL))
        for name in ("tmp", "run"):
            (root / name).mkdir()
        for name in ("containers.conf", "registries.conf"):
            (root / name).write_text("")
        (root / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{root}/images"\nrunroot = "{root}/run/images"\n'
        )
        (root / "auth.json").write_text("{}")
        self.environment = {
            "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin",
            "LC_ALL": "C",
            "HOME": str(home),
            "TMPDIR": str(root / "tmp"),
            "XDG_RUNTIME_DIR": str(root / "run"),
            "DOCKER_CONFIG": str(home / ".docker"),
            "REGISTRY_AUTH_FILE": str(root / "auth.json"),
            "CONTAINERS_CONF": str(root / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(root / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(root / "registries.conf"),
        }

    def run(self, *words: str, fails: bool = False, given: str = "") -> str:
        """What the program wrote to standard output; with `fails` to both streams, and it must fail.

        `given` is what it reads from standard input.
        """
        done = subprocess.run(
            [str(program(words[0])), *words[1:]],
            env=self.environment,
            cwd=self.root,
            input=given,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert (done.returncode != 0) == fails, f"{' '.join(words)}: {done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr if fails else done.stdout

    def skopeo(self, *words: str, fails: bool = False) -> str:
        return self.run(
            "skopeo", "--policy", str(self.root / "home/.config/containers/policy.json"), *words, fails=fails
        )

    def podman(self, *words: str, fails: bool = False, given: str = "") -> str:
        engine = (
            "--tmpdir",
            str(self.root / "run/podman"),
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
        )
        return self.run("podman", *self._store(), *engine, *words, fails=fails, given=given)

    def buildah(self, *words: str, fails: bool = False) -> str:
        return self.run("buildah", *self._store(), *words, fails=fails)

    def _store(self) -> tuple[str, ...]:
        root = self.root
        return ("--root", f"{root}/images", "--runroot", f"{root}/run/images", "--storage-driver", "vfs")
