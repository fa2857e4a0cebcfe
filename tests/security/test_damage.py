"""Archives and JSON of any content: an error in a line, and no memory taken on its word."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import RecordError
from harness.evaluate.scoring.job import npz
from harness.files import open_npz, parse_json, read_json, read_jsonl
from harness.store.evaluations import EvaluationDir

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(ANY)
def test_any_json_is_an_object_without_odd_numbers_or_a_line(value: object) -> None:
    data = json.dumps(value).encode()
    try:
        found = parse_json(data, Path("x.json"))
    except RecordError:
        return
    assert isinstance(found, dict)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    "text",
    ['{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": ' + "9" * 5000 + "}",
     '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", '{"a": ' + "[" * 100_000, "[]", "", "\x00"],
)  # fmt: skip
def test_odd_numbers_and_depths_are_refused(text: str) -> None:
    with pytest.raises(RecordError):
        parse_json(text.encode(), Path("x.json"))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", tmp_path, Path("/dev/zero")):
        with pytest.raises(RecordError):
            read_json(path)
    with pytest.raises(RecordError):
        list(read_jsonl(tmp_path / "pipe.json"))


@pytest.mark.parametrize("cut", [1, 10, 50])
def test_an_archive_that_is_cut_is_damaged(cut: int) -> None:
    data = npz({"a": np.arange(1000)})
    assert open_npz(io.BytesIO(data))["a"].shape == (1000,)
    with pytest.raises((ValueError, OSError)):
        open_npz(io.BytesIO(data[:-cut]))


def test_an_array_that_declares_more_than_it_holds_takes_no_memory() -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", head.getvalue())
    packed.seek(0)
    with pytest.raises(ValueError, match=r"a\.npy declares more than it holds"):
        open_npz(packed)


def test_one_changed_digit_of_a_result_is_noticed(tmp_path: Path) -> None:
    folder = EvaluationDir(tmp_path / "abc")
    folder.add({"kind": "x"}, "k", {"metrics": {"m": {"value": 0.5}}})
    file = folder.path / "result.json"
    file.write_text(file.read_text().replace("0.5", "0.6"))
    with pytest.raises(RecordError, match="is not as it was written"):
        folder.result()
