"""Weights that a stranger's result names by their right checksum, and are another's or none."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from attacks import TOUCH
from torch import Tensor

from harness.commands import evaluate, explain, export
from harness.config import Runtime
from harness.run import execute
from harness.store.checksums import digest_of
from harness.store.record import RunDir, Store
from tests.conftest import tiny_run, with_fingerprints, write_shapes

Make = Callable[[dict[str, Tensor]], bytes]
PAYLOADS: dict[str, Make] = {
    "empty": lambda w: b"",
    "a header beyond all bounds": lambda w: struct.pack("<Q", 2**60) + b"{}",
    "a pickle": lambda w: b"cos\nsystem\n(S'" + TOUCH.encode() + b"'\ntR.",
    "other names": lambda w: safetensors.torch.save({"a": torch.zeros(3)}),
    "other shapes": lambda w: safetensors.torch.save({n: torch.zeros(7) for n in w}),
    "rows beyond the table": lambda w: safetensors.torch.save(
        {**w, "token_rows": torch.full_like(w["token_rows"], 10**9)}
    ),
    "rows that are no numbers of rows": lambda w: safetensors.torch.save(
        {**w, "token_rows": w["token_rows"].float()}
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    root = tmp_path_factory.mktemp("trained")
    values = {"model.image.backbone": "test_convnext", "train.samples": 8}
    config = with_fingerprints(tiny_run(write_shapes(root / "shapes"), **values), Runtime())
    execute(config, root, Runtime(), label="x")
    return Store(root).run_dir(config.run_key)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_they_are_a_line(
    payload: str, trained: RunDir, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads(trained.result_file.read_text())
    file = trained.path / result["checkpoint"]["file"]
    good, told = file.read_bytes(), trained.result_file.read_bytes()
    data = PAYLOADS[payload](safetensors.torch.load(good))
    result["checkpoint"]["sha256"] = hashlib.sha256(data).hexdigest()
    result["digest"] = digest_of(result)
    root = ["--root", str(trained.path.parents[2])]
    try:
        file.write_bytes(data)
        trained.result_file.write_text(json.dumps(result))
        assert export.main([trained.key, "--out", "out", *root]) == 2
        assert evaluate.main([trained.key, *root]) in {2, 3}
        assert explain.main([trained.key, "--index", "0", *root]) == 2
    finally:
        file.write_bytes(good)
        trained.result_file.write_bytes(told)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "weights" in said
    assert not (here / "out").exists()
