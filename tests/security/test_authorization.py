"""Who sees and changes what: any sequence of requests of several people, against a model of rights and contents.

The model is two questions in plain Python: may this token do that to this repository, and what does each repository
hold. An allowed request is answered as the model of the one repository says, whatever the others hold. A refused one is
answered, to the byte, as the same request about a repository that never was. In the end the tables hold what the model
holds, so that what was refused has changed nothing.
"""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass, field, fields
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.http.support import refused, served
from tests.security.test_access import CATALOG, DEMANDS, REALM, SERVICE, guarded, repository, token
from tests.support.effort import EFFORT
from tests.support.registry import digest_of, image, index

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

    from tests.support.registry import Image, Registry

WORLDS: Final = 2
STEPS: Final = 400
# One below the other, and such as could be taken for another route's path.
NAMES: Final = ("a", "a/b", "a/b/c", "a/blobs", "a/manifests/x", "a/blobs/uploads", "a/tags/list")
PEOPLE: Final = 4
TAGS: Final = ("latest", "list", "uploads")
OPEN: Final = ("root", "v2.base", "auth.token")
NEVER: Final = "00000000-0000-4000-8000-000000000000"

LAYERS: Final = (b"{}", b"layer 1", b"layer 2", b"layer 3")
ONE, TWO = image(b"layer 1"), image(b"layer 2")
MANIFESTS: Final[dict[str, Image]] = {
    manifest.digest(): manifest
    for manifest in (
        ONE,
        TWO,
        image(
            b"layer 3",
            subject={"mediaType": ONE.media_type, "digest": ONE.digest(), "size": len(ONE.payload)},
        ),
        index(ONE, TWO),
    )
}
BLOBS: Final = {digest_of(layer): layer for layer in LAYERS}


def references(payload: bytes) -> tuple[list[str], list[str], str]:
    """The blobs, the children and the subject that a manifest names."""
    document = json.loads(payload)
    blobs = [entry["digest"] for entry in (document.get("config"), *document.get("layers", [])) if entry]
    children = [entry["digest"] for entry in document.get("manifests", [])]
    return blobs, children, document.get("subject", {}).get("digest", "")


@dataclass
class Repository:
    """What one repository holds: blobs, manifests in the order they came, tags, open uploads."""

    blobs: set[str] = field(default_factory=set[str])
    manifests: dict[str, None] = field(default_factory=dict[str, None])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    uploads: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def missing(self, manifest: Image) -> set[str]:
        blobs, children, _ = references(manifest.payload)
        return ({*blobs} - self.blobs) | ({*children} - {*self.manifests})

    def needs(self, digest: str) -> bool:
        """Whether one of its manifests names this blob or child."""
        named = (references(MANIFESTS[manifest].payload)[:2] for manifest in self.manifests)
        return any(digest in (*blobs, *children) for blobs, children in named)


@dataclass(frozen=True)
class Person:
    """A caller. `rights` are what the token's entries say."""

    rights: Mapping[str, frozenset[str]]
    sees_catalog: bool
    headers: Mapping[str, str]

    def may(self, action: str, name: str) -> bool:
        return not {action, "*"}.isdisjoint(self.rights.get(name, ()))


@dataclass(frozen=True)
class Step:
    """Numbers that a request is made from, each taken modulo what there is to choose from."""

    kind: int
    who: int
    where: int
    other: int
    what: int
    method: int


# What an entry of a token may say. Nobody's say nothing half of the time.
RIGHTS: Final = ("pull", "push", "delete", "pull,push", "pull,push,delete", "*", *[""] * 6)


class World:
    """One example: people, repositories of their own below `root`, and the registry that both are tried against."""

    def __init__(self, registry: Registry, root: str, chance: random.Random) -> None:
        self.registry = registry
        self.root = root
        self.chance = chance
        self.repositories: dict[str, Repository] = {}
        self.sessions: list[tuple[str, str]] = [(self.names[0], NEVER)]
        everything = dict.fromkeys(self.names, frozenset("*"))
        some = [
            {name: frozenset(chance.choice(RIGHTS).split(",")) for name in self.names} for _ in range(PEOPLE)
        ]
        nobody = Person({}, sees_catalog=False, headers={})
        # The first does half of all, so that there is something to keep from the others.
        self.people = [*[self._person(everything)] * PEOPLE, *map(self._person, some), nobody]

    @property
    def names(self) -> list[str]:
        return [f"{self.root}/{name}" for name in NAMES]

    def _person(self, rights: Mapping[str, frozenset[str]]) -> Person:
        sees_catalog = self.chance.random() < 0.5
        # What matches nothing, however much it seems to.
        decoys = [f"{self.root}/*", f"{self.root}/a/", f"{self.root}/A", self.root, "*", "**", ""]
        access = [repository(name, *sorted(those - {""})) for name, those in rights.items()]
        access += [repository(name, "*") for name in decoys]
        access += [{"type": "namespace", "name": name, "actions": ["*"]} for name in self.names]
        access += [CATALOG] if sees_catalog else [{**CATALOG, "actions": ["pull"]}]
        return Person(rights, sees_catalog, {"Authorization": f"Bearer {token(*access)}"})

    async def take(self, step: Step) -> None:
        kinds: list[Callable[[Step, Person, str], Any]] = [
            self.push_blob, self.push_blob, self.push_manifest, self.push_manifest, self.start, self.mount,
            self.session, self.session, self.read_manifest, self.read_blob, self.tags, self.referrers, self.catalog,
            self.delete_manifest, self.delete_blob,
        ]  # fmt: skip
        person = self.people[step.who % len(self.people)]
        await kinds[step.kind % len(kinds)](step, person, self.names[step.where % len(NAMES)])

    async def ask(
        self,
        person: Person,
        method: str,
        path: str,
        action: str,
        name: str,
        *,
        content: bytes = b"",
        **headers: str,
    ) -> httpx.Response | None:
        """The answer, None if it was a refusal and as it must be. `{}` in the path stands for the name."""

        async def send(to: str) -> httpx.Response:
            sent = {**person.headers, **{key.replace("_", "-"): value for key, value in headers.items()}}
            return await self.registry.client.request(
                method, f"/v2/{path.replace('{}', to)}", content=content, headers=sent
            )

        answer = await send(name)
        if person.may(action, name):
            assert answer.status_code != 401, (person, method, path)
            return answer
        never = f"{self.root}/{'n' * (len(name) - len(self.root) - 1)}"
        absent = await send(never)
        assert answer.status_code == absent.status_code == 401
        for told, expected in (
            (answer.content, absent.content),
            *itertools.zip_longest(answer.headers.raw, absent.headers.raw, fillvalue=()),
        ):
            assert told == replaced(expected, never, name)
        error = ',error="insufficient_scope"' if person.headers else ""
        wanted = "pull,push" if action == "push" else action
        scope = f"repository:{name}:{wanted}"
        source = answer.request.url.params.get("from", name)
        scope += (
            f" repository:{source}:pull" if "mount" in answer.request.url.params and source != name else ""
        )
        assert answer.headers["WWW-Authenticate"] == (
            f'Bearer realm="{REALM}",service="{SERVICE}",scope="{scope}"{error}'
        )
        return None

    def held(self, name: str) -> Repository:
        """The repository as readers see it."""
        return self.repositories.get(name, Repository())

    def unknown(self, name: str, code: str) -> str:
        return code if name in self.repositories else "NAME_UNKNOWN"

    def ensure(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    # Writes.

    async def push_blob(self, step: Step, person: Person, name: str) -> None:
        content = LAYERS[step.what % len(LAYERS)]
        digest = digest_of(content)
        stated = digest if step.method % 8 else digest_of(b"another")
        answer = await self.ask(
            person, "POST", f"{{}}/blobs/uploads/?digest={stated}", "push", name, content=content
        )
        if answer is not None:
            repo = self.ensure(name)
            if stated != digest:
                refused(answer, 400, "DIGEST_INVALID")
                return
            created(answer, name, f"blobs/{digest}", digest)
            repo.blobs.add(digest)

    async def push_manifest(self, step: Step, person: Person, name: str) -> None:
        digest, manifest = list(MANIFESTS.items())[step.what % len(MANIFESTS)]
        tag = TAGS[step.other % len(TAGS)]
        path, tags = [(tag, [tag]), (digest, []), (f"{digest}?tag={tag}&tag=more", [tag, "more"])][
            step.method % 3
        ]
        answer = await self.ask(
            person,
            "PUT",
            f"{{}}/manifests/{path}",
            "push",
            name,
            content=manifest.payload,
            Content_Type=manifest.media_type,
        )
        if answer is None:
            return
        missing = self.held(name).missing(manifest)
        if missing:
            # What another repository holds is as missing as what nobody does.
            assert answer.status_code == 400
            entries = [(entry["code"], entry["detail"]) for entry in answer.json()["errors"]]
            assert sorted(map(str, entries)) == sorted(
                str(("MANIFEST_BLOB_UNKNOWN", {"digest": one})) for one in missing
            )
            return
        repo = self.ensure(name)
        created(answer, name, f"manifests/{digest}", digest)
        repo.manifests.setdefault(digest)
        repo.tags |= dict.fromkeys(tags, digest)

    async def start(self, step: Step, person: Person, name: str) -> None:
        answer = await self.ask(person, "POST", "{}/blobs/uploads/", "push", name)
        if answer is not None:
            self.opened(answer, name)

    async def mount(self, step: Step, person: Person, name: str) -> None:
        digest, source = list(BLOBS)[step.what % len(BLOBS)], self.names[step.other % len(NAMES)]
        query = f"?mount={digest}" + (
            "" if step.method % 4 == 0 else f"&from={'{}' if source == name else source}"
        )
        answer = await self.ask(person, "POST", "{}/blobs/uploads/" + query, "push", name)
        if answer is None:
            return
        source = name if step.method % 4 == 0 else source
        if person.may("pull", source) and digest in self.held(source).blobs:
            created(answer, name, f"blobs/{digest}", digest)
            self.ensure(name).blobs.add(digest)
        else:
            self.opened(answer, name)

    def opened(self, answer: httpx.Response, name: str) -> None:
        upload = answer.headers["Docker-Upload-UUID"]
        progress(answer, 202, name, upload, b"")
        self.ensure(name).uploads[upload] = b""
        self.sessions.append((name, upload))

    async def session(self, step: Step, person: Person, name: str) -> None:
        """Somebody's session, at its own repository or at another, by whoever may push there."""
        owner, upload = self.sessions[step.other % len(self.sessions)]
        name = owner if step.what % 3 else name
        path = f"{{}}/blobs/uploads/{upload}"
        content = LAYERS[step.what % len(LAYERS)]
        method = ("GET", "HEAD", "PATCH", "PATCH", "PUT", "DELETE")[step.method % 6]
        received = self.held(name).uploads.get(upload)
        digest = digest_of((received or b"") + content)
        query = f"?digest={digest}" if method == "PUT" else ""
        body = content if method in {"PATCH", "PUT"} else b""
        answer = await self.ask(person, method, path + query, "push", name, content=body)
        if answer is None:
            return
        if received is None:
            no(answer, 404, "BLOB_UPLOAD_UNKNOWN")
        elif method in {"GET", "HEAD"}:
            progress(answer, 204, name, upload, received)
        elif method == "PATCH":
            self.repositories[name].uploads[upload] += content
            progress(answer, 202, name, upload, received + content)
        elif method == "DELETE":
            assert answer.status_code == 204
            del self.repositories[name].uploads[upload]
        else:
            created(answer, name, f"blobs/{digest}", digest)
            del self.repositories[name].uploads[upload]
            self.repositories[name].blobs.add(digest)

    async def delete_manifest(self, step: Step, person: Person, name: str) -> None:
        digest, tag = list(MANIFESTS)[step.what % len(MANIFESTS)], TAGS[step.other % len(TAGS)]
        reference = tag if step.method % 2 else digest
        answer = await self.ask(person, "DELETE", f"{{}}/manifests/{reference}", "delete", name)
        if answer is None:
            return
        repo = self.held(name)
        if reference not in (repo.tags if step.method % 2 else repo.manifests):
            no(answer, 404, self.unknown(name, "MANIFEST_UNKNOWN"))
        elif reference == tag:
            assert answer.status_code == 202
            del repo.tags[tag]
        elif repo.needs(digest):
            no(answer, 409, "MANIFEST_REFERENCED")
        else:
            assert answer.status_code == 202
            del repo.manifests[digest]
            repo.tags = {of: at for of, at in repo.tags.items() if at != digest}

    async def delete_blob(self, step: Step, person: Person, name: str) -> None:
        digest = list(BLOBS)[step.what % len(BLOBS)]
        answer = await self.ask(person, "DELETE", f"{{}}/blobs/{digest}", "delete", name)
        if answer is None:
            return
        repo = self.held(name)
        if repo.needs(digest):
            no(answer, 405, "UNSUPPORTED")
        elif digest not in repo.blobs:
            no(answer, 404, self.unknown(name, "BLOB_UNKNOWN"))
        else:
            assert answer.status_code == 202
            repo.blobs.remove(digest)

    # Reads.

    async def read_manifest(self, step: Step, person: Person, name: str) -> None:
        digest, tag = list(MANIFESTS)[step.what % len(MANIFESTS)], TAGS[step.other % len(TAGS)]
        reference, method = (tag if step.method % 2 else digest), ("GET", "HEAD")[step.method // 2 % 2]
        answer = await self.ask(person, method, f"{{}}/manifests/{reference}", "pull", name)
        if answer is None:
            return
        repo = self.held(name)
        found = repo.tags.get(tag, "") if reference == tag else digest
        if found in repo.manifests:
            got(answer, found, MANIFESTS[found].payload)
        else:
            no(answer, 404, self.unknown(name, "MANIFEST_UNKNOWN"))

    async def read_blob(self, step: Step, person: Person, name: str) -> None:
        digest = list(BLOBS)[step.what % len(BLOBS)]
        method = ("GET", "HEAD")[step.method % 2]
        answer = await self.ask(person, method, f"{{}}/blobs/{digest}", "pull", name)
        if answer is None:
            return
        if digest in self.held(name).blobs:
            got(answer, digest, BLOBS[digest])
        else:
            no(answer, 404, self.unknown(name, "BLOB_UNKNOWN"))

    async def tags(self, step: Step, person: Person, name: str) -> None:
        answer = await self.ask(person, ("GET", "HEAD")[step.method % 2], "{}/tags/list", "pull", name)
        if answer is None:
            return
        if name not in self.repositories:
            no(answer, 404, "NAME_UNKNOWN")
        else:
            listed(answer, {"name": name, "tags": sorted(self.held(name).tags)})

    async def referrers(self, step: Step, person: Person, name: str) -> None:
        digest = list(MANIFESTS)[step.what % 2]
        answer = await self.ask(
            person, ("GET", "HEAD")[step.method % 2], f"{{}}/referrers/{digest}", "pull", name
        )
        if answer is None or answer.request.method == "HEAD":
            return
        assert [entry["digest"] for entry in answer.json()["manifests"]] == [
            manifest
            for manifest in self.held(name).manifests
            if references(MANIFESTS[manifest].payload)[2] == digest
        ]

    async def catalog(self, step: Step, person: Person, name: str) -> None:
        """All pages of what is below `root`, by whoever may see everything, and not even a header for the others."""
        url, seen = f"/v2/_catalog?n={1 + step.what % 4}&last={self.root}/", list[str]()
        while url:
            method = ("GET", "HEAD")[step.method % 2]
            answer = await self.registry.client.request(method, url, headers=dict(person.headers))
            if not person.sees_catalog:
                assert answer.headers["WWW-Authenticate"].count('scope="registry:catalog:*"') == 1
                assert set(answer.headers) == KEPT_OUT
                assert not any(known in answer.text for known in self.names)
                no(answer, 401, "UNAUTHORIZED")
                return
            if method == "HEAD":
                assert (answer.status_code, answer.content) == (200, b"")
                return
            seen += answer.json()["repositories"]
            url = answer.links["next"]["url"] if "next" in answer.links else ""
        below = [found for found in seen if found.startswith(f"{self.root}/")]
        assert below == sorted(known for known, repo in self.repositories.items() if repo.tags)

    # The end.

    async def check(self) -> None:
        """The tables hold what the model holds."""
        assert await self._rows("SELECT path, '' FROM repositories r WHERE true") == {
            (name, "") for name in self.repositories
        }
        assert await self._rows(
            "SELECT path, 'sha256:' || encode(substr(blob_digest, 2), 'hex') FROM repositories r"
            " JOIN repository_blobs b ON b.repository_id = r.id WHERE true"
        ) == self._held(lambda repo: repo.blobs)
        assert await self._rows(
            "SELECT path, 'sha256:' || encode(substr(digest, 2), 'hex') FROM repositories r"
            " JOIN manifests m ON m.repository_id = r.id WHERE true"
        ) == self._held(lambda repo: repo.manifests)
        assert await self._rows(
            "SELECT path, t.name || '=sha256:' || encode(substr(digest, 2), 'hex') FROM repositories r"
            " JOIN tags t ON t.repository_id = r.id"
            " JOIN manifests m ON m.repository_id = r.id AND m.id = t.manifest_id WHERE true"
        ) == self._held(lambda repo: [f"{tag}={digest}" for tag, digest in repo.tags.items()])
        assert await self._rows(
            "SELECT path, u.id || '=' || u.size FROM repositories r"
            " JOIN blob_uploads u ON u.repository_id = r.id WHERE true"
        ) == self._held(lambda repo: [f"{upload}={len(has)}" for upload, has in repo.uploads.items()])

    async def _rows(self, sql: str) -> set[tuple[str, str]]:
        found = await self.registry.rows(f"{sql} AND r.path LIKE $1", f"{self.root}/%")
        return {tuple[str, str](row.values()) for row in found}

    def _held(self, of: Callable[[Repository], Any]) -> set[tuple[str, str]]:
        return {(name, thing) for name, repo in self.repositories.items() for thing in of(repo)}


KEPT_OUT: Final = {
    "content-length", "content-type", "docker-distribution-api-version", "www-authenticate", "x-request-id"
}  # fmt: skip


def replaced(told: Any, never: str, name: str) -> Any:
    """What was said of one repository, as it would be said of another whose name is as long."""
    if isinstance(told, bytes):
        return told.replace(never.encode(), name.encode())
    return tuple(replaced(part, never, name) for part in told)


def no(answer: httpx.Response, status: int, code: str) -> None:
    if answer.request.method == "HEAD":
        assert (answer.status_code, answer.content) == (status, b"")
    else:
        refused(answer, status, code)


def got(answer: httpx.Response, digest: str, content: bytes) -> None:
    assert (answer.status_code, answer.headers["Docker-Content-Digest"]) == (200, digest)
    assert answer.headers["Content-Length"] == str(len(content))
    assert answer.content == (b"" if answer.request.method == "HEAD" else content)


def listed(answer: httpx.Response, document: Any) -> None:
    assert answer.status_code == 200
    assert answer.request.method == "HEAD" or answer.json() == document


def created(answer: httpx.Response, name: str, tail: str, digest: str) -> None:
    assert (answer.status_code, answer.headers["Docker-Content-Digest"]) == (201, digest), answer.text
    assert answer.headers["Location"] == f"http://registry.test/v2/{name}/{tail}"


def progress(answer: httpx.Response, status: int, name: str, upload: str, received: bytes) -> None:
    assert (answer.status_code, answer.content) == (status, b""), answer.text
    assert answer.headers["Location"] == f"http://registry.test/v2/{name}/blobs/uploads/{upload}"
    assert answer.headers["Range"] == f"0-{max(0, len(received) - 1)}"


@pytest.mark.parametrize("seed", range(WORLDS * EFFORT))
@served(**guarded())
async def test_requests_of_people_with_any_rights_when_in_any_order_then_show_and_change_what_these_allow(
    registry: Registry, seed: int
) -> None:
    # The same ones in every short run, so that it fails for the change that broke it; other ones in long runs.
    chosen = seed if EFFORT == 1 else random.randrange(2**32)
    print(f"seed {chosen}")  # noqa: T201 - shown when the test fails
    chance = random.Random(chosen)
    world = World(registry, "world", chance)
    for kind, where, what in itertools.product((0, 2), range(3), range(len(LAYERS))):
        await world.take(Step(kind, 0, where, what, what, 2))
    for _ in range(STEPS):
        await world.take(Step(*(chance.randrange(60) for _ in fields(Step))))
    await world.check()
    met = {(seen["route"], seen["status"] == HTTPStatus.UNAUTHORIZED) for seen in registry.seen.requests}
    assert met == {
        (route, is_refused) for route, _ in DEMANDS if route not in OPEN for is_refused in (True, False)
    }
