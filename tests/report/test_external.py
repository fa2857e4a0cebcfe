"""Published figures: taken in with their source or not at all, and shown beside our own."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest
from report_records import T2I, Records, fill, runs_by, sweep_of

from harness.commands.report import main
from harness.report import external
from harness.report.external import ExternalError
from harness.report.external_import import Asked, import_file
from harness.report.folder import build
from harness.store.evaluations import EvaluationDir, evaluations_root

pytestmark = pytest.mark.usefixtures("no_figures")

TRACKED = Path(__file__).parents[2] / "results" / "external"

OPEN_CLIP = (
    "name,pretrained,params (M),FLOPs (B),Average perf. on 35 datasets,ImageNet 1k,Caltech-101,"
    "Flickr image retr. R@1\n"
    "ViT-B-32,laion2b,151.28,14.78,0.5,0.6656,0.9032,0.6594\n"
    "RN50,yfcc15m,102.01,18.18,0.3,0.3274,,0.21\n"
)
CLIP_BENCHMARK = (
    "acc1,acc5,mean_per_class_recall,image_retrieval_recall@5,dataset,model,pretrained,task,"
    "language\n"
    "0.6656,0.8999,0.6657,,wds/imagenet1k,ViT-B-32,laion2b,zeroshot_classification,en\n"
    ",,,0.8826,wds/flickr30k,ViT-B-32,laion2b,zeroshot_retrieval,en\n"
)


def taken(file: Path, folder: Path, **words: object) -> dict[tuple[str, str, str], float]:
    """(model, data set, metric) -> value of what an import leaves on disk."""
    import_file(file, folder, Asked(**{"source": "a paper, table 1", **words}))
    found = external.load(folder).figures
    assert {figure.source for figure in found} == {words.get("source", "a paper, table 1")}
    return {(f.model, f.dataset, f.metric): f.value for f in found}


def written(tmp_path: Path, name: str, content: str) -> Path:
    file = tmp_path / name
    file.write_text(content)
    return file


def test_open_clips_table_by_hand(tmp_path: Path) -> None:
    folder = tmp_path / "external"

    found = taken(written(tmp_path, "table.csv", OPEN_CLIP), folder)

    assert found == {
        ("ViT-B-32, laion2b", "imagenet1k", "acc1"): 0.6656,
        ("ViT-B-32, laion2b", "caltech101", "mean_per_class_recall"): 0.9032,
        ("ViT-B-32, laion2b", "flickr30k", "image_retrieval_recall@1"): 0.6594,
        ("RN50, yfcc15m", "imagenet1k", "acc1"): 0.3274,
        ("RN50, yfcc15m", "flickr30k", "image_retrieval_recall@1"): 0.21,
    }, "an empty cell is no figure and their average is not taken over"
    sizes = {(f.method, f.params_m, f.gmacs) for f in external.load(folder).figures}
    assert sizes == {("ViT-B-32", 151.28, 7.39), ("RN50", 102.01, 9.09)}


def test_clip_benchmarks_csv_by_hand(tmp_path: Path) -> None:
    found = taken(written(tmp_path, "b.csv", CLIP_BENCHMARK), tmp_path / "external")

    model = "ViT-B-32, laion2b"
    assert found == {
        (model, "imagenet1k", "acc1"): 0.6656,
        (model, "imagenet1k", "acc5"): 0.8999,
        (model, "imagenet1k", "mean_per_class_recall"): 0.6657,
        (model, "flickr30k", "image_retrieval_recall@5"): 0.8826,
    }


@pytest.mark.parametrize("listed", [False, True])
def test_clip_benchmarks_json_by_hand(listed: bool, tmp_path: Path) -> None:
    entry = {
        "dataset": "cifar10", "model": "RN50", "pretrained": "openai", "language": "en",
        "task": "zeroshot_classification", "metrics": {"acc1": 0.7157, "acc5": None},
    }  # fmt: skip
    file = written(tmp_path, "b.json", json.dumps([entry] if listed else entry))

    found = taken(file, tmp_path / "external")

    assert found == {("RN50, openai", "cifar10", "acc1"): 0.7157}


def test_percentages_move_their_point_and_lose_no_digit(tmp_path: Path) -> None:
    file = written(tmp_path, "own.csv", "method,dataset,metric,value\nSLIP,cifar10,acc1,28.55\n")

    taken(file, tmp_path / "external", percent=True)

    rows = list(csv.DictReader((tmp_path / "external" / "own.csv").open()))
    assert [row["value"] for row in rows] == ["0.2855"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("table.csv", OPEN_CLIP),
        ("b.csv", CLIP_BENCHMARK),
        ("own.csv", "method,dataset,metric,value,source\nSLIP,cifar10,acc1,0.2855,\n"),
        ("b.json", '{"dataset": "d", "model": "m", "pretrained": "p", "task": "t", '
                   '"metrics": {"acc1": 0.5}}'),
    ],
)  # fmt: skip
def test_no_figure_comes_in_without_a_source(
    name: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, name, content)

    code = main(["import", str(file), "--root", str(tmp_path)])

    assert code == 2
    assert "--source ADDRESS" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("method,dataset,metric,value\nSLIP,cifar10,acc1,28.55\n", "--percent imports percentages"),
        ("method,dataset,metric,value\nSLIP,cifar10,acc1,nan\n", "value"),
        ("method,dataset,metric,value\nSLIP,cifar10,acc1\n", "not as many cells"),
        ("method,dataset,metric,value,sorce\nSLIP,cifar10,acc1,0.5,x\n", "nearest: source"),
        ("model,accuracy\nSLIP,0.5\n", "none of the files that can be imported"),
        ("method,dataset,metric,value\n", "none of the files|holds no figure"),
    ],
)
def test_what_is_no_figure_is_refused(content: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ExternalError, match=complaint):
        taken(written(tmp_path, "own.csv", content), tmp_path / "external")


def test_two_values_for_one_thing_are_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    head, folder = "method,dataset,metric,value\n", tmp_path / "external"
    taken(written(tmp_path, "one.csv", f"{head}SLIP,cifar10,acc1,0.5\n"), folder)

    with pytest.raises(ExternalError, match=r"gives 0\.6 for acc1 of SLIP on cifar10"):
        taken(written(tmp_path, "two.csv", f"{head}SLIP,cifar10,acc1,0.6\n"), folder)

    assert [file.name for file in folder.iterdir()] == ["one.csv"]


def test_the_tracked_figures_load_and_every_one_has_a_source() -> None:
    published = external.load(TRACKED)

    of_open_clip = {f.model for f in published.figures if "openclip_class" in f.source}
    assert len(of_open_clip) == 121
    assert all(figure.source for figure in published.figures)
    assert not [f for f in published.figures if f.method == "LightCLIP"], "nobody supplied any"


# ---- beside our own


def beside(records: Records, out: Path, figures: str) -> list[str]:
    """Lines of the report's section on published figures."""
    folder = records.store.root / "results" / "external"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "some.csv").write_text(f"method,dataset,metric,value,n,source\n{figures}")
    sweep = sweep_of({"model.text.layers": [1, 12]}, metrics=[T2I])
    runs, _ = runs_by(sweep)
    fill(records, runs)
    build(sweep, runs, records.store, out)
    text = (out / "report.md").read_text()
    return text.split("## Published figures\n")[1].split("\n## ")[0].splitlines()


def test_lightclips_place_is_empty_until_a_sourced_figure_is_supplied(
    records: Records, tmp_path: Path
) -> None:
    clip = "CLIP,openmoji,image_retrieval_recall@1,0.25,200,a paper\n"

    before = beside(records, tmp_path / "report", clip)
    light = "LightCLIP,openmoji,image_retrieval_recall@1,0.375,100,its authors\n"
    after = beside(records, tmp_path / "report", clip + light)

    empty = "| LightCLIP | \u2014 |  | no sourced figure has been supplied |"
    assert empty in before
    assert empty not in after
    supplied = next(line for line in after if line.startswith("| LightCLIP |"))
    assert supplied.startswith("| LightCLIP | 37.5 | trained on data not stated; 100 test items, ")
    assert "ours 200; protocol not stated | its authors |" in supplied
    ours = next(line for line in after if line.startswith("| ours: layers=12 |"))
    assert "40.2" in ours


def test_figures_on_other_data_stand_beside_nothing(records: Records, tmp_path: Path) -> None:
    lines = beside(records, tmp_path / "report", "CLIP,mscoco,image_retrieval_recall@1,0.3,,x y\n")

    assert not [line for line in lines if line.startswith("|")]
    assert any("No published figure is on the data of this sweep." in line for line in lines)


def test_an_outside_model_that_was_evaluated_here_stands_beside_the_runs(
    records: Records, tmp_path: Path
) -> None:
    told = {"value": 0.5, "n": 200, "chance": 0.1, "reason": None}
    found = {"openmoji/image_retrieval_recall@1": told, "openmoji/image_retrieval_mean_rank": told}
    entry = {"metrics": found, "protocol": {"precision": "fp32"}}
    folder = evaluations_root(records.store)
    model = {"kind": "checkpoint", "name": "ViT-B-32 w.pt"}
    EvaluationDir(folder / "abc").add(model, "e1", entry)
    EvaluationDir(folder / "def").add({"kind": "run", "name": "of a sweep"}, "e1", entry)

    lines = beside(records, tmp_path / "report", "CLIP,mscoco,image_retrieval_recall@1,0.3,,x y\n")

    (row,) = [line for line in lines if "evaluated by this harness" in line and "|" in line]
    assert row.startswith("| ViT-B-32 w.pt | 50.0 | trained on data not stated; protocol: that of ")
    assert row.endswith("| evaluated by this harness, results/evaluations/abc/result.json |")
    place = "results/evaluations/abc/result.json"
    manifest = json.loads((tmp_path / "report" / "manifest.json").read_text())
    digest = hashlib.sha256((records.store.root / place).read_bytes()).hexdigest()
    assert manifest["inputs"] == {place: digest}


def test_all_published_figures_as_one_page(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "external"
    import_file(written(tmp_path, "t.csv", OPEN_CLIP), folder, Asked("<b>docs</b> of open_clip"))

    code = main(["published", "--root", str(tmp_path)])
    page = (tmp_path / "reports" / "published" / "report.html").read_text()

    assert code == 0
    assert "5 figures of 2 models on 3 data sets" in page
    assert "&lt;b&gt;docs&lt;/b&gt; of open_clip" in page
    assert "<b>docs" not in page
    assert "66.56" in page
