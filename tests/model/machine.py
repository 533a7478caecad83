"""What may happen next, in any order: a client's requests, and everything that happens beside them."""

from __future__ import annotations

from hypothesis.stateful import rule

from tests.model.requests import Requests
from tests.model.steps import Step, steps_of
from tests.model.upkeep import Upkeep


class Machine(Upkeep):
    """One example: registries with nothing in them, and the model."""

    @rule(step=steps_of([*vars(Requests).values(), *vars(Upkeep).values()]))
    def do(self, step: Step) -> None:
        self._sound = False
        step.do(self)
        self._sound = True
