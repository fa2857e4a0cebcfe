"""The layouts that the field's data sets have, each as a small one and opened as it lies."""

import gzip
import io
import json
import re
import sys
import tarfile
import zipfile

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image, features

from harness.commands.data import looks_like, main
from harness.config import Columns, Data
from harness.data.catalog import SOURCES
from harness.data.sources.folder import open_folder
from harness.data.sources.shards import open_shards
from harness.errors import DataError, how_to_install
from tests.conftest import drawings
from tests.data.shardfiles import pair, write_tar

DRAWN = {name: png for name, (png, _, _) in drawings(6).items()}
"""000.png to 005.png."""


def put(folder, names=tuple(DRAWN), below="", **texts):
    """The drawings, and these texts with `__` for a slash."""
    for name in names:
        path = folder / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(DRAWN[name])
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def splits(data):
    """Split -> pictures and captions."""
    return {n: (len(s), sum(map(len, s.captions))) for n, s in data.splits.items()}


def rows(names, sep=",", head="image,caption"):
    return "\n".join([head, *(f"{name}{sep}a drawing called {name}" for name in names)])


def opened(folder, tmp_path, **more):
    data = open_folder(str(folder), cache=tmp_path / "cache", **more)
    assert data.problems == ()
    for split in data.splits.values():
        assert all(data.read(image) in DRAWN.values() for image in split.images)
    return data


# ----------------------------------------------------------------- tables


def test_coco_with_its_annotations(tmp_path):
    def coco(numbers):
        images = [{"id": i, "file_name": f"{i:03d}.png"} for i in numbers]
        captions = [
            {"image_id": i, "id": 10 * i + j, "caption": f"{i} {j}"}
            for i in numbers
            for j in (0, 1)
        ]
        return json.dumps({"images": images, "annotations": captions})

    folder = put(tmp_path / "coco", list(DRAWN)[:4], "train2017")
    put(folder, list(DRAWN)[4:], "val2017")
    boxes = json.dumps({"images": [], "annotations": [{"image_id": 0, "bbox": [0, 0, 1, 1]}]})
    (folder / "annotations").mkdir()
    for name, text in (
        ("captions_train2017", coco(range(4))),
        ("captions_val2017", coco(range(4, 6))),
        ("instances_val2017", boxes),
    ):
        (folder / "annotations" / f"{name}.json").write_text(text)
    data = opened(folder, tmp_path)
    assert splits(data) == {"train": (4, 8), "validation": (2, 4)}
    assert any("instances_val2017.json is not used" in note for note in data.account.notes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.txt", "image,caption\n" + "".join(f"{n},a bird .\n" for n in DRAWN)),
        ("results.csv", "image_name| comment_number| comment\n"
         + "".join(f"{n}| 0| a bird .\n" for n in DRAWN)),
        ("Flickr8k.token.txt", "".join(f"{n}#0\ta bird .\n" for n in DRAWN)),
        ("Train_GCC-training.tsv", "".join(f"a bird .\timages/{n}\n" for n in DRAWN)),
        ("annotations/captions.csv", rows(DRAWN)),
        ("annotations/deep/er/captions.jsonl",
         "\n".join(json.dumps({"file_name": n, "text": "a bird"}) for n in DRAWN)),
        ("flickr_annotations_30k.csv", "raw,sentids,split,filename,img_id\n"
         + "".join(f'"[""a bird""]",[0],train,{n},0\n' for n in DRAWN)),
    ],
)  # fmt: skip
def test_tables_of_the_field(tmp_path, name, text):
    folder = put(tmp_path / "set", below="images", **{name.replace("/", "__"): text})
    data = opened(folder, tmp_path)
    assert sum(count for count, _ in splits(data).values()) == 6


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_an_imagefolder_by_split(tmp_path, name):
    for split, names in (("train", list(DRAWN)[:4]), ("test", list(DRAWN)[4:])):
        text = "\n".join(json.dumps({"file_name": n, "text": f"a {n}"}) for n in names)
        if name.endswith("csv"):
            text = rows(names, head="file_name,text")
        put(tmp_path / "set", names, split, **{f"{split}__{name}": text})
    assert splits(opened(tmp_path / "set", tmp_path)) == {"train": (4, 4), "test": (2, 2)}


@pytest.mark.parametrize("name", ["captions.csv.gz", "train.tsv.gz", "captions.jsonl.gz"])
def test_compressed_tables(tmp_path, name):
    folder = put(tmp_path / "set")
    text = {
        "captions.csv.gz": rows(DRAWN),
        "train.tsv.gz": rows(DRAWN, "\t", "image\tcaption"),
        "captions.jsonl.gz": "\n".join(json.dumps({"image": n, "caption": "x"}) for n in DRAWN),
    }[name]
    (folder / name).write_bytes(gzip.compress(text.encode()))
    assert sum(count for count, _ in splits(opened(folder, tmp_path)).values()) == 6
    assert splits(opened(folder / name, tmp_path)) == splits(opened(folder, tmp_path))
    (folder / name).write_bytes(gzip.compress(text.encode())[:-9])
    with pytest.raises(DataError, match=f"{name} cannot be unpacked"):
        open_folder(str(folder / name))


def test_columns_are_named_on_the_command_line_and_in_a_configuration(tmp_path, capsys):
    put(tmp_path / "set", **{"t.csv": rows(DRAWN, head="img,description")})
    named = ["--columns", "image=img", "caption=description"]
    words = ["check", str(tmp_path / "set"), "--workers", "1", "--cache", str(tmp_path / "c")]
    assert main(words) == 2
    assert "data.columns" in capsys.readouterr().err
    assert main([*words, *named]) == 0
    columns = {"image": "img", "caption": "description"}
    data = Data(source="folder", path=str(tmp_path / "set"), columns=columns)
    found = SOURCES.get("folder")().open(data, tmp_path / "c")
    assert sum(map(len, found.splits.values())) == 6
    assert data.identity() == Data(source="folder", path="elsewhere").identity()


# ----------------------------------------------------------------- Parquet


def write_parquet(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table(columns), path, row_group_size=2)


def inside(names):
    """The pictures as a column of records, as HF's data sets have them."""
    return [{"bytes": DRAWN[name], "path": name} for name in names]


def test_parquet_with_pictures_by_split(tmp_path):
    names = list(DRAWN)
    for split, part in (("train-00000-of-00001", names[:4]), ("test-00000-of-00001", names[4:])):
        captions = [[f"a {name}", f"the {name}"] for name in part]
        write_parquet(tmp_path / "hf" / "data" / f"{split}.parquet", image=inside(part),
                      caption=captions)  # fmt: skip
    data = opened(tmp_path / "hf", tmp_path)
    assert splits(data) == {"train": (4, 8), "test": (2, 4)}
    again = opened(tmp_path / "hf", tmp_path)
    assert (again.fingerprint, again.splits["train"]) == (data.fingerprint, data.splits["train"])


def test_parquet_of_img2dataset(tmp_path):
    names = list(DRAWN)
    write_parquet(tmp_path / "set" / "00000.parquet", url=["http://x"] * 6, key=names,
                  caption=[f"a {name}" for name in names], jpg=list(DRAWN.values()))  # fmt: skip
    assert sum(count for count, _ in splits(opened(tmp_path / "set", tmp_path)).values()) == 6


def test_parquet_with_paths(tmp_path):
    folder = put(tmp_path / "set", below="images")
    write_parquet(folder / "train.parquet", file_name=list(DRAWN), text=["x"] * 6)
    assert splits(opened(folder, tmp_path)) == {"train": (6, 6)}
    write_parquet(folder / "train.parquet", img=list(DRAWN), words=["x"] * 6)
    named = Columns(image="img", caption="words")
    assert splits(opened(folder, tmp_path, columns=named)) == {"train": (6, 6)}


def test_a_row_of_parquet_without_a_picture_is_a_problem(tmp_path):
    pictures = [*inside(list(DRAWN)[:2]), None, {"bytes": None, "path": "x.png"}]
    write_parquet(tmp_path / "set" / "train.parquet", image=pictures, caption=["x"] * 4)
    data = open_folder(str(tmp_path / "set"), cache=tmp_path / "cache")
    assert splits(data) == {"train": (2, 2)}
    assert [(p.where, p.reason) for p in data.problems] == [
        ("train.parquet[2]", "no picture named"),
        ("train.parquet[3]", "no picture named"),
    ]


def test_files_that_img2dataset_leaves_beside_are_no_tables(tmp_path):
    folder = put(tmp_path / "set", below="00000")
    put(folder, (), **{f"00000__{name[:-4]}.txt": "a bird" for name in DRAWN})
    put(folder, (), **{"00000_stats.json": json.dumps({"count": 6})})
    write_parquet(
        folder / "00000.parquet", url=["http://x"] * 6, key=list(DRAWN), caption=["x"] * 6
    )
    assert sum(count for count, _ in splits(opened(folder, tmp_path)).values()) == 6


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"PAR1" * 100])
def test_parquet_that_is_none(tmp_path, content):
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"t\.parquet cannot be read as Parquet"):
        open_folder(str(tmp_path), cache=tmp_path / "cache")


def test_without_pyarrow_it_is_said_what_is_missing(tmp_path, monkeypatch):
    write_parquet(tmp_path / "t.parquet", image=inside(DRAWN), caption=["x"] * 6)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    line = re.escape(f"t.parquet needs pyarrow; {how_to_install('parquet')} brings it")
    with pytest.raises(DataError, match=line):
        open_folder(str(tmp_path), cache=tmp_path / "cache")


# ----------------------------------------------------------------- archives


def archived(path, folder, top):
    """The files of a folder in an archive, below a folder `top` (empty: none)."""
    files = {f"{top}{p.relative_to(folder)}": p for p in folder.rglob("*") if p.is_file()}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, file in files.items():
                archive.write(file, name)
    else:
        with tarfile.open(path, "w:gz" if path.suffix != ".tar" else "w") as archive:
            for name, file in sorted(files.items()):
                archive.add(file, name)
    return path


@pytest.mark.parametrize("top", ["", "flickr/"])
@pytest.mark.parametrize("name", ["all.zip", "all.tar", "all.tar.gz", "all.tgz"])
def test_a_data_set_in_an_archive(tmp_path, name, top):
    folder = put(tmp_path / "set", below="images", **{"train.csv": rows(DRAWN)})
    path = archived(tmp_path / name, folder, top)
    assert looks_like(str(path)) == "folder"
    data = opened(path, tmp_path)
    assert (data.name, splits(data)) == ("all", {"train": (6, 6)})


def test_a_packed_folder_whose_table_comes_last(tmp_path):
    path = tmp_path / "all.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for i in range(600):
            archive.addfile(tarfile.TarInfo(f"images/{i}.png"), io.BytesIO())
        archive.addfile(tarfile.TarInfo("train.csv"), io.BytesIO())
    assert looks_like(str(path)) == "folder"


def test_a_damaged_archive_is_named(tmp_path):
    folder = put(tmp_path / "set", **{"train.csv": rows(DRAWN)})
    path = archived(tmp_path / "all.tar.gz", folder, "")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"all\.tar\.gz cannot be unpacked"):
        open_folder(str(path), cache=tmp_path / "cache")
    assert not list((tmp_path / "cache" / "unpacked").glob("*.tar"))


# ----------------------------------------------------------------- shards


def test_compressed_shards(tmp_path):
    for number in range(2):
        tar = write_tar(tmp_path / f"{number}.tar", *pair(f"x{number}", f"caption {number}"))
        folder = tmp_path / "set"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
    assert looks_like(str(folder)) == "shards"
    data = open_shards(str(folder), tmp_path / "cache")
    split = data.split("train")
    assert list(split.captions) == [("caption 0",), ("caption 1",)]
    assert [data.read(image) for image in split.images] == [b"picture x0", b"picture x1"]


@pytest.mark.parametrize(
    ("record", "captions", "reason"),
    [
        ({"syn_text": ["one", "two"]}, ("one", "two"), None),
        ({"syn_text": "one"}, ("one",), None),
        ({"other": []}, None, 'no "syn_text" in its JSON'),
        (None, None, "no caption"),
    ],
)
def test_synthetic_captions_by_switch(tmp_path, record, captions, reason):
    members = [*pair("a", "its own"), ("a.paug.json", b"{}"), *pair("z")]
    members.append(("z.syn.json", b'{"syn_text": ["last"]}'))
    if record is not None:
        members.append(("a.syn.json", json.dumps(record).encode()))
    write_tar(tmp_path / "s" / "0.tar", *members)
    own = open_shards(str(tmp_path / "s"), tmp_path / "cache")
    assert list(own.split("train").captions) == [("its own",), ("a bird",)]
    assert own.problems == ()
    made = open_shards(str(tmp_path / "s"), tmp_path / "cache", synthetic=True)
    assert list(made.split("train").captions) == [*([captions] if captions else []), ("last",)]
    assert [problem.reason for problem in made.problems] == [reason] * (reason is not None)
    assert made.fingerprint != own.fingerprint


def test_the_switch_is_part_of_the_key_of_shards_alone():
    def keys(source):
        given = [Data(source=source, captions=c).identity() for c in ("own", "synthetic")]
        return [given[0] == Data(source=source).identity(), given[0] == given[1]]

    assert keys("shards") == [True, False]
    assert keys("folder") == [True, True]


# ----------------------------------------------------------------- kinds of pictures


KINDS = {"ppm": "PPM", "pgm": "PPM", "jfif": "JPEG", "tif": "TIFF", "bmp": "BMP", "gif": "GIF"}
if features.check("avif"):
    KINDS["avif"] = "AVIF"
if features.check("jpg_2000"):
    KINDS["jp2"] = "JPEG2000"


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_pillow_reads(tmp_path, kind, capsys):
    file = io.BytesIO()
    Image.new("L" if kind == "pgm" else "RGB", (16, 16), 9).save(file, KINDS[kind])
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / f"a.{kind.upper()}").write_bytes(file.getvalue())
    (folder / "train.csv").write_text(f"image,caption\na.{kind},a grey square\n")
    words = ["check", str(folder), "--json", "--workers", "1", "--cache", str(tmp_path / "c")]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["usable"] == 1
    write_tar(tmp_path / "s" / "0.tar", (f"a.{kind}", file.getvalue()), ("a.txt", b"grey"))
    assert len(open_shards(str(tmp_path / "s"), tmp_path / "c").split("train")) == 1
