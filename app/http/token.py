"""`/auth/token`: the built-in token service, in both forms that clients speak.

GET with Basic credentials or none (Distribution, "Token Authentication Specification"), and POST with the forms of
OAuth 2 (RFC 6749 §4.3 and §6; Distribution, "OAuth2 Token Authentication"). What is not allowed is left out of the
token; only wrong credentials are refused, in the same words whatever was wrong with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote_from_bytes

from app.domain.errors import GrantUnsupported, LoginFailed, NotFound, TokenRequestInvalid
from app.domain.limits import TOKEN_REQUEST_BYTES_MAX
from app.domain.scopes import parse_scopes
from app.http.wire import Query, json_response
from app.services.access.basic import parse_basic
from app.services.access.controller import Presented, Refused, quoted
from app.services.issue_token import Ask

if TYPE_CHECKING:
    from starlette.responses import Response

    from app.http.call import Call
    from app.services.issue_token import Issued, IssueToken

_ASCII: Final = bytes(range(128))
_FORM: Final = "application/x-www-form-urlencoded"
# RFC 6749 §5.1.
_UNCACHED: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


async def get(call: Call) -> Response:
    service, query = await _service(call), call.query
    ask = _ask(service, query, wants_refresh=query.first("offline_token") in {"true", "1"})
    authorizations = tuple(call.headers.getlist("authorization"))
    if not authorizations:
        return _answer(call, await service.to_anybody(ask))
    try:
        login = parse_basic(
            Presented(authorizations, call.rules.login_bucket, call.scope).credentials("basic")
        )
    except Refused as refused:
        raise LoginFailed(str(refused), headers=_challenge(service)) from refused
    issued = await service.to_account(ask, login.name, login.password, call.address())
    return _answer(call, _accepted(service, issued))


async def post(call: Call) -> Response:
    service, form = await _service(call), await _form(call)
    ask = _ask(service, form, wants_refresh=form.first("access_type") == "offline")
    grant = _one(form, "grant_type")
    if grant == "password":
        name, password = _one(form, "username"), _one(form, "password")
        issued = await service.to_account(ask, name, password, call.address())
    elif grant == "refresh_token":
        issued = await service.to_holder(ask, _one(form, "refresh_token"))
    else:
        raise GrantUnsupported({"grant_type": grant[:64], "expected": "password or refresh_token"})
    return _answer(call, _accepted(service, issued))


async def _service(call: Call) -> IssueToken:
    service = await call.services.tokens()
    if service is None:
        raise NotFound("this registry issues no tokens (auth.issuer)")
    return service


def _ask(service: IssueToken, query: Query, *, wants_refresh: bool) -> Ask:
    wanted = query.first("service")
    if wanted and wanted != service.service:
        raise TokenRequestInvalid({"service": wanted[:64], "expected": service.service})
    return Ask(parse_scopes(query.all("scope")), (query.first("client_id") or "")[:128], wants_refresh)


async def _form(call: Call) -> Query:
    if call.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise TokenRequestInvalid(f"the body must be a form ({_FORM})")
    body = await call.body.read(TOKEN_REQUEST_BYTES_MAX)
    if body is None:
        raise TokenRequestInvalid(f"the body has at most {TOKEN_REQUEST_BYTES_MAX} bytes")
    # Bytes that nobody has escaped are UTF-8 as well (WHATWG URL, "application/x-www-form-urlencoded parsing").
    return Query(quote_from_bytes(body, safe=_ASCII).encode())


def _one(form: Query, name: str) -> str:
    """The field's value. It must be there once (RFC 6749 §3.2)."""
    values = form.all(name)
    if len(values) != 1 or not values[0]:
        raise TokenRequestInvalid(f"the form must have one {name}")
    return values[0]


def _accepted(service: IssueToken, issued: Issued | None) -> Issued:
    if issued is None:
        raise LoginFailed(headers=_challenge(service))
    return issued


def _challenge(service: IssueToken) -> tuple[tuple[str, str], ...]:
    return (("WWW-Authenticate", f"Basic realm={quoted(service.service)}"),)


def _answer(call: Call, issued: Issued) -> Response:
    call.scope["registry.subject"] = issued.subject
    document = {
        "token": issued.token,
        "access_token": issued.token,
        "token_type": "Bearer",
        "expires_in": issued.expires_in_seconds,
        "issued_at": issued.issued_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "scope": " ".join(map(str, issued.scopes)),
    }
    if issued.refresh_token is not None:
        document["refresh_token"] = issued.refresh_token
    return json_response(document, _UNCACHED)
