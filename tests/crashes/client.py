"""A client that records every answer, and what the registry must therefore hold.

    client.put_blob("a", content)       201, or Crashed
    client.expected()                   the worlds that there may be: without and with what was not answered
    client.look()                       the world that there is, every byte of it compared

A request whose answer did not come was carried out wholly or not at all.
"""

from __future__ import annotations

import json
import random
import socket
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tests.support.registry import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tests.support.registry import Image

SECONDS: Final = 30.0
# What the registry answers while its database is away. Nobody knows then what became of the request.
UNAVAILABLE: Final = 503


class Crashed(Exception):
    """The answer did not come."""


@dataclass
class World:
    """What the registry holds of all that was ever sent to it. Pairs begin with the repository."""

    blobs: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    manifests: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    tags: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    # Upload → bytes.
    sessions: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class Upload:
    """A session and the content that is meant for it."""

    repository: str
    id: str
    content: bytes

    @property
    def path(self) -> str:
        return f"/v2/{self.repository}/blobs/uploads/{self.id}"

    @property
    def digest(self) -> str:
        return digest_of(self.content)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@lru_cache(maxsize=64)
def noise(seed: str, size: int) -> bytes:
    """The same bytes for the same seed in every run, and none that a file system could guess."""
    return random.Random(seed).randbytes(size)


class Client:
    """See the module. `crashed_by` are statuses that count as no answer."""

    def __init__(self, crashed_by: Collection[int] = ()) -> None:
        self.world = World()
        self._doubtful: World | None = None
        self._crashed_by = crashed_by
        self._port = 0
        self._connection = HTTPConnection("127.0.0.1")
        self._blobs: dict[str, bytes] = {}
        self._images: dict[str, Image] = {}
        self._names: set[str] = set()
        self._tags: set[tuple[str, str]] = set()
        self._uploads: dict[str, Upload] = {}

    def connect(self, port: int) -> None:
        """Talk to this process from now on."""
        self.close()
        self._port = port
        self._connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)

    def close(self) -> None:
        self._connection.close()

    def expected(self) -> list[World]:
        """The worlds that there may be."""
        return [self.world] if self._doubtful is None else [self.world, self._doubtful]

    def accept(self, world: World) -> None:
        """This is the world that there is."""
        self.world, self._doubtful = deepcopy(world), None

    def needed(self) -> World:
        """What there must be of the world however much is collected: what tags reach, and every session."""
        world = World(tags=dict(self.world.tags), sessions=dict(self.world.sessions))
        wanted = {(name, digest) for (name, _), digest in self.world.tags.items()}
        while wanted:
            world.manifests |= wanted
            wanted = {
                (name, digest)
                for name, digest in self.world.manifests - world.manifests
                if any(self._leads_to(owner, parent, name, digest) for owner, parent in world.manifests)
            }
        used = {digest_of(blob) for _, digest in world.manifests for blob in self._images[digest].blobs}
        # A blob that is needed anywhere stays in every repository that has it.
        world.blobs = {(name, digest) for name, digest in self.world.blobs if digest in used}
        return world

    # What a client does

    def put_blob(self, repository: str, content: bytes) -> None:
        """A blob in one request."""
        self._know_blob(repository, content)
        digest = digest_of(content)
        self._ask(
            "POST",
            f"/v2/{repository}/blobs/uploads/?digest={digest}",
            content,
            status=201,
            then=lambda world: world.blobs.add((repository, digest)),
        )

    def start(self, repository: str, content: bytes) -> Upload:
        """A session that is meant for `content`."""
        self._know_blob(repository, content)
        answer = self._ask("POST", f"/v2/{repository}/blobs/uploads/", status=202)
        upload = Upload(repository, answer.headers["docker-upload-uuid"], content)
        self._uploads[upload.id] = upload
        self.world.sessions[upload.id] = 0
        return upload

    def patch(self, upload: Upload, stop: int) -> None:
        """Send the content from where the session stands up to `stop`."""
        start = self.world.sessions[upload.id]

        def grown(world: World) -> None:
            world.sessions[upload.id] = stop

        answer = self._ask(
            "PATCH",
            upload.path,
            upload.content[start:stop],
            headers={"Content-Range": f"{start}-{stop - 1}"},
            status=202,
            then=grown,
        )
        assert answer.headers["range"] == f"0-{stop - 1}"

    def begin_patch(self, upload: Upload, stop: int, sent: int) -> socket.socket:
        """Send the head of a PATCH up to `stop` and its first `sent` bytes, on a connection of its own."""
        start = self.world.sessions[upload.id]
        head = (
            f"PATCH {upload.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {stop - start}\r\n"
            f"Content-Range: {start}-{stop - 1}\r\n\r\n"
        )
        try:
            slow = socket.create_connection(("127.0.0.1", self._port), SECONDS)
            slow.sendall(head.encode() + upload.content[start : start + sent])
        except ConnectionError as error:
            raise Crashed from error
        return slow

    def end_patch(self, slow: socket.socket, content: bytes) -> int:
        """Send the rest. Returns the status."""
        try:
            with slow:
                slow.sendall(content)
                line = slow.makefile("rb").readline()
        except ConnectionError as error:
            raise Crashed from error
        if not line.endswith(b"\r\n"):
            raise Crashed
        return int(line.split()[1])

    def finish(self, upload: Upload, *, digest: str = "") -> None:
        """Send what is left of the content and make the blob; with a wrong digest the session ends without one."""
        stated = digest or upload.digest
        start = self.world.sessions[upload.id]

        def finished(world: World) -> None:
            del world.sessions[upload.id]
            if stated == upload.digest:
                world.blobs.add((upload.repository, stated))

        self._ask(
            "PUT",
            f"{upload.path}?digest={stated}",
            upload.content[start:],
            status=201 if stated == upload.digest else 400,
            then=finished,
        )

    def cancel(self, upload: Upload) -> None:
        self._ask("DELETE", upload.path, status=204, then=lambda world: world.sessions.pop(upload.id))

    def mount(self, repository: str, digest: str, source: str) -> None:
        self._names.add(repository)
        self._ask(
            "POST",
            f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}",
            status=201,
            then=lambda world: world.blobs.add((repository, digest)),
        )

    def put(self, repository: str, reference: str, image: Image, *tags: str) -> None:
        """Put a manifest; `tags` come beside a digest."""
        digest = image.digest()
        self._names.add(repository)
        self._images[digest] = image
        tagged = tags if reference == digest else (reference,)
        self._tags.update((repository, tag) for tag in tagged)

        def stored(world: World) -> None:
            world.manifests.add((repository, digest))
            world.tags |= {(repository, tag): digest for tag in tagged}

        query = "?" + "&".join(f"tag={tag}" for tag in tags) if tags else ""
        self._ask(
            "PUT",
            f"/v2/{repository}/manifests/{reference}{query}",
            image.payload,
            headers={"Content-Type": image.media_type},
            status=201,
            then=stored,
        )

    def push(self, repository: str, reference: str, image: Image, *tags: str) -> None:
        """Its blobs, then the manifest."""
        for blob in dict.fromkeys(image.blobs):
            self.put_blob(repository, blob)
        self.put(repository, reference, image, *tags)

    def untag(self, repository: str, tag: str) -> None:
        self._ask(
            "DELETE",
            f"/v2/{repository}/manifests/{tag}",
            status=202,
            then=lambda world: world.tags.pop((repository, tag)),
        )

    def delete(self, repository: str, image: Image) -> None:
        """Delete the manifest, and its tags with it."""
        digest = image.digest()

        def deleted(world: World) -> None:
            world.manifests.remove((repository, digest))
            world.tags = {
                key: named for key, named in world.tags.items() if (key[0], named) != (repository, digest)
            }

        self._ask("DELETE", f"/v2/{repository}/manifests/{digest}", status=202, then=deleted)

    def unlink(self, repository: str, content: bytes) -> None:
        """Take the blob out of the repository."""
        digest = digest_of(content)
        self._ask(
            "DELETE",
            f"/v2/{repository}/blobs/{digest}",
            status=202,
            then=lambda world: world.blobs.remove((repository, digest)),
        )

    def resume(self) -> None:
        """Go on with every session from where the registry says that it stands, and finish it."""
        for upload in [self._uploads[identifier] for identifier in sorted(self.world.sessions)]:
            stands = self.world.sessions[upload.id]
            if (half := (stands + len(upload.content)) // 2) > stands:
                self.patch(upload, half)
            self.finish(upload)

    # What the registry says

    def look(self) -> World:
        """The world that there is. Fails where two answers contradict each other, or a byte is wrong."""
        world = World(sessions=self._sessions())
        for name in sorted(self._names):
            world.blobs |= {(name, digest) for digest in self._blobs if self._has_blob(name, digest)}
            world.manifests |= {
                (name, digest) for digest in self._images if self._manifest(name, digest) is not None
            }
            referrers = self._check_referrers(name, world)
            assert referrers <= {digest for _, digest in world.manifests}
        for name, tag in sorted(self._tags):
            if (digest := self._manifest(name, tag)) is not None:
                assert (name, digest) in world.manifests
                world.tags[name, tag] = digest
        self._check_lists(world)
        return world

    def is_well(self) -> bool:
        """Whether the registry can answer at all."""
        return self._get("/v2/_catalog").status != UNAVAILABLE

    def catalog(self) -> list[str]:
        """The repositories with tags."""
        return json.loads(self._get("/v2/_catalog").body)["repositories"]

    def _leads_to(self, owner: str, parent: str, name: str, digest: str) -> bool:
        """Whether the second manifest is a child of the first one, or is about it."""
        if owner != name:
            return False
        children = json.loads(self._images[parent].payload).get("manifests", [])
        return digest in {child["digest"] for child in children} or _subject(self._images[digest]) == parent

    def _sessions(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for upload in self._uploads.values():
            answer = self._get(upload.path)
            if answer.status != 404:
                assert answer.status == 204, answer
                # The header says 0-0 for none and for one; no chunk here is a single byte.
                last = int(answer.headers["range"].removeprefix("0-"))
                found[upload.id] = last + 1 if last else 0
        return found

    def _has_blob(self, name: str, digest: str) -> bool:
        answer = self._get(f"/v2/{name}/blobs/{digest}")
        assert (answer.status == 200 and answer.body == self._blobs[digest]) or answer.status == 404, (
            f"{name} gives {answer.status} and {len(answer.body)} bytes for {digest}, which are not its own"
        )
        return answer.status == 200

    def _manifest(self, name: str, reference: str) -> str | None:
        types = ", ".join(sorted({image.media_type for image in self._images.values()}))
        answer = self._get(f"/v2/{name}/manifests/{reference}", Accept=types)
        if answer.status == 404:
            return None
        assert answer.status == 200, answer
        digest = answer.headers["docker-content-digest"]
        image = self._images[digest]
        assert (answer.body, answer.headers["content-type"]) == (image.payload, image.media_type)
        return digest

    def _check_referrers(self, name: str, world: World) -> set[str]:
        """Each subject's list has the manifests that name it and are there."""
        subjects = {digest: _subject(image) for digest, image in self._images.items()}
        listed: set[str] = set()
        for subject in sorted({subject for subject in subjects.values() if subject}):
            answer = self._get(f"/v2/{name}/referrers/{subject}")
            found = {entry["digest"] for entry in json.loads(answer.body)["manifests"]}
            named = {digest for digest, its in subjects.items() if its == subject}
            assert found == {digest for digest in named if (name, digest) in world.manifests}
            listed |= found
        return listed

    def _check_lists(self, world: World) -> None:
        """Catalog and tags lists say the same as the single manifests."""
        for name in sorted(self._names):
            answer = self._get(f"/v2/{name}/tags/list")
            listed: list[str] = (json.loads(answer.body)["tags"] if answer.status == 200 else None) or []
            assert listed == sorted(tag for owner, tag in world.tags if owner == name)
        assert self.catalog() == sorted({name for name, _ in world.tags})

    def _know_blob(self, repository: str, content: bytes) -> None:
        self._names.add(repository)
        self._blobs[digest_of(content)] = content

    def _get(self, target: str, **headers: str) -> Answer:
        return self._exchange("GET", target, b"", headers)

    def _ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        status: int,
        then: Callable[[World], Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """A request that `then` tells the effect of. Raises Crashed if nobody answers it."""
        changed = deepcopy(self.world)
        if then is not None:
            then(changed)
        self._doubtful = changed
        try:
            answer = self._exchange(method, target, body, headers or {})
        except (ConnectionError, HTTPException) as error:
            raise Crashed from error
        if answer.status in self._crashed_by:
            raise Crashed
        assert answer.status == status, f"{method} {target}: {answer}"
        self.world, self._doubtful = changed, None
        return answer

    def _exchange(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer:
        # Where a Location may lead elsewhere, a path is all that is asked for here.
        assert not urlsplit(target).netloc
        self._connection.request(method, target, body, {"Content-Length": str(len(body)), **headers})
        with self._connection.getresponse() as answer:
            content = answer.read()
            return Answer(
                answer.status, {name.lower(): value for name, value in answer.headers.items()}, content
            )


def _subject(image: Image) -> str:
    return json.loads(image.payload).get("subject", {}).get("digest", "")
