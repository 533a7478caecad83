"""kill -9 and power cuts at every step of every scene; `make test` takes a few steps of each.

After each death another process serves the same data. Everything that was acknowledged is there, byte by byte; the
request that nobody answered was carried out wholly or not at all; sessions go on from where they say that they stand;
and the whole scene can be played again. Where power was kept it is cut in the end, so that what was built on the dead
process's work is known to be durable too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.crashes.client import Client
from tests.crashes.scenes import SCENES, chunks, deletions, overtaken, tags, whole
from tests.crashes.stage import look, play
from tests.support.effort import EFFORT

if TYPE_CHECKING:
    from tests.crashes.scenes import Scene
    from tests.crashes.stage import Place

# At this effort every point is tried, with the power kept and with the power cut.
EVERYTHING: Final = 12
POINTS: Final = 2
THREADS: Final = 2


def points_of(place: Place, scene: Scene) -> list[str]:
    """What a life has to come through, from the scene's beginning to its end."""
    place.live()
    assert play(place, scene, Client())
    place.end()
    return place.points()


def deaths(count: int) -> list[tuple[int, bool]]:
    """Where to die of so many points, and whether power is cut: all with both, or a few as far apart as can be."""
    wanted = POINTS * EFFORT
    if EFFORT >= EVERYTHING or wanted >= 2 * count:
        return [(point, cut) for point in range(count) for cut in (False, True)]
    return [((2 * number + 1) * count // (2 * wanted), number % 2 == 1) for number in range(wanted)]


def die(place: Place, scene: Scene, client: Client, point: int | None, *skipped: str) -> None:
    """Play the scene until the process dies at the point, or in the end."""
    place.live(chosen=point, skipped=skipped)
    play(place, scene, client)
    place.end()
    # Threads that were at work besides may have come to a point of their own before the signal did.
    assert point is None or len(place.points()) <= point + 1 + THREADS


def survive(place: Place, scene: Scene, client: Client) -> None:
    """Another process takes over what was left, must find it sound, and can go on with it."""
    place.live()
    found = look(place, client)
    assert found in client.expected()
    place.check()
    client.accept(found)
    with place.served(client):
        client.resume()
    assert play(place, scene, client)
    assert look(place, client) == client.world


def last(place: Place, client: Client) -> None:
    """What was built on the dead process's work survives a power cut."""
    place.end()
    place.cut_power()
    place.live()
    assert look(place, client) == client.world
    place.check()


def die_and_survive(place: Place, scene: Scene, point: int, *, cut: bool) -> None:
    """The process dies at the point, and others live on with what it left."""
    place.clear()
    client = Client()
    die(place, scene, client, point)
    died_at = place.points()[-1]
    if cut:
        place.cut_power()
    try:
        survive(place, scene, client)
        if not cut:
            last(place, client)
    except Exception as error:
        error.add_note(f"it died at point {point}, {died_at}, and power was {'cut' if cut else 'kept'}")
        raise


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_registry_when_it_dies_at_any_step_then_nothing_acknowledged_is_lost_and_clients_go_on(
    place: Place, scene: Scene
) -> None:
    for point, cut in deaths(len(points_of(place, scene))):
        die_and_survive(place, scene, point, cut=cut)


@pytest.mark.parametrize("scene", SCENES if EFFORT >= EVERYTHING else (overtaken,), ids=lambda s: s.__name__)
def test_registry_behind_pgbouncer_when_it_dies_before_or_after_a_commit_then_nothing_acknowledged_is_lost(
    place: Place, scene: Scene
) -> None:
    """Each statement is in a transaction of its own there."""
    place.prepared = False
    commits = [number for number, label in enumerate(points_of(place, scene)) if label == "after commit"]
    points = [point for number in commits for point in (number - 1, number)]
    for point in points if EFFORT >= EVERYTHING else points[EFFORT % 2 :: max(1, len(points) // EFFORT)]:
        die_and_survive(place, scene, point, cut=False)


@pytest.mark.parametrize(
    ("scene", "statement"),
    [(tags, "manifests.untag"), (deletions, "manifests.delete")],
    ids=["tag", "manifest"],
)
def test_catalog_when_the_registry_dies_right_after_the_last_tag_is_gone_then_it_does_not_list_the_repository(
    place: Place, scene: Scene, statement: str
) -> None:
    point = points_of(place, scene).index(f"after {statement}")
    place.clear()
    client = Client()
    die(place, scene, client, point)
    assert place.points()[-1] == f"after {statement}"
    place.live()
    with place.served(client):
        assert client.catalog() == []


# The tests themselves


@pytest.mark.parametrize("scene", [whole, chunks], ids=lambda scene: scene.__name__)
@pytest.mark.parametrize("skipped", ["sync_file", "sync_directory"])
def test_power_cut_when_a_flush_is_left_out_then_it_is_noticed(
    place: Place, scene: Scene, skipped: str
) -> None:
    client = Client()
    die(place, scene, client, None, skipped)
    place.cut_power()
    with pytest.raises(AssertionError):
        survive(place, scene, client)


def test_power_cut_when_nothing_is_left_out_then_nothing_is_noticed(place: Place) -> None:
    client = Client()
    die(place, whole, client, None)
    place.cut_power()
    survive(place, whole, client)


def test_kill_when_an_answer_was_a_lie_then_it_is_noticed(place: Place) -> None:
    client = Client()
    die(place, whole, client, None, "uploads.finish")
    with pytest.raises(AssertionError):
        survive(place, whole, client)


def test_kill_when_an_object_is_written_before_a_row_names_it_then_it_is_noticed(place: Place) -> None:
    point = points_of(place, overtaken).index("after copy")
    place.clear()
    client = Client()
    die(place, overtaken, client, point, "uploads.intend")
    with pytest.raises(AssertionError, match="no row names"):
        survive(place, overtaken, client)
