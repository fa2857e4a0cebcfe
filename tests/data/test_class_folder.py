"""Pictures with a class each: what is a class, what it is called, and that nothing vanishes."""

import io
import json
import shutil
import tarfile
import zipfile

import pytest

from harness.commands.data import looks_like, main
from harness.config import ClassFolder, Data, Runtime
from harness.data.catalog import find_data
from harness.data.class_sets import open_class_folder, pictures_a_class
from harness.errors import DataError
from tests.data.shardfiles import write_tar


@pytest.fixture
def animals(tmp_path):
    place = tmp_path / "animals"
    for name in ("polar-bear/2.jpg", "polar-bear/1.jpg", "sea_lion/x.PNG", "ant/deep/er/y.webp"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(name.encode())
    (place / "README.txt").write_text("not a class")
    return place


def opened(path, **more):
    return open_class_folder(ClassFolder(name="zoo", path=str(path), **more))


def test_classes_given_as_data_to_train_on_name_the_way(animals, tmp_path):
    line = (
        r"no usable pair in .*; 4 pictures of 3 classes \(ant, polar-bear, sea_lion\) are there, "
        r"""without captions: .*evaluate.class_folders='\[\{"name": "animals", "path": ".*"\}\]'$"""
    )
    data, runtime = Data(source="folder", path=str(animals)), Runtime(cache=str(tmp_path / "c"))
    with pytest.raises(DataError, match=line):
        find_data(data, runtime)
    for split in ("train", "val"):
        shutil.copytree(animals, tmp_path / "both" / split)
    with pytest.raises(DataError, match=r"splits train, val, not classes.*evaluate\.class_folders"):
        find_data(data.model_copy(update={"path": str(tmp_path / "both")}), runtime)


def test_classes_labels_and_templates(animals):
    data = opened(animals, templates=("a photo of a {c}.", "a {c}"))
    assert data.name == "zoo"
    assert data.splits["test"].images == [
        "ant/deep/er/y.webp", "polar-bear/1.jpg", "polar-bear/2.jpg", "sea_lion/x.PNG"
    ]  # fmt: skip
    assert data.splits["test"].captions == [(), (), (), ()]
    (task,) = data.tasks
    assert task.name == "zoo"
    assert task.classnames == ("ant", "polar bear", "sea lion")
    assert task.labels == {"test": [0, 1, 1, 2]}
    assert task.templates == ("a photo of a {c}.", "a {c}")
    assert data.problems == ()
    assert data.read("sea_lion/x.PNG") == b"sea_lion/x.PNG"


@pytest.mark.parametrize("base_dir", ["animals", "."])
def test_a_zip_with_or_without_a_folder_around_the_classes(animals, base_dir):
    root = animals.parent if base_dir == "animals" else animals
    archive = shutil.make_archive(
        str(animals.parent / base_dir.strip(".")) + "z", "zip", root, base_dir
    )
    data = opened(archive)
    assert data.tasks[0].classnames == ("ant", "polar bear", "sea lion")
    assert data.tasks[0].labels == {"test": [0, 1, 1, 2]}


def test_a_file_that_is_no_picture_is_a_problem(animals):
    (animals / "ant" / "notes.doc").write_text("x")
    data = opened(animals)
    assert [(p.where, p.reason) for p in data.problems] == [
        ("ant/notes.doc", "not a picture by its suffix")
    ]
    assert data.indexed == 5
    assert len(data.splits["test"]) == 4


def test_fingerprint_is_of_the_content_not_of_the_place(animals, tmp_path):
    before = opened(animals).fingerprint
    assert opened(shutil.copytree(animals, tmp_path / "b")).fingerprint == before
    (animals / "ant" / "new.jpg").write_bytes(b"1")
    assert opened(animals).fingerprint != before


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ((), "no picture in any"),
        (("a.jpg", "b.jpg"), "no picture in any"),
        (("cat/a.jpg", "cat/b.jpg"), "pictures in 1 sub-folders"),
        (("cat/a.txt", "dog/b.txt"), "no picture in any"),
        (("train/cat/a.jpg", "val/cat/b.jpg"), "holds the splits train, val, not classes"),
    ],
)
def test_what_is_no_class_folder_says_so(tmp_path, files, reason):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=reason):
        opened(tmp_path)


# --------------------------------------------------------------------------- what is a class


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(f"bytes of {name}".encode())
    return root


def classes_of(path, **more):
    data = opened(path, **more)
    return dict(zip(data.tasks[0].classnames, pictures_a_class(data.tasks[0]), strict=True))


def told(path, **more):
    return "\n".join(opened(path, **more).account.notes)


def test_the_task_is_the_first_thing_that_is_told(tmp_path):
    put(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
    assert opened(tmp_path).account.notes == (
        "2 classes, 1 to 2 pictures a class, first prompt 'a photo of a cat.'",
    )


@pytest.mark.parametrize("inside", [(), ("zebra/notes.txt",), ("zebra/raw.heic",)])
def test_a_class_without_pictures_stays_a_class(tmp_path, inside):
    put(tmp_path, "cat/1.jpg", "dog/1.jpg", *inside)
    (tmp_path / "zebra").mkdir(exist_ok=True)
    assert classes_of(tmp_path) == {"cat": 1, "dog": 1, "zebra": 0}
    assert "1 class (zebra) without a picture" in told(tmp_path)
    assert [p.where for p in opened(tmp_path).problems] == [n for n in inside if "heic" in n]


def test_an_empty_folder_of_a_zip_and_of_a_tar_is_a_class_too(tmp_path):
    root = put(tmp_path / "set", "cat/1.jpg", "dog/1.jpg")
    (root / "zebra").mkdir()
    for kind in ("zip", "tar"):
        archive = shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path, "set")
        assert classes_of(archive) == {"cat": 1, "dog": 1, "zebra": 0}
        image = opened(archive).splits["test"].images[1]
        assert opened(archive).read(image) == b"bytes of dog/1.jpg"


@pytest.mark.parametrize("inside", ["cat/{}", "set/cat/{}"])
def test_an_archive_of_the_same_files_is_no_class(tmp_path, inside):
    root = put(tmp_path / "set", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
    with zipfile.ZipFile(root / "all.zip", "w") as archive:
        for name in ("1.jpg", "2.jpg"):
            archive.write(root / "cat" / name, inside.format(name))
    before = opened(root).fingerprint
    assert classes_of(root) == {"cat": 2, "dog": 1}
    assert "all.zip: its 2 files are beside it unpacked" in told(root)
    (root / "all.zip").unlink()
    assert opened(root).fingerprint == before


def test_of_an_archive_that_has_more_the_rest_is_read(tmp_path):
    root = put(tmp_path / "set", "cat/1.jpg", "dog/1.jpg")
    with zipfile.ZipFile(root / "all.zip", "w") as archive:
        archive.write(root / "cat" / "1.jpg", "cat/1.jpg")
        archive.writestr("cat/9.jpg", b"another")
    assert classes_of(root) == {"cat": 2, "dog": 1}
    assert "all.zip: 1 of its 2 files are beside it" in told(root)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (("train2017/cat/a.jpg", "val2017/cat/b.jpg"), "holds the splits train2017, val2017"),
        (("cat/a.jpg", "dog/a.jpg", "test/cat/a.jpg"), "the splits test beside 2 folders"),
        (("train/a.jpg", "test/b.jpg", "extra/c.jpg"), "the splits test, train beside 1 folder"),
        (
            ("images/cat/a.jpg", "images/dog/b.jpg", "masks/cat/a.png", "masks/dog/b.png"),
            "holds images, masks, each with the same 2 folders",
        ),
    ],
)
def test_splits_and_masks_are_no_classes(tmp_path, files, reason):
    with pytest.raises(DataError, match=reason):
        opened(put(tmp_path, *files))


def test_one_class_may_be_called_as_a_split(tmp_path):
    put(tmp_path, "bus/1.jpg", "train/1.jpg", "masks/1.jpg", "masks/other.jpg")
    assert classes_of(tmp_path) == {"bus": 1, "masks": 2, "train": 1}


def test_masks_beside_the_classes_and_beside_the_pictures_are_left_out(tmp_path):
    put(tmp_path, "cat/a (1).jpg", "cat/a (1)_mask.png", "cat/a (1)_mask_2.png", "dog/b.jpg")
    put(tmp_path, "masks/b.png", "masks/a (1).png", "copy/cat/a (1).jpg")
    assert classes_of(tmp_path) == {"cat": 1, "dog": 1}
    lines = told(tmp_path)
    assert "cat: 2 masks of its pictures are left out (such as a (1)_mask.png)" in lines
    assert "folder masks is no class: 2 files (" in lines
    assert "folder copy is no class: 1 file (copy/cat/a (1).jpg) left out" in lines


def test_a_picture_in_no_class_and_an_unknown_kind_of_file_are_counted(tmp_path):
    put(tmp_path, "cat/a.jpg", "dog/b.jpg", "dog/c.heic", "lost.png", "README.md")
    data = opened(tmp_path)
    assert {(p.where, p.reason) for p in data.problems} == {
        ("dog/c.heic", "not a picture by its suffix"),
        ("lost.png", "in no folder of a class"),
    }
    assert data.indexed == 4
    assert "2 of 4 files cannot be used" in told(tmp_path)


# --------------------------------------------------------------------------- what it is called


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("n01440764", "n02102040"), ("tench", "English Springer Spaniel")),
        (("n02085620-Chihuahua", "n02085782-Japanese_spaniel"), ("Chihuahua", "Japanese spaniel")),
        (("n00007846", "cat"), ("person", "cat")),
        (("001.Black_footed_Albatross", "002.Laysan"), ("Black footed Albatross", "Laysan")),
        (("01-ak47", "02-flag"), ("ak47", "flag")),
        (("3d_print", "photo"), ("3d print", "photo")),
        (("cafe\u0301", "pub"), ("caf\u00e9", "pub")),
    ],
)
def test_folders_become_words(tmp_path, folders, names):
    put(tmp_path, *(f"{folder}/1.jpg" for folder in folders))
    given = opened(tmp_path).tasks[0].classnames
    order = sorted(folders)
    assert given == tuple(names[folders.index(each)] for each in order)


def test_words_that_are_no_folders_are_told(tmp_path):
    put(tmp_path, "n01440764/1.jpg", "dog/1.jpg", "7/1.jpg")
    lines = told(tmp_path)
    assert "n01440764 = tench" in lines
    assert "called by numbers in prompts, 1: 7;" in lines


@pytest.mark.parametrize(
    "pair", [("hot-dog", "hot_dog"), ("Cat", "cat"), ("1.x", "2.x"), ("e\u0301", "\u00e9")]
)
def test_two_classes_of_one_name_are_refused(tmp_path, pair):
    put(tmp_path, *(f"{each}/1.jpg" for each in pair))
    with pytest.raises(DataError, match="two classes are called"):
        opened(tmp_path)
    assert len(classes_of(tmp_path, classnames=("one", "two"))) == 2


def test_an_unknown_id_is_refused(tmp_path):
    put(tmp_path, "n99999999/1.jpg", "n01440764/1.jpg")
    with pytest.raises(DataError, match="'n99999999' is no WordNet id that is known"):
        opened(tmp_path)


def test_names_by_list_by_file_by_object_and_by_wordnet(tmp_path):
    root = put(tmp_path / "set", "0/1.jpg", "10/1.jpg", "10/2.jpg", "2/1.jpg")
    by_value = {"zero": 1, "two": 1, "ten": 2}
    assert classes_of(root, classnames=("zero", "two", "ten")) == by_value
    lines, tree = tmp_path / "names.txt", tmp_path / "names.json"
    lines.write_text("zero\ntwo\nten\n")
    assert classes_of(root, classnames=str(lines)) == by_value
    tree.write_text(json.dumps({"10": "ten", "0": "zero", "2": "two"}))
    assert classes_of(root, classnames=str(tree)) == by_value
    shutil.copyfile(lines, root / "classnames.txt")
    assert classes_of(root) == by_value
    ids = put(tmp_path / "ids", "n02102040/1.jpg", "n01440764/1.jpg")
    assert set(classes_of(ids, classnames="wordnet")) == {"tench", "English springer"}
    for wrong, reason in [
        (("a", "b"), "classnames has 2 names, and there are 3 classes"),
        ("wordnet", "class '0' is no WordNet id"),
        (str(tmp_path / "absent.txt"), "cannot be read"),
    ]:
        with pytest.raises(DataError, match=reason):
            opened(root, classnames=wrong)
    tree.write_text(json.dumps({"10": "ten", "0": "zero", "20": "twenty"}))
    with pytest.raises(DataError, match="unknown class '2'"):
        opened(root, classnames=str(tree))


def test_names_that_are_those_of_the_folders_are_theirs_in_any_order(tmp_path):
    put(tmp_path, "hot_dog/1.jpg", "apple/1.jpg", "apple/2.jpg")
    assert classes_of(tmp_path, classnames=("Hot dog", "Apple")) == {"Apple": 2, "Hot dog": 1}


def test_names_and_prompts_are_in_the_fingerprint_and_nowhere_else_in_the_key(tmp_path):
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    prints = [opened(tmp_path, classnames=n).fingerprint for n in (None, ("a", "b"), ("x", "y"))]
    assert prints[0] == prints[1] != prints[2]
    folder = ClassFolder(name="zoo", path="p")
    assert folder.identity() == folder.model_copy(update={"classnames": ("x",)}).identity()


# --------------------------------------------------------------------------- exports


def export(root, *, count=True, names="cat\ndog\n", labels=(0, 1, 1)):
    for number in range(2):
        members = []
        for place, label in list(enumerate(labels))[number::2]:
            members += [(f"s{place}.webp", b"p%d" % place), (f"s{place}.cls", b"%d" % label)]
        write_tar(root / "test" / f"{number}.tar", *members)
    if count:
        (root / "test" / "nshards.txt").write_text("2")
    if names is not None:
        (root / "classnames.txt").write_text(names)
    return root


@pytest.mark.parametrize("count", [True, False])
@pytest.mark.parametrize("inner", ["", "test"])
def test_an_export_of_clip_benchmark_is_a_class_set(tmp_path, count, inner):
    export(tmp_path, count=count)
    templates = tmp_path / "zeroshot_classification_templates.txt"
    templates.write_text("a {c}.\nmy {c}.\n")
    data = opened(tmp_path / inner)
    task = data.tasks[0]
    assert (task.classnames, task.templates) == (("cat", "dog"), ("a {c}.", "my {c}."))
    assert pictures_a_class(task) == [1, 2]
    assert data.splits["test"].images == ["0.tar/s0", "0.tar/s2", "1.tar/s1"]
    assert data.read("1.tar/s1") == b"p1"
    asked = opened(tmp_path / inner, templates=("the {c}",)).tasks[0].templates
    assert asked == ("the {c}",)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"names": None}, "no classnames.txt beside test/"),
        ({"names": "cat\n"}, "label '1' is none of 1 classes"),
    ],
)
def test_an_export_without_its_names_is_refused(tmp_path, change, reason):
    with pytest.raises(DataError, match=reason):
        opened(export(tmp_path, **change))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a photo of a {}.\n", r"holds 'a photo of a \{\}\.'; \{c\} stands for the class name"),
        (b"a {c}.\n\nb {c}\n", "holds ''"),
        (b"\n", "holds no template"),
        (b"\xff{c}", "cannot be read"),
    ],
)
@pytest.mark.parametrize("kind", ["folders", "export"])
def test_templates_without_a_place_for_the_class_are_refused(tmp_path, kind, content, reason):
    root = export(tmp_path) if kind == "export" else put(tmp_path, "a/1.jpg", "b/1.jpg")
    (root / "zeroshot_classification_templates.txt").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        opened(root)


# --------------------------------------------------------------------------- tables of labels


def label_set(root, table, name="labels.csv", pictures=6):
    put(root, *(f"images/{i}.jpg" for i in range(pictures)))
    (root / name).write_text(table)
    return root


ROWS = "0.jpg,cat\n1.jpg,cat\n2.jpg,hot_dog\n3.jpg,hot_dog\n"


TABLES = {
    "labels.csv": f"image,label\n{ROWS}",
    "test.tsv": "filename\tclass_name\ttarget\n" + ROWS.replace(",", "\t").replace("\n", "\t7\n"),
    "GT-final_test.csv": f"Filename;ClassName\n{ROWS.replace(',', ';')}",
    "a.jsonl": "".join(
        json.dumps({"file_name": f"images/{row[0]}.jpg", "label": row[6:]}) + "\n"
        for row in ROWS.split()
    ),
}


@pytest.mark.parametrize(("name", "table"), TABLES.items())
@pytest.mark.parametrize("given", ["folder", "table", "zip"])
def test_a_table_of_labels_is_a_class_set(tmp_path, name, table, given):
    root = label_set(tmp_path / "set", table, name, pictures=4)
    path = {"folder": root, "table": root / name, "zip": tmp_path / "set.zip"}[given]
    if given == "zip":
        shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path, "set")
    assert classes_of(path) == {"cat": 2, "hot dog": 2}
    assert looks_like(str(path)) == "classes"
    assert not opened(path).problems


def test_every_row_of_a_table_is_a_picture_or_a_problem(tmp_path):
    table = (
        f"image,label\n{ROWS}0.jpg,hot_dog\n4.jpg,\n9.jpg,cat\n,cat\n5.jpg,cat,more\n1.jpg,cat\n"
    )
    data = opened(label_set(tmp_path, table))
    assert [(p.where, p.reason) for p in data.problems] == [
        ("labels.csv:6", "picture has the labels cat and hot_dog"),
        ("labels.csv:7", "no label"),
        ("labels.csv:8", "picture is not there"),
        ("labels.csv:9", "no picture is named"),
        ("labels.csv:10", "3 fields where the header has 2"),
    ]
    assert len(data.splits["test"]) == 4


@pytest.mark.parametrize(
    ("splits", "tested"), [("train,test,val", 2), ("train,train,val", 2), ("a,b,c", 6)]
)
def test_of_a_table_with_splits_the_test_pictures_are_tested_on(tmp_path, splits, tested):
    rows = [f"{i}.jpg,c{i % 2},{split}" for i, split in enumerate(splits.split(",") * 2)]
    data = opened(label_set(tmp_path, "image,label,split\n" + "\n".join(rows)))
    assert len(data.splits["test"]) == tested
    assert ("rows of others" in told(tmp_path)) is (tested < 6)


def test_numbers_in_a_table_are_those_of_the_names_and_no_name_vanishes(tmp_path):
    table = "image,label\n0.jpg,0\n1.jpg,10\n2.jpg,2\n"
    root = label_set(tmp_path, table)
    names = ("zero", "one", "two", *(f"n{i}" for i in range(3, 10)), "ten", "eleven")
    counts = classes_of(root, classnames=names)
    assert {name: n for name, n in counts.items() if n} == {"zero": 1, "two": 1, "ten": 1}
    assert list(counts) == list(names)
    (root / "classnames.txt").write_text("\n".join(names))
    assert classes_of(root) == counts
    with pytest.raises(DataError, match="has 2 names, and there are 3 classes"):
        opened(root, classnames=("a", "b"))


def test_a_table_without_labels_says_what_is_wanted(tmp_path):
    root = label_set(tmp_path, "image,size\n0.jpg,3\n")
    with pytest.raises(
        DataError, match=r"no table of pictures and labels: a column of class_name\|"
    ):
        opened(root / "labels.csv")
    with pytest.raises(DataError, match="a sub-folder of pictures a class, or a table"):
        opened(root)


# --------------------------------------------------------------------------- check


def test_what_is_a_class_set_is_told_from_captions(tmp_path):
    pictures = put(tmp_path / "classes", "cat/1.jpg", "dog/1.jpg")
    captions = put(tmp_path / "captions", "cat/1.jpg", "dog/1.jpg", "dog/1.txt")
    table = put(tmp_path / "table", "cat/1.jpg", "dog/1.jpg", "annotations/captions.csv")
    shards = tmp_path / "shards"
    write_tar(shards / "0.tar", ("1.jpg", b"x"), ("1.txt", b"x"))
    assert looks_like(str(pictures)) == "classes"
    assert looks_like(str(export(tmp_path / "export"))) == "classes"
    assert looks_like(str(captions)) == looks_like(str(table)) == "folder"
    assert looks_like(str(shards)) == looks_like(str(shards / "0.tar")) == "shards"
    packed = tmp_path / "packed.tar"
    with tarfile.open(packed, "w") as archive:
        archive.add(pictures, "classes")
    assert looks_like(str(packed)) == "classes"


def test_check_tells_the_classes_of_a_set(tmp_path, capsys):
    from PIL import Image

    root = tmp_path / "zoo"
    for name in ("n01440764/1.png", "n01440764/2.png", "dog/1.png", "dog/2.png"):
        file = io.BytesIO()
        Image.new("RGB", (4, 4), len(name)).save(file, "PNG")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(file.getvalue())
    (root / "dog" / "2.png").write_bytes(b"<html>")
    words = ["check", str(root), "--workers", "1", "--cache", str(tmp_path / "cache")]
    assert main(words) == 3
    said = capsys.readouterr().out
    assert "tench" in said
    assert "a photo of a tench." in said
    assert main([*words, "--json"]) == 3
    tree = json.loads(capsys.readouterr().out)
    assert tree["classes"]["tench"] == {"pictures": 2, "prompt": "a photo of a tench."}
    assert (tree["seen"], tree["usable"], tree["refused"]) == (4, 3, None)
    assert tree["splits"]["test"]["pictures"] == 4
    alone = shutil.copytree(root / "dog", tmp_path / "alone" / "dog").parent
    (alone / "cat").mkdir()
    assert main(["check", str(alone), "--json"]) == 2
    assert "pictures in 1 sub-folders" in json.loads(capsys.readouterr().out)["refused"]


def test_a_class_set_is_not_packed(tmp_path, capsys):
    root = put(tmp_path / "set", "a/1.jpg", "b/1.jpg")
    assert main(["pack", str(root), "--size", "8", "--out", str(tmp_path / "out")]) == 2
    assert "has no captions" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", ["tar.gz", "tgz"])
def test_a_compressed_tar_is_a_class_set_too(tmp_path, suffix):
    root = put(tmp_path / "set", "n01440764/1.jpg", "dog/1.jpg", "dog/2.jpg")
    (root / "zebra").mkdir()
    archive = tmp_path / f"zoo.{suffix}"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root, "birds")
    folder = ClassFolder(name="zoo", path=str(archive))
    data = open_class_folder(folder, tmp_path / "cache")
    counts = dict(zip(data.tasks[0].classnames, pictures_a_class(data.tasks[0]), strict=True))
    assert counts == {"dog": 2, "tench": 1, "zebra": 0}
    assert data.read(data.splits["test"].images[0]) == b"bytes of dog/1.jpg"
    assert looks_like(str(archive)) == "classes"
    captioned = tmp_path / f"captions.{suffix}"
    put(root, "dog/1.txt")
    with tarfile.open(captioned, "w:gz") as tar:
        tar.add(root, "birds")
    assert looks_like(str(captioned)) != "classes"
