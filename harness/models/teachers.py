"""What a teacher's files are, told without torch, so that a login node can fill in a run's key.

A teacher that is a run is known by its key; an export's folder and a checkpoint of open_clip by
what they hold.  Knows nothing of training; the models are loaded in `harness.train.teacher`.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from harness.config import RunConfig
from harness.config.inheritance import TeacherName, read_teacher
from harness.errors import ConfigError, RecordError, unknown
from harness.files import home_path, read_json, sha256_once

CONFIG = "open_clip_config.json"


def with_teacher_files(config: RunConfig) -> dict[str, object]:
    """Fields of `teacher` that the files of its models decide; the places of runs stay as they are.

    Raises ConfigError where a file is absent, or is not the one that the configuration was made
    for.
    """
    teacher = config.teacher
    if "teacher" in config.idle():
        return {}
    contents = list(teacher.content or [""] * len(teacher.models))
    widths = list(teacher.widths or [0] * len(teacher.models))
    for place, name in enumerate(map(read_teacher, teacher.models)):
        if name.path is not None:
            content, widths[place] = content_of(name)
            check_content(str(name), content, contents[place] or content)
            contents[place] = content
    return {"teacher.content": tuple(contents), "teacher.widths": tuple(widths)}


def check_content(name: str, found: str, expected: str) -> None:
    """ConfigError unless a teacher is the one that a configuration was made for."""
    if found != expected:
        raise ConfigError(
            f"teacher {name!r} is {found[:40]}, and the configuration was made for "
            f"{expected[:40]}: its content has changed since"
        )


def content_of(name: TeacherName) -> tuple[str, int]:
    """What identifies a teacher's files, and the dimension of its embeddings.

    `export SHA` or `ViT-B-32 SHA`.  Raises ConfigError when they cannot be read.
    """
    path = home_path(str(name.path))
    if name.architecture is None:
        config, weights = export_files(path)
        both = hashlib.sha256(f"{_hashed(config)}{_hashed(weights)}".encode()).hexdigest()
        return f"export {both}", _width(config, "model_cfg")
    width = _width(_described(name.architecture))
    return f"{name.architecture} {_hashed(path)}", width


def export_files(folder: Path) -> tuple[Path, Path]:
    """The description and the weights in an export's folder; ConfigError where they are not."""
    config = folder / CONFIG
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if not config.is_file() or len(weights) != 1:
        held = "no" if not config.is_file() else "a"
        raise ConfigError(
            f"teacher {str(folder)!r} is no export: it holds {held} {CONFIG} and "
            f"{len(weights)} files of weights; python -m harness.export KEY --out DIR writes one"
        )
    return config, weights[0]


def _hashed(file: Path) -> str:
    try:
        return sha256_once(file)
    except OSError as error:
        raise ConfigError(f"teacher {str(file)!r} cannot be read: {error.strerror}") from error


def _described(architecture: str) -> Path:
    """open_clip's file about an architecture; ConfigError naming the nearest."""
    spec = find_spec("open_clip")
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    known = {f.stem: f for place in places for f in Path(place, "model_configs").glob("*.json")}
    if architecture not in known:
        raise ConfigError(unknown("open_clip architecture", architecture, known))
    return known[architecture]


def _width(file: Path, section: str | None = None) -> int:
    try:
        tree = read_json(file)
    except RecordError as error:
        raise ConfigError(str(error)) from None
    found = tree if section is None or tree is None else tree.get(section)
    width = found.get("embed_dim") if isinstance(found, dict) else None
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise ConfigError(f"{file} tells no embed_dim")
    return width
