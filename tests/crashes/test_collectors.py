"""kill -9 and power cuts at every step of every collector; `make test` takes a few steps of each.

After each death nothing has gone that somebody may pull, every object has its row, and a further pass by another
process ends as if nothing had been: what nobody needs is gone, rows and objects, nothing waits any more, and the
receipts tell of each deletion once.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import TYPE_CHECKING, Final

import pytest

from tests.crashes import flaws
from tests.crashes.client import Client, noise
from tests.crashes.garbage import (
    GONE,
    KEPT,
    LITTERS,
    Litter,
    Stock,
    blobs,
    check_nothing_is_left_over,
    check_receipts,
    clear_up,
    prepare,
    put_forward,
)
from tests.crashes.stage import look
from tests.crashes.steps import Strike
from tests.support.effort import EFFORT
from tests.support.registry import image

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.crashes.client import World
    from tests.crashes.stage import Place, Snapshot

# At this effort every point is tried, with the power kept and with the power cut.
EVERYTHING: Final = 12
THREADS: Final = 2
_BY_NAME: Final = {litter.name: litter for litter in LITTERS}


class Scene:
    """A litter that is there again before each death."""

    def __init__(self, place: Place, litter: Litter) -> None:
        self.place = place
        self.litter = litter
        self.client = Client()
        prepare(place, self.client, litter)
        self._snapshot: Snapshot = place.snapshot(litter.name)
        self._world = deepcopy(self.client.world)
        self.before = Stock.of(place)

    def begin(self) -> None:
        """As after the preparation."""
        self.place.bring_back(self._snapshot)
        self.client.accept(self._world)

    def points(self) -> list[str]:
        """What those who die would come through."""
        self.begin()
        self.place.collect(*self.litter.dying)
        assert self.place.wait_until_collected()
        self.place.end()
        return self.place.points_of_collector()

    def die(self, point: int | None, *skipped: str, flaw: str = "") -> None:
        """Collect until the process dies at the point, or in the end."""
        self.place.collect(*self.litter.dying, chosen=point, skipped=skipped, flaw=flaw)
        assert self.place.wait_until_collected() == (point is None)
        self.place.end()
        assert point is None or len(self.place.points_of_collector()) <= point + 1 + THREADS

    def survive(self) -> None:
        """Others take over what was left, must find it sound, and bring it to its end."""
        self.place.check()
        clear_up(self.place)
        assert self._look() == self.client.needed()
        self.check()

    def last(self) -> None:
        """What was done after the death survives a power cut."""
        self.place.end()
        self.place.cut_power()
        self.check()

    def check(self) -> None:
        self.place.check()
        check_nothing_is_left_over(self.place)
        check_receipts(self.place, self.before)

    def _look(self) -> World:
        self.place.live()
        found = look(self.place, self.client)
        self.place.end()
        return found


def deaths(litter: Litter, count: int) -> list[tuple[int, bool]]:
    """Where to die of so many points, and whether power is cut: all with both, or a few as far apart as can be."""
    wanted = EFFORT * (2 if litter.name == "everything" else 1)
    if EFFORT >= EVERYTHING or wanted >= 2 * count:
        return [(point, cut) for point in range(count) for cut in (False, True)]
    return [((2 * number + 1) * count // (2 * wanted), number % 2 == 0) for number in range(wanted)]


def die_and_survive(scene: Scene, point: int, *, cut: bool) -> None:
    """The process dies at the point, and others live on with what it left."""
    scene.begin()
    scene.die(point)
    died_at = scene.place.points_of_collector()[-1]
    if cut:
        scene.place.cut_power()
    try:
        scene.survive()
        if not cut:
            scene.last()
    except Exception as error:
        error.add_note(f"it died at point {point}, {died_at}, and power was {'cut' if cut else 'kept'}")
        raise


@pytest.mark.parametrize("litter", LITTERS, ids=lambda litter: litter.name)
def test_collectors_when_they_die_at_any_step_then_nothing_is_lost_and_a_further_pass_ends_the_same(
    place: Place, litter: Litter
) -> None:
    scene = Scene(place, litter)
    for point, cut in deaths(litter, len(scene.points())):
        die_and_survive(scene, point, cut=cut)


def test_collectors_behind_pgbouncer_when_they_die_before_or_after_a_commit_then_nothing_is_lost(
    place: Place,
) -> None:
    """Each statement is in a transaction of its own there."""
    place.prepared = False
    scene = Scene(place, Litter("commits", blobs, dying=("blobs", "objects")))
    commits = [number for number, label in enumerate(scene.points()) if label == "after commit"]
    points = [point for number in commits for point in (number - 1, number)]
    chosen = points if EFFORT >= EVERYTHING else points[EFFORT % 2 :: max(1, len(points) // EFFORT)][:EFFORT]
    for point in chosen:
        die_and_survive(scene, point, cut=False)


# A push beside them


def _leave_two_images(client: Client, place: Place) -> None:
    """Two images that nobody needs: of one the manifest is gone, of the other one it is still to go."""
    client.push("litter/a", "kept", KEPT)
    client.push("litter/a", GONE.digest(), GONE)
    place.end()
    put_forward(place)
    place.collect("manifests")
    assert place.wait_until_collected()
    place.end_collector()
    client.world.manifests.remove(("litter/a", GONE.digest()))
    place.live()
    assert place.victim is not None
    client.connect(place.victim.port)
    client.push("litter/a", "untagged", UNTAGGED)
    client.untag("litter/a", "untagged")
    put_forward(place)


UNTAGGED: Final = image(noise("untagged", 3000), noise("shared", 3000), config=b'{"of": "untagged"}')
_TWO_IMAGES: Final = Litter(
    "two images", _leave_two_images, dying=("manifests", "blobs", "objects"), before=()
)


def push_while_it_stands_still(scene: Scene, point: int) -> None:
    """The collector stops at the point; both images are pushed again, tagged; then the collector is killed."""
    place, client = scene.place, scene.client
    scene.begin()
    place.live()
    with place.served(client):
        place.collect(*scene.litter.dying, chosen=point, strike=Strike(signal.SIGSTOP))
        place.wait_until_collected()
        client.push("litter/a", "again", GONE)
        client.push("litter/b", "again", UNTAGGED)
        place.end_collector()
        found = client.look()
        assert found.tags == client.world.tags
        assert client.needed().manifests <= found.manifests
        assert client.needed().blobs <= found.blobs
    place.end()
    place.cut_power()
    place.check()
    clear_up(place)
    place.live()
    assert look(place, client) == client.needed()
    place.end()
    place.check()
    check_nothing_is_left_over(place)


def test_push_when_a_collector_dies_beside_it_then_the_same_digests_are_there_again(place: Place) -> None:
    scene = Scene(place, _TWO_IMAGES)
    points = scene.points()
    wanted = len(points) if EFFORT >= EVERYTHING else 2 * EFFORT
    for number in range(wanted):
        point = (2 * number + 1) * len(points) // (2 * wanted)
        try:
            push_while_it_stands_still(scene, point)
        except Exception as error:
            error.add_note(f"it stood still at point {point}, {points[point]}")
            raise


# The tests themselves


@contextmanager
def no_tombstones(place: Place) -> Generator[None]:
    """A database whose function that deletes blobs writes none."""
    place.execute(flaws.NO_TOMBSTONES)
    try:
        yield
    finally:
        place.end()
        place.execute(flaws.TOMBSTONES_AGAIN)


_FLAWS: Final = (
    # the flaw, among which garbage, the last point that it comes through, what is noticed
    (flaws.BYTES_FIRST, "blobs", "before collecting.blobs", "Kind.LOST"),
    (flaws.LATE_TOMBSTONE, "blobs", "before flaw.late", "no row names"),
    (flaws.SETTLED_FIRST, "objects", "after collecting.settle_tombstones", "no row names"),
)


@pytest.mark.parametrize(("flaw", "name", "at", "noticed"), _FLAWS, ids=[flaw[0] for flaw in _FLAWS])
def test_kill_when_a_collector_has_a_flaw_then_it_is_noticed(
    place: Place, flaw: str, name: str, at: str, noticed: str
) -> None:
    with no_tombstones(place) if flaw == flaws.LATE_TOMBSTONE else nullcontext():
        scene = Scene(place, _BY_NAME[name])
        scene.die(None, flaw=flaw)
        # Not at the first of them, as the flaw may have had nothing to do then.
        points = [number for number, label in enumerate(place.points_of_collector()) if label == at]
        scene.survive()
        scene.begin()
        scene.die(points[len(points) // 2], flaw=flaw)
        with pytest.raises(AssertionError, match=noticed):
            scene.survive()


def test_power_cut_when_removals_are_not_flushed_then_it_is_noticed(place: Place) -> None:
    scene = Scene(place, _BY_NAME["objects"])
    scene.die(None)
    place.cut_power()
    scene.survive()
    scene.begin()
    scene.die(None, "sync_directory")
    place.cut_power()
    with pytest.raises(AssertionError, match="no row names"):
        scene.survive()
