"""The registry against its model: any sequence of requests has exactly the answers of a registry in plain Python."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.choices import MOODS
from tests.model.machine import Machine
from tests.model.replicas import replicas
from tests.model.wire import Client
from tests.support.effort import EFFORT

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.engine import Target

EXAMPLES: Final = 5
STEPS: Final = 50
SEARCH: Final = settings(
    max_examples=EXAMPLES * EFFORT,
    stateful_step_count=STEPS,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    report_multiple_bugs=False,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much),
)


@pytest.mark.parametrize("mood", MOODS)
def test_requests_when_in_any_order_then_are_answered_as_the_model_says(
    mood: str, steady_database: Target, tmp_path: Path
) -> None:
    # The same examples in every short run, so that it fails for the change that broke it; other ones in long runs.
    number = MOODS.index(mood) if EFFORT == 1 else random.randrange(2**32)
    print(f"seed {number}")  # noqa: T201 - shown when the test fails
    with replicas(steady_database, tmp_path) as registries:
        client = Client(registries.ports)
        machine: Any = seed(number)(lambda: Machine(registries, client, mood))
        try:
            run_state_machine_as_test(machine, settings=SEARCH)
        finally:
            client.close()
