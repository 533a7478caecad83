"""Protected and immutable tags over HTTP: who is refused what, in which order, and that a refusal changes no row.

`free` is the registry to a caller without rules; `bound` is the same one to a caller whose token has them for `a/b`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest

from app.auth.tag_rules import parse_tag_rules
from app.domain.access import Action, Subject
from app.domain.limits import TAGS_PER_PUT_MAX
from app.domain.names import Tag
from app.services.tag_guard import check_push
from tests.http.support import ABSENT, Conversation, contents, refused, served
from tests.store.scenes import Actor
from tests.support.postgres import connected
from tests.support.registry import image, open_registry

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from app.domain.access import TagRules
    from app.store.engine import Target
    from tests.support.registry import Image, Registry

V1: Final = "/v2/a/b/manifests/v1"
OTHER: Final = image(b"a layer", annotations={"which": "other"})
DENY_PUSH: Final = {"tag_deny_access_patterns": {"push": ["^v"]}}
DENY_DELETE: Final = {"tag_deny_access_patterns": {"delete": ["^v"]}}
IMMUTABLE: Final = {"tag_immutable_patterns": ["^v"]}
BOTH: Final = {"tag_deny_access_patterns": {"push": ["^v1"], "delete": ["^v1"]}, **IMMUTABLE}
UNFOLLOWABLE: Final = {
    "TAG_PROTECTION_PATTERN_INVALID": {"tag_deny_access_patterns": {"push": ["("]}},
    "TAG_IMMUTABILITY_PATTERN_INVALID": {"tag_immutable_patterns": ["v" * 101]},
    "TAG_PATTERN_COUNT_LIMIT_EXCEEDED": {"tag_immutable_patterns": ["v"] * 6},
}
PUSHERS: Final = 6


@dataclass(frozen=True)
class Bound:
    """May do everything, but for the tag rules of `a/b`."""

    meta: dict[str, Any]
    subject: Subject = field(default_factory=Subject)

    def may(self, action: Action, repository: str | None) -> bool:
        del action, repository
        return True

    def tag_rules(self, repository: str) -> TagRules | None:
        return parse_tag_rules(self.meta) if repository == "a/b" else None


def bound_by(meta: dict[str, Any], free: Registry, tmp_path: Path, **options: Any) -> Any:
    return open_registry(free.target, tmp_path, caller=Bound(meta), **options)


def references(pushed: Image) -> tuple[str, str]:
    """The two ways to push the tag `v1`, the second beside another tag."""
    return "v1", f"{pushed.digest()}?tag=another&tag=v1"


async def digests(registry: Registry) -> dict[str, str]:
    """Tag → the digest that it names, as clients see it."""
    tags = (await registry.client.get("/v2/a/b/tags/list")).json()["tags"]
    answers = [await registry.client.head(f"/v2/a/b/manifests/{tag}") for tag in tags]
    return {tag: answer.headers["Docker-Content-Digest"] for tag, answer in zip(tags, answers, strict=True)}


# Push


@pytest.mark.parametrize("is_there", [False, True])
@served()
async def test_push_when_the_tag_is_protected_gets_401_and_changes_nothing(
    free: Registry, tmp_path: Path, is_there: bool
) -> None:
    pushed = await free.push_image("a/b", "v1" if is_there else "main")
    before = await contents(free)
    async with bound_by(BOTH, free, tmp_path) as bound:
        for manifest in (pushed, OTHER):
            for reference in references(manifest):
                answer = await bound.put_manifest("a/b", reference, manifest)
                assert refused(answer, 401, "PROTECTED_TAG") == 'tag "v1" is protected'
        assert await contents(free) == before
        assert (await bound.put_manifest("a/b", "v2", OTHER)).status_code == 201


@served()
async def test_push_when_the_immutable_tag_is_new_succeeds_once(free: Registry, tmp_path: Path) -> None:
    pushed = await free.push_image("a/b", "main")
    async with bound_by(IMMUTABLE, free, tmp_path) as bound:
        for tag, reference in (("v1", "v1"), ("v2", f"{pushed.digest()}?tag=v2&tag=main")):
            assert (await bound.put_manifest("a/b", reference, pushed)).status_code == 201
            detail = refused(await bound.put_manifest("a/b", reference, pushed), 401, "IMMUTABLE_TAG")
            assert detail == f'tag "{tag}" is immutable'
    assert await digests(free) == dict.fromkeys(("main", "v1", "v2"), pushed.digest())


@served()
async def test_push_when_the_immutable_tag_is_there_gets_401_and_changes_nothing(
    free: Registry, tmp_path: Path
) -> None:
    """Even with the same manifest, and whatever else is wrong with the push."""
    pushed = await free.push_image("a/b", "v1")
    await free.push_image("a/b", "v3")
    before = await contents(free)
    async with bound_by(IMMUTABLE, free, tmp_path) as bound:
        for manifest in (pushed, OTHER, image(b"never pushed")):
            for reference in references(manifest):
                answer = await bound.put_manifest("a/b", reference, manifest)
                assert refused(answer, 401, "IMMUTABLE_TAG") == 'tag "v1" is immutable'
        answer = await bound.put_manifest("a/b", f"{OTHER.digest()}?tag=v3&tag=v2&tag=v1&tag=v1", OTHER)
        assert refused(answer, 401, "IMMUTABLE_TAG") == 'tag "v1" is immutable, tag "v3" is immutable'
    assert await contents(free) == before
    assert (await free.put_manifest("a/b", "v1", OTHER)).status_code == 201


@pytest.mark.parametrize("meta", [BOTH, *UNFOLLOWABLE.values()])
@served()
async def test_push_when_by_digest_alone_is_not_restricted(
    free: Registry, tmp_path: Path, meta: dict[str, Any]
) -> None:
    pushed = await free.push_image("a/b", "v1")
    async with bound_by(meta, free, tmp_path) as bound:
        for manifest in (pushed, OTHER):
            answer = await bound.put_manifest("a/b", manifest.digest(), manifest)
            assert answer.status_code == 201
        assert (await bound.client.get(V1)).content == pushed.payload


def test_push_when_there_are_many_tags_then_others_are_served_between_them() -> None:
    """The worst patterns take some 10 ms for each tag."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def scenario() -> None:
        beside = asyncio.ensure_future(others())
        tags = [Tag(f"v{n}") for n in range(TAGS_PER_PUT_MAX)]
        assert await check_push(parse_tag_rules(IMMUTABLE), tags) == frozenset(tags)
        beside.cancel()

    asyncio.run(scenario())
    assert turns >= TAGS_PER_PUT_MAX


# Delete


@pytest.mark.parametrize(
    ("meta", "code", "detail"),
    [
        (DENY_DELETE, "PROTECTED_TAG", 'tag "v1" is protected'),
        (IMMUTABLE, "IMMUTABLE_TAG", 'tag "v1" is immutable'),
        (BOTH, "PROTECTED_TAG", 'tag "v1" is protected'),
    ],
)
@served()
async def test_delete_when_the_tag_is_protected_or_immutable_gets_401_whether_it_is_there_or_not(
    free: Registry, tmp_path: Path, meta: dict[str, Any], code: str, detail: str
) -> None:
    async with bound_by(meta, free, tmp_path) as bound:
        for prepare in ((), ("main",), ("v1",)):
            for tag in prepare:
                await free.push_image("a/b", tag)
            before = await contents(free)
            assert refused(await bound.client.delete(V1), 401, code) == detail
            assert await contents(free) == before
        assert (await bound.client.delete("/v2/a/b/manifests/main")).status_code == 202
        refused(await bound.client.delete("/v2/a/b/manifests/main"), 404, "MANIFEST_UNKNOWN")
        refused(await bound.client.delete("/v2/other/manifests/v1"), 404, "NAME_UNKNOWN")
    assert set(await digests(free)) == {"v1"}


@pytest.mark.parametrize("meta", [DENY_DELETE, IMMUTABLE, BOTH])
@served()
async def test_delete_by_digest_when_any_tag_may_not_be_deleted_gets_401(
    free: Registry, tmp_path: Path, meta: dict[str, Any]
) -> None:
    pushed = await free.push_image("a/b", "main")
    before = await contents(free)
    async with bound_by(meta, free, tmp_path) as bound:
        for digest in (pushed.digest(), ABSENT):
            answer = await bound.client.delete(f"/v2/a/b/manifests/{digest}")
            refused(answer, 401, "PROTECTED_MANIFEST")
    assert await contents(free) == before


@served()
async def test_delete_when_only_pushes_are_restricted_is_allowed(free: Registry, tmp_path: Path) -> None:
    pushed = await free.push_image("a/b", "v1")
    async with bound_by(DENY_PUSH, free, tmp_path) as bound:
        for reference in ("v1", pushed.digest()):
            assert (await bound.client.delete(f"/v2/a/b/manifests/{reference}")).status_code == 202


# Refusals


@pytest.mark.parametrize("code", UNFOLLOWABLE)
@served()
async def test_rules_when_they_cannot_be_followed_get_400_and_change_nothing(
    free: Registry, tmp_path: Path, code: str
) -> None:
    pushed = await free.push_image("a/b", "main")
    before = await contents(free)
    async with bound_by(UNFOLLOWABLE[code], free, tmp_path) as bound:
        for reference in references(pushed):
            refused(await bound.put_manifest("a/b", reference, pushed), 400, code)
        for reference in ("main", pushed.digest()):
            refused(await bound.client.delete(f"/v2/a/b/manifests/{reference}"), 400, code)
        assert await contents(free) == before
        await bound.push_image("other", "v1")  # where they do not hold
        assert (await bound.client.get("/v2/a/b/manifests/main")).status_code == 200


@pytest.mark.parametrize(
    ("meta", "status"), [(UNFOLLOWABLE["TAG_PROTECTION_PATTERN_INVALID"], 400), (DENY_PUSH, 401)]
)
@served()
async def test_push_when_refused_is_answered_before_its_body_and_drained_if_that_comes(
    free: Registry, tmp_path: Path, meta: dict[str, Any], status: int
) -> None:
    async with bound_by(meta, free, tmp_path) as bound:
        asking = Conversation(bound, "PUT", V1, [("Expect", "100-continue")])
        answer = await asking.answer()  # no body was ever given
        assert answer is not None
        assert answer.status_code == status
        sending = Conversation(bound, "PUT", V1)
        sending.give(b"x" * 100_000)
        await sending.asked()
        sending.give(b"x" * 100_000, last=True)
        answer = await sending.answer()
        assert answer is not None
        assert (answer.status_code, bound.seen.requests[-1]["received"]) == (status, 200_000)


# Races


@served()
async def test_pushes_when_many_push_one_new_immutable_tag_then_one_wins_and_the_others_leave_nothing(
    free: Registry, tmp_path: Path
) -> None:
    await free.push_image("a/b", "main")
    before = await free.rows("SELECT id FROM manifests")
    manifests = [image(b"a layer", annotations={"n": str(n)}) for n in range(PUSHERS)]
    async with bound_by(IMMUTABLE, free, tmp_path) as bound, asyncio.TaskGroup() as group:
        pushing = {
            m: group.create_task(bound.put_manifest("a/b", f"{m.digest()}?tag=also&tag=v1", m))
            for m in manifests
        }
    answers = {manifest: task.result() for manifest, task in pushing.items()}
    (winner,) = [manifest for manifest, answer in answers.items() if answer.status_code == 201]
    for manifest, answer in answers.items():
        if manifest is not winner:
            refused(answer, 401, "IMMUTABLE_TAG")
    tags = await digests(free)
    assert (tags["v1"], tags["also"]) == (winner.digest(), winner.digest())
    assert len(await free.rows("SELECT id FROM manifests")) == len(before) + 1


@pytest.mark.parametrize("prepared", [True, False], ids=["directly", "behind PgBouncer"])
@pytest.mark.parametrize("same", [True, False], ids=["the same manifest", "another manifest"])
@served()
async def test_push_when_the_immutable_tag_comes_while_it_is_under_way_gets_401_and_leaves_nothing(
    free: Registry, database: Target, tmp_path: Path, same: bool, prepared: bool
) -> None:
    pushed = await free.push_image("a/b", "main")
    manifest = pushed if same else OTHER
    async with (
        bound_by(IMMUTABLE, free, tmp_path, prepared_statements=prepared) as bound,
        connected(database) as raw,
        asyncio.TaskGroup() as group,
    ):
        other = Actor(raw)
        async with other.transaction():
            assert isinstance(await other.put("a/b", pushed, "v1"), int)
            pushing = group.create_task(
                bound.put_manifest("a/b", f"{manifest.digest()}?tag=also&tag=v1", manifest)
            )
            await waits(other, pushing)
    refused(pushing.result(), 401, "IMMUTABLE_TAG")
    assert await digests(free) == dict.fromkeys(("main", "v1"), pushed.digest())
    assert len(await free.rows("SELECT id FROM manifests")) == 1


async def waits(other: Actor, pushing: asyncio.Task[httpx.Response]) -> None:
    """Return once somebody waits for the actor."""
    async with asyncio.timeout(20):
        while not await other.value(
            "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))", other.pid
        ):
            assert not pushing.done(), pushing
            await asyncio.sleep(0.002)
