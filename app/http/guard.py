"""The one place where what a route demands meets what a caller may do. What no rule allows is refused.

Refusals are 401 with a challenge, also to callers whose token allows too little: clients then fetch a token with the
scopes that they are told, and try once more. Nothing has been looked up by then, so a repository that is not there and
one that the caller may not see get the same answer.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from app.domain.access import NOBODY, Action, Door
from app.domain.errors import NameInvalid, Unauthorized
from app.domain.names import parse_name
from app.domain.scopes import Scope, demanded
from app.http.wire import Query
from app.services.access.controller import Presented, Refused

if TYPE_CHECKING:
    from starlette.types import Scope as Request

    from app.domain.access import Caller
    from app.domain.names import RepositoryName
    from app.http.call import ApiRules
    from app.services.access.controller import Controller

_log = logging.getLogger(__name__)
_INSUFFICIENT: Final = "insufficient_scope"


class Guard:
    """Lets requests in."""

    def __init__(self, controller: Controller, rules: ApiRules) -> None:
        self._controller = controller
        self._rules = rules

    async def admit(self, request: Request, demand: Action | Door, name: RepositoryName | None) -> Caller:
        """The caller, who may do what is demanded. Raises Unauthorized, TooManyRequests, Unavailable."""
        if demand is Door.OPEN:
            return NOBODY
        if demand is Action.CATALOG and self._rules.catalog_open:
            demand = Door.LOGIN
        presented = Presented(_authorizations(request), self._rules.login_bucket, request)
        try:
            caller = await self._controller.caller(presented)
        except Refused as refused:
            if refused.error:
                _log.info("credentials were refused: %s", refused)
            raise self._unauthorized(request, demand, name, refused.error) from refused
        if isinstance(demand, Action) and not caller.may(demand, name):
            raise self._unauthorized(request, demand, name, _INSUFFICIENT)
        return caller

    def _unauthorized(
        self, request: Request, demand: Action | Door, name: RepositoryName | None, error: str
    ) -> Unauthorized:
        scopes = _scopes(request, demand, name)
        challenge = self._controller.challenge(
            " ".join(map(str, scopes)), error, lambda path: self._rules.origin.absolute(request, path)
        )
        return Unauthorized(_detail(scopes) or None, headers=(("WWW-Authenticate", challenge),))


def _authorizations(request: Request) -> tuple[str, ...]:
    return tuple(
        [
            value.decode("latin-1").strip(" \t")
            for name, value in request["headers"]
            if name == b"authorization"
        ]
    )


def _scopes(request: Request, demand: Action | Door, name: RepositoryName | None) -> list[Scope]:
    """What the client should have a token for. For a mount that is the source as well, though it can do without."""
    if not isinstance(demand, Action):
        return []
    scopes = [demanded(demand, name)]
    if demand is Action.PUSH and b"mount=" in request["query_string"]:
        source = _mounted_from(Query(request["query_string"]))
        if source is not None and source != name:
            scopes.append(demanded(Action.PULL, source))
    return scopes


def _mounted_from(query: Query) -> RepositoryName | None:
    source = query.first("from")
    if source is None or query.first("mount") is None:
        return None
    try:
        return parse_name(source)
    except NameInvalid:
        return None


def _detail(scopes: list[Scope]) -> list[dict[str, str]]:
    """The scopes as Distribution's error documents show them, an entry for each action."""
    return [
        {"Type": scope.kind, "Class": "", "Name": scope.name, "Action": action}
        for scope in scopes
        for action in scope.actions
    ]
