"""Steps: methods that an example may call next, each with a weight, drawn by one rule.

hypothesis itself leaves most rules out of most examples, which finds a great deal in thousands of them and little in
the few dozen that a short run has time for. Here an example has a mood: some steps are then more frequent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MOOD_FACTOR: Final = 4
F = TypeVar("F", bound="Callable[..., None]")


class Step:
    """One call, which a failure prints as it would be written."""

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self._name = name
        self._arguments = arguments

    def do(self, player: Any) -> None:
        getattr(player, self._name)(**self._arguments)

    def __repr__(self) -> str:
        return f"{self._name}({', '.join(f'{name}={value!r}' for name, value in self._arguments.items())})"


@dataclass(frozen=True)
class Kind:
    """What a method is as a step. `when` says whether it makes sense for the player at that moment."""

    name: str
    mood: str
    weight: int
    arguments: Mapping[str, st.SearchStrategy[Any]]
    when: Callable[[Any], bool]

    def frequency(self, mood: str) -> int:
        return self.weight * (MOOD_FACTOR if mood == self.mood else 1)


def step(
    mood: str, weight: int, when: Callable[[Any], bool] = bool, **arguments: st.SearchStrategy[Any]
) -> Callable[[F], F]:
    """Let the method be a step, `weight` times as often as one of weight 1, and more often in that mood."""

    def decorate(method: F) -> F:
        kind = Kind(method.__name__, mood, weight, arguments, when)
        method.__dict__["kind"] = kind
        return method

    return decorate


def steps_of(methods: Iterable[Any]) -> st.SearchStrategy[Step]:
    """One of the steps among the methods that makes sense at that moment."""
    kinds: list[Kind] = [method.kind for method in methods if hasattr(method, "kind")]

    def choose(player: Any) -> st.SearchStrategy[Kind]:
        sensible = [kind for kind in kinds if kind.when(player)]
        # The most frequent first, as hypothesis prefers the beginning of a list.
        sensible.sort(key=lambda kind: -kind.frequency(player.mood))
        return st.sampled_from([kind for kind in sensible for _ in range(kind.frequency(player.mood))])

    def call(kind: Kind) -> st.SearchStrategy[Step]:
        return st.fixed_dictionaries(dict(kind.arguments)).map(lambda arguments: Step(kind.name, arguments))

    return st.runner().flatmap(choose).flatmap(call)
