"""What one ONNX tower costs, measured alone in a process of its own: `python -m ... FILE`.

Prints JSON.  Knows ONNX Runtime, NumPy and psutil alone, so that neither torch's threads nor its
memory have a say.  The caller has looked the file through; see `sessions`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

import numpy as np
import psutil

_WARM_UP = 10
_TOKENS = (49_406, 49_407)
"""CLIP's first and last piece of a text."""


def main() -> None:
    """Measure the file that the command line names."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add = parser.add_argument
    add("file")
    add("--threads", type=int, default=1)
    add("--batches", type=int, nargs="+", default=[1])
    add("--calls", type=int, default=200)
    add("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    json.dump(measured(args), sys.stdout)


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Time to load (ms), growth of memory (MB); of each batch the times of its calls (ms), and the
    share of them in which the calling thread waited for a core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1
    process = psutil.Process()
    before = process.memory_info().rss
    began = time.perf_counter()
    session = onnxruntime.InferenceSession(args.file, options, providers=["CPUExecutionProvider"])
    load_ms = (time.perf_counter() - began) * 1e3
    found = {
        batch: _times(session, _sample(session, batch), args.calls, args.seconds)
        for batch in args.batches
    }
    grown = (process.memory_info().rss - before) / 1e6
    times, waited = ({batch: each[what] for batch, each in found.items()} for what in (0, 1))
    return {"load_ms": load_ms, "memory_mb": grown, "times_ms": times, "waited": waited}


def _times(
    session: Any, sample: dict[str, Any], calls: int, seconds: float
) -> tuple[list[float], float]:
    """Milliseconds of `calls` calls, or of fewer once `seconds` have passed; and the share waited.

    Where others want every core, each call of a millisecond is as fast as ever between two long
    waits, and each long one equally slow: neither shows in the spread of the calls.
    """
    for _ in range(_WARM_UP):
        session.run(None, sample)
    times: list[float] = []
    began, on_core = time.perf_counter(), time.thread_time()
    end = began + seconds
    while len(times) < calls and (not times or time.perf_counter() < end):
        start = time.perf_counter()
        session.run(None, sample)
        times.append((time.perf_counter() - start) * 1e3)
    passed, worked = time.perf_counter() - began, time.thread_time() - on_core
    return times, max(0.0, 1 - worked / passed)


def _sample(session: Any, batch: int) -> dict[str, Any]:
    """Noise for a picture, a text that fills the context for tokens."""
    (taken,) = session.get_inputs()
    shape = (batch, *taken.shape[1:])
    noise = np.random.default_rng(0)
    if taken.type == "tensor(float)":
        return {taken.name: noise.standard_normal(shape, dtype=np.float32)}
    tokens = noise.integers(1, _TOKENS[0], shape)
    tokens[:, 0], tokens[:, -1] = _TOKENS
    return {taken.name: tokens}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
