"""How much at a time and how long between: what operators count on when the database is slow, or nothing is due."""

from __future__ import annotations

import pytest

from gc_workers.collectors import Batch
from gc_workers.pace import ERROR_SECONDS_MAX, IDLE_SECONDS_MAX, Pace, Tempo

FULL, PART = Batch(taken=100), Batch(taken=99)


def test_pause_when_a_batch_was_full_then_the_collector_works_its_part_of_the_time() -> None:
    pace = Pace(Tempo(batch=100, load=0.25))

    assert pace.done(FULL, 0.1, now=0) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("late_hours", "load"), [(-1, 0.1), (0.5, 0.1), (1, 0.1), (6.5, 0.55), (12, 1), (200, 1)]
)
def test_pause_when_the_collector_is_late_then_it_hurries_until_it_does_not_rest(
    late_hours: float, load: float
) -> None:
    pause = Pace(Tempo(batch=100, load=0.1)).done(
        Batch(taken=100, late_seconds=3600 * late_hours), 0.1, now=0
    )

    assert pause == pytest.approx(0.1 / load - 0.1)


def test_pause_when_load_is_one_then_there_is_none() -> None:
    assert Pace(Tempo(batch=100, load=1)).done(FULL, 0.1, now=0) == 0


def test_pause_when_a_rate_is_set_then_no_more_than_that_is_done_in_a_second() -> None:
    pace = Pace(Tempo(batch=100, load=1, rate=50))

    assert pace.done(FULL, 0.5, now=0) == pytest.approx(1.5)


def test_pause_when_a_batch_was_not_full_then_nothing_more_is_due() -> None:
    assert Pace(Tempo(batch=100)).done(PART, 0.1, now=0) is None


def test_limit_when_batches_are_slow_then_it_shrinks_and_grows_again_when_they_are_fast() -> None:
    pace = Pace(Tempo(batch=100))
    pace.done(FULL, 1.0, now=0)
    assert pace.limit == 50
    for _ in range(10):
        pace.done(Batch(taken=pace.limit), 1.0, now=0)
    assert pace.limit == 1
    for _ in range(10):
        pace.done(Batch(taken=pace.limit), 0.001, now=0)
    assert pace.limit == 100


def test_errors_when_they_follow_each_other_then_batches_shrink_to_one_and_then_waits_double_to_five_minutes() -> (
    None
):
    pace = Pace(Tempo(batch=100, interval_seconds=5, longest_seconds=86400))

    halving = [pace.failed(now=0) for _ in range(6)]
    assert pace.limit == 1
    assert max(halving) <= 0.25

    waits = [pace.failed(now=0) for _ in range(12)]
    assert [round(wait / 5 / 2**n) for n, wait in enumerate(waits[:4])] == [1, 1, 1, 1]
    assert ERROR_SECONDS_MAX * 0.8 <= waits[-1] <= ERROR_SECONDS_MAX * 1.2


def test_errors_when_a_batch_succeeds_then_they_are_forgotten_unless_the_cooldown_lasts() -> None:
    hasty = Pace(Tempo(batch=100, load=1, interval_seconds=5, longest_seconds=86400))
    patient = Pace(Tempo(batch=100, load=1, interval_seconds=5, longest_seconds=86400, cooldown_seconds=60))
    for pace in (hasty, patient):
        for _ in range(6 + 3):
            pace.failed(now=0)

    waits = [
        pace.done(Batch(taken=pace.limit), 0.1, now=now)
        for pace, now in ((hasty, 1), (patient, 1), (patient, 61))
    ]

    assert waits[0] == 0
    assert waits[1] is not None
    assert waits[1] >= 20 * 0.8
    assert waits[2] == 0


@pytest.mark.parametrize(
    ("tempo", "due", "least", "most"),
    [
        (Tempo(interval_seconds=5), 30.0, 24, 36),
        (Tempo(interval_seconds=5), -3600.0, 4, 6),  # somebody else holds it
        (
            Tempo(interval_seconds=5, longest_seconds=86400),
            7200.0,
            IDLE_SECONDS_MAX * 0.8,
            IDLE_SECONDS_MAX * 1.2,
        ),
        (
            Tempo(interval_seconds=5, longest_seconds=86400),
            None,
            IDLE_SECONDS_MAX * 0.8,
            IDLE_SECONDS_MAX * 1.2,
        ),
        (Tempo(interval_seconds=5, longest_seconds=10), None, 8, 12),
        (Tempo(interval_seconds=5, is_steady=True), 7200.0, 4, 6),
        (Tempo(interval_seconds=0.5, is_steady=True), None, 0.4, 0.6),
        (Tempo(interval_seconds=-1), -5.0, 0.008, 0.012),
    ],
)
def test_idle_when_the_next_is_due_later_then_the_wait_ends_by_then_and_within_its_bounds(
    tempo: Tempo, due: float | None, least: float, most: float
) -> None:
    assert least <= Pace(tempo).idle(due) <= most
