"""Who plays an example: asks the registries, compares with the model, and knows what is there, by label."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from hypothesis.stateful import RuleBasedStateMachine

from tests.model.answers import of_head
from tests.model.choices import BLOBS, DIGESTS, NAMES, SLOTS, TAGS
from tests.model.model import Chunk, Model
from tests.model.pool import GHOST, MANIFESTS, Manifest, Pool
from tests.model.replicas import COUNT
from tests.model.wire import HOST, SECONDS
from tests.support.processes import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.model.answers import Answer, Expected
    from tests.model.model import Repository
    from tests.model.replicas import Replicas
    from tests.model.wire import Client

_examples = count(1)
# Where there is little to collect.
_QUIET: Final = ("pulls", "lists")


@dataclass
class Slot:
    """An upload as its client knows it, and what it is to become."""

    name: str
    upload: str
    content: bytes


class Player(RuleBasedStateMachine):
    """One example: registries with nothing in them, and the model. The rules come with a subclass."""

    def __init__(self, replicas: Replicas, client: Client, mood: str) -> None:
        super().__init__()
        number = next(_examples)
        self.prefix = f"m{number:06}"
        self.pool = Pool(f"{number:06}")
        self.model = Model(f"http://{HOST}")
        self._replicas = replicas
        self._client = client
        self.slots = {
            n: Slot(self.prefix, f"00000000-0000-4000-8000-00000000000{n}", b"never started") for n in SLOTS
        }
        self.mood = mood
        self._sound = True
        client.begin()

    def teardown(self) -> None:
        try:
            if self._sound:
                self._same_facts()
                self._read_everything()
                self._check_invariants(fsck=self.mood not in _QUIET)
                if self.mood not in _QUIET:
                    self.settle()
        finally:
            self._replicas.clear()

    # What is there, by label.

    def open_slots(self) -> list[int]:
        return [
            n for n, slot in self.slots.items() if self.model.status(slot.name, slot.upload).status == 204
        ]

    def tagged_names(self) -> list[str]:
        """Repositories with tags, those with several if there are any."""
        tagged = [(name, len(repository.tags)) for name, repository in self._repositories()]
        return [name for name, tags in tagged if tags > 1] or [name for name, tags in tagged if tags]

    def blobs_there(self) -> list[tuple[str, str]]:
        return [
            (name, blob)
            for name, repository in self._repositories()
            for blob in BLOBS
            if self.blob(blob) in repository.blobs
        ]

    def blobs_somewhere(self) -> list[tuple[str, str]]:
        """Each blob that some repository has, said of each repository."""
        held = dict.fromkeys(blob for _, blob in self.blobs_there())
        return [(name, blob) for blob in held for name in NAMES]

    def references_there(self) -> list[tuple[str, str]]:
        """Tags, and manifests by digest."""
        return [
            (name, reference)
            for name, repository in self._repositories()
            for reference in (*TAGS, *DIGESTS)
            if reference in repository.tags or self.reference(reference) in repository.manifests
        ]

    def unused_there(self) -> list[tuple[str, str, str]]:
        """Manifests and blobs that a repository has and nothing uses: kind, repository, label."""
        unused = self.model.unused()
        manifests = [
            ("manifest", name, label)
            for name, label in self.references_there()
            if ("manifest", self.prefix + name, self.reference(label)) in unused
        ]
        return manifests + [
            ("stored", name, label)
            for name, label in self.blobs_there()
            if ("stored", self.blob(label)) in unused
        ]

    def subjects_there(self) -> list[tuple[str, str]]:
        """What something is about."""
        return [
            (name, label)
            for name, repository in self._repositories()
            for label in (*MANIFESTS, GHOST)
            if any(
                stored.manifest.subject == self.pool.subject(label)
                for stored in repository.manifests.values()
            )
        ]

    # What the rules are made of.

    def read_pages(self, target: str, key: str, last: str, page: Callable[[str], Expected]) -> None:
        """Every page, as the Link headers say; `page` is what the one after an entry must be."""
        while target:
            answer, expected = self.ask("GET", target), page(last)
            self.must(answer, expected)
            target = next_target(answer)
            if target:
                last = expected.document[key][-1]

    def ask(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        answer = self._client.ask(method, target, body, headers)
        if method == "HEAD" and answer.status in {200, 304}:
            self.model.told(target, answer.headers["docker-content-digest"])
        return answer

    def everybody_asks(self, target: str, expected: Expected) -> None:
        """HEAD at each of the registries."""
        for _ in range(COUNT):
            self.must(self.ask("HEAD", target), of_head(expected))

    def send(self, method: str, target: str, chunk: Chunk) -> Answer:
        headers = {} if chunk.first is None else {"Content-Range": f"{chunk.first}-{chunk.last}"}
        return self._client.ask(method, target, chunk.content, headers, announced=chunk.announced)

    def break_off(self, method: str, target: str, content: bytes, then: Expected) -> None:
        """Leave in the middle of a body; before long, GET must be answered with `then`."""
        self._client.break_off(method, target, content)
        wait_for(lambda: not then.differences(self.ask("GET", target)), SECONDS)
        self.must(self.ask("GET", target), then)

    def must(self, answer: Answer, expected: Expected) -> None:
        self._client.check(answer, expected)

    def through(self, slot: int, name: str | None) -> tuple[str, str]:
        """The repository and the id with which the upload is asked for."""
        own = self.slots[slot]
        return own.name if name is None else self.prefix + name, own.upload

    def received(self, slot: int) -> bytes:
        own = self.slots[slot]
        return self.model.received(own.name, own.upload)

    def chunk(self, slot: int, part: str, stated: str, *, announced: bool = True) -> Chunk:
        at = len(self.received(slot))
        lacking = self.slots[slot].content[at:]
        size = {"nothing": 0, "a byte": 1, "half": (len(lacking) + 1) // 2, "the rest": len(lacking)}[part]
        content = lacking[:size]
        if stated == "no range" or not content:
            return Chunk(content, announced=announced)
        first = {"too early": max(0, at - 1), "too late": at + 1}.get(stated, at)
        last = first + len(content) - 1 + (stated == "too long")
        return Chunk(content, first, last, announced=announced)

    def post(self, name: str, digest: str, content: bytes) -> None:
        answer = self.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", content)
        self.must(answer, self.model.post(name, digest, content))

    def provide(self, name: str, manifest: Manifest) -> None:
        """Push what the manifest needs and the repository does not have."""
        for missing in self.model.missing(name, manifest):
            if missing in manifest.blobs:
                self.post(name, missing, manifest.blobs[missing])
            else:
                child = manifest.children[missing]
                self.provide(name, child)
                self.put(name, child, missing, [])

    def put(self, name: str, manifest: Manifest, reference: str, tags: list[str]) -> None:
        query = "".join(f"{'&' if n else '?'}tag={tag}" for n, tag in enumerate(tags))
        answer = self.ask(
            "PUT",
            f"/v2/{name}/manifests/{reference}{query}",
            manifest.payload,
            {"Content-Type": manifest.media_type},
        )
        self.must(answer, self.model.put_manifest(name, manifest, reference, tags))

    def _repositories(self) -> list[tuple[str, Repository]]:
        known = self.model.repositories
        return [(name, known[self.prefix + name]) for name in NAMES if self.prefix + name in known]

    def blob(self, label: str) -> str:
        """The digest of a content@algorithm."""
        content, _, algorithm = label.partition("@")
        return self.pool.digest(content, algorithm)

    def reference(self, text: str) -> str:
        """A tag as it is, the digest of a manifest@algorithm."""
        label, at, algorithm = text.partition("@")
        return self.pool.subject(label, algorithm) if at else text

    def _check_invariants(self, *, fsck: bool = False) -> None:
        try:
            self._replicas.check_invariants()
            if fsck:
                self._replicas.check_fsck()
        except AssertionError as error:
            error.add_note(self._client.conversation())
            raise

    def settle(self) -> None:
        """Let garbage collection end its work. There is none here."""

    def _same_facts(self) -> None:
        found, expected = self._replicas.facts(), self.model.facts()
        assert found == expected, "\n".join(
            [
                f"the database has what the model has not: {sorted(found - expected)}",
                f"the model has what the database has not: {sorted(expected - found)}",
                self._client.conversation(),
            ]
        )

    def _read_everything(self) -> None:
        """Every blob, manifest and tag of the model as clients get it, and in each repository some that must not be."""
        with self._client.aside("everything is read"):
            for name, repository in self.model.repositories.items():
                for digest in (*repository.blobs, *self._absent(repository.blobs)):
                    answer = self.ask("GET", f"/v2/{name}/blobs/{digest}")
                    self.must(answer, self.model.blob(name, digest))
                absent = [tag for tag in TAGS if tag not in repository.tags][:1]
                for reference in (
                    *repository.manifests,
                    *self._absent(repository.manifests),
                    *repository.tags,
                    *absent,
                ):
                    answer = self.ask("GET", f"/v2/{name}/manifests/{reference}")
                    self.must(answer, self.model.manifest(name, reference))

    def _absent(self, present: dict[str, Any]) -> list[str]:
        """A blob of some repository, and a manifest, that `present` does not have."""
        everywhere = (
            digest
            for other in self.model.repositories.values()
            for digest in (*other.blobs, *other.manifests)
        )
        return [digest for digest in everywhere if digest not in present][:1]


def as_method(method: str, expected: Expected) -> Expected:
    return of_head(expected) if method == "HEAD" else expected


def with_query(path: str, **query: Any) -> str:
    pairs = {key: value for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(pairs)}" if pairs else path


def next_target(answer: Answer) -> str:
    """The target of the Link header; empty on the last page."""
    return answer.headers.get("link", "").partition("<")[2].partition(">")[0]
