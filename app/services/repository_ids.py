"""Repository ids remembered in this process, so that a hot read starts from the id and prunes its partitions.

What is remembered may be wrong: a repository can be renamed or replaced. Reads therefore check the pair (id, path)
in the statement itself (`store.repositories.still_named`), and a miss is looked up again before anybody is told so.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeVar

from app.domain.errors import NameUnknown
from app.store import repositories

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.domain.names import RepositoryName
    from app.store.engine import Connection, Database

T = TypeVar("T")
REMEMBERED_MAX: Final = 10_000


class RepositoryIds:
    """The last repositories used, by name."""

    def __init__(self) -> None:
        self._ids: OrderedDict[RepositoryName, int] = OrderedDict()

    def remember(self, name: RepositoryName, repository_id: int) -> None:
        """`name` is `repository_id`, as the database just said."""
        self._ids[name] = repository_id
        self._ids.move_to_end(name)
        if len(self._ids) > REMEMBERED_MAX:
            self._ids.popitem(last=False)

    async def find_in(
        self,
        database: Database,
        name: RepositoryName,
        query: Callable[[Connection, int], Awaitable[T | None]],
    ) -> T | None:
        """What `query` finds in the repository. Raises NameUnknown.

        `query` must check that the id still has the name: one statement when it is remembered and right.
        """

        async def work(c: Connection) -> T | None:
            remembered = self._ids.get(name)
            if remembered is not None and (found := await query(c, remembered)) is not None:
                return found
            current = await self.get(c, name)
            return None if current == remembered else await query(c, current)

        return await database.read(work)

    async def get(self, c: Connection, name: RepositoryName) -> int:
        """The repository's id, asked of the database. Raises NameUnknown."""
        current = await repositories.find(c, name)
        if current is None:
            self._ids.pop(name, None)
            raise NameUnknown({"name": name})
        self.remember(name, current)
        return current
