"""The board on a real socket: what it answers, to whom, and what it refuses."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from importlib.util import find_spec

import psutil
import pytest
from board_cases import LOG, QUESTION, Root, Served, served

from harness.commands import board as command
from harness.errors import how_to_install

PAGES = ("/", "/sweep/depth", "/run/0123456789ab")
ASSETS = ("/assets/board.js", "/assets/board.css", "/assets/plotly.min.js")


@pytest.fixture
def board(root: Root) -> Iterator[Served]:
    with served(root.path) as up:
        yield up


def test_pages_assets_and_json(board: Served, root: Root) -> None:
    for page in PAGES:
        answer = board.ask(page)
        assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b'src="/assets/board.js"' in answer.body
    for asset in ASSETS:
        assert (board.ask(asset).status, len(board.ask(asset).body) > 300) == (200, True)
    overview = board.ask("/api/overview")
    assert (overview.status, overview.headers["content-type"]) == (200, "application/json")
    assert overview.value["sweeps"][0]["question"] == QUESTION
    key = root.going_on.key
    assert [run["key"] for run in board.ask("/api/sweeps/depth").value["runs"]] == [
        run.key for run in root.runs
    ]
    assert board.ask("/api/sweeps/depth/curves?series=lr").value["curves"][0]["y"] == [0.1] * 5
    assert board.ask(f"/api/runs/{key}").value["state"] == "running"
    assert board.ask(f"/api/runs/{key}/curves").value["training"]["lines"] == 5
    log = board.ask(f"/api/runs/{key}/log?file=attempt-1.txt").value
    assert (log["bytes"], log["cut"]) == (len(LOG), False)


def test_what_did_not_change_is_not_sent_again(board: Served, root: Root) -> None:
    path = f"/api/runs/{root.going_on.key}/curves"
    tag = board.ask(path).headers["etag"]
    again = board.ask(path, If_None_Match=tag)
    assert (again.status, again.body) == (304, b"")
    root.grow(600)
    assert board.ask(path, If_None_Match=tag).value["training"]["lines"] == 6


def test_what_is_not_there_is_said_as_json(board: Served) -> None:
    for path, words in (
        ("/api/sweeps/dept", "unknown sweep 'dept'; nearest: depth"),
        ("/api/runs/0123456789ab", "there is no run 0123456789ab"),
    ):
        answer = board.ask(path)
        assert (answer.status, words in answer.value["error"]) == (404, True)
    assert board.ask("/api/else").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_it_only_reads(board: Served, root: Root, method: str) -> None:
    paths = [*PAGES, *ASSETS, "/api/overview", "/api/sweeps/depth", "/api/sweeps/depth/curves"]
    paths += [f"/api/runs/{root.done.key}{end}" for end in ("", "/curves", "/log")]
    assert {path: board.ask(path, method=method).status for path in paths} == dict.fromkeys(
        paths, 405
    )


def test_a_report_is_shown_as_it_is_and_kept_from_the_board(board: Served, root: Root) -> None:
    assert board.ask("/report/depth/report.html").status == 404
    folder = root.path / "reports" / "depth" / "figures"
    folder.mkdir(parents=True)
    (folder.parent / "report.html").write_text("<p>the report")
    (folder / "a.svg").write_text("<svg/>")

    page, figure = (board.ask(f"/report/depth/{f}") for f in ("report.html", "figures/a.svg"))

    assert (page.body, figure.headers["content-type"]) == (b"<p>the report", "image/svg+xml")
    policy = page.headers["content-security-policy"]
    assert policy.startswith(
        "sandbox allow-scripts allow-popups allow-downloads; default-src 'none'"
    )
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy, "nothing is fetched by it, the board's numbers least of all"
    assert board.ask("/report/depth/report.html", method="POST").status == 405


def test_names_that_point_here_from_elsewhere_get_nothing(board: Served) -> None:
    for host in ("evil.example", f"evil.example:{board.port}", "127.0.0.1.evil.example", "0.0.0.0"):
        for path in ("/", "/api/overview", "/assets/board.js"):
            answer = board.ask(path, host=host)
            assert (answer.status, answer.body) == (400, b"Invalid host header"), (host, path)
    for host in ("127.0.0.1", "localhost", f"localhost:{board.port}"):
        assert board.ask("/api/overview", host=host).status == 200


def test_pages_may_ask_nobody_else_and_are_nobodys_frame(board: Served) -> None:
    for path in ("/", "/api/overview", "/assets/plotly.min.js", "/nothing"):
        headers = board.ask(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; connect-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../server.py",
        "/assets/%2e%2e/server.py",
        "/assets/..%2f..%2f..%2fpyproject.toml",
        "/assets//etc/passwd",
        "/assets/....//server.py",
        "/api/runs/..%2f..%2fconfig.json",
        "/api/runs/{key}/log?file=../config.json",
        "/api/runs/{key}/log?file=..%2fconfig.json",
        "/api/runs/{key}/log?file=/etc/passwd",
        "/api/sweeps/..%2fsweeps%2fdepth",
        "/report/depth/../../results/sweeps/depth.json",
        "/report/depth/..%2f..%2fresults%2fsweeps%2fdepth.json",
        "/report/depth//etc/passwd",
        "/report/..%2f..%2f/etc/passwd",
        "/report/deep/report.html",
    ],
)
def test_no_path_leads_out(board: Served, root: Root, path: str) -> None:
    answer = board.ask(path.format(key=root.going_on.key))
    assert answer.status == 404
    for inside in (b"uvicorn", b"root:x:", b'"schema"', b"[project]"):
        assert inside not in answer.body


def test_it_listens_on_this_machine_alone(board: Served) -> None:
    process = psutil.Process(board.pid)
    listening = [c.laddr for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", board.port)]


# --------------------------------------------------------------------------- the command


def test_without_what_it_needs_it_says_in_a_line_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "harness.errors.find_spec", lambda name: None if name == "uvicorn" else find_spec(name)
    )
    assert command.main([]) == 2
    assert capsys.readouterr().err == (
        f"error: the board needs uvicorn; {how_to_install('board')} brings it\n"
    )


def test_a_port_that_is_taken_or_none(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert command.main(["--port", str(port)]) == 2
    assert f"--port {port}: " in capsys.readouterr().err
    assert command.main(["--port", "70000"]) == 2
    assert "0 to 65535 are ports" in capsys.readouterr().err
    assert command.main(["--root", "/no/such/place"]) == 2
    assert "--root /no/such/place: there is no such directory" in capsys.readouterr().err
