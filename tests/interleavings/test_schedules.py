"""Pairs and triples of everything that writes, in schedules that are drawn: nothing is lost, leaked, or in error.

A schedule is a list of runs: an actor goes on for so many statements, then another one. Whoever waits for somebody
else's lock is passed over.
"""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.interleavings.theatre import Cut, Moves
from tests.interleavings.world import CLIENTS, COLLECTORS, STATES
from tests.support.effort import EFFORT

if TYPE_CHECKING:
    from tests.interleavings.play import Playhouse

EXAMPLES = 40 * EFFORT
# The textbook race is found in some twenty schedules.
FOUND_WITHIN = 100
LOSS = re.compile("promised and is gone|ForeignKeyViolation")

casts = st.tuples(
    st.sampled_from(COLLECTORS), st.lists(st.sampled_from((*CLIENTS, *COLLECTORS)), min_size=1, max_size=2)
).flatmap(lambda drawn: st.permutations([drawn[0], *drawn[1]]))
runs = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), max_size=12)


def moves(drawn: list[tuple[int, int]]) -> Moves:
    return Moves([actor for actor, length in drawn for _ in range(length)])


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    # The playhouse is cleared after each example; how long one takes is the machine's business.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(cast=casts, state=st.sampled_from(STATES), grace=st.booleans(), drawn=runs)
def test_actors_when_they_meet_in_any_order_then_nothing_is_lost_or_leaked(
    playhouse: Playhouse, cast: list[str], state: str, grace: bool, drawn: list[tuple[int, int]]
) -> None:
    playhouse.play(cast, moves(drawn), state=state, grace=grace)


@pytest.mark.parametrize(
    ("cut", "cast", "state"),
    [
        (
            Cut("gc_collect_blobs", "FOR UPDATE SKIP LOCKED) AS held", ") AS held"),
            ["collect_blobs", "put_manifest"],
            "blobs",
        ),
        (Cut("keep_blob", " FOR KEY SHARE"), ["collect_blobs", "head"], "blobs"),
        (
            Cut("gc_collect_manifests", "FOR UPDATE SKIP LOCKED) AS held", ") AS held"),
            ["collect_manifests", "tag"],
            "untagged",
        ),
    ],
    ids=["collector's lock on blobs", "HEAD's lock", "collector's lock on manifests"],
)
def test_drawn_schedules_when_a_lock_is_cut_out_then_they_find_the_loss(
    playhouse: Playhouse, cut: Cut, cast: list[str], state: str
) -> None:
    """The search itself has teeth: nobody tells it where to stop whom."""
    random = Random(17)

    def found() -> str:
        drawn = [(random.randrange(2), random.randint(1, 9)) for _ in range(6)]
        try:
            playhouse.play(cast, moves(drawn), cut, state=state)
        except AssertionError as error:
            return str(error)
        return ""

    assert any(LOSS.search(found()) for _ in range(FOUND_WITHIN))
