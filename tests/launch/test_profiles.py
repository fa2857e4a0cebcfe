"""Profiles: where they are read from, what they may say, and what a mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.launch.profiles import Profile, load_profile, seconds_of


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "harness").mkdir()
    return tmp_path


def project(text: str) -> None:
    Path("pyproject.toml").write_text(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 5400),
        ("90", 5400),
        ("90:30", 5430),
        ("4:00:00", 14400),
        ("2-12", 216000),
        ("2-12:30", 217800),
        ("2-12:30:15", 217815),
    ],
)
def test_a_time_limit_is_in_any_of_slurms_forms(text: object, seconds: int) -> None:
    assert seconds_of(text) == seconds


def test_a_profile_survives_being_written_down() -> None:
    profile = Profile(time="2-12:30:15", gpus=4, extra={"mail-type": "END"}, setup=("a", "b"))
    assert Profile.model_validate(profile.model_dump(mode="json")) == profile


def test_the_project_comes_before_the_user(places: Path) -> None:
    project('[tool.harness.profiles.a100]\npartition = "ours"\n')
    (places / "harness" / "profiles.toml").write_text(
        '[a100]\npartition = "mine"\n[cpu]\ncpus = 4\n'
    )
    assert load_profile("a100").partition == "ours"
    assert load_profile("cpu").cpus == 4


def test_without_a_name_the_default_or_nothing_at_all() -> None:
    assert load_profile(None) == Profile()
    project("[tool.harness.profiles.default]\ncpus = 3\n")
    assert load_profile(None, gpus=2, pack=None) == Profile(cpus=3, gpus=2)


@pytest.mark.parametrize(
    ("signal_seconds", "time", "warning"), [(None, "4:00:00", 120), (None, 1, 20), (30, 1, 30)]
)
def test_the_warning_before_the_time_limit(
    signal_seconds: int | None, time: object, warning: int
) -> None:
    assert Profile(time=time, signal_seconds=signal_seconds).warning_seconds == warning


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("", "a10", "unknown profile 'a10'; profiles are [tool.harness.profiles.NAME] or [NAME]"),
        ("[tool.harness.profiles.a100]\n", "a10", "unknown profile 'a10'; nearest: a100"),
        ("[tool.harness.profiles.x]\ncpu = 1\n", "x", "unknown field 'cpu'; nearest: cpus"),
        ('[tool.harness.profiles.x]\ntime = "soon"\n', "x", "time = 'soon': a time such as 90"),
        ('[tool.harness.profiles.x]\nmemory = "lots"\n', "x", "memory = 'lots'"),
        ("[tool.harness\n", "x", "pyproject.toml cannot be read: TOMLDecodeError"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_place(text: str, name: str, words: str) -> None:
    project(text)
    with pytest.raises(ConfigError) as error:
        load_profile(name)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
