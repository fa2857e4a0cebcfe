import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from harness.config import (
    RunConfig,
    Runtime,
    Strict,
    Train,
    canonical_json,
    check_processes,
    content_key,
    override,
    override_runtime,
    parse_assignment,
)
from harness.config.bases import BASES
from harness.errors import ConfigError

# Golden: a change here means that every finished run of every user is trained again.
GOLDEN = {"small": "ccd993bad375", "cc3m": "676db792baac", "yfcc15m": "fb0b4d2c25db"}


@pytest.mark.parametrize("name", GOLDEN)
def test_keys_of_the_bases_are_pinned(name):
    assert BASES[name].run_key == GOLDEN[name]


def test_key_is_sha256_of_the_canonical_json():
    assert canonical_json({"b": (2.0, "x"), "a": 1}) == '{"a":1,"b":[2,"x"]}'
    # printf '{"a":1,"b":[2,"x"]}' | sha256sum
    assert content_key({"b": (2.0, "x"), "a": 1}) == "454597f51f0e"


@given(st.integers(-(10**9), 10**9))
def test_1_and_1_0_are_one_value(n):
    assert canonical_json({"x": n}) == canonical_json({"x": float(n)})


def test_nan_is_no_value():
    with pytest.raises(ConfigError, match=r"train\.lr = nan: .*finite"):
        override(RunConfig(), {"train.lr": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_order_of_overrides_does_not_matter():
    a = override(RunConfig(), {"train.lr": 0.1, "seed": 3})
    assert a.run_key == override(RunConfig(), {"seed": 3, "train.lr": 0.1}).run_key


@pytest.mark.parametrize(
    ("path", "value"),
    [("model.text.layers", 3), ("objective.instance.a_max", 0.2), ("seed", 1), ("data.flip", True)],
)
def test_what_changes_the_weights_changes_the_key(path, value):
    assert override(RunConfig(), {path: value}).run_key != RunConfig().run_key


@pytest.mark.parametrize(
    ("path", "value"),
    [("data.path", "/elsewhere"), ("evaluate.templates", ("a {c}",)), ("evaluate.batch_size", 7)],
)
def test_places_and_the_protocol_do_not_retrain(path, value):
    assert override(RunConfig(), {path: value}).run_key == RunConfig().run_key


def test_the_protocol_has_a_key_of_its_own_without_paths():
    folder = {"name": "cifar", "path": "/a", "fingerprint": "f"}
    moved = {**folder, "path": "/b"}
    with_folder = override(RunConfig(), {"evaluate.class_folders": [folder]})
    assert with_folder.evaluation_key != RunConfig().evaluation_key
    assert (
        with_folder.evaluation_key
        == override(RunConfig(), {"evaluate.class_folders": [moved]}).evaluation_key
    )


def test_a_field_added_later_keeps_old_keys_while_it_holds_the_value_it_was_born_with():
    class Before(Strict):
        a: int = 1

    class After(Strict):
        a: int = 1
        b: float = Field(default=0.5, json_schema_extra={"born": 0.0})

    assert content_key(After(b=0.0)) == content_key(Before())
    assert content_key(After()) != content_key(Before())  # the default has moved since


@pytest.mark.parametrize(
    ("values", "idle"),
    [
        ({}, {"objective.instance.weighting": "text", "objective.instance.tau": 1.0}),
        ({}, {"objective.token.matching": "sinkhorn", "objective.mlm.mask_ratio": 0.5}),
        ({"objective.instance.a_max": 0.1}, {"objective.instance.steps": 9}),
        (
            {"objective.mlm.weight": 1.0, "objective.mlm.operator": "none"},
            {"objective.mlm.stages": "last"},
        ),
        (
            {"objective.token.weight": 1.0},
            {"objective.token.keep": 0.9, "objective.token.eps": 1.0},
        ),
    ],
)
def test_what_cannot_change_the_run_does_not_change_its_key(values, idle):
    config = override(RunConfig(), values)
    assert override(config, idle).run_key == config.run_key


@pytest.mark.parametrize(
    ("values", "used"),
    [
        ({"objective.instance.a_max": 0.1}, {"objective.instance.tau": 1.0}),
        (
            {"objective.instance.a_max": 0.1, "objective.instance.schedule": "step"},
            {"objective.instance.steps": 9},
        ),
        ({"objective.mlm.weight": 1.0}, {"objective.mlm.stages": "last"}),
        ({"objective.token.weight": 1.0}, {"objective.token.tau": 0.5}),
        (
            {"objective.token.weight": 1.0, "objective.token.matching": "top_k"},
            {"objective.token.keep": 0.9},
        ),
    ],
)
def test_what_can_does(values, used):
    config = override(RunConfig(), values)
    assert override(config, used).run_key != config.run_key


def test_config_survives_json():
    config = override(RunConfig(), {"evaluate.templates": ["a {c}", "the {c}"]})
    again = RunConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert again == config
    assert again.run_key == config.run_key


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"model.text.layer": 3}, "unknown field 'model.text.layer'; nearest: model.text.layers"),
        ({"model.text": 3}, "'model.text' is a section, not a field; its fields: model.text.lay"),
        ({"model.text.layers": "four"}, "model.text.layers = 'four': an integer is wanted"),
        ({"model.text.layers": 2.5}, "model.text.layers = 2.5: an integer is wanted"),
        ({"model.text.layers": True}, "model.text.layers = True: an integer is wanted"),
        ({"model.text.layers": 0}, "model.text.layers = 0: .*greater than or equal to 1"),
        ({"model.text.heads": 7}, "model.text: width 512 is not divisible by heads 7"),
        ({"objective.instance.a_max": 1}, "objective.instance.a_max = 1: .*less than 1"),
        ({"objective.instance.schedule": "x"}, "schedule = 'x': .*'constant', 'linear'"),
        ({"objective.instance.weight": 0}, "every term of the loss has weight 0"),
        ({"evaluate.templates": ["photo"]}, "template 'photo' has no {c} for the class name"),
        ({"data.crop_scale": [0.9, 0.2]}, "0 < low <= high <= 1"),
        ({"evaluate.splits": []}, "neither a split nor a class folder to evaluate"),
    ],
)
def test_bad_values_are_one_line_that_teaches(values, line):
    with pytest.raises(ConfigError, match=line) as error:
        override(RunConfig(), values)
    assert "\n" not in str(error.value)


def test_runtime_is_checked_the_same_way():
    assert override_runtime(Runtime(), {"threads": 2}).threads == 2
    with pytest.raises(ConfigError, match=r"field 'runtime\.thread'; nearest: runtime\.threads"):
        override_runtime(Runtime(), {"thread": 2})


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a.b=3", ("a.b", 3)),
        ("a.b=3e-4", ("a.b", 3e-4)),
        ("a=null", ("a", None)),
        ("a=true", ("a", True)),
        ('a=["x","y"]', ("a", ["x", "y"])),
        ("a=resnet18", ("a", "resnet18")),
        ("a=/x/y=z", ("a", "/x/y=z")),
    ],
)
def test_assignments_are_json_or_text(text, parsed):
    assert parse_assignment(text) == parsed


@pytest.mark.parametrize("text", ["a", "=3", "a=NaN", "a=Infinity"])
def test_assignments_that_are_none(text):
    with pytest.raises(ConfigError):
        parse_assignment(text)


@pytest.mark.parametrize(
    ("train", "runtime", "words"),
    [
        ({"batch_size": 128}, {"processes": 3}, r"processes = 3 .* = 128; nearest that do: 2, 4$"),
        (
            {"batch_size": 128, "norm_batch": 32},
            {"processes": 8},
            r"holds 4 times train\.norm_batch = 32, .* = 8 does not divide; nearest that do: 4$",
        ),
        ({"batch_size": 8, "norm_batch": 4}, {"micro_batch": 2}, r"leave micro_batch out$"),
    ],
)
def test_a_batch_that_cannot_be_shared_out_is_refused(train, runtime, words):
    with pytest.raises(ConfigError, match=words):
        check_processes(Train(**train), Runtime(**runtime))


def test_the_number_of_processes_is_not_identity_and_the_norm_batch_is():
    assert RunConfig(train=Train(norm_batch=None)).run_key == RunConfig().run_key
    assert RunConfig(train=Train(norm_batch=64)).run_key != RunConfig().run_key
