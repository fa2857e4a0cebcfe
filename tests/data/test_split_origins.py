"""How each split came about: by columns, names and folders; what is not pooled in silence."""

import json

import pytest

from harness.data.account import RefusedData
from harness.data.sources.folder import open_folder
from harness.data.sources.shards import open_shards
from harness.data.split_names import split_in
from tests.data.shardfiles import pair, write_tar


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("coco_karpathy_train.json", "train"),
        ("captions_val2017.json", "validation"),
        ("Train_GCC-training_output.csv", "train"),
        ("Validation_GCC-1.1.0-Validation_output.csv", "validation"),
        ("cc3m-train-0000.tar", "train"),
        ("test-00000-of-00002-abc.parquet", "test"),
        ("dev.csv", "validation"),
        ("flickr30k_test_karpathy.txt", "test"),
        ("test_1k", "test"),
        ("restval", "train"),
        ("captions.csv", None),
        ("latest.csv", None),
        ("trainers.csv", None),
        ("contest2017.csv", None),
        ("train_and_test.csv", None),
    ],
)
def test_the_split_that_a_name_says(name, split):
    assert split_in(name) == split


def put(folder, **files):
    """Files of these texts, `__` for a slash and a `.csv` for one without a dot."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ("" if "." in name else ".csv"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


def pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def table(*names, words="a dog at", head="image,caption"):
    return "\n".join([head, *(f"{name},{words} {name}" for name in names)])


def sizes(data):
    return {name: len(split) for name, split in data.splits.items()}


@pytest.fixture
def six(tmp_path):
    """Six pictures, a.jpg to f.jpg."""
    pictures(tmp_path, *(f"{letter}.jpg" for letter in "abcdef"))
    return tmp_path


# ----------------------------------------------------------------- named


@pytest.mark.parametrize(
    ("train", "test", "origin"),
    [
        ("train", "test", "the name of train.csv"),
        ("captions_train2017", "captions_test2017", "the name of captions_train2017.csv"),
        ("my-Training.v2", "my-Test.v2", "the name of my-Training.v2.csv"),
        ("train__metadata", "test__metadata", "the folder train"),
        ("lists__train_2014__all", "lists__test_2014__all", "the folder train_2014"),
    ],
)
def test_names_of_tables_and_of_their_folders(six, train, test, origin):
    for name, letters in ((train, "abcd"), (test, "ef")):
        path = six / (name.replace("__", "/") + ".csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(table(*(f"{letter}.jpg" for letter in letters)))
    data = open_folder(str(six))
    assert sizes(data) == {"train": 4, "test": 2}
    assert data.account.origins["train"] == origin
    assert data.problems == ()


@pytest.mark.parametrize("folders", [("train", "test"), ("train2014", "test2014"),
                                     ("images/train", "images/test")])  # fmt: skip
def test_folders_of_pictures_that_one_table_names(tmp_path, folders):
    train, test = folders
    pictures(tmp_path, f"{train}/a.jpg", f"{train}/b.jpg", f"{test}/c.jpg")
    text = table(f"{train}/a.jpg", "b.jpg", f"{test}/c.jpg")
    data = open_folder(put(tmp_path, captions=text))
    assert sizes(data) == {"train": 2, "test": 1}
    assert data.account.origins["train"] == f"the folder {train.rpartition('/')[2]}"


def test_what_a_table_names_goes_before_the_folders_of_pictures(tmp_path):
    pictures(tmp_path, "val2014/a.jpg", "train2014/b.jpg")
    data = open_folder(put(tmp_path, karpathy_train=table("val2014/a.jpg", "train2014/b.jpg")))
    assert sizes(data) == {"train": 2}


@pytest.mark.parametrize("column", ["split", "set", "Subset", "PARTITION"])
def test_columns_of_splits(six, column):
    text = f"image,caption,{column}\na.jpg,x,Train\nb.jpg,x,val2014\nc.jpg,x,test_1k\n"
    data = open_folder(put(six, t=text))
    assert sizes(data) == {"test": 1, "train": 1, "validation": 1}
    assert data.account.origins["train"] == f"its column or field {column.lower()}"
    assert "split 'test_1k' (1 captions) is read as test" in data.account.notes


def test_a_column_set_that_is_of_no_splits_is_not_one(six):
    text = "image,caption,set\n" + "".join(f"{x}.jpg,x,city {x}\n" for x in "abcdef")
    data = open_folder(put(six, t=text))
    assert set(data.splits) <= {"train", "validation", "test"}
    assert "column 'set' of t.csv names no splits: it is not read" in data.account.notes


def test_a_split_that_nobody_uses_is_told(six):
    text = "image,caption,split\na.jpg,x,train\nb.jpg,x,eval\nc.jpg,x,extra\n"
    notes = open_folder(put(six, t=text)).account.notes
    assert "there is no split test: metrics on it cannot be asked for" in notes
    for name in ("eval", "extra"):
        told = f"split {name!r} is neither trained on nor tested, unless evaluate.splits names it"
        assert told in notes


def test_a_split_that_is_made_up_is_told(six):
    notes = open_folder(put(six, t=table("a.jpg", "b.jpg"))).account.notes
    assert any(note.startswith("no split is named: pictures are split by") for note in notes)


# ----------------------------------------------------------------- several tables


def test_tables_of_the_same_columns_that_name_no_split_are_pooled_and_told(six):
    path = put(six, one=table("a.jpg", "b.jpg"), two=table("c.jpg", "d.jpg"))
    data = open_folder(path)
    assert sum(sizes(data).values()) == 4
    assert "2 tables that name no split are pooled: one.csv, two.csv" in data.account.notes


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"two": "image,caption,split\nc.jpg,x,test"}, "one.csv names no split, and two.csv does"),
        ({"test": table("c.jpg")}, "one.csv names no split, and test.csv does"),
        ({"two": "image,number,caption\nc.jpg,0,x"}, "have different columns"),
        ({"old": table("a.jpg", "b.jpg", words="an older one")}, "as an older copy does"),
        ({"old": table("a.jpg", words="older")}, "caption the same 1 pictures, 1 of them diff"),
        ({"two": "a.jpg,a dog\nb.jpg,a cat\n"}, "two.csv begins with 'a.jpg,a dog'"),
        ({"two": ""}, "two.csv begins with ''"),
        ({"two.json": '[{"image": "a.jpg", "capt'}, "two.json is not JSON"),
        ({"two.csv": "img,description\nc.jpg,a red dog"}, "data.columns.image"),
    ],
)
def test_tables_that_cannot_stand_beside_one_another(six, other, told):
    with pytest.raises(RefusedData, match=r"one\.csv|two") as error:
        open_folder(put(six, one=table("a.jpg", "b.jpg"), **other))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "image,label\na.jpg,3\n"),
        ("info.json", '{"version": 2}'),
        ("boxes.json", '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}'),
    ],
)
def test_a_table_without_captions_is_passed_over_and_told(six, name, text):
    data = open_folder(put(six, one=table("a.jpg", "b.jpg"), **{name: text}))
    assert sum(sizes(data).values()) == 2
    assert any(note.startswith(f"{name} is not used: {name}") for note in data.account.notes)
    assert [f.used for f in data.account.files] == [2, 0]


def test_a_text_that_is_no_table_is_no_matter(six):
    put(six, one=table("a.jpg"), **{"README.txt": "Pictures of dogs, and how I took them.\n"})
    assert [file.file for file in open_folder(str(six)).account.files] == ["one.csv"]


def test_the_same_table_twice_in_other_forms_is_read_once(six):
    records = [{"image": n, "caption": f"a dog at {n}"} for n in ("a.jpg", "b.jpg")]
    put(six, train=table("a.jpg", "b.jpg"), **{"train.jsonl": "\n".join(map(json.dumps, records))})
    data = open_folder(str(six))
    assert [list(map(len, split.captions)) for split in data.splits.values()] == [[1, 1]]
    assert "2 rows repeat others and are left out" in data.account.notes


def test_tables_below_a_table_are_told(six):
    put(six, one=table("a.jpg"), old__two=table("b.jpg"))
    data = open_folder(str(six))
    assert sum(sizes(data).values()) == 1
    assert "old/two.csv is not used: a table above it is read" in data.account.notes


# ----------------------------------------------------------------- which picture a name means


@pytest.mark.parametrize(
    ("there", "named", "reason"),
    [
        (("a/x.jpg", "b/y.jpg"), ("a/x.jpg", "b/x.jpg"), "another folder has one of its name"),
        (("a/x.jpg", "b/y.jpg"), ("b/x.jpg",), "another folder has one of its name"),
        (("a/x.jpg",), ("b/x.jpg", "c/x.jpg"), "several names of other folders mean this picture"),
        (("x.jpg", "a/y.jpg"), ("a/x.jpg",), "another folder has one of its name"),
        (("A/x.jpg", "b/X.jpg"), ("a/X.JPG", "c/x.jpg"), "another folder has one of"),
    ],
)
def test_a_caption_never_lands_on_another_folders_picture(tmp_path, there, named, reason):
    pictures(tmp_path, *there)
    text = table(*named) + "\nkept.jpg,a kept one"
    pictures(tmp_path, "kept.jpg")
    data = open_folder(put(tmp_path, t=text))
    assert any(reason in problem.reason for problem in data.problems)
    captioned = {
        i: c for s in data.splits.values() for i, c in zip(s.images, s.captions, strict=True)
    }
    for image, captions in captioned.items():
        assert image == "kept.jpg" or captions[0].casefold().endswith(image.casefold())


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ("images/x.jpg", "x.jpg"),
        ("images/x.jpg", "images\\x.jpg"),
        ("images/x.jpg", "./images/x.jpg"),
        ("images/x.jpg", "/home/me/set/images/x.jpg"),
        ("flickr/x.jpg", "/home/me/pictures/x.jpg"),
        ("x.jpg", "images/x.jpg"),
        ("Images/X.JPG", "images/x.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("CAF\u00c9/x.jpg", "cafe\u0301/x.jpg"),
    ],
)
def test_names_that_mean_a_picture(tmp_path, there, named):
    pictures(tmp_path, there)
    data = open_folder(put(tmp_path, train=table(named)))
    assert (data.problems, sizes(data)) == ((), {"train": 1})


def test_pictures_are_named_from_the_folder_of_their_table(tmp_path):
    pictures(tmp_path, "train/0.jpg", "test/0.jpg")
    put(tmp_path, train__metadata=table("0.jpg"), test__metadata=table("0.jpg", words="other"))
    data = open_folder(str(tmp_path))
    assert {n: (s.images, s.captions) for n, s in data.splits.items()} == {
        "train": (["train/0.jpg"], [("a dog at 0.jpg",)]),
        "test": (["test/0.jpg"], [("other 0.jpg",)]),
    }


# ----------------------------------------------------------------- captions beside pictures


@pytest.mark.parametrize(
    ("files", "captions"),
    [
        ({"a.txt": "one\ntwo\n"}, ("one", "two")),
        ({"a.txt": "one\r\ntwo\r\n"}, ("one", "two")),
        ({"a.txt": "one\u2028two"}, ("one two",)),
        ({"a.txt": "one\ntwo", "a.json": '{"caption": "one\\ntwo"}'}, ("one two",)),
        ({"a.json": '{"captions": ["one", "two"]}'}, ("one", "two")),
        ({"a.txt": "one", "a.json": '{"url": "http://x"}'}, ("one",)),
        ({"a.txt": "one", "a.json": '{"caption": null}'}, ("one",)),
        ({"a.txt": "one", "a.json": "{"}, ("one",)),
    ],
)
def test_one_rule_for_captions_in_folders_and_shards(tmp_path, files, captions):
    pictures(tmp_path / "f", "a.jpg")
    put(tmp_path / "f", **files)
    write_tar(
        tmp_path / "s" / "0.tar", ("a.jpg", b"a"), *((n, t.encode()) for n, t in files.items())
    )
    for data in (open_folder(str(tmp_path / "f")), open_shards(str(tmp_path / "s"), tmp_path)):
        assert [list(split.captions) for split in data.splits.values()] == [[captions]]
        assert data.problems == ()


def test_what_has_only_one_half_is_counted(tmp_path):
    pictures(tmp_path, "d/a.jpg", "d/b.jpg", "d/c.heic")
    put(tmp_path, **{"d/a.txt": "one", "d/c.txt": "two", "d/e.txt": "three", "d/README.txt": "x"})
    data = open_folder(str(tmp_path))
    assert {(p.where, p.reason) for p in data.problems} == {
        ("d/b.jpg", "no .txt file of the same name"),
        ("d/c.heic", "not a picture by its suffix"),
        ("d/e.txt", "no picture of the same name"),
    }
    assert data.indexed == 4


@pytest.mark.parametrize(
    "text", ["&nbsp;", "&amp;nbsp; &#160;", "\u200b", "&#8203;", "&zwnj;\ufeff"]
)
def test_a_caption_that_shows_nothing_is_empty(six, text):
    data = open_folder(put(six, train=f"image,caption\na.jpg,a dog\nb.jpg,{text}\n"))
    assert [(p.where, p.reason) for p in data.problems] == [("train.csv:3", "empty caption")]


@pytest.mark.parametrize("text", ["&", "&amp;", "\U0001f436", "?", "&nbsp; dog"])
def test_a_caption_that_shows_something_is_kept_as_it_is(six, text):
    data = open_folder(put(six, train=f"image,caption\na.jpg,{text}\n"))
    assert data.splits["train"].captions == [(text,)]


# ----------------------------------------------------------------- shards


@pytest.mark.parametrize(
    ("shards", "wanted", "note"),
    [
        (("cc-train-0.tar", "cc-validation-0.tar"), {"train": 1, "validation": 1}, None),
        (("0.tar", "1.tar"), {"train": 2}, None),
        (("00/0.tar", "01/0.tar"), {"train": 2}, None),
        (("train2017/0.tar", "val2017/0.tar"), {"train": 1, "validation": 1}, None),
        (("train/00/0.tar", "train/01/0.tar", "test/0.tar"), {"test": 1, "train": 2}, None),
        (("0.tar", "test-0.tar"), {"train": 1, "test": 1}, "1 of 2 shards name no split"),
        (("0.tar", "old/0.tar"), {"train": 1}, "1 shards in other folders"),
        (("train/0.tar", "spare/0.tar"), {"train": 1}, "1 shards in other folders"),
    ],
)
def test_splits_of_shards(tmp_path, shards, wanted, note):
    for name in shards:
        write_tar(tmp_path / "set" / name, *pair("x", name))
    data = open_shards(str(tmp_path / "set"), tmp_path / "cache")
    assert sizes(data) == wanted
    assert set(data.account.origins) == set(wanted)
    assert note is None or any(told.startswith(note) for told in data.account.notes)


def test_the_split_of_shards_in_a_range(tmp_path):
    for number in range(2):  # in a folder that is named after this test
        write_tar(tmp_path / f"cc-validation-{number}.tar", *pair("x"))
    data = open_shards(str(tmp_path / "cc-validation-{0..1}.tar"), tmp_path / "cache")
    assert sizes(data) == {"validation": 2}
    assert "there is no split train: nothing can be trained on it" in data.account.notes


@pytest.mark.parametrize(
    ("members", "samples", "problems"),
    [
        ((*pair("v1.0"), *pair("v1.1")), 2, []),
        ((*pair("a"), *pair("img.v1.3")), 2, []),
        ((*pair("a"), ("a.depth.png", b"x"), ("a.extra.json", b"{}")), 1, []),
        ((*pair("a"), ("b.c.jpg", b"x")), 1, ["no caption"]),
        ((*pair("a"), ("b.c.txt", b"x")), 1, ["no picture"]),
        ((*pair("a"), ("b.heic", b"x"), ("b.txt", b"x")), 1, ["no picture"]),
    ],
)
def test_keys_with_dots_and_unknown_suffixes_are_counted(tmp_path, members, samples, problems):
    write_tar(tmp_path / "s" / "0.tar", *members)
    data = open_shards(str(tmp_path / "s"), tmp_path / "cache")
    assert sizes(data) == {"train": samples}
    assert [problem.reason for problem in data.problems] == problems


def test_members_of_no_picture_are_told(tmp_path):
    write_tar(tmp_path / "s" / "0.tar", *pair("a"), ("README.md", b"x"), ("b.npy", b"x"))
    data = open_shards(str(tmp_path / "s"), tmp_path / "cache")
    told = "files that belong to no picture are skipped: 1 .md, 1 .npy"
    assert told in data.account.notes
    assert data.problems == ()


@pytest.mark.parametrize("archives", [2, 3])
def test_joined_tars_are_read_to_their_end(tmp_path, archives):
    parts = [write_tar(tmp_path / f"{i}.part", *pair("x", f"caption {i}")) for i in range(archives)]
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "all.tar").write_bytes(b"".join(part.read_bytes() for part in parts))
    data = open_shards(str(tmp_path / "s"), tmp_path / "cache")
    split = data.split("train")
    assert list(split.captions) == [(f"caption {i}",) for i in range(archives)]
    assert [data.read(image) for image in split.images] == [b"picture x"] * archives


def test_what_follows_a_tar_and_is_none_is_told(tmp_path):
    part = write_tar(tmp_path / "0.part", *pair("x"))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "all.tar").write_bytes(part.read_bytes() + b"no header " * 100)
    data = open_shards(str(tmp_path / "s"), tmp_path / "cache")
    assert sizes(data) == {"train": 1}
    [problem] = data.problems
    assert "what follows is not read" in problem.reason
