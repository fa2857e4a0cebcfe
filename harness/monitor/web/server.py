"""What the board answers to a browser: its assets, and what it knows as JSON.

Answers GET alone, to whoever has the token of its address, and only under the names of this
machine, so that a page from elsewhere whose name was made to point here reads nothing; and tells
the browser to ask nobody else for anything.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
import socket
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from harness.errors import HarnessError, one_line, whole
from harness.monitor.web.view import Board
from harness.store.record import Store

COOKIE = "harness-board"
_TURNING = re.compile(r"(?<!\\)((?:\\\\)*)\\u(061c|200[ef]|202[a-e]|206[6-9])")
HOSTS = ("127.0.0.1", "localhost")
_STATIC = Path(str(files("harness.monitor.web"))) / "static"
_PLOTLY = Path(str(files("plotly"))) / "package_data" / "plotly.min.js"
#: Plotly sets the style attributes of what it draws, hence the word about styles.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def serve(store: Store, listening: socket.socket, token: str) -> None:
    """Answer on `listening`, whoever has `token`, until interrupted."""
    config = uvicorn.Config(
        make_app(Board(store), token, f"{COOKIE}-{listening.getsockname()[1]}"),
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[listening])


def make_app(board: Board, token: str, cookie: str = COOKIE) -> Starlette:
    """The application; whatever reads files does so in a thread of its own.

    Args:
        token: of the address that the command printed; whoever opens that gets it as a cookie.
        cookie: its name, another for each port.
    """

    def page(request: Request) -> Response:
        return FileResponse(_STATIC / "index.html")

    def plotly(request: Request) -> Response:
        return FileResponse(_PLOTLY, media_type="text/javascript")

    answers: Mapping[str, Callable[[Request], Mapping[str, Any]]] = {
        "/api/overview": lambda asked: board.overview(),
        "/api/sweeps/{name}": lambda asked: board.sweep(asked.path_params["name"]),
        "/api/sweeps/{name}/curves": lambda asked: board.sweep_curves(
            asked.path_params["name"], asked.query_params.get("series", "loss")
        ),
        "/api/runs/{key}": lambda asked: board.run(asked.path_params["key"]),
        "/api/runs/{key}/curves": lambda asked: board.run_curves(asked.path_params["key"]),
        "/api/runs/{key}/log": lambda asked: board.run_log(
            asked.path_params["key"], asked.query_params.get("file")
        ),
    }

    def report(request: Request) -> Response:
        asked = request.path_params
        try:
            return FileResponse(board.report_file(asked["name"], asked["path"]))
        except HarnessError as error:
            return Response(str(error), 404, media_type="text/plain")

    pages = [Route(path, page, methods=["GET"]) for path in ("/", "/sweep/{name}", "/run/{key}")]
    data = [Route(path, _json(answer), methods=["GET"]) for path, answer in answers.items()]
    return Starlette(
        routes=[
            *pages,
            *data,
            Route("/report/{name}/{path:path}", report, methods=["GET"]),
            Route("/assets/plotly.min.js", plotly, methods=["GET"]),
            Mount("/assets", StaticFiles(directory=_STATIC)),
        ],
        middleware=[
            Middleware(_Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False),
            Middleware(_Token, token=token, cookie=cookie),
        ],
    )


def _json(answer: Callable[[Request], Mapping[str, Any]]) -> Callable[[Request], Response]:
    """An endpoint that sends nothing when the browser has the same already."""

    def endpoint(request: Request) -> Response:
        try:
            with whole("the store"):
                value, code = answer(request), 200
        except (HarnessError, OSError) as error:
            value, code = {"error": one_line(error)}, 404
        body = _strict(value)
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if code == 200 and request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return Response(body, code, {"ETag": tag}, "application/json")

    return endpoint


def _strict(value: object) -> bytes:
    """As JSON, in which what turns the direction of a line is shown as its code point."""
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    return _TURNING.sub(r"\1\\\\u\2", text).encode()


def _finite(value: object) -> object:
    """`value` with null for what JSON has no number for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


class _Token:
    """Answers nobody who has neither the token nor the cookie that it gave."""

    def __init__(self, app: ASGIApp, token: str, cookie: str) -> None:
        self._app, self._token, self._cookie = app, token, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if self._is(request.query_params.get("token")):
            answer = RedirectResponse(request.url.remove_query_params("token"), 303)
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
            await answer(scope, receive, send)
        elif self._is(request.cookies.get(self._cookie)):
            await self._app(scope, receive, send)
        else:
            words = "The address that harness.board printed opens this page: it ends in a token.\n"
            await PlainTextResponse(words, 403)(scope, receive, send)

    def _is(self, given: str | None) -> bool:
        return given is not None and secrets.compare_digest(given.encode(), self._token.encode())


#: A report brings a policy of its own; here it has no part in what the board may do.
_OF_REPORTS = {
    **_HEADERS,
    "Content-Security-Policy": "sandbox allow-scripts allow-popups allow-downloads; "
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


class _Headers:
    """Adds `_HEADERS` to every answer, to a report's files those of reports."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                of = _OF_REPORTS if scope["path"].startswith("/report/") else _HEADERS
                own = [(name.lower().encode(), text.encode()) for name, text in of.items()]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        await self._app(scope, receive, send_with_headers)
