"""An ONNX tower in 8 bits, by each of a few recipes.

What a recipe does to accuracy and speed differs by tower: full quantisation with recorded ranges
destroys a causal text tower, whose mask of minus infinity sets the range, and quantising ranges
anew at each call makes convolutions slower than they were.  So none is the default; see `recipes`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.evaluate.deploy.sessions import refusals
from harness.models.export import quiet

Batches = Sequence[NDArray[Any]]
"""What a tower takes, a batch each; ranges of activations are recorded over them."""

_PRODUCTS = ("MatMul", "Gemm", "Conv", "Gather")
_LEAST_WEIGHTS = 1_024
"""Numbers of a tensor from which on 8 bits are worth a scale."""


def quantised(tower: Path, recipe: str, calibration: Batches) -> bytes:
    """The ONNX file `tower` by one of `RECIPES`; ConfigError where it cannot be had."""
    with (
        tempfile.TemporaryDirectory() as folder,
        refusals(f"{tower.name} cannot be quantised by {recipe!r}"),
        np.errstate(divide="ignore", invalid="ignore"),  # ranges that are empty or infinite
        quiet("root"),
    ):
        prepared = _prepared(tower, Path(folder))
        out = Path(folder) / "quantised.onnx"
        RECIPES[recipe](prepared, out, calibration)
        return out.read_bytes()


def _prepared(tower: Path, folder: Path) -> Path:
    """The tower with constants folded, and without the shapes that torch noted for its example."""
    import onnx
    from onnxruntime.quantization import quant_pre_process

    proto = onnx.load(tower)
    del proto.graph.value_info[:]
    plain, prepared = folder / "plain.onnx", folder / "prepared.onnx"
    onnx.save(proto, plain)
    quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    return prepared


# --------------------------------------------------------------------------- the recipes


def _reader(tower: Path, batches: Batches) -> Any:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    name = onnx.load(tower, load_external_data=False).graph.input[0].name

    class CalibrationBatches(CalibrationDataReader):  # type: ignore[misc]
        """Hands out each batch once."""

        def __init__(self) -> None:
            self._left: Iterator[Mapping[str, NDArray[Any]]] = iter([{name: b} for b in batches])

        def get_next(self) -> Any:
            return next(self._left, None)

    return CalibrationBatches()


def _static(tower: Path, out: Path, batches: Batches, **which: Any) -> None:
    from onnxruntime.quantization import QuantFormat, quantize_static

    reader = _reader(tower, batches)
    quantize_static(tower, out, reader, quant_format=QuantFormat.QDQ, per_channel=True, **which)


def _dynamic(tower: Path, out: Path, batches: Batches) -> None:
    from onnxruntime.quantization import quantize_dynamic

    del batches
    quantize_dynamic(tower, out, per_channel=True)


def _weights(tower: Path, out: Path, batches: Batches) -> None:
    """Weights in 8 bits with a scale a row, turned back where they are used."""
    import onnx
    from onnx import helper, numpy_helper

    del batches
    proto = onnx.load(tower)
    graph, kept, nodes = proto.graph, [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        large = values.dtype == np.float32 and values.size >= _LEAST_WEIGHTS and values.ndim > 1
        if not large or not np.isfinite(values).all():  # a mask of minus infinity stays
            kept.append(tensor)
            continue
        parts = np.abs(values).max(axis=tuple(range(1, values.ndim))) / 127
        scales = np.where(parts > 0, parts, 1).astype(np.float32)
        rows = values / scales.reshape(-1, *[1] * (values.ndim - 1))
        small, scale = f"{tensor.name}_int8", f"{tensor.name}_scale"
        kept += [
            numpy_helper.from_array(np.rint(rows).astype(np.int8), small),
            numpy_helper.from_array(scales, scale),
        ]
        nodes.append(helper.make_node("DequantizeLinear", [small, scale], [tensor.name], axis=0))
    del graph.initializer[:]
    graph.initializer.extend(kept)
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *others])
    onnx.save(proto, out)


#: Name -> what makes a file of a file.
RECIPES: Mapping[str, Callable[[Path, Path, Batches], None]] = {
    "static": _static,
    "static products": partial(_static, op_types_to_quantize=list(_PRODUCTS)),
    "dynamic": _dynamic,
    "weights": _weights,
}
#: What each does, as a record says it.
ABOUT = {
    "static": "every operator in 8 bits, ranges of activations recorded over training samples",
    "static products": "matrix products, convolutions and tables alone, ranges recorded likewise",
    "dynamic": "products and tables in 8 bits, ranges of activations taken at each call",
    "weights": "weights alone in 8 bits, computed in fp32",
}
