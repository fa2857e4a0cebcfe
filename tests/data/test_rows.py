"""Every physical row of a table is a sample, a repetition or a counted problem."""

import pytest

from harness.config import Columns
from harness.data.account import Problem
from harness.data.table_columns import NotATableError
from harness.data.tables import open_table


def rows(text, name="t.tsv", columns=None):
    """(image, caption) of each row, or the reason and line of a problem."""
    data = text if isinstance(text, bytes) else text.encode()
    table = open_table(name, data, columns or Columns())
    return [
        (row.where.rpartition(":")[2], row.reason)
        if isinstance(row, Problem)
        else (row.image, row.caption)
        for row in table.rows
    ]


HEAD = "image\tcaption\n"
NEXT = "b.jpg\ta cup\nc.jpg\ta tree\n"
AFTER = [("b.jpg", "a cup"), ("c.jpg", "a tree")]


@pytest.mark.parametrize(
    ("line", "caption"),
    [
        ('a.jpg\t"big dog', '"big dog'),
        ('a.jpg\tbig "dog', 'big "dog'),
        ('a.jpg\t"big" dog', '"big" dog'),
        ('a.jpg\t"big dog"', "big dog"),
        ('a.jpg\t"a ""big"" dog"', 'a "big" dog'),
        ('a.jpg\t"""big"" dog"', '"big" dog'),
        ('a.jpg\ta 40" set', 'a 40" set'),
        ('a.jpg\t"two\nlines"', "two\nlines"),
    ],
)
def test_quotes_in_a_tsv_take_no_other_row_with_them(line, caption):
    assert rows(HEAD + line + "\n" + NEXT) == [("a.jpg", caption), *AFTER]


@pytest.mark.parametrize("last", ['c.jpg\ta 40"', 'c.jpg\tthe "best"', 'c.jpg\t"quoted"'])
def test_a_quote_is_not_closed_by_that_of_a_later_row(last):
    found = rows(HEAD + 'a.jpg\t"open\nb.jpg\ta cup\n' + last + "\n")
    assert found[:2] == [("a.jpg", '"open'), ("b.jpg", "a cup")]
    assert found[2][0] == "c.jpg"
    assert len(found) == 3


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ('a.jpg,"open', ("2", "a quote is opened and not closed")),
        ('a.jpg,"open, and a comma', ("2", "a quote is opened and not closed")),
        ('a.jpg,"with, a comma"', ("a.jpg", "with, a comma")),
        ('a.jpg,"two\nlines, with a comma"', ("a.jpg", "two\nlines, with a comma")),
        ('"a.jpg","all ""quoted"""', ("a.jpg", 'all "quoted"')),
        ("a.jpg,one,too many", ("2", "3 fields where the header has 2")),
    ],
)
def test_quotes_in_a_csv(line, wanted):
    found = rows("image,caption\n" + line + "\nb.jpg,a cup\n", "t.csv")
    assert found == [wanted, ("b.jpg", "a cup")]


def test_a_thousand_open_quotes_are_a_thousand_rows():
    lines = [f'{i}.jpg\t"caption {i}' for i in range(1_000)]
    assert len(rows(HEAD + "\n".join(lines))) == 1_000


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_ends_of_lines_and_encodings(end, codec):
    text = end.join(["image,caption", "a.jpg,a café", 'b.jpg,"a, b"', ""])
    assert rows(text.encode(codec), "t.csv") == [("a.jpg", "a café"), ("b.jpg", "a, b")]


def test_a_carriage_return_within_a_line_is_white_space():
    assert rows("image,caption\na.jpg,one\rtwo\nb.jpg,x\n", "t.csv")[0] == ("a.jpg", "one\rtwo")


def test_utf16_cut_short_is_no_table():
    data = "image,caption\na.jpg,one\n".encode("utf-16")[:-1]
    with pytest.raises(NotATableError, match="is not whole UTF-16"):
        rows(data, "t.csv")


@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.jsonl", "t.tsv"])
@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", b"\xff\xfe", b"\r\r\r", b'"', b"[[[", b"{}"])
def test_what_is_no_table_says_so(name, data):
    with pytest.raises(NotATableError, match=name):
        rows(data, name)


# ----------------------------------------------------------------- layouts


COCO = (
    '{"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],'
    ' "annotations": [{"id": 1, "image_id": 7, "caption": "one"},'
    ' {"id": 2, "image_id": 7, "caption": "one"}, {"id": 3, "image_id": 9, "caption": "x"}]}'
)


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("captions.txt", "image,caption\na.jpg,one .\n", [("a.jpg", "one .")]),
        ("r.csv", "image_name| comment_number| comment\na.jpg| 0| one\n", [("a.jpg", " one")]),
        ("f.token.txt", "a.jpg#0\tone\na.jpg#1\ttwo\n", [("a.jpg", "one"), ("a.jpg", "two")]),
        ("cc.tsv", "one\timages/a.jpg\n", [("images/a.jpg", "one")]),
        ("f.csv", 'raw,filename\n"[""one"", ""two""]",a.jpg\n',
         [("a.jpg", "one"), ("a.jpg", "two")]),
        ("m.json", '{"a.jpg": "one", "b.jpg": ["two", "three"]}',
         [("a.jpg", "one"), ("b.jpg", "two"), ("b.jpg", "three")]),
        ("c.json", '{"image": ["a.jpg", "b.jpg"], "caption": ["one", "two"]}',
         [("a.jpg", "one"), ("b.jpg", "two")]),
        ("l.json", '{"image": "a.jpg", "caption": "one"}\n{"image": "b.jpg", "caption": "two"}\n',
         [("a.jpg", "one"), ("b.jpg", "two")]),
        ("k.json", '{"annotations": [{"image": "a.jpg", "caption": "one"}]}', [("a.jpg", "one")]),
        ("coco.json", COCO, [("a.jpg", "one"), ("a.jpg", "one"), (None, "x"),
                             ("b.jpg", "no caption of this picture")]),
    ],
)  # fmt: skip
def test_layouts_of_the_field(name, text, wanted):
    assert rows(text, name) == wanted


def test_a_caption_that_begins_with_a_bracket_is_a_caption():
    text = "image,caption\na.jpg,[sic] a dog\nb.jpg,[1]\n"
    assert rows(text, "t.csv") == [("a.jpg", "[sic] a dog"), ("b.jpg", "[1]")]


def test_a_python_list_in_a_column_of_lists_is_several_captions():
    text = 'image,captions\na.jpg,"[\'one\', ""it\'s two""]"\nb.jpg,three\n'
    assert rows(text, "t.csv") == [("a.jpg", "one"), ("a.jpg", "it's two"), ("b.jpg", "three")]


# ----------------------------------------------------------------- columns of one's own


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "img,Description,fold\na.jpg,one,train\n"),
        ("t.tsv", "fold\timg\tdescription\ntrain\ta.jpg\tone\n"),
        ("t.json", '[{"img": "a.jpg", "Description": "one", "fold": "train"}]'),
        ("t.jsonl", '{"img": "a.jpg", "description": "one", "fold": "train"}'),
    ],
)
def test_columns_that_are_named(name, text):
    columns = Columns(image="img", caption="description", split="fold")
    assert rows(text, name, columns) == [("a.jpg", "one")]
    assert open_table(name, text.encode(), columns).split == "fold"
    with pytest.raises(NotATableError, match=r"data\.columns\.image"):
        rows(text, name)


def test_a_column_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(NotATableError, match="unknown column 'descriptions'; nearest: description"):
        rows("img,description\na.jpg,x\n", "t.csv", Columns(image="img", caption="descriptions"))
