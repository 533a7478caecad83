"""What a client may do next, in any order, whether it makes sense or not. `Player` has what the steps are made of."""

from __future__ import annotations

from itertools import count

from hypothesis import strategies as st

from tests.model.choices import (
    ACCEPTS,
    ALGORITHMS,
    BY,
    CLOSING,
    KINDS,
    NAMES,
    PARTS,
    RANGES,
    SLOTS,
    STATED,
    TAGS,
    a_blob,
    a_content,
    a_limit,
    a_manifest,
    a_method,
    a_mountable,
    a_name,
    a_reference,
    a_slot,
    a_subject,
    a_tag,
    a_tagged_name,
    an_algorithm,
    another_name,
    any_name,
)
from tests.model.model import Repository
from tests.model.player import Player, Slot, as_method, next_target, with_query
from tests.model.pool import ABOUT_IMAGE, DOCKER_LISTS
from tests.model.steps import step
from tests.support.registry import digest_of


def has_uploads(player: Player) -> bool:
    """Whether any upload was ever started."""
    return any(not slot.upload.startswith("0000") for slot in player.slots.values())


def has_repositories(player: Player) -> bool:
    return bool(player.model.repositories)


class Requests(Player):
    """What a client may ask for."""

    # Uploads.

    @step("uploads", 3, slot=st.sampled_from(SLOTS), name=a_name, content=a_content, algorithm=an_algorithm)
    def start_upload(self, slot: int, name: str, content: str, algorithm: str) -> None:
        query = "" if algorithm == "sha256" else f"?digest-algorithm={algorithm}"
        answer = self.ask("POST", f"/v2/{self.prefix}{name}/blobs/uploads/{query}")
        upload = answer.headers.get("docker-upload-uuid", "")
        self.must(answer, self.model.start(self.prefix + name, upload))
        self.slots[slot] = Slot(self.prefix + name, upload, self.pool.contents[content])

    @step(
        "uploads",
        4,
        has_uploads,
        slot=a_slot,
        part=st.sampled_from(PARTS),
        stated=st.sampled_from(STATED),
        announced=st.booleans(),
        through=another_name,
    )
    def patch_upload(
        self, slot: int, part: str, stated: str, through: str | None, *, announced: bool
    ) -> None:
        name, upload = self.through(slot, through)
        chunk = self.chunk(slot, part, stated, announced=announced)
        answer = self.send("PATCH", f"/v2/{name}/blobs/uploads/{upload}", chunk)
        self.must(answer, self.model.patch(name, upload, chunk))

    @step(
        "uploads",
        4,
        has_uploads,
        slot=a_slot,
        part=st.sampled_from((*PARTS, "the rest", "the rest")),
        stated=st.sampled_from(STATED),
        closing=st.sampled_from(CLOSING),
        algorithm=an_algorithm,
        announced=st.booleans(),
        through=another_name,
    )
    def put_upload(
        self,
        slot: int,
        *,
        part: str,
        stated: str,
        closing: str,
        algorithm: str,
        through: str | None,
        announced: bool,
    ) -> None:
        name, upload = self.through(slot, through)
        chunk = self.chunk(slot, part, stated, announced=announced)
        whole = self.received(slot) + chunk.content
        right = digest_of(whole, algorithm)
        sent = {"right": right, "wrong": digest_of(b"wrong", algorithm), "malformed": right[:-1]}.get(closing)
        query = "" if sent is None else f"?digest={sent}"
        answer = self.send("PUT", f"/v2/{name}/blobs/uploads/{upload}{query}", chunk)
        digest = None if closing == "malformed" else sent
        self.must(answer, self.model.put(name, upload, digest, chunk))

    @step("uploads", 1, has_uploads, slot=a_slot, method=a_method, through=any_name)
    def ask_upload(self, slot: int, method: str, through: str | None) -> None:
        name, upload = self.through(slot, through)
        answer = self.ask(method, f"/v2/{name}/blobs/uploads/{upload}")
        self.must(answer, as_method(method, self.model.status(name, upload)))

    @step("uploads", 2, has_uploads, slot=a_slot, through=any_name)
    def cancel_upload(self, slot: int, through: str | None) -> None:
        name, upload = self.through(slot, through)
        self.must(self.ask("DELETE", f"/v2/{name}/blobs/uploads/{upload}"), self.model.cancel(name, upload))

    @step("uploads", 1, has_uploads, slot=a_slot, part=st.sampled_from(("half", "the rest")))
    def break_off_patch(self, slot: int, part: str) -> None:
        """What has arrived when the client leaves is kept."""
        name, upload = self.through(slot, None)
        chunk = self.chunk(slot, part, "no range")
        if len(chunk.content) < 2 or self.model.status(name, upload).status != 204:
            return
        target = f"/v2/{name}/blobs/uploads/{upload}"
        self.model.patch(name, upload, chunk)
        self.break_off("PATCH", target, chunk.content, then=self.model.status(name, upload))

    @step(
        "pushes",
        2,
        name=a_name,
        content=a_content,
        algorithm=an_algorithm,
        right=st.sampled_from((True, True, True, False)),
    )
    def post_blob(self, name: str, content: str, algorithm: str, *, right: bool) -> None:
        body = self.pool.contents[content]
        self.post(self.prefix + name, digest_of(body if right else b"wrong", algorithm), body)

    @step(
        "pushes",
        3,
        has_repositories,
        name=a_name,
        blob=a_mountable,
        anonymous=st.sampled_from((False, False, True)),
        slot=st.sampled_from(SLOTS),
    )
    def mount_blob(self, name: str, blob: tuple[str, str], slot: int, *, anonymous: bool) -> None:
        """A mount that fails is a session, which the slot has then."""
        source = None if anonymous else self.prefix + blob[0]
        digest = self.blob(blob[1])
        origin = "" if source is None else f"&from={source}"
        answer = self.ask("POST", f"/v2/{self.prefix}{name}/blobs/uploads/?mount={digest}{origin}")
        upload = answer.headers.get("docker-upload-uuid", "")
        self.must(answer, self.model.mount(self.prefix + name, digest, source, upload))
        if upload:
            content = self.pool.contents[blob[1].partition("@")[0]]
            self.slots[slot] = Slot(self.prefix + name, upload, content)

    # Blobs.

    @step("pulls", 3, has_repositories, blob=a_blob, wanted=st.sampled_from(("", *RANGES)))
    def get_blob(self, blob: tuple[str, str], wanted: str) -> None:
        name, digest = self.prefix + blob[0], self.blob(blob[1])
        headers = {"Range": wanted} if wanted else {}
        answer = self.ask("GET", f"/v2/{name}/blobs/{digest}", headers=headers)
        self.must(answer, self.model.blob(name, digest, wanted=wanted))

    @step(
        "pulls",
        2,
        has_repositories,
        blob=a_blob,
        method=a_method,
        known=st.booleans(),
        wanted=st.sampled_from(("", *RANGES)),
    )
    def ask_blob(self, blob: tuple[str, str], method: str, wanted: str, *, known: bool) -> None:
        """HEAD knows no ranges, and who has the blob already gets nothing again."""
        name, digest = self.prefix + blob[0], self.blob(blob[1])
        headers = {"If-None-Match": f'"{digest}"' if known else '"another"'}
        if method == "HEAD" and wanted:
            headers["Range"] = wanted
        answer = self.ask(method, f"/v2/{name}/blobs/{digest}", headers=headers)
        self.must(answer, as_method(method, self.model.blob(name, digest, known=digest if known else "")))

    @step("deletes", 3, has_repositories, blob=a_blob)
    def delete_blob(self, blob: tuple[str, str]) -> None:
        name, digest = self.prefix + blob[0], self.blob(blob[1])
        target = f"/v2/{name}/blobs/{digest}"
        self.everybody_asks(target, self.model.blob(name, digest))
        self.must(self.ask("DELETE", target), self.model.delete_blob(name, digest))
        self.everybody_asks(target, self.model.blob(name, digest))

    # Manifests.

    @step(
        "pushes",
        2,
        name=a_name,
        manifest=a_manifest,
        by=st.sampled_from(BY),
        tags=st.lists(a_tag, max_size=3),
    )
    def put_manifest(self, name: str, manifest: str, by: str, tags: list[str]) -> None:
        """Whatever it needs may be missing."""
        made = self.pool.manifest(manifest)
        reference = {"another digest": digest_of(b"another")}.get(by, by)
        self.put(self.prefix + name, made, made.digest(by) if by in ALGORITHMS else reference, tags)

    @step(
        "pushes",
        4,
        name=a_name,
        manifest=a_manifest,
        by=st.sampled_from((*ALGORITHMS, *ALGORITHMS, *TAGS)),
        tags=st.lists(a_tag, max_size=4),
    )
    def push_image(self, name: str, manifest: str, by: str, tags: list[str]) -> None:
        """What it needs comes first."""
        made, by_digest = self.pool.manifest(manifest), by in ALGORITHMS
        self.provide(self.prefix + name, made)
        self.put(self.prefix + name, made, made.digest(by) if by_digest else by, tags if by_digest else [])

    @step("pushes", 2, has_repositories, at=a_reference, manifest=a_manifest)
    def move_tag(self, at: tuple[str, str], manifest: str) -> None:
        """Whatever has the tag, another image is pushed to it."""
        if at[1] in TAGS:
            self.push_image(at[0], manifest, at[1], [])

    @step(
        "pulls",
        4,
        has_repositories,
        at=a_reference,
        accept=st.sampled_from(tuple(ACCEPTS)),
        known=st.booleans(),
        method=a_method,
    )
    def get_manifest(self, at: tuple[str, str], accept: str, method: str, *, known: bool) -> None:
        name, reference = self.prefix + at[0], self.reference(at[1])
        held = self.model.etag(name, reference) if known else ""
        headers = {"Accept": ", ".join(ACCEPTS[accept])} if ACCEPTS[accept] else {}
        headers |= {"If-None-Match": held} if held else {}
        answer = self.ask(method, f"/v2/{name}/manifests/{reference}", headers=headers)
        self.must(
            answer, as_method(method, self.model.manifest(name, reference, ACCEPTS[accept], known=held))
        )

    @step("deletes", 3, has_repositories, at=a_reference)
    def delete_manifest(self, at: tuple[str, str]) -> None:
        name, reference = self.prefix + at[0], self.reference(at[1])
        target = f"/v2/{name}/manifests/{reference}"
        self.everybody_asks(target, self.model.manifest(name, reference))
        self.must(self.ask("DELETE", target), self.model.delete_manifest(name, reference))
        self.everybody_asks(target, self.model.manifest(name, reference))

    @step(
        "pulls",
        1,
        name=a_name,
        manifest=st.sampled_from(DOCKER_LISTS),
        accept=st.sampled_from(tuple(ACCEPTS)),
    )
    def negotiate(self, name: str, manifest: str, accept: str) -> None:
        """A Docker list by its tag may be given as the image in it, by its digest never."""
        self.push_image(name, manifest, "latest", [])
        for reference in ("latest", f"{manifest}@sha256"):
            self.get_manifest((name, reference), accept, "GET", known=False)

    @step("lists", 1, name=a_name, order=st.permutations(ABOUT_IMAGE), kind=st.sampled_from(KINDS), n=a_limit)
    def push_referrers(self, name: str, order: list[str], kind: str | None, n: int | None) -> None:
        """Several at once, in any order."""
        for manifest in order:
            self.push_image(name, manifest, "sha256", [])
        self.list_referrers((name, "image"), kind, n)

    @step("deletes", 1, has_repositories, name=a_tagged_name, by=st.sampled_from(("tags", "digests")))
    def clean_up(self, name: str, by: str) -> None:
        """Delete every tag, or every manifest, of which a few may be refused."""
        repository = self.model.repositories.get(self.prefix + name, Repository())
        for reference in list(repository.tags if by == "tags" else repository.manifests):
            answer = self.ask("DELETE", f"/v2/{self.prefix}{name}/manifests/{reference}")
            self.must(answer, self.model.delete_manifest(self.prefix + name, reference))

    # Lists.

    @step(
        "lists",
        2,
        has_repositories,
        name=a_tagged_name,
        n=a_limit,
        last=st.sampled_from(("", "", *TAGS, "m")),
    )
    def list_tags(self, name: str, n: int | None, last: str) -> None:
        full = self.prefix + name
        target = with_query(f"/v2/{full}/tags/list", n=n, last=last or None)
        self.read_pages(target, "tags", last, lambda after: self.model.tags(full, n, after))

    @step("lists", 2, has_repositories, n=a_limit, last=st.sampled_from((None, None, *NAMES, "/a.")))
    def list_repositories(self, n: int | None, last: str | None) -> None:
        begin = "" if last is None else self.prefix + last
        target = with_query("/v2/_catalog", n=n, last=begin or None)
        self.read_pages(target, "repositories", begin, lambda after: self.model.catalog(n, after))

    @step("lists", 2, subject=a_subject, kind=st.sampled_from(KINDS), n=a_limit)
    def list_referrers(self, subject: tuple[str, str], kind: str | None, n: int | None) -> None:
        name, digest = self.prefix + subject[0], self.pool.subject(subject[1])
        target = with_query(f"/v2/{name}/referrers/{digest}", n=n, artifactType=kind)
        for page in count():
            answer = self.ask("GET", target)
            self.must(answer, self.model.referrers(name, digest, kind, n, page))
            target = next_target(answer)
            if not target:
                return
