"""Published figures in the formats that people have them in; each answer worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.commands.report import main
from harness.report import external
from harness.report.external import ExternalError
from harness.report.external_import import Asked, Imported, import_file

PAPER = Asked("a paper, table 1")

DATACOMP = (
    '{"key": "vtab/caltech101", "dataset": "Caltech-101", "metrics": {"acc1": 0.81, '
    '"mean_per_class_recall": 0.9032, "main_metric": 0.9032}}\n'
    '{"key": "retrieval/flickr_1k_test_image_text_retrieval", "dataset": "Flickr", "metrics": '
    '{"image_retrieval_recall@1": 0.6594, "text_retrieval_recall@1": 0.8, "mean_recall@1": 0.7297, '
    '"main_metric": 0.7297}}\n'
    "\n"
    '{"key": "misc/winogavil", "dataset": "WinoGAViL", "metrics": {"acc1": null, '
    '"main_metric": null}}\n'
)
MARKDOWN = """# Results

Text with a | in it.

| Model | Pretraining data | ImageNet (%) | CIFAR-10 | Year |
|:------|------------------|-------------:|---------:|------|
| **CLIP** | YFCC15M | 62.8 ± 0.3 | *0.712*<sub>0.004</sub> | 2021 |
| [SLIP](https://example.org) | YFCC15M | **63.0%** | — | 2022 |
"""
LATEX = r"""
\begin{table}[t] \centering
\begin{tabular}{l@{}lcc}
\toprule
\multirow{2}{*}{Model} & & \multicolumn{2}{c}{Flickr30k} \\
\cmidrule(lr){3-4}
 & Training data & I$\to$T R@1 & T2I R@1 \\ % a comment & more
\midrule
\multicolumn{4}{l}{\textit{Zero-shot}} \\
CLIP~\citep{radford} & YFCC15M & \textbf{62.8} & 45.1$_{\pm 0.3}$ \\[2pt]
\multirow{2}{*}{SLIP} & YFCC15M & 62.8\% & -- \\
 & CC3M & \underline{61.0 $\pm$ 0.2} & 0.4 \\
\bottomrule
\end{tabular}
\end{table}
"""


def taken(
    content: str, name: str, tmp_path: Path, asked: Asked = PAPER
) -> dict[tuple[str, str, str], float]:
    """(model, data set, metric) -> value of what an import leaves on disk."""
    imported(content, name, tmp_path, asked)
    found = external.load(tmp_path / "external").figures
    return {(f.model, f.dataset, f.metric): f.value for f in found}


def imported(content: str | bytes, name: str, tmp_path: Path, asked: Asked = PAPER) -> Imported:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return import_file(file, tmp_path / "external", asked)


def test_datacomps_json_lines(tmp_path: Path) -> None:
    asked = Asked("a paper", method="ViT-B-32, small")
    found = taken(DATACOMP, "eval_results.jsonl", tmp_path, asked)
    model = "ViT-B-32, small"
    assert found == {
        (model, "caltech101", "acc1"): 0.81,
        (model, "caltech101", "mean_per_class_recall"): 0.9032,
        (model, "flickr30k", "image_retrieval_recall@1"): 0.6594,
        (model, "flickr30k", "text_retrieval_recall@1"): 0.8,
        (model, "flickr30k", "mean_recall@1"): 0.7297,
    }, "the main metric stands once, by its own name"


def test_a_file_that_names_no_model_asks_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "eval_results.jsonl"
    file.write_text(DATACOMP)
    words = ["import", str(file), "--source", "a paper", "--root", str(tmp_path)]
    assert main(words) == 2
    assert "no model is named; --method NAME" in capsys.readouterr().err
    assert main([*words, "--method", "small"]) == 0


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ('{"method":"A","dataset":"cifar10","metric":"acc1","value":0.5}', "own.json"),
        (
            '{"method":"A","dataset":"cifar10","metric":"acc1","value":0.5}\n'
            '{"method":"B","dataset":"cifar10","metric":"acc1","value":"60%"}\n',
            "own.jsonl",
        ),
        ('[{"Model":"A","CIFAR-10 acc1":0.5}]', "wide.json"),
        ("Model;CIFAR-10 top-1\nA;0,5\n", "semicolons.csv"),
        ("Model\tCIFAR10 Acc (%)\nA\t50\n", "tabs.tsv"),
        ("model,dataset,acc1\nA,cifar10,50.0%\n", "long.csv"),
        ("Method,Test set,Metric,Score\nA,CIFAR-10,acc1,.5\n", "named.csv"),
        ("\ufeffModel;CIFAR-10 (Top-1)\r\nA;50 %\r\n", "excel.csv"),
        ("Model | CIFAR-10 acc1\n--- | ---\nA | `0.5`\n", "bare.md"),
        (r"\begin{tabular}{lc} Model & CIFAR-10 acc1 \\ \hline A & 50\% \\ \hline \end{tabular}",
         "short.tex"),
        (r"\begin{longtable}{lc} Model & CIFAR-10 acc1 \\ A & $0.5$ \\ \end{longtable}", "l.tex"),
    ],
)  # fmt: skip
def test_half_on_cifar10_in_whatever_form(content: str, name: str, tmp_path: Path) -> None:
    found = taken(content, name, tmp_path)
    assert found[("A", "cifar10", "acc1")] == 0.5


def test_utf_16_as_spreadsheets_save_it(tmp_path: Path) -> None:
    made = imported("Model\tCIFAR-10 acc1\nA\t0,5\n".encode("utf-16"), "u.txt", tmp_path)
    assert [(f.method, f.value) for f in made.figures] == [("A", 0.5)]


@pytest.mark.parametrize(
    ("cell", "value", "spread"),
    [
        ("62.8%", 0.628, None),
        ("62.8 %", 0.628, None),
        ("62.8% ± 0.3", 0.628, "0.3"),
        ("62.8% ± 0.3%", 0.628, "0.3"),
        ("0.628 ± 0.003", 0.628, "0.003"),
        ("0.628 +/- 0.003", 0.628, "0.003"),
        ("0.628 (0.003)", 0.628, "0.003"),
        ("0.628 (±0.003)", 0.628, "0.003"),
        ("0,628", 0.628, None),
        ("0.628*", 0.628, None),
        ("0.628†", 0.628, None),
        ("6.28e-1", 0.628, None),
    ],
)
def test_numbers_as_they_are_printed(
    cell: str, value: float, spread: str | None, tmp_path: Path
) -> None:
    made = imported(f'Model;CIFAR-10 acc1\nA;"{cell}"\n', "one.csv", tmp_path)
    (figure,) = made.figures
    assert figure.value == value
    assert figure.protocol == (None if spread is None else f"± {spread} as printed")


@pytest.mark.parametrize("cell", ["", "-", "\N{EN DASH}", "\N{EM DASH}", "n/a", "NaN", "/"])
def test_a_dash_is_no_figure(cell: str, tmp_path: Path) -> None:
    content = f"Model,CIFAR-10 acc1,CIFAR-100 acc1\nA,{cell},0.5\n"
    assert list(taken(content, "one.csv", tmp_path)) == [("A", "cifar100", "acc1")]


@pytest.mark.parametrize("cell", ["about 5", "62.8 63.0", "0.5 ± x", "1.2.3"])
def test_what_is_no_number_is_named_with_its_place(cell: str, tmp_path: Path) -> None:
    with pytest.raises(ExternalError, match=r"one\.csv:2, CIFAR-10 acc1: value = .* is no number"):
        taken(f"Model;CIFAR-10 acc1\nA;{cell}\n", "one.csv", tmp_path)


def test_a_markdown_table_whose_columns_name_data_sets(tmp_path: Path) -> None:
    made = imported(MARKDOWN, "README.md", tmp_path, Asked("a paper", metric="acc1"))
    assert {(f.model, f.dataset, f.metric): (f.value, f.protocol) for f in made.figures} == {
        ("CLIP, YFCC15M", "imagenet1k", "acc1"): (0.628, "± 0.3 as printed"),
        ("CLIP, YFCC15M", "cifar10", "acc1"): (0.712, "± 0.004 as printed"),
        ("SLIP, YFCC15M", "imagenet1k", "acc1"): (0.63, None),
    }
    assert made.left_out == ["Year"]


def test_a_latex_table_with_two_rows_of_heads(tmp_path: Path) -> None:
    found = taken(LATEX, "table.tex", tmp_path, Asked("a paper", percent=True))
    text, image = "text_retrieval_recall@1", "image_retrieval_recall@1"
    assert found == {
        ("CLIP, YFCC15M", "flickr30k", text): 0.628,
        ("CLIP, YFCC15M", "flickr30k", image): 0.451,
        ("SLIP, YFCC15M", "flickr30k", text): 0.628,
        ("SLIP, CC3M", "flickr30k", text): 0.61,
        ("SLIP, CC3M", "flickr30k", image): 0.004,
    }


def test_a_mistake_in_a_latex_table_is_named_with_its_line(tmp_path: Path) -> None:
    content = LATEX.replace(r"62.8\%", "high")
    asked = Asked("a paper", percent=True)
    with pytest.raises(ExternalError, match=r"table\.tex:11, Flickr30k I->T R@1: value = 'high'"):
        taken(content, "table.tex", tmp_path, asked)


@pytest.mark.parametrize(
    ("column", "dataset", "metric"),
    [
        ("ImageNet", "imagenet1k", "unstated"),
        ("ImageNet-1K Top-1", "imagenet1k", "acc1"),
        ("ImageNet-V2 Acc@1", "imagenetv2", "acc1"),
        ("Food-101 / mean_per_class_recall", "food101", "mean_per_class_recall"),
        ("COCO T2I R@5", "mscoco", "image_retrieval_recall@5"),
        ("MSCOCO text-to-image Recall@10", "mscoco", "image_retrieval_recall@10"),
        ("Flickr30K TR@1", "flickr30k", "text_retrieval_recall@1"),
        ("I→T R@1 (Flickr30k)", "flickr30k", "text_retrieval_recall@1"),
        ("Flickr R@1", "flickr30k", "recall@1"),
    ],
)
def test_a_column_says_data_set_and_metric(
    column: str, dataset: str, metric: str, tmp_path: Path
) -> None:
    assert list(taken(f"Model;{column}\nA;0.5\n", "one.csv", tmp_path)) == [("A", dataset, metric)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("open_clip.csv", "name,pretrained,params (M),FLOPs (B),CIFAR-10\nA,x,1,2,62.8\n"),
        ("b.csv", "acc1,dataset,model,pretrained,task\n62.8,cifar10,A,x,zeroshot\n"),
        ("b.json", '{"dataset":"cifar10","model":"A","pretrained":"x","task":"z",'
                   '"metrics":{"acc1":62.8}}'),
        ("own.csv", "method,pretrain,dataset,metric,value\nA,x,cifar10,acc1,62.8\n"),
        ("wide.md", "|Model|Data|CIFAR-10 acc1|\n|-|-|-|\n|A|x|62.8|\n"),
        ("d.jsonl", '{"key":"cifar10","method":"A","pretrain":"x","dataset":"CIFAR-10",'
                    '"metrics":{"acc1":62.8}}\n'),
    ],
)  # fmt: skip
def test_percentages_are_one_option_for_every_format(
    name: str, content: str, tmp_path: Path
) -> None:
    with pytest.raises(ExternalError, match="--percent imports percentages"):
        taken(content, name, tmp_path, Asked("a paper", method="A, x"))
    found = taken(content, name, tmp_path, Asked("a paper", percent=True, method="A, x"))
    assert found == {("A, x", "cifar10", "acc1"): 0.628}


def test_two_files_of_one_name_are_both_kept(tmp_path: Path) -> None:
    first = imported("Model,CIFAR-10 acc1\nA,0.5\n", "a/results.csv", tmp_path)
    other = imported("Model,CIFAR-10 acc1\nB,0.6\n", "b/results.csv", tmp_path)
    assert [made.file.name for made in (first, other)] == ["results.csv", "results-2.csv"]
    third = imported("Model,CIFAR-10 acc1\nB,0.7\nC,0.6\n", "b/results.csv", tmp_path)
    assert third.file.name == "results-2.csv", "an import that is renewed takes its own place"
    values = {f.method: f.value for f in external.load(tmp_path / "external").figures}
    assert values == {"A": 0.5, "B": 0.7, "C": 0.6}


def test_a_name_that_is_given_is_replaced(tmp_path: Path) -> None:
    for model in "AB":
        file = tmp_path / f"{model}.csv"
        file.write_text(f"Model,CIFAR-10 acc1\n{model},0.5\n")
        import_file(file, tmp_path / "external", PAPER, name="mine")
    assert [f.method for f in external.load(tmp_path / "external").figures] == ["B"]


def test_a_table_of_nothing_known_lists_the_formats(tmp_path: Path) -> None:
    with pytest.raises(ExternalError, match="none of the files that can be imported"):
        imported("Model,Colour\nA,red\n", "t.csv", tmp_path)
    with pytest.raises(ExternalError, match=r"t\.json is not valid JSON"):
        imported('{"a": ', "t.json", tmp_path)
    with pytest.raises(ExternalError, match=r"t\.jsonl:2 is not valid JSON"):
        imported('{"a": 1}\n{"b": \n', "t.jsonl", tmp_path)
    with pytest.raises(ExternalError, match=r"t\.md:4: this row has not as many cells"):
        imported("|Model|CIFAR-10|\n|-|-|\n|A|0.5|\n|B|0.5|0.6|\n", "t.md", tmp_path)
