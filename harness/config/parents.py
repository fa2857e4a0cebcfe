"""The finished runs that a run begins with or imitates, filled into its configuration.

A parent is named by its key, or is made like the run but for its depth: then it belongs to the
sweep without being a point of it.  Pure: the configuration of a finished run is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from harness.config.inheritance import TeacherName, read_inheritance, read_teacher
from harness.config.overrides import override
from harness.config.schema import RunConfig
from harness.errors import ConfigError, SweepError

LAYERS = "model.text.layers"
_INIT_FIELDS = ("model.text.init", "model.text.init_parent", "model.text.init_blocks")
_TEACHER_FIELDS = ("teacher.content", "teacher.widths", "teacher.views")
_SAME_TEXT = (
    "model.text.vocabulary",
    "model.text.width",
    "model.text.heads",
    "model.text.context_length",
    "model.embed_dim",
)
_RUN = "run "

Finished = Callable[[str], RunConfig]
"""The configuration of the finished run whose key begins so."""


def parent_keys(config: RunConfig, *, begins: bool) -> tuple[str, ...]:
    """Keys of the runs whose weights the training of a run needs, each once.

    Args:
        begins: that of the run it starts from too, which one that goes on has no more need of.
    """
    start = config.model.text.init_parent
    keys = [start] if begins and start is not None else []
    return tuple(dict.fromkeys([*keys, *_live_runs(config)]))


def _live_runs(config: RunConfig) -> Iterator[str]:
    teacher = config.teacher
    if "teacher" in config.idle() or teacher.views is not None:
        return
    for content in teacher.content or ():
        if content.startswith(_RUN):
            yield content.removeprefix(_RUN)


def check_filled_in(config: RunConfig) -> None:
    """ConfigError where a parent, or a teacher, was never filled in."""
    text, teacher = config.model.text, config.teacher
    if text.init is not None and text.init_parent is None:
        raise not_filled_in("model.text.init", text.init, "model.text.init_parent")
    if "teacher" not in config.idle() and not all(teacher.content or [""]):
        raise not_filled_in("teacher.models", list(teacher.models), "teacher.content")


def not_filled_in(field: str, value: object, missing: str) -> ConfigError:
    """What is said of a field that was given, and of another that goes with it and was not."""
    return ConfigError(
        f"{field} = {value!r} is without {missing}, which goes with it; a sweep fills it in, and "
        "so does harness.config.sweep.expand"
    )


def unlike_parents(config: RunConfig) -> dict[str, Any]:
    """What is set for a run that is the same but begins anew and imitates no run.

    Where no term of the loss would be left, that of the instances is.
    """
    taught = [n for n, term in config.objective.active.items() if term.needs_teacher]
    values: dict[str, Any] = dict.fromkeys((*_INIT_FIELDS, *_TEACHER_FIELDS)) | {
        "teacher.models": (),
        **{f"objective.{name}.weight": 0 for name in taught},
    }
    if len(taught) == len(config.objective.active):
        values["objective.instance.weight"] = 1
    return values


def points_own(path: str) -> bool:
    """Whether what a point sets is its own and not its parents'."""
    return path in _INIT_FIELDS or path.startswith("teacher.")


def with_parents(
    config: RunConfig, finished: Finished | None
) -> tuple[RunConfig, tuple[RunConfig, ...]]:
    """`config` with its parents filled in, and those of them that are to be made like it."""
    config, teachers = _with_teachers(config, finished)
    config, start = _with_start(config, finished)
    return config, tuple({run.run_key: run for run in (*start, *teachers)}.values())


def _with_start(config: RunConfig, finished: Finished | None) -> tuple[RunConfig, list[RunConfig]]:
    text = config.model.text
    if text.init is None:
        return config, []
    init = read_inheritance(text.init)
    if init.run is None:
        parent = _at_depth(config, init.layers)
    else:
        parent = _ask(finished, f"model.text.init = {text.init!r}")(init.run)
        _check_same_text(config, parent)
    blocks = init.blocks(text.layers, parent.model.text.layers)
    filled = {"model.text.init_parent": parent.run_key, "model.text.init_blocks": blocks}
    return override(config, filled), [parent] if init.run is None else []


def _with_teachers(
    config: RunConfig, finished: Finished | None
) -> tuple[RunConfig, list[RunConfig]]:
    """With the teachers that are runs; those that are files are filled in by who reads them."""
    teacher, made = config.teacher, []
    if "teacher" in config.idle():
        return config, []
    contents = list(teacher.content or [""] * len(teacher.models))
    widths = list(teacher.widths or [0] * len(teacher.models))
    for place, text in enumerate(teacher.models):
        name = read_teacher(text)
        if name.path is not None:
            continue
        run = _teacher_run(config, name, finished)
        made += [run] if name.run is None else []
        contents[place], widths[place] = f"{_RUN}{run.run_key}", run.model.embed_dim
    whole = all(contents)
    filled = {
        "teacher.content": tuple(contents) if whole else None,
        "teacher.widths": tuple(widths) if whole else None,
    }
    return override(config, filled), made


def _teacher_run(config: RunConfig, name: TeacherName, finished: Finished | None) -> RunConfig:
    if name.run is not None:
        return _ask(finished, f"teacher {str(name)!r}")(name.run)
    if all(term.needs_teacher for term in config.objective.active.values()):
        raise ConfigError(
            f"teacher {str(name)!r} is the same run without a teacher, and no term of its loss "
            "would be left; name a finished run, such as 'run KEY'"
        )
    return _at_depth(config, name.layers)


def _at_depth(config: RunConfig, layers: int | None) -> RunConfig:
    """The same run at another depth, from scratch and without a teacher."""
    return override(config, {**unlike_parents(config), LAYERS: layers})


def _ask(finished: Finished | None, what: str) -> Finished:
    if finished is None:
        raise SweepError(f"{what}: there is no store to look the run up in")
    return finished


def _check_same_text(config: RunConfig, parent: RunConfig) -> None:
    """ConfigError, listing what differs, unless the weights of the parent's text tower fit."""
    paths = [*_SAME_TEXT]
    if config.model.text.vocabulary == "corpus":
        paths.append("data.fingerprint")  # whose captions say what the rows of the table are
    differ = [
        f"{path} = {mine!r} here, {theirs!r} there"
        for path in paths
        if (mine := value_at(config, path)) != (theirs := value_at(parent, path))
    ]
    if differ:
        raise ConfigError(
            f"model.text.init = {config.model.text.init!r}: the text tower of run "
            f"{parent.run_key} does not fit: {'; '.join(differ)}"
        )


def value_at(config: RunConfig, path: str) -> Any:
    """The value of a dotted field of `config`."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value
