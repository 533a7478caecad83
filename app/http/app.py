"""The ASGI application: one request in, one answer out, whatever happens in between.

It knows Starlette's requests and responses and no server. Its own path through a request is short, because every
request takes it: match, parse the name, check access, call the handler, render errors, tell the observer.
"""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from app.blobs.driver import StorageError
from app.domain.errors import (
    ClientGone,
    ClientStalled,
    NotFound,
    RegistryError,
    Unavailable,
    Unsupported,
)
from app.domain.names import parse_name
from app.http.call import ApiRules, Call, RequestBody, Services
from app.http.guard import Guard
from app.http.routes import ENDPOINTS, ROOT, Endpoint, Operation, match
from app.http.wire import error_response

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Message, Receive, Scope, Send

    from app.services.access.controller import Controller

_log = logging.getLogger(__name__)
_WITHOUT_BODY = frozenset({"GET", "HEAD"})
_API_VERSION = (b"docker-distribution-api-version", b"registry/2.0")


class Observer(Protocol):
    """Is told of every request: metrics and the access log."""

    def began(self, scope: Scope) -> str:
        """A request has come. Returns its id, which the answer carries."""
        ...

    def ended(
        self, scope: Scope, *, route: str, status: int, seconds: float, received: int, sent: int
    ) -> None:
        """It is answered. `received` and `sent` are the bodies' bytes."""
        ...


class Application:
    """The registry's API as an ASGI callable."""

    def __init__(
        self, services: Services, rules: ApiRules, controller: Controller, observer: Observer
    ) -> None:
        self._services = services
        self._rules = rules
        self._guard = Guard(controller, rules)
        self._observer = observer
        self._allowed = {endpoint.id: _allowed(endpoint, rules) for endpoint in ENDPOINTS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = perf_counter()
        answer = _Answer(scope, send, self._rules.headers, self._observer.began(scope))
        body = RequestBody(receive, self._rules.body_patience_seconds)
        route = "none"
        try:
            endpoint, parameters = self._match(scope["path"])
            route = endpoint.id
            response = await self._respond(scope, receive, body, endpoint, parameters)
            await response(scope, receive, answer.send)
        except ClientStalled as error:
            await answer.refuse(scope, receive, error)
        except ClientGone:
            answer.status = ClientGone.status
        except Exception as error:  # noqa: BLE001 - the one place where whatever went wrong becomes an answer
            if not answer.status and scope["method"] not in _WITHOUT_BODY and not _asks_first(scope):
                await body.drain()
            await answer.refuse(scope, receive, _as_refusal(error, scope))
        finally:
            self._observer.ended(
                scope,
                route=route,
                status=answer.status,
                seconds=perf_counter() - began,
                received=body.received,
                sent=answer.sent,
            )

    def _match(self, path: str) -> tuple[Endpoint, dict[str, str]]:
        if path == "/":  # load balancers ask it, and know nothing of a prefix
            return ROOT, {}
        prefix = self._rules.prefix
        found = match(path.removeprefix(prefix)) if path.startswith(prefix) else None
        if found is None:
            raise NotFound("the distribution API lies below /v2/")
        return found

    async def _respond(
        self,
        scope: Scope,
        receive: Receive,
        body: RequestBody,
        endpoint: Endpoint,
        parameters: dict[str, str],
    ) -> Response:
        operation = self._operation(endpoint, scope["method"])
        text = parameters.pop("name", None)
        name = None if text is None else parse_name(text)
        caller = await self._guard.admit(scope, operation.demand, name)
        scope["registry.subject"] = caller.subject
        call = Call(scope, receive, self._services, self._rules, caller, body, parameters=parameters)
        if name is not None:
            call.name = name
        return await operation.handler(call)

    def _operation(self, endpoint: Endpoint, method: str) -> Operation:
        """What the method does here. Raises Unsupported (405) with the methods that would do something."""
        allowed = self._allowed[endpoint.id]
        if method in allowed:
            return allowed[method]
        reason = f"{method[:16]} is not possible here"
        if method in endpoint.operations:
            reason = (
                "the registry is read-only"
                if self._rules.read_only
                else "deletion is disabled (storage.delete.enabled)"
            )
        raise Unsupported(reason, headers=(("Allow", ", ".join(allowed)),))


class _Answer:
    """Counts what goes out and adds the headers that every answer carries."""

    def __init__(
        self, scope: Scope, send: Send, headers: tuple[tuple[bytes, bytes], ...], request_id: str
    ) -> None:
        self._has_body = scope["method"] != "HEAD"
        self._send = send
        self._headers = [_API_VERSION, (b"x-request-id", request_id.encode()), *headers]
        self.status = 0
        self.sent = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._headers]
        elif self._has_body:
            self.sent += len(message.get("body", b""))
        try:
            await self._send(message)
        except OSError as error:
            raise ClientGone from error

    async def refuse(self, scope: Scope, receive: Receive, error: RegistryError) -> None:
        if (
            self.status
        ):  # too late for an answer: the connection is cut when the server sees the body end early
            return
        try:
            await error_response(error)(scope, receive, self.send)
        except ClientGone:
            return


def _allowed(endpoint: Endpoint, rules: ApiRules) -> dict[str, Operation]:
    """The methods of the endpoint that the operator's rules leave."""
    return {
        name: operation
        for name, operation in endpoint.operations.items()
        if not (operation.writes and rules.read_only) and not (operation.deletes and not rules.delete_enabled)
    }


def _asks_first(scope: Scope) -> bool:
    """Whether the client sends its body only if it is told to (RFC 9110 §10.1.1), which reading it would do."""
    return any(name == b"expect" for name, _ in scope["headers"])


def _as_refusal(error: Exception, scope: Scope) -> RegistryError:
    """What the client is told. Only the log has the details of what is not the client's doing."""
    if isinstance(error, RegistryError):
        return error
    if isinstance(error, StorageError):
        _log.error("%s %s: storage failed", scope["method"], scope["path"], exc_info=error)
        return Unavailable(str(error))
    _log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
    return RegistryError()


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing is built here: whoever runs the application opens and closes what it uses."""
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})
