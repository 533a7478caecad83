"""Repository ids remembered in this process, so that a hot read starts from the id and prunes its partitions.

What is remembered may be wrong: a repository can be renamed or replaced. Reads therefore check the pair (id, name)
in the statement itself, and a miss is looked up again before anybody is told so.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeVar

from app.domain.errors import NameUnknown
from app.services.coalescing import Coalesced
from app.store import lookups

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from app.domain.names import RepositoryName
    from app.store.engine import Database

T = TypeVar("T")
REMEMBERED_MAX: Final = 10_000


class RepositoryIds:
    """The last repositories used, by name."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: OrderedDict[RepositoryName, int] = OrderedDict()
        self._current: Coalesced[RepositoryName, int] = Coalesced(self._look_up)

    def remember(self, name: RepositoryName, repository_id: int) -> None:
        """`name` is `repository_id`, as the database just said."""
        self._ids[name] = repository_id
        self._ids.move_to_end(name)
        if len(self._ids) > REMEMBERED_MAX:
            self._ids.popitem(last=False)

    async def get(self, name: RepositoryName) -> int:
        """The repository's id, asked of the database. Raises NameUnknown."""
        current = await self._current.ask(name)
        if current is None:
            self._ids.pop(name, None)
            raise NameUnknown({"name": name})
        self.remember(name, current)
        return current

    async def find_in(self, name: RepositoryName, ask: Callable[[int], Awaitable[T | None]]) -> T | None:
        """What `ask` finds in the repository of that id. Raises NameUnknown.

        `ask` must check that the id still has the name. One question, when the id is remembered and right.
        """
        remembered = self._ids.get(name)
        if remembered is not None and (found := await ask(remembered)) is not None:
            return found
        current = await self.get(name)
        return None if current == remembered else await ask(current)

    async def _look_up(self, names: Sequence[RepositoryName]) -> dict[RepositoryName, int]:
        return await self._database.read(lambda c: lookups.repository_ids(c, names))
