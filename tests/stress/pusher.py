"""One client of the stress test, among others in the same repositories, with tags that nobody else has.

So it knows what must be there: everything that one of its tags leads to, and what is about that, from the answer to
its push until it takes the tag away. What it has pushed and nothing uses yet may be taken, as reviews come at once;
then the push starts over, as a client's does. But whatever it was told of less than `grace_seconds` ago must still be
there.
"""

from __future__ import annotations

import http.client
import json
import random
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from tests.soak.talk import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.stress.wares import Ware, Wares

REPOSITORIES: Final = tuple(f"stress/{name}" for name in ("one", "two", "three", "four", "one/five"))
TAGS: Final = 4
# Few in all, so that many blobs are unused most of the time.
TAGGED_MAX: Final = 2
ATTEMPTS_MAX: Final = 8
SECONDS: Final = 60
_ANY_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"


class Pusher:
    """A client. `done` counts what it did."""

    def __init__(self, number: int, seed: int, port: int, wares: Wares, grace_seconds: float) -> None:
        self.done: Counter[str] = Counter()
        self.step = ""
        self._number = number
        self._random = random.Random(f"{seed}-{number}")
        self._wares = wares
        self._grace_seconds = grace_seconds
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        self._tags: dict[tuple[str, str], Ware] = {}
        # What was pushed about an image that one of our tags led to then.
        self._about: list[tuple[str, Ware]] = []
        # When we asked for what we rely on, by repository and digest.
        self._told: dict[tuple[str, str], float] = {}
        steps: tuple[tuple[int, Callable[[str], None]], ...] = (
            (8, self.push_image), (2, self.push_index), (3, self.push_referrer), (3, self.retag), (4, self.untag),
            (2, self.delete), (6, self.pull), (1, self.cancel), (1, self.abandon), (2, self.stock),
        )  # fmt: skip
        self._steps = [step for weight, step in steps for _ in range(weight)]

    def act(self) -> None:
        """One step. Raises AssertionError if anything is not as it must be."""
        step = self._random.choice(self._steps)
        self.step = step.__name__
        step(self._random.choice(REPOSITORIES))
        self.done[self.step] += 1
        while len(self._tags) > TAGGED_MAX:
            name, _ = self._random.choice(list(self._tags))
            self.untag(name)

    def finish(self) -> None:
        """Pull everything that must be there."""
        self.step = "finish"
        for name, tag in self._tags:
            self._pull(name, tag)
        self._connection.close()

    def tagged(self) -> set[tuple[str, str, str]]:
        """Repository, tag and digest of all that must be tagged."""
        return {(name, tag, ware.digest) for (name, tag), ware in self._tags.items()}

    # Steps.

    def stock(self, name: str) -> None:
        """Push blobs that somebody may use later."""
        for digest, blob in self._ware().blobs.items():
            self._provide(name, digest, blob)

    def push_image(self, name: str) -> None:
        self._push(name, self._ware(), self._tag())

    def push_index(self, name: str) -> None:
        children = [self._ware() for _ in range(self._random.randint(1, 3))]
        self._push(name, self._wares.index(self._mark(), *children), self._tag())

    def push_referrer(self, name: str) -> None:
        if subject := self._tagged_in(name):
            tag = self._random.choice(("", "", self._tag()))
            referrer = self._wares.referrer(self._random, self._mark(), subject)
            # It may have taken the only tag of its subject.
            if self._push(name, referrer, tag) and self._is_tagged(name, subject):
                self._about.append((name, referrer))

    def retag(self, name: str) -> None:
        """Another tag for what has one."""
        if ware := self._tagged_in(name):
            tag = self._tag()
            self._put(name, ware, tag, expected=(201,))
            self._tagged(name, tag, ware)

    def untag(self, name: str) -> None:
        if tags := [tag for repository, tag in self._tags if repository == name]:
            tag = self._random.choice(tags)
            self._tagged(name, tag, None)
            self._ask(f"/v2/{name}/manifests/{tag}", "DELETE", expected=(202,))

    def delete(self, name: str) -> None:
        """Delete what nobody else has, with all its tags. An index may need it."""
        ware = self._tagged_in(name)
        if ware is None or ware in self._wares.common:
            return
        answer = self._ask(f"/v2/{name}/manifests/{ware.digest}", "DELETE", expected=(202, 409))
        if answer.status == 409:
            self.done["delete: referenced"] += 1
            return
        for repository, tag in list(self._tags):
            if repository == name and self._tags[name, tag].digest == ware.digest:
                self._tagged(name, tag, None)
        self._about = [
            (place, other) for place, other in self._about if place != name or other.digest != ware.digest
        ]

    def pull(self, name: str) -> None:
        if tags := [tag for repository, tag in self._tags if repository == name]:
            self._pull(name, self._random.choice(tags))

    def cancel(self, name: str) -> None:
        location = self._session(name)
        self._ask(location, "PATCH", b"something", expected=(202,))
        self._ask(location, "DELETE", expected=(204,))

    def abandon(self, name: str) -> None:
        self._ask(self._session(name), "PATCH", b"something", expected=(202,))

    # Pushing.

    def _push(self, name: str, ware: Ware, tag: str) -> bool:
        """Push it with all that it needs, from the beginning again if something is gone before it is used.

        Returns whether that was of use: with reviews that come at once, even the last attempt may have been too slow.
        """
        for _ in range(ATTEMPTS_MAX):
            if self._attempt(name, ware, tag):
                self.done["push"] += 1
                if tag:
                    self._tagged(name, tag, ware)
                return True
            self.done["push: starts over"] += 1
        self.done["push: given up"] += 1
        return False

    def _attempt(self, name: str, ware: Ware, tag: str) -> bool:
        if not all(self._attempt(name, child, "") for child in ware.children):
            return False
        for digest, blob in ware.blobs.items():
            self._provide(name, digest, blob)
        asked = monotonic()
        answer = self._put(name, ware, tag or ware.digest, expected=(201, 400))
        if answer.status == 201:
            self._told[name, ware.digest] = asked
            return True
        self._check_refusal(name, answer)
        return False

    def _put(self, name: str, ware: Ware, reference: str, *, expected: tuple[int, ...]) -> Answer:
        return self._ask(
            f"/v2/{name}/manifests/{reference}",
            "PUT",
            ware.manifest.payload,
            {"Content-Type": ware.manifest.media_type},
            expected=expected,
        )

    def _tagged(self, name: str, tag: str, ware: Ware | None) -> None:
        """The tag leads to that now. What is about an image goes with the last of our tags for it."""
        before = self._tags.pop((name, tag), None)
        if ware is not None:
            self._tags[name, tag] = ware
        if before is not None and not self._is_tagged(name, before):
            self._about = [
                (place, other)
                for place, other in self._about
                if place != name or other.subject != before.digest
            ]

    def _check_refusal(self, name: str, answer: Answer) -> None:
        """Something is missing; was it there when we asked, a moment ago?"""
        now = monotonic()
        for error in json.loads(answer.body)["errors"]:
            assert error["code"] == "MANIFEST_BLOB_UNKNOWN", answer
            digest = error["detail"]["digest"]
            age = now - self._told[name, digest]
            assert age > self._grace_seconds, f"{digest} was there {age:.3f} seconds ago, in {name}"
            self.done["push: something is gone"] += 1

    def _provide(self, name: str, digest: str, blob: bytes) -> None:
        """See to it that the repository has the blob, in one of the ways that clients have."""
        way = self._random.choice(("HEAD", "HEAD", "HEAD", "mount", "mount", "whole", "session"))
        self._told[name, digest] = monotonic()
        if way == "HEAD":
            answer = self._ask(f"/v2/{name}/blobs/{digest}", "HEAD", expected=(200, 404))
            self.done[f"HEAD: {answer.status}"] += 1
            if answer.status == 200:
                return
        if way == "mount":
            source = self._random.choice(REPOSITORIES)
            target = f"/v2/{name}/blobs/uploads/?mount={digest}&from={source}"
            answer = self._ask(target, "POST", expected=(201, 202))
            self.done[f"mount: {answer.status}"] += 1
            if answer.status == 201:
                return
            location = f"/v2/{name}/blobs/uploads/{answer.headers['docker-upload-uuid']}"
        elif way == "session":
            location = self._session(name)
        else:
            self._told[name, digest] = monotonic()
            self._ask(f"/v2/{name}/blobs/uploads/?digest={digest}", "POST", blob, expected=(201,))
            self.done["upload"] += 1
            return
        self._ask(location, "PATCH", blob, expected=(202,))
        self._told[name, digest] = monotonic()
        self._ask(f"{location}?digest={digest}", "PUT", expected=(201,))
        self.done["upload"] += 1

    def _session(self, name: str) -> str:
        answer = self._ask(f"/v2/{name}/blobs/uploads/", "POST", expected=(202,))
        return f"/v2/{name}/blobs/uploads/{answer.headers['docker-upload-uuid']}"

    # Pulling.

    def _pull(self, name: str, tag: str) -> None:
        """Everything that the tag leads to, and what is about it, byte by byte."""
        ware = self._tags[name, tag]
        self._read_manifest(name, tag, ware)
        self._read(name, ware)
        expected = {
            other.digest: other
            for place, other in self._about
            if place == name and other.subject == ware.digest
        }
        listed = self._ask(f"/v2/{name}/referrers/{ware.digest}", "GET", expected=(200,))
        entries: list[dict[str, Any]] = json.loads(listed.body)["manifests"]
        assert expected.keys() <= {entry["digest"] for entry in entries}, (
            f"{ware.digest} in {name}: {entries}"
        )
        for other in expected.values():
            self._read(name, other)
        self.done["pull: everything"] += 1

    def _read(self, name: str, ware: Ware) -> None:
        self._read_manifest(name, ware.digest, ware)
        for child in ware.children:
            self._read(name, child)
        for digest, blob in ware.blobs.items():
            answer = self._ask(f"/v2/{name}/blobs/{digest}", "GET", expected=(200,))
            assert answer.body == blob, f"{digest} in {name} is something else"

    def _read_manifest(self, name: str, reference: str, ware: Ware) -> None:
        answer = self._ask(
            f"/v2/{name}/manifests/{reference}", "GET", headers={"Accept": _ANY_MANIFEST}, expected=(200,)
        )
        assert answer.body == ware.manifest.payload, f"{reference} in {name} is something else"

    # Choices.

    def _ware(self) -> Ware:
        common = self._random.random() < 0.6
        if common:
            return self._random.choice(self._wares.common)
        return self._wares.image(self._random, self._mark())

    def _tag(self) -> str:
        return f"v{self._number}-{self._random.randrange(TAGS)}"

    def _mark(self) -> str:
        return f"{self._number} {self._random.getrandbits(60)}"

    def _is_tagged(self, name: str, ware: Ware) -> bool:
        return any(
            repository == name and held.digest == ware.digest for (repository, _), held in self._tags.items()
        )

    def _tagged_in(self, name: str) -> Ware | None:
        found = [ware for (repository, _), ware in self._tags.items() if repository == name]
        return self._random.choice(found) if found else None

    def _ask(
        self,
        target: str,
        method: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        expected: tuple[int, ...],
    ) -> Answer:
        self._connection.request(method, target, body, dict(headers or {}))
        response = self._connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        answer = Answer(response.status, named, response.read())
        assert answer.status in expected, f"{method} {target}: {answer.status}: {answer.body[:300]!r}"
        self.done["requests"] += 1
        return answer
