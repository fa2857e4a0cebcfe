"""The list of fields: each has a meaning, and what others call it leads to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.commands import main
from harness.config import ClassFolder, RunConfig, check_path, override
from harness.config.fields import DeclaredField
from harness.config.overrides import typed_fields
from harness.config.values import in_words
from harness.errors import ConfigError


def test_every_field_says_what_it_means() -> None:
    fields = typed_fields()
    items = [DeclaredField(ClassFolder, name) for name in ClassFolder.model_fields]
    assert [path for path, field in fields.items() if not field.meaning] == []
    assert [field.name for field in items if not field.meaning] == []


def test_no_name_elsewhere_leads_to_two_fields() -> None:
    aliases = [alias for field in typed_fields().values() for alias in field.aliases]
    assert sorted(set(aliases)) == sorted(aliases)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("learning_rate", "here it is train.lr: "),
        ("learning-rate", "here it is train.lr: "),
        ("train.learningRate", "here it is train.lr: "),
        ("epochs", "here it is train.samples: Pairs seen in all"),
        ("batch", "here it is train.batch_size: "),
        ("depth", "here it is model.text.layers: "),
        ("model.text.depth", "here it is model.text.layers: "),
        ("optimizer.wd", "here it is train.weight_decay: "),
        ("num_workers", "here it is runtime.workers: "),
        ("workers", "nearest: runtime.workers; "),
        ("runtime.lr", "nearest: "),
        ("layers", "nearest: model.text.layers; "),
        ("image_size", "here it is model.image.size: "),
        ("train.lrr", "nearest: train.lr"),
        ("objective.token.epsilon", "here it is objective.token.eps: `sinkhorn`: strength"),
        ("evaluate.epsilon", "here it is train.eps: "),
        ("token.eps", "nearest: objective.token.eps; "),
        ("objective.tokens.weight", "nearest: objective.token.weight"),
    ],
)
def test_an_unknown_field_leads_to_the_right_one(given: str, meant: str) -> None:
    with pytest.raises(ConfigError) as error:
        override(RunConfig(), {given: 1}) if not given.startswith("runtime.") else check_path(
            given.removeprefix("runtime."), RunConfig
        )
    assert meant in str(error.value)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("model.text.layers", "integer from 1 to 48"),
        ("train.lr", "number above 0"),
        ("train.grad_clip", "number above 0 or null"),
        ("train.norm_batch", "integer from 2 or null"),
        ("data.decode", "full | scaled"),
        ("model.image.output_stride", "8 | 16 | 32 or null"),
        ("evaluate.splits", "list of text"),
        ("data.crop_scale", "2 of number"),
        ("data.flip", "true | false"),
        ("data.path", "text or null"),
        ("objective.mlm.stages", "all | first | middle | last or list of integer"),
    ],
)
def test_what_a_field_takes_in_words(path: str, words: str) -> None:
    field = typed_fields()[path]
    assert in_words(field.annotation, field.metadata) == words


def test_a_field_is_told_with_type_default_base_and_meaning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fields", "train.lr", "--base", "cc3m"]) == 0
    assert main(["fields", "Train.Batch*", "--base", "cc3m"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "train.lr = 0.001",
        "    number above 0",
        "    Highest learning rate of AdamW: at the end of the warm-up, from where it falls along"
        " half a",
    ]
    assert "train.batch_size = 128; cc3m: 1024" in lines
    assert "    elsewhere: learning_rate, base_lr, peak_lr, max_lr" in lines


def test_a_name_elsewhere_a_meaning_and_what_is_in_a_list_are_found(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for pattern, found in [
        ("accum_freq", "runtime.micro_batch = null"),
        ("ghost batch", "train.norm_batch = null"),
        ("class_folders", "    .templates: list of text"),
        ("data.source", "    text: folder | openmoji | shards | stream"),
    ]:
        assert main(["fields", pattern]) == 0
        assert found in capsys.readouterr().out.splitlines()


def test_a_pattern_of_names_lists_what_is_called_so_and_no_field_that_mentions_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fields", "Train.*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split(".")[0] for line in lines if not line.startswith(" ")} == {"train"}
    assert any(line.startswith("train.lr = ") for line in lines)


def test_a_pattern_that_nothing_matches_names_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fields", "weigth_decay"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "nearest: train.weight_decay" in told.err


def test_options_of_what_a_sweep_file_registers_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:

    file = tmp_path / "listed.py"
    file.write_text(
        '''"""Is a hinge enough?"""
from harness.bases import SMALL
from harness.config import TERMS, Float, override
from harness.objectives.terms import Term
from harness.space import Show, Sweep, points


@TERMS.register("listed_hinge")
class ListedHinge(Term):
    margin: Float = 0.25
    """How far apart they shall be.  Elsewhere: hinge_margin."""

    def loss(self, step, outputs, module):
        return step.logit_scale


SWEEP = Sweep(base=SMALL, points=points({}), show=Show(x="train.lr", metrics=["*/mean_recall"]))
'''
    )
    assert main(["fields", "hinge_margin", "--sweep", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "objective.listed_hinge.margin = 0.25",
        "    number",
        "    How far apart they shall be.",
        "    elsewhere: hinge_margin",
    ]
