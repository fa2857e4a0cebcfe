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
    parse_assignments,
)
from harness.config.bases import BASES
from harness.errors import ConfigError

# Golden: a change here means that every finished run of every user is trained again.
GOLDEN = {"small": "ccd993bad375", "cc3m": "676db792baac", "yfcc15m": "fb0b4d2c25db"}
GOLDEN |= {"cc3m_open_clip": "a45154617ff0"}


@pytest.mark.parametrize("name", GOLDEN)
def test_keys_of_the_bases_are_pinned(name):
    assert BASES[name].run_key == GOLDEN[name]


def test_open_clip_s_cc3m_recipe_is_cc3m_but_for_what_theirs_does_otherwise():
    theirs = {"train.norm_batch": 128, "train.grad_clip": None, "train.beta2": 0.999}
    assert override(BASES["cc3m"], theirs).run_key == BASES["cc3m_open_clip"].run_key


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
        ({"train.norm_batch": 7}, r"^train\.norm_batch 7 does not divide batch_size"),
        ({"teacher.models": ["3"]}, r"^teacher\.models = \['3'\]: teacher '3' is not understood"),
        (
            {"objective.mlm.weight": 1, "objective.mlm.stages": [99]},
            r"^objective\.mlm\.stages = \[99\] names block 99",
        ),
        ({"model.text.heads": 7}, r"^model\.text\.width 512 is not divisible by heads 7"),
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("train.grad_clip=None", None),
        ("train.grad_clip=null", None),
        ("train.grad_clip=NONE", None),
        ("train.grad_clip=.5", 0.5),
        ("train.lr=.001", 0.001),
        ("train.lr=5.e-4", 0.0005),
        ("train.eps=1E-8", 1e-8),
        ("train.samples=60_000", 60_000),
        ("train.samples=6e4", 60_000),
        ("train.samples = 20", 20),
        ("evaluate.splits=test", ["test"]),
        ("evaluate.splits=test,validation", ["test", "validation"]),
        ("evaluate.splits=[test, validation]", ["test", "validation"]),
        ("evaluate.splits=('test',)", ["test"]),
        ("evaluate.splits=2017", ["2017"]),
        ("evaluate.splits=[2017, 007]", ["2017", "007"]),
        ("evaluate.templates=null", None),
        ('evaluate.templates=["a {c}, b", "{c}"]', ["a {c}, b", "{c}"]),
        ("data.crop_scale=0.5,1", [0.5, 1]),
        ("data.crop_scale=(.5, 1.)", [0.5, 1.0]),
        ("data.crop_scale=[0.5,1]", [0.5, 1]),
        ("data.path=2017", "2017"),
        ("data.path=1e3", "1e3"),
        ('data.path="None"', "None"),
        ("data.path=/x/y=z", "/x/y=z"),
        ("data.flip=True", True),
        ("data.flip=off", False),
        ("model.image.output_stride=8", 8),
        ("model.text.vocabulary=corpus", "corpus"),
        ("objective.mlm.stages=all", "all"),
        ('objective.mlm.stages="all"', "all"),
        ('model.text.vocabulary="corpus"', "corpus"),
        ("objective.mlm.stages=1", [1]),
        ("objective.mlm.stages=0,2", [0, 2]),
        ("objective.token.matching=top_k", "top_k"),
        ("runtime.validate_at=1_000,2000", [1000, 2000]),
        ("runtime.cache=none", None),
        (
            'evaluate.class_folders=[{"name": 2017, "path": "x"}]',
            [{"name": "2017", "path": "x"}],
        ),
    ],
)
def test_an_assignment_is_read_by_the_type_of_its_field(text, value):
    path, found = parse_assignment(text)
    assert found == value
    assert type(found) is type(value)
    if path.startswith("runtime."):
        override_runtime(Runtime(), {path.removeprefix("runtime."): found})
    else:
        override(RunConfig(), {path: found})


@pytest.mark.parametrize(
    ("texts", "line"),
    [
        (["train.samples", "20"], "write train.samples=20"),
        (["train.samples", "=", "20"], "write train.samples=20"),
        (["train.samples=", "20"], "write train.samples=20"),
        (["train.samples", "=20"], "write train.samples=20"),
        (["train.lr=1", "runtime.workers", "4"], "write runtime.workers=4"),
        (["train.samples=60,000"], "'60,000': an integer is wanted, such as train.samples=60000"),
        (["train.lr=fast"], "train.lr = 'fast': a number is wanted, such as train.lr=0.001"),
        (["train.lr=-inf"], "train.lr = '-inf': -inf is not a value a configuration can hold"),
        (["data.flip=maybe"], "true or false is wanted, such as data.flip=true"),
        (["runtime.compile=2"], "runtime.compile = '2': true or false is wanted"),
        (["data.crop_scale=1"], "data.crop_scale = '1': 2 values are wanted, written ...,..."),
        (["runtime.threads=two"], "runtime.threads = 'two': an integer is wanted"),
    ],
)
def test_an_assignment_that_cannot_be_read_says_how_to_write_it(texts, line):
    with pytest.raises(ConfigError) as error:
        parse_assignments(texts)
    assert line in str(error.value)


def test_an_empty_value_is_no_forgotten_one():
    texts = ["data.path=", "train.lr=1"]
    assert parse_assignments(texts) == ({"data.path": "", "train.lr": 1}, {})


def test_messages_about_the_runtime_keep_its_name():
    with pytest.raises(ConfigError, match=r"^runtime\.threads = 0: "):
        override_runtime(Runtime(), {"threads": 0})
    with pytest.raises(ConfigError, match=r"runtime\.workers is where a run happens"):
        override(RunConfig(), {"runtime.workers": 2})


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
