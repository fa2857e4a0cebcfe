"""What a fetch brings is bounded, pinned and compared."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from harness.evaluate.suites import fetched
from harness.evaluate.suites.fetched import RECORD, bring
from harness.files import read_json

REVISION = "0123456789abcdef0123456789abcdef01234567"
BRINGS = """
import pathlib, sys
folder = pathlib.Path({folder!r})
(folder / "test").mkdir(parents=True, exist_ok=True)
(folder / "test" / "0.tar").write_text({content!r})
notes = folder / ".cache" / "huggingface" / "download"
notes.mkdir(parents=True, exist_ok=True)
(notes / "0.tar.metadata").write_text({revision!r} + "\\netag\\n")
(folder / ".asked").write_text(" ".join(sys.argv[1:]))
"""


def command(folder: Path, content: str) -> list[str]:
    code = BRINGS.format(folder=str(folder), content=content, revision=REVISION)
    return [sys.executable, "-c", code]


def test_the_first_revision_and_its_checksums_stay(tmp_path: Path) -> None:
    folder = tmp_path / "cifar10"
    assert bring(command(folder, "one"), folder) == ""
    assert (folder / ".asked").read_text() == ""
    told = read_json(folder / RECORD) or {}
    assert (told["revision"], list(told["files"])) == (REVISION, ["test/0.tar"])
    assert bring(command(folder, "one"), folder) == ""
    assert (folder / ".asked").read_text() == f"--revision {REVISION}"
    why = bring(command(folder, "two"), folder)
    assert f"{folder}/test/0.tar is another than at the first fetch" in why
    assert read_json(folder / RECORD) == told


@pytest.mark.parametrize("pin", ["; touch x", "--help", 7, None, ["a"]])
def test_only_a_revision_is_asked_for(tmp_path: Path, pin: object) -> None:
    from harness.files import write_json

    folder = tmp_path / "x"
    folder.mkdir()
    write_json(folder / RECORD, {"revision": pin, "files": {}})
    assert bring(command(folder, "one"), folder) == ""
    assert (folder / ".asked").read_text() == ""


def test_too_much_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched, "MAX_BYTES", 100)
    monkeypatch.setattr(fetched, "_LOOK_SECONDS", 0.05)
    folder = tmp_path / "x"
    folder.mkdir()
    code = f"import time; open({str(folder / 'a')!r}, 'w').write('x' * 5000); time.sleep(60)"
    assert "it has brought 5,000 bytes, and 100 are read" in bring(
        [sys.executable, "-c", code], folder
    )


def test_a_command_that_fails_is_told(tmp_path: Path) -> None:
    why = bring([sys.executable, "-c", "raise SystemExit(4)"], tmp_path)
    assert why == "it ended with exit code 4"


def test_every_pinned_package_is_held_to_a_checksum() -> None:
    root = Path(__file__).parents[2]
    for name in ("requirements.lock", "requirements-test.lock"):
        pinned = re.split(r"\n(?=[A-Za-z0-9])", (root / name).read_text().strip())
        assert len(pinned) > 50
        assert [p for p in pinned if not re.search(r"--hash=sha256:[0-9a-f]{64}", p)] == []
    lines = (root / "Makefile").read_text().splitlines()
    installs = [line for line in lines if "pip install" in line and "-r $(1)" in line]
    assert installs
    assert all("--require-hashes" in line for line in installs)
    assert sum("--generate-hashes" in line for line in lines) == 2
    assert any(line.startswith("audit:") for line in lines)
    assert any("pip-audit --require-hashes" in line for line in lines)
