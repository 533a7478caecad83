"""`GET /` and `GET /v2/`: whether somebody is there, and speaks the distribution API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from app.http.call import Call


async def root(call: Call) -> Response:
    return Response(headers={"Cache-Control": "no-cache"})


async def version(call: Call) -> Response:
    return Response(b"{}", headers={"Content-Type": "application/json"})
