"""The board on a real port, asked anything: never a 500, nothing from outside, nothing untold."""

from __future__ import annotations

import logging
import socket
import threading
from urllib.parse import quote

import pytest
from attacks import nasty
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.config import RunConfig, Runtime, override
from harness.config.sweep import Run, Show, Sweep, points
from harness.monitor.web.server import serve
from harness.store.manifest import write_manifest
from harness.store.record import Store
from harness.store.state import State

TOKEN = "t0ken-" + "x" * 16
SECRET = "only-for-its-owner"
ANSWERS = {200, 206, 303, 304, 307, 400, 403, 404, 405, 413, 414, 416, 431}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> int:
    """A board over a root with links that lead out of it, and names that are not kind."""
    folder = tmp_path_factory.mktemp("board")
    (folder / "secret.txt").write_text(SECRET)
    (folder / "secrets").mkdir()
    (folder / "secrets" / "report.html").write_text(SECRET)
    store = Store(folder / "root")
    base = override(RunConfig(), {"objective.token.weight": 1.0})
    run = Run("x", {"train.samples": 64}, 0, base)
    directory = store.run_dir(run.key)
    directory.write_intent(run.config, {"label": "<b>x"})
    directory.write_status(State.FAILED, failure="bug", error="\x1b[2J", attempt=1)
    directory.log_file(1).parent.mkdir()
    directory.log_file(1).symlink_to(folder / "secret.txt")
    sweep = Sweep(
        base=base, points=points({"train.samples": 64}), seeds=[0],
        show=Show(x="train.samples", metrics=[]), name="s",
    )  # fmt: skip
    write_manifest(store, sweep, [run], Runtime(), ["x"])
    (store.root / "reports").mkdir()
    (store.root / "reports" / "s").symlink_to(folder / "secrets")
    (store.root / "reports" / "own").mkdir()
    (store.root / "reports" / "own" / "report.html").symlink_to(folder / "secret.txt")
    global KEY
    KEY = run.key
    listening = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(store, listening, TOKEN), daemon=True).start()
    return int(listening.getsockname()[1])


KEY = ""
SEGMENTS = st.sampled_from(
    (
        *("", "api", "overview", "sweeps", "s", "curves", "runs", "KEY", "log", "report", "own"),
        *("run", "sweep", "report.html", "assets", "plotly.min.js", "board.js", "..", ".", "%00"),
        *("%2e%2e", "..%2f", "secret.txt", "secrets", "results", "config.json", "%ff", "//"),
        *(quote(text, errors="replace")[:300] for text in nasty(60)),
    )
)
KNOWN = (
    *("/api/runs/KEY/log", "/api/runs/KEY", "/api/runs/KEY/curves", "/api/sweeps/s"),
    *("/api/sweeps/s/curves", "/api/overview", "/report/own/report.html"),
    *("/report/s/report.html", "/", "/sweep/s", "/run/KEY", "/assets/board.js"),
)
PATHS = st.sampled_from(KNOWN) | st.lists(SEGMENTS, max_size=6).map(lambda p: "/" + "/".join(p))
VALUES = SEGMENTS | st.sampled_from(["attempt-1.txt", "../secret.txt", "loss", "1", "9" * 400])
QUERIES = st.lists(
    st.tuples(st.sampled_from(["file", "series", "token", "x", "", "%ff"]), VALUES), max_size=3
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))
METHODS = st.sampled_from(["GET"] * 12 + ["HEAD", "POST", "PUT", "TRACE", "OPTIONS", "get", "X"])
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
)
LINES = (
    *("If-None-Match: *", "Range: bytes=0-9", "Range: bytes=9-0,x", f"Range: bytes={'0-1,' * 99}"),
    *("Content-Length: 99999999999", "Content-Length: -1", "Transfer-Encoding: chunked", UPGRADE),
    *("Accept-Encoding: gzip", "X: \xff\xfe", "X-Forwarded-Host: e.example", "Expect: x"),
)
HEADERS = st.lists(st.sampled_from(LINES), max_size=2)
COOKIES = st.sampled_from(["right"] * 4 + ["", TOKEN[:-1], TOKEN + "x", "\xff", "a; b=c; ;;"])
HOSTS = st.sampled_from(["127.0.0.1:PORT"] * 8 + ["e.example", "", "127.0.0.1:PORT@e.example", "["])


def ask(port: int, method: str, target: str, cookie: str, host: str, more: list[str]) -> bytes:
    """What comes back for exactly these words."""
    given = TOKEN if cookie == "right" else cookie
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host.replace('PORT', str(port))}", *more]
    lines += [f"Cookie: harness-board-{port}={given}", "Connection: close", "", ""]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1", "replace"))
        if any("Content-Length" in line or "chunked" in line for line in more):
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def check(answer: bytes, cookie: str, target: str) -> None:
    assert SECRET.encode() not in answer
    assert b"Traceback" not in answer
    if not answer:
        return  # of a request that was cut off
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(None, 2)[1])
    assert status in ANSWERS, head
    if cookie != "right" and f"token={TOKEN}" not in target:
        assert status in {400, 403}, head
        assert KEY.encode() not in body
    if status == 200:
        assert b"content-security-policy:" in head.lower()


def try_it(
    port: int, caplog: pytest.LogCaptureFixture, drawn: tuple[str, ...], more: list[str]
) -> None:
    method, path, query, cookie, host = drawn
    target = path.replace("KEY", KEY) + (f"?{query}" if query else "")
    with caplog.at_level(logging.ERROR):
        check(ask(port, method, target, cookie, host, more), cookie, target)
    assert [record.getMessage() for record in caplog.records] == []


@settings(
    max_examples=150, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(st.tuples(METHODS, PATHS, QUERIES, COOKIES, HOSTS), HEADERS)
def test_anything_that_is_asked_has_an_answer(
    port: int, caplog: pytest.LogCaptureFixture, drawn: tuple[str, ...], more: list[str]
) -> None:
    try_it(port, caplog, drawn, more)


@pytest.mark.thorough
@settings(
    max_examples=5000, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(st.tuples(METHODS, PATHS, QUERIES, COOKIES, HOSTS), HEADERS)
def test_thousands_of_questions(
    port: int, caplog: pytest.LogCaptureFixture, drawn: tuple[str, ...], more: list[str]
) -> None:
    try_it(port, caplog, drawn, more)


@pytest.mark.parametrize(
    "words",
    [b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02", b"A" * 200_000],
)
def test_what_is_no_question_ends_and_the_next_is_answered(port: int, words: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(words)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
        except OSError:  # it hung up in the middle
            answer = b""
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert b" 200 " in ask(port, "GET", "/api/overview", "right", "127.0.0.1:PORT", [])[:20]
