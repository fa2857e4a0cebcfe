"""The command that draws what a run's token objective learnt."""

import pytest

from harness.commands.explain import main
from harness.config import Runtime, override
from harness.errors import DivergedError, InterruptedRun
from harness.files import read_json
from harness.run import execute
from harness.store.record import Store, write_result_file
from tests.conftest import draw, drawings, tiny_run, with_fingerprints

RUNTIME = Runtime(log_samples=16)
TOKENS = {"objective.token.weight": 0.5, "objective.token.dim": 8}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A configuration on 16 drawings to train on and 8 to test on, without the token term."""
    folder = tmp_path_factory.mktemp("shapes")
    rows = ["image,split,caption"]
    for i, (name, (png, colour, shape)) in enumerate(drawings(24).items()):
        (folder / name).write_bytes(png)
        rows.append(f"{name},{'train' if i < 16 else 'test'},a {colour} {shape}")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    values = {
        "model.image.backbone": "test_vit",
        "model.image.size": 64,
        "model.text.context_length": 12,
        "train.samples": 16,
    }
    return with_fingerprints(tiny_run(folder, **values), RUNTIME)


@pytest.fixture(scope="module")
def root(base, tmp_path_factory):
    """Holds a finished run with the token term and one without it."""
    root = tmp_path_factory.mktemp("root")
    execute(override(base, TOKENS), root, RUNTIME, label="tokens")
    execute(base, root, RUNTIME, label="plain")
    return root


@pytest.fixture
def key(base):
    return override(base, TOKENS).run_key


def refused(capsys, *argv):
    """The one line with which the command refuses `argv`."""
    capsys.readouterr()  # what making the run said before
    assert main([str(word) for word in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_a_test_picture_is_drawn_and_its_words_are_listed(root, key, capsys, tmp_path):
    out = tmp_path / "figure.png"
    assert main([key[:6], "--index", "1", "--root", str(root), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["1", "a"], ["2", "green"], ["3", "bar"]]
    assert all(" at (" in line for line in lines[:3])
    assert lines[3:] == [f"figure: {tmp_path}/figure.png, {tmp_path}/figure.svg"]
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "figure.svg").read_text()


def test_the_same_command_writes_the_same_bytes(root, key, tmp_path):
    for name in ("one", "two"):
        main([key, "--index", "2", "--root", str(root), "--out", str(tmp_path / name)])
    for ending in ("png", "svg"):
        one, two = (tmp_path / f"{name}.{ending}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_a_picture_of_ones_own_needs_neither_data_nor_out(root, key, capsys, tmp_path):
    picture = tmp_path / "my car.png"
    picture.write_bytes(draw("red", "square", 0))
    directory = Store(root).run_dir(key).path
    text = ["--text", "a red quokka"]
    assert main([str(directory), "--image", str(picture), *text, "--root", str(tmp_path)]) == 0
    assert "quokka" in capsys.readouterr().out
    (png, svg) = sorted((tmp_path / "reports" / "explain").iterdir())
    assert png.name.startswith(f"{key}-my_car-")
    assert svg.name == png.name.replace(".png", ".svg")
    main([key, "--image", str(picture), "--text", "a blue car", "--root", str(root)])
    (other,) = (root / "reports" / "explain").glob("*.png")
    assert other.name != png.name


def test_a_word_the_training_captions_lack_is_said_to_be_unseen(root, key, capsys, tmp_path):
    out = ["--root", str(root), "--out", str(tmp_path / "x")]
    main([key, "--index", "0", "--text", "a red quokka", *out])
    a, red, quokka, _ = capsys.readouterr().out.splitlines()
    assert "unseen" not in a + red
    assert quokka.endswith("unseen: no training caption has all its pieces")


def test_what_is_shown_is_what_trained(root, key, tmp_path, capsys):
    """Other token projections give other cosines, so they are the run's own that are read."""
    from harness.train.checkpoint import load_weights, save_training_only

    args = [key, "--index", "0", "--root", str(root), "--out", str(tmp_path / "x")]
    main(args)
    before = capsys.readouterr().out
    directory = Store(root).run_dir(key)
    result = read_json(directory.result_file)
    entry = result["training_modules"]
    weights = load_weights(directory.path, entry)
    assert set(weights) == {"tokens.image.weight", "tokens.text.weight"}
    turned = {**weights, "tokens.text.weight": -weights["tokens.text.weight"]}
    file, sha256 = save_training_only(directory.checkpoints, turned)
    new = {"file": f"checkpoints/{file.name}", "sha256": sha256}
    write_result_file(directory.result_file, {**result, "training_modules": new})
    main(args)
    write_result_file(directory.result_file, result)
    assert capsys.readouterr().out != before


# --------------------------------------------------------------------------- refused in one line


def test_a_run_without_the_token_term_says_which_runs_can(base, root, capsys):
    line = refused(capsys, base.run_key, "--index", "0", "--root", root)
    assert line == (
        f"error: run {base.run_key} was trained with objective.token.weight = 0 and has no word or "
        "patch tokens to show; runs with objective.token.weight > 0 have"
    )


def test_an_unfinished_run_says_how_far_it_came(base, tmp_path, capsys):
    config = override(base, TOKENS)
    asked = iter(range(9))
    with pytest.raises(InterruptedRun):
        execute(config, tmp_path, RUNTIME, label="x", stop=lambda: next(asked) == 1)
    line = refused(capsys, config.run_key, "--index", "0", "--root", tmp_path)
    assert line == (
        f"error: run {config.run_key} is interrupted at 8 of 16 samples; a finished run is wanted"
    )


def test_a_diverged_run_says_where(base, tmp_path, capsys):
    config = override(base, {**TOKENS, "train.lr": 1e30, "train.grad_clip": None})
    with pytest.raises(DivergedError):
        execute(config, tmp_path, RUNTIME, label="x")
    line = refused(capsys, config.run_key, "--index", "0", "--root", tmp_path)
    assert f"run {config.run_key} failed (diverged): " in line
    assert "at step" in line


def test_modules_that_are_not_the_results_are_refused(base, tmp_path, capsys):
    config = override(base, TOKENS)
    execute(config, tmp_path, RUNTIME, label="x")
    (file,) = Store(tmp_path).run_dir(config.run_key).checkpoints.glob("training-*")
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    line = refused(capsys, config.run_key, "--index", "0", "--root", tmp_path)
    assert line.endswith(f"{file.name} is not the checkpoint that its result names")


def test_a_run_that_kept_its_towers_alone_is_refused(base, tmp_path, capsys):
    config = override(base, TOKENS)
    execute(config, tmp_path, RUNTIME, label="x")
    file = Store(tmp_path).run_dir(config.run_key).result_file
    result = read_json(file)
    del result["training_modules"]
    write_result_file(file, result)
    line = refused(capsys, config.run_key, "--index", "0", "--root", tmp_path)
    assert "kept the towers alone" in line


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--index", "8"], "--index 8: split test of shapes"),
        (["--index", "-1"], "has pictures 0 to 7"),
        (["--index", "0", "--split", "tset"], "unknown split 'tset'; nearest: test"),
        (["--index", "0", "--text", " "], "the text ' ' has no word to match"),
        (["--index", "0", "--out", "x.pdf"], "--out x.pdf ends in .pdf; written are .png and .svg"),
        (["--image", "none.png", "--text", "a"], "No such file or directory: 'none.png'"),
        (["--image", "none.png"], "--image needs --text"),
        (["--image", "none.png", "--text", "a", "--split", "test"], "--split is for --index"),
        (["--image", "none.png", "--index", "0"], "not allowed with argument"),
        ([], "one of the arguments --image --index is required"),
        (["--index", "x"], "invalid int value: 'x'"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(root, key, capsys, argv, said):
    assert said in refused(capsys, key, "--root", root, *argv)


def test_a_file_that_is_no_picture_is_refused(root, key, capsys, tmp_path):
    (tmp_path / "page.png").write_bytes(b"<html>")
    image = ["--image", tmp_path / "page.png", "--text", "a"]
    assert "an HTML or XML page" in refused(capsys, key, "--root", root, *image)
