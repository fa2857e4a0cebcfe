"""Folders of pictures and captions: what is understood, what is refused and why."""

import io
import json
import multiprocessing
import pickle
import shutil
import zipfile

import pytest
from PIL import Image

from harness.data.collect import hashed_split
from harness.data.sources.folder import open_folder
from harness.errors import DataError


def png(value: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("L", (2, 2), value).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Three loose pictures in a folder called `birds`."""
    place = tmp_path / "birds"
    place.mkdir()
    for i, name in enumerate("abc"):
        (place / f"{name}.png").write_bytes(png(i))
    return place


def write(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder)


def pairs(data):
    return {
        name: dict(zip(split.images, split.captions, strict=True))
        for name, split in data.splits.items()
    }


def reasons(data):
    return [(problem.where, problem.reason) for problem in data.problems]


# ----------------------------------------------------------------- what is understood


def test_csv_with_several_captions_a_picture_and_splits(folder):
    data = open_folder(
        write(
            folder,
            "captions.csv",
            "image,split,caption\n"
            "b.png,train,a red bird\n"
            "a.png,train,a black  bird \n"
            'b.png,train,"a bird, in red"\n'
            "c.png,dev,a white bird\n",
        )
    )
    assert data.name == "birds"
    assert pairs(data) == {
        "train": {"a.png": ("a black bird",), "b.png": ("a red bird", "a bird, in red")},
        "validation": {"c.png": ("a white bird",)},
    }
    assert data.problems == ()
    assert data.indexed == 4
    assert data.read("b.png") == png(1)


@pytest.mark.parametrize(
    ("given", "split"),
    [("val", "validation"), ("VALID", "validation"), ("Test", "test"), ("extra", "extra")],
)
def test_names_of_splits(folder, given, split):
    data = open_folder(write(folder, "t.csv", f"image,caption,split\na.png,one,{given}\n"))
    assert list(data.splits) == [split]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "\ufefffilepath,title,split\na.png,a bird,train\n"),
        ("t.tsv", "image\tcaption\tsplit\na.png\ta bird\ttrain\n"),
        ("t.csv", "split|File_Name|TEXT\ntrain|a.png|a bird\n"),
        ("t.csv", "image;caption;split\r\na.png;a bird;train\r\n"),
        ("t.json", '[{"image": "a.png", "caption": "a bird", "split": "train"}]'),
        ("t.jsonl", '{"file_name": "a.png", "text": "a bird", "split": "train"}\n\n'),
        ("t.json", '{"images": [{"filename": "a.png", "split": "train",'
                   ' "sentences": [{"raw": "a bird"}]}]}'),
        ("train.csv", "image,caption\na.png,a bird\n"),
    ],
)  # fmt: skip
def test_tables_of_every_kind(folder, name, text):
    assert pairs(open_folder(write(folder, name, text))) == {"train": {"a.png": ("a bird",)}}


def test_json_with_a_list_of_captions(folder):
    text = '[{"image": "a.png", "captions": ["one", "two"], "split": "test"}]'
    assert pairs(open_folder(write(folder, "t.json", text))) == {"test": {"a.png": ("one", "two")}}


def test_karpathy_file_with_folder_and_name_apart(folder):
    (folder / "val2014").mkdir()
    (folder / "val2014" / "x.png").write_bytes(png())
    record = {"filepath": "val2014", "filename": "x.png", "split": "restval",
              "sentences": [{"raw": "a bird"}]}  # fmt: skip
    data = open_folder(write(folder, "dataset.json", json.dumps({"images": [record]})))
    assert pairs(data) == {"train": {"val2014/x.png": ("a bird",)}}
    assert "split 'restval' (1 captions) is read as train" in data.account.notes


def test_several_tables_named_after_splits(folder):
    write(folder, "train.csv", "image,caption\na.png,one\n")
    write(folder, "val.csv", "image,caption\nb.png,two\n")
    assert pairs(open_folder(str(folder))) == {
        "train": {"a.png": ("one",)},
        "validation": {"b.png": ("two",)},
    }


def test_path_may_be_the_table_itself(folder):
    write(folder, "other.csv", "image,caption,split\nb.png,not this,train\n")
    write(folder, "wanted.csv", "image,caption,split\na.png,this,train\n")
    data = open_folder(str(folder / "wanted.csv"))
    assert data.name == "wanted"
    assert pairs(data) == {"train": {"a.png": ("this",)}}


def zipped(path, **files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/") + ".png", content)


def test_pictures_in_a_zip_beside_the_table(tmp_path):
    zipped(tmp_path / "images-128.zip", a=png(1), inner__b=png(2))
    text = "image,caption,split\na.png,one,train\nb.png,two,train\n"
    data = open_folder(write(tmp_path, "captions.csv", text))
    assert pairs(data) == {"train": {"a.png": ("one",), "inner/b.png": ("two",)}}
    assert data.read("inner/b.png") == png(2)


def test_path_may_be_a_zip_with_everything(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("images/a.png", png(1))
        archive.writestr("__MACOSX/images/._a.png", b"litter")
        archive.writestr("captions.csv", "image,caption,split\na.png,one,train\n")
    data = open_folder(str(tmp_path / "all.zip"))
    assert data.name == "all"
    assert pairs(data) == {"train": {"images/a.png": ("one",)}}


def test_pictures_in_sub_folders_are_found_by_the_end_of_their_path(tmp_path):
    for place in ("images/one", "images/two"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "x.png").write_bytes(png())
    text = "image,caption,split\none/x.png,first,train\n/far/away/two/x.png,second,train\n"
    data = open_folder(write(tmp_path, "t.csv", text))
    assert pairs(data) == {"train": {"images/one/x.png": ("first",)}}
    assert reasons(data) == [("t.csv:3", "picture is ambiguous")]


def test_text_files_of_the_same_name_in_folders_named_after_splits(tmp_path):
    for place in ("train", "val"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "x.png").write_bytes(png())
        (tmp_path / place / "x.txt").write_text("one\n\ntwo\n")
    (tmp_path / "stray.png").write_bytes(png())
    data = open_folder(str(tmp_path))
    assert pairs(data) == {
        "train": {"train/x.png": ("one", "two")},
        "validation": {"val/x.png": ("one", "two")},
    }
    assert reasons(data) == [("stray.png", "outside of the folders named after splits")]


def test_without_splits_the_name_of_a_picture_decides(folder):
    for i in range(400):
        (folder / f"{i}.png").write_bytes(png())
        (folder / f"{i}.txt").write_text("a bird")
    data = open_folder(str(folder))
    sizes = {name: len(split) for name, split in data.splits.items()}
    # 400 pictures at 80 : 10 : 10; three standard deviations are 24, 18 and 18
    assert 296 <= sizes["train"] <= 344
    assert 22 <= sizes["validation"] <= 58
    assert 22 <= sizes["test"] <= 58
    # SHA-256 of "0.png" begins 0f25cc56a5248aca, which is 38 modulo 100; the others 87 and 92
    assert [hashed_split(f"{i}.png") for i in (0, 9, 2)] == ["train", "validation", "test"]
    assert "0.png" in data.splits["train"].images


# ----------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("lost.png,a bird,train", "picture is not there"),
        (",a bird,train", "no picture named"),
        ("t.csv,a bird,train", "not a picture by its suffix"),
        ("b.png,,train", "empty caption"),
        ("b.png,  \t ,train", "empty caption"),
        ("b.png,nan,train", "caption is the word 'nan', which stands for no caption"),
        ("b.png,a bird,", "empty split"),
        ("a.png,another,test", "picture is in splits train and test"),
        ("b.png,a bird, with a comma,train", "4 fields where the header has 3"),
        ("b.png,a bird", "2 fields where the header has 3"),
        (f"b.png,{'x' * 10_001},train", "caption of more than 10000 characters"),
    ],
)
def test_a_row_that_cannot_be_used_is_a_problem_with_its_line(folder, row, reason):
    data = open_folder(write(folder, "t.csv", f"image,caption,split\na.png,good,train\n{row}\n"))
    assert pairs(data) == {"train": {"a.png": ("good",)}}
    assert reasons(data) == [("t.csv:3", reason)]
    assert data.indexed == 2


def test_only_the_line_that_is_not_utf8_is_refused(folder):
    (folder / "t.csv").write_bytes(
        b"image,caption,split\na.png,caf\xe9,train\nb.png,caf\xc3\xa9,train\n"
    )
    data = open_folder(str(folder))
    assert pairs(data) == {"train": {"b.png": ("caf\u00e9",)}}
    assert reasons(data) == [("t.csv:2", "caption is not UTF-8")]


def test_an_unclosed_quote_is_a_problem_and_never_a_crash(folder):
    text = 'image,caption,split\na.png,good,train\nb.png,"open,train\n' + "c.png,x,train\n" * 12_000
    data = open_folder(write(folder, "t.csv", text))
    assert pairs(data) == {"train": {"a.png": ("good",), "c.png": ("x",)}}
    assert reasons(data) == [("t.csv:3", "a quote is opened and not closed")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"image": "b.png", "caption": null}', "caption is null"),
        ('{"image": "b.png", "caption": NaN}', "caption is not text"),
        ('{"image": "b.png", "caption": 3}', "caption is not text"),
        ('{"image": "b.png", "captions": []}', "caption is null"),
        ('{"image": 5, "caption": "x"}', "no picture named"),
        ('{"caption": "x"}', "no record with a picture and a caption"),
        ("[1, 2]", "no record with a picture and a caption"),
        ('{"image": ', "not JSON: Expecting value: line 1 column 11 (char 10)"),
    ],
)
def test_a_json_line_that_cannot_be_used(folder, line, reason):
    text = '{"image": "a.png", "caption": "good", "split": "train"}\n' + line + "\n"
    data = open_folder(write(folder, "t.jsonl", text))
    assert pairs(data) == {"train": {"a.png": ("good",)}}
    assert reasons(data) == [("t.jsonl:2", reason)]


def test_a_caption_two_people_wrote_is_no_duplicate_row(folder):
    text = "image,number,caption,split\na.png,0,a bird,test\na.png,1,a bird,test\n"
    data = open_folder(write(folder, "t.csv", text))
    assert pairs(data) == {"test": {"a.png": ("a bird", "a bird")}}
    assert data.problems == ()


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("t.csv", "a.png,one,train"),
        ("t.tsv", "a.png\tone\ttrain"),
        ("t.jsonl", '{"image": "a.png", "caption": "one", "split": "train"}'),
    ],
)
def test_a_row_that_is_there_twice_is_left_out_once_and_is_no_fault(folder, name, row):
    head = {"t.csv": "image,caption,split", "t.tsv": "image\tcaption\tsplit"}.get(name, "")
    data = open_folder(write(folder, name, "\n".join([head, row, row, row]).lstrip()))
    assert pairs(data) == {"train": {"a.png": ("one",)}}
    assert (data.problems, data.indexed) == ((), 1)
    assert "2 rows repeat others and are left out" in data.account.notes
    assert [(f.rows, f.used, f.reason) for f in data.account.files] == [(3, 1, "2 repeated")]


def test_text_files_that_cannot_be_used(folder):
    (folder / "a.txt").write_text("good")
    (folder / "b.txt").write_text(" \n")
    data = open_folder(str(folder))
    assert [list(split.images) for split in data.splits.values()] == [["a.png"]]
    assert reasons(data) == [
        ("b.txt", "empty caption"),
        ("c.png", "no .txt file of the same name"),
    ]


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"no data at .*/nowhere"):
        open_folder(str(tmp_path / "nowhere"))


def test_an_empty_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match="no picture was found; wanted: a CSV or JSON") as error:
        open_folder(str(tmp_path))
    assert "\n" not in str(error.value)


def test_only_broken_rows_are_summed_up_by_reason(folder):
    text = "image,caption\nx.png,one\ny.png,two\na.png,\n"
    with pytest.raises(DataError, match="2 x picture is not there; 1 x empty caption"):
        open_folder(write(folder, "t.csv", text))


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("t.csv", "picture,words\na.png,one\n", r"begins with 'picture,words', not with a header"),
        ("t.csv", "", "begins with ''"),
        ("t.json", "{", "is not JSON"),
        ("t.json", '{"a": 1}', "neither a list of records"),
        ("t.json", '[{"id": 1}]', "no record that names a picture and a caption"),
    ],
)
def test_a_table_without_its_columns_is_named(folder, name, text, reason):
    write(folder, name, text)
    with pytest.raises(DataError, match=reason):
        open_folder(str(folder / name))
    with pytest.raises(DataError, match=reason):
        open_folder(str(folder))


def test_a_broken_zip_is_named(folder):
    (folder / "images.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"cannot read .*images\.zip as a zip"):
        open_folder(str(folder))


# ----------------------------------------------------------------- identity and reading


@pytest.fixture
def tabled(folder):
    write(folder, "t.csv", "image,caption,split\na.png,one,train\nb.png,two,test\n")
    return folder


def test_fingerprint_stays_when_the_folder_moves_or_rows_change_places(tabled, tmp_path):
    before = prints_of(tabled)
    moved = tmp_path / "elsewhere"
    shutil.copytree(tabled, moved)
    write(moved, "t.csv", "image,caption,split\nb.png,two,test\na.png,one,train\n")
    assert prints_of(moved) == before


def prints_of(folder):
    data = open_folder(str(folder))
    return data.fingerprint, data.evaluation_fingerprint


@pytest.mark.parametrize(
    ("name", "content", "half"),
    [
        ("t.csv", b"image,caption,split\na.png,One,train\nb.png,two,test\n", "trained"),
        ("t.csv", b"image,caption,split\na.png,one,train\nb.png,Two,test\n", "evaluated"),
        ("t.csv", b"image,caption,split\na.png,one,train\nb.png,two,dev\n", "evaluated"),
        ("t.csv", b"image,caption,split\na.png,one,train\nc.png,two,test\n", "evaluated"),
        ("a.png", png() + b"longer", "trained"),
        ("b.png", png() + b"longer", "evaluated"),
    ],
)
def test_fingerprints_follow_captions_splits_names_and_sizes_of_their_half(
    tabled, name, content, half
):
    trained, evaluated = prints_of(tabled)
    (tabled / name).write_bytes(content)
    now = prints_of(tabled)
    assert (now[0] != trained, now[1] != evaluated) == (half == "trained", half == "evaluated")


def test_fingerprint_follows_the_checksum_inside_a_zip(tmp_path):
    write(tmp_path, "t.csv", "image,caption,split\na.png,one,train\n")
    prints = set()
    for content in (b"12345", b"12346"):
        zipped(tmp_path / "i.zip", a=content)
        prints.add(open_folder(str(tmp_path)).fingerprint)
    assert len(prints) == 2


@pytest.fixture
def from_zip(tmp_path):
    zipped(tmp_path / "i.zip", a=png(1), b=png(2))
    return open_folder(
        write(tmp_path, "t.csv", "image,caption,split\na.png,1,train\nb.png,2,test\n")
    )


def test_a_pickled_data_set_reads_the_same(from_zip):
    from_zip.read("a.png")
    assert pickle.loads(pickle.dumps(from_zip)).read("b.png") == png(2)  # noqa: S301 - our own bytes


def _read_into(data, queue):
    queue.put([data.read(name) for _ in range(20) for name in ("a.png", "b.png")])


def test_forked_processes_read_from_an_opened_zip(from_zip):
    from_zip.read("a.png")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_read_into, args=(from_zip, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    read = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert read == [[png(1), png(2)] * 20] * 3


def test_a_lost_picture_is_an_error_when_it_is_read(tabled):
    data = open_folder(str(tabled))
    (tabled / "a.png").unlink()
    with pytest.raises(OSError, match=r"a\.png"):
        data.read("a.png")
    with pytest.raises(KeyError):
        data.read("never.png")


def test_a_picture_damaged_in_its_zip_is_an_error_when_it_is_read(from_zip, tmp_path):
    whole = (tmp_path / "i.zip").read_bytes()
    place = whole.index(b"IDAT")
    (tmp_path / "i.zip").write_bytes(whole[:place] + b"XXXX" + whole[place + 4 :])
    with pytest.raises(OSError, match=r"damaged in i\.zip"):
        from_zip.read("a.png")


@pytest.mark.parametrize(
    ("cells", "captions", "note"),
    [
        (("\"['one', 'two']\"", "\"['three']\""), [("one", "two"), ("three",)], "3 in 2 rows"),
        (('"[""one"", ""it\'s""]"', "\"['three']\""), [("one", "it's"), ("three",)], "3 in 2 rows"),
        (("\"['one', 'two']\"", "three"), [("['one', 'two']",), ("three",)], "1 captions of t.csv"),
        (("[1]", "[sic] a dog"), [("[1]",), ("[sic] a dog",)], None),
    ],
)
def test_captions_written_as_lists_are_several_or_told(folder, cells, captions, note):
    table = "image,caption,split\n" + "".join(
        f"{image}.png,{cell},train\n" for image, cell in zip("ab", cells, strict=True)
    )
    data = open_folder(write(folder, "t.csv", table))
    assert list(data.splits["train"].captions) == captions
    assert [line for line in data.account.notes if "list" in line] == [
        line for line in data.account.notes if note is not None and note in line
    ]
    assert any("list" in line for line in data.account.notes) == (note is not None)


def test_texts_beside_pictures_that_hold_lists_are_several_captions(folder):
    for name in "abc":
        write(folder, f"{name}.txt", f"['{name} dog', 'two {name}s']")
    data = open_folder(str(folder), unsplit="train")
    assert data.splits["train"].captions[0] == ("a dog", "two as")
