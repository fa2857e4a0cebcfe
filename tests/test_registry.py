import json
import sys
from pathlib import Path

import pytest

import harness
from harness.config.sweep_files import load_sweep
from harness.errors import ConfigError, SweepError, how_to_install
from harness.models.names import BACKBONES
from harness.registry import Registry


def define(registry, qualname="part"):
    def part():
        return registry

    part.__qualname__ = qualname
    return registry.register("a")(part)


def test_a_part_is_found_by_its_name():
    registry = Registry("thing")
    part = define(registry)
    assert registry.get("a") is part
    assert "a" in registry
    assert list(registry) == ["a"]


def test_two_parts_of_one_name_are_refused():
    registry = Registry("thing")
    define(registry)
    with pytest.raises(ConfigError, match="thing 'a' is registered twice"):
        define(registry, "another")


def test_the_same_definition_loaded_again_takes_its_own_place():
    registry = Registry("thing")
    define(registry)
    again = define(registry)
    assert registry.get("a") is again


@pytest.mark.parametrize("_", range(2))
def test_what_a_test_registers_the_next_one_does_not_find(_, tmp_path):
    assert "left_over" not in BACKBONES
    file = tmp_path / "left_over.py"
    file.write_text(
        "from harness.models.names import BACKBONES\n"
        "BACKBONES.register('left_over')(lambda size: None)\n"
    )
    with pytest.raises(SweepError, match="defines no SWEEP"):
        load_sweep(str(file))
    assert "left_over" in BACKBONES
    assert "swin_nano" in BACKBONES


CLONE = Path(harness.__file__).parents[1]


@pytest.mark.parametrize(
    ("origin", "what"),
    [
        ({"url": "file:///a%20b", "dir_info": {"editable": True}}, "-e '/a b[export]'"),
        ({"url": "file:///a/b", "dir_info": {}}, "'/a/b[export]'"),
        (
            {"url": "https://host/x.git", "vcs_info": {"vcs": "git", "commit_id": "1"}},
            "'lightclip-harness[export] @ git+https://host/x.git'",
        ),
        ({}, "'lightclip-harness[export]'"),
        (None, f"-e '{CLONE}[export]'"),
    ],
)
def test_an_extra_is_installed_from_where_the_project_was(origin, what, tmp_path, monkeypatch):
    folder = tmp_path / "lightclip_harness-9.dist-info"
    if origin is not None:
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: lightclip-harness\n")
        (folder / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.errors.find_spec", lambda name: object())
    assert how_to_install("export") == f"{sys.executable} -m pip install {what}"
    monkeypatch.setattr("harness.errors.find_spec", lambda name: None)
    assert how_to_install("export") == f"uv pip install --python {sys.executable} {what}"


def test_from_the_clone_it_is_the_shortest_command(monkeypatch):
    monkeypatch.chdir(CLONE)
    monkeypatch.setattr(sys, "executable", str(CLONE / ".venv/bin/python"))
    assert how_to_install("board") == ".venv/bin/python -m pip install -e '.[board]'"
