"""What happens beside the requests: collectors work, time passes, processes are started anew, operators change things.

What garbage collection takes is compared with what it may and what it must have taken; the model then knows again what
every answer must be. As nobody asks for anything meanwhile, nothing may have to be put off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from tests.model.choices import a_name
from tests.model.keeping import DAY, HOUR, RECEIPT_AGE_SECONDS, UPLOAD_AGE_SECONDS
from tests.model.replicas import COUNT
from tests.model.requests import Requests
from tests.model.steps import step

if TYPE_CHECKING:
    from gc_workers.collectors import Batch
    from gc_workers.passes import Tally
    from tests.model.player import Player
    from tests.model.replicas import World

KINDS: Final = ("manifests", "manifests", "blobs", "blobs", "objects", "uploads", "receipts")
LIMITS: Final = (1, 2, 3, 100)
DELAYS: Final = (HOUR / 2, HOUR, DAY)
# Around half of a delay, which is the least grace, around the whole of it, and half of what an upload has.
JUMPS: Final = (
    HOUR / 15, HOUR / 6, HOUR / 3, 0.75 * HOUR, 1.5 * HOUR, 11 * HOUR, 14 * HOUR, 1.2 * DAY, 0.6 * UPLOAD_AGE_SECONDS,
)  # fmt: skip
# An index of an index, its image, that one's SBOM, a signature of it; then their blobs, and the blobs' objects.
ROUNDS_MAX: Final = 9
# How long before a review a client is told of what the review would have taken, and how long after it we look.
LATE: Final = (HOUR / 12, HOUR / 4)
_AFTER_SECONDS: Final = HOUR / 12
# Where so much is collected that it pays to read all that is left, too.
_COLLECTING: Final = ("collects", "deletes")
_SETTLING_SECONDS: Final = UPLOAD_AGE_SECONDS + DAY

MEANS: Final = ("HEAD", "mount", "upload", "push")

a_limit = st.sampled_from(LIMITS)
keeping = st.sampled_from((False, False, False, True))


def has_content(player: Player) -> bool:
    return bool(player.model.stored or player.model.repositories)


def has_unused(player: Player) -> bool:
    return bool(player.unused_there())


class Upkeep(Requests):
    """What collectors, operators and time do."""

    is_paused = False
    _settling = False

    @step("collects", 3, has_content, kind=st.sampled_from(KINDS), limit=a_limit, keep_untagged=keeping)
    def collect(self, kind: str, limit: int, *, keep_untagged: bool) -> None:
        """One batch."""
        before = self._look()
        self._client.note(f"{kind}: a batch of {limit}{' keeping untagged' if keep_untagged else ''}")
        batch = self._replicas.collect(kind, limit, keep_untagged=keep_untagged)
        self._compare(before, kinds={kind}, done=batch, must=set(), keep_untagged=keep_untagged)

    @step("collects", 3, has_content, limit=a_limit, keep_untagged=keeping)
    def collect_all(self, limit: int, *, keep_untagged: bool) -> None:
        """A whole pass: what has been unused for long enough is gone after it."""
        self._pass(self._look(), limit, keep_untagged=keep_untagged)

    def _pass(self, before: World, limit: int, *, keep_untagged: bool) -> World:
        must = self.model.must_go()
        if keep_untagged:
            must = {what for what in must if what[0] != "manifest"}
        self._client.note(f"a pass in batches of {limit}{' keeping untagged' if keep_untagged else ''}")
        tallies = self._replicas.collect_all(limit, keep_untagged=keep_untagged)
        self._must_be(tallies is None, self.is_paused, "whether deletions are paused")
        return self._compare(
            before,
            kinds=set(KINDS),
            done=tallies or [],
            must=set() if self.is_paused else must,
            keep_untagged=keep_untagged,
        )

    @step(
        "collects",
        3,
        has_unused,
        pick=st.integers(0, 99),
        means=st.sampled_from(MEANS),
        late=st.sampled_from(LATE),
        name=a_name,
        limit=a_limit,
    )
    def rely(self, pick: int, means: str, late: float, name: str, limit: int) -> None:
        """Shortly before something unused would go, a client is told that it is there, and believes it."""
        kind, place, label = self._unused(pick)
        self.jump(max(0.0, self._seconds_until_gone(kind, place, label) - late))
        if kind == "manifest":
            self._rely_on_manifest(place, label, means)
        else:
            self._rely_on_blob(place, label, means, name)
        self.jump(late + _AFTER_SECONDS)
        self.collect_all(limit, keep_untagged=False)

    @step("collects", 2, has_unused, pick=st.integers(0, 99), by_pause=st.booleans(), limit=a_limit)
    def hold(self, pick: int, limit: int, *, by_pause: bool) -> None:
        """Something unused is due, but a pause holds it, or, if it is a manifest, that untagged ones are kept."""
        kind, place, label = self._unused(pick)
        self.jump(max(0.0, self._seconds_until_gone(kind, place, label)) + _AFTER_SECONDS)
        if by_pause:
            self.pause(is_paused=True)
        self.collect_all(limit, keep_untagged=not by_pause)
        if by_pause:
            self.collect("manifests" if kind == "manifest" else "blobs", limit, keep_untagged=False)
            self.pause(is_paused=False)

    def _unused(self, pick: int) -> tuple[str, str, str]:
        unused = self.unused_there()
        return unused[pick % len(unused)]

    def _seconds_until_gone(self, kind: str, name: str, label: str) -> float:
        is_manifest = kind == "manifest"
        named = (self.prefix + name, self.reference(label)) if is_manifest else (self.blob(label),)
        return self.model.keeping.seconds_until_gone((kind, *named))

    def _rely_on_manifest(self, name: str, label: str, means: str) -> None:
        kind, _, algorithm = label.partition("@")
        if means == "HEAD":
            self.get_manifest((name, label), "anything", "HEAD", known=False)
        else:
            self.put_manifest(name, kind, algorithm, [])

    def _rely_on_blob(self, name: str, label: str, means: str, target: str) -> None:
        content, _, algorithm = label.partition("@")
        if means == "HEAD":
            self.ask_blob((name, label), "HEAD", "", known=False)
        elif means == "mount":
            self.mount_blob(target, (name, label), 1, anonymous=False)
        else:
            self.post_blob(target, content, algorithm, right=True)

    @step("collects", 4, has_content, seconds=st.sampled_from(JUMPS))
    def jump(self, seconds: float) -> None:
        self._look()
        self._jump(seconds)

    def _jump(self, seconds: float) -> None:
        self._client.note(f"{seconds / HOUR:.2f} hours pass")
        self._replicas.jump(seconds)
        self.model.keeping.jump(seconds)

    @step("collects", 1, seconds=st.sampled_from(DELAYS))
    def change_delay(self, seconds: float) -> None:
        self._client.note(f"reviews fall due after {seconds / HOUR:.2f} hours")
        self._replicas.set_delay(seconds)
        self.model.keeping.delay_seconds = seconds

    @step("collects", 1, has_content, is_paused=st.sampled_from((True, False, False)))
    def pause(self, *, is_paused: bool) -> None:
        self._client.note("deletions are paused" if is_paused else "deletions go on")
        self._replicas.pause(is_paused=is_paused)
        self.is_paused = is_paused

    @step("collects", 1, has_content, place=st.integers(0, COUNT - 1))
    def restart(self, place: int) -> None:
        """Whatever a registry remembers is forgotten."""
        self._client.note(f"the registry at place {place} is started anew")
        self._client.leave(place)
        self._replicas.restart(place)
        self._client.find(place)

    @step("collects", 1, has_content)
    def restart_collectors(self) -> None:
        self._client.note("the collectors are started anew")
        self._replicas.restart_collectors()

    def settle(self) -> None:
        """Time passes, and passes come, until nothing is left to do: there is what is in use, and nothing else."""
        self.pause(is_paused=False)
        self._settling = True
        world = self._look()
        for _ in range(ROUNDS_MAX):
            self._jump(_SETTLING_SECONDS)
            world = self._pass(world, 100, keep_untagged=False)
            if not world.waiting:
                break
        self._must_be(world.waiting, 0, "reviews and tombstones")
        self._must_be(self.model.unreachable(), set[Any](), "what nothing leads to")
        self._must_be(len(world.objects), len(self.model.stored), "objects")
        self._jump(RECEIPT_AGE_SECONDS + DAY)
        self.collect("receipts", 1000, keep_untagged=False)
        self._must_be(self._replicas.world().receipts, dict[int, str](), "receipts")
        if self.mood in _COLLECTING:
            self._read_everything()
            self._check_invariants()

    def _look(self) -> World:
        """What there is before time passes, or something is collected."""
        world = self._replicas.world()
        self.model.keeping.bury(world.tombstones)
        return world

    def _compare(
        self,
        before: World,
        *,
        kinds: set[str],
        done: Batch | list[Tally],
        must: set[tuple[str, ...]],
        keep_untagged: bool,
    ) -> World:
        """What has gone, with what may have gone, and what must have."""
        after, keeping = self._replicas.world(), self.model.keeping
        gone = {what for fact in before.facts - after.facts if (what := _what(fact))}
        may = self._allowed(kinds, keep_untagged=keep_untagged)
        self._must_be(gone - may, set[Any](), "what is gone and must be there")
        self._must_be(must - gone, set[Any](), "what is there and must be gone")
        removed = before.objects - after.objects
        wrong = removed if self.is_paused else {key for key in removed if not keeping.may_be_removed(key)}
        self._must_be(wrong, set[str](), "objects that are gone and must be there")
        if "objects" in kinds and len(kinds) > 1 and not self.is_paused:
            left = {key for key in after.tombstones.keys() | after.objects if keeping.must_be_removed(key)}
            self._must_be(left, set[str](), "objects that are there and must be gone")
        self._compare_counts(before, after, gone, done)
        self._spare(before, after, keep_untagged=keep_untagged)
        self.model.lose(gone)
        keeping.bury(after.tombstones)
        self._same_facts()
        if (gone or removed) and self.mood in _COLLECTING and not self._settling:
            self._check_invariants()
            self._read_everything()
        return after

    def _allowed(self, kinds: set[str], *, keep_untagged: bool) -> set[tuple[str, ...]]:
        if self.is_paused:
            return set()
        of = {"manifests": "manifest", "blobs": "stored", "uploads": "upload"}
        allowed = {of[kind] for kind in kinds & of.keys()}
        if keep_untagged:
            allowed.discard("manifest")
        return {what for what in self.model.may_go() if what[0] in allowed}

    def _compare_counts(
        self, before: World, after: World, gone: set[tuple[str, ...]], done: Batch | list[Tally]
    ) -> None:
        """Every deletion has its receipt, and is counted."""
        tallies = done if isinstance(done, list) else [done]
        self._must_be(sum(tally.put_off for tally in tallies), 0, "what was put off")
        settled = before.tombstones.keys() - after.tombstones.keys()
        expected = [
            sum(what[0] == "manifest" for what in gone),
            sum(what[0] == "stored" for what in gone),
            sum(before.tombstones[key] != "blob_unused" for key in settled),
        ]
        receipts = [kind for key, kind in after.receipts.items() if key not in before.receipts]
        found = [receipts.count(kind) for kind in ("manifest", "blob", "object")]
        self._must_be(found, expected, "receipts of manifests, blobs and objects")
        pruned = len(before.receipts.keys() - after.receipts.keys())
        deleted = sum(tally.deleted for tally in tallies)
        self._must_be(deleted, len(gone) + len(settled) + pruned, "what was counted as deleted")

    def _spare(self, before: World, after: World, *, keep_untagged: bool) -> None:
        """What was reviewed while untagged manifests are kept is not reviewed again before something happens to it."""
        if keep_untagged:
            settled = before.suspected - after.suspected
            early = {what for what in settled if not self.model.keeping.may_go(what)}
            self._must_be(early, set[Any](), "manifests that were reviewed too early")
            self.model.keeping.spared |= settled & self.model.unused()

    def _must_be(self, found: Any, expected: Any, what: str) -> None:
        assert found == expected, f"{what}: {found!r}, not {expected!r}\n{self._client.conversation()}"


def _what(fact: tuple[str, ...]) -> tuple[str, ...]:
    """The thing that the fact says is there; nothing for a link, which goes with its blob."""
    if fact[0] == "blob":
        return ()
    return fact[:3] if fact[0] == "upload" else fact
