"""ONNX files as sessions of ONNX Runtime.

A file may come from anywhere: it is looked through before a session is made of it, so that it can
name neither a file beside it nor an operator that is not ONNX's or ONNX Runtime's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, RecordError, one_line, require
from harness.files import read_regular

#: What writing takes, and what quantising takes too; the extra `export` brings it.
TO_WRITE = ("onnx", "onnxruntime", "onnxscript", "tokenizers")
PACKAGES = (*TO_WRITE, "sympy")
#: What ONNX Runtime raises of a model; its exceptions share no class of their own.
_RAISED = (
    "EPFail",
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NotImplemented",
    "RuntimeException",
)
_DOMAINS = ("", "ai.onnx", "com.microsoft")


def check_packages(why: str, packages: Sequence[str] | None = None) -> None:
    """ConfigError, which begins with `why`, unless `packages`, or all `PACKAGES`, are there."""
    require(why, PACKAGES if packages is None else packages, extra="export")


def open_session(file: Path, threads: int, sha256: str | None = None) -> Any:
    """A session of `file`, as `session_of` makes it of its content.

    Raises:
        RecordError: the file is absent or not of `sha256`; and as `session_of`.
        ConfigError: as `session_of`.
    """
    try:
        data = read_regular(file, None)
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror}") from None
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise RecordError(f"{file} is not the file that was written: its SHA-256 differs")
    return session_of(data, file.name, threads)


def session_of(data: bytes, name: str, threads: int) -> Any:
    """A session of an ONNX file's content on the CPU with `threads` threads.

    Raises:
        RecordError: it is no ONNX, refers to other files, or wants operators of others.
        ConfigError: this ONNX Runtime cannot run it.
    """
    import onnxruntime

    check_self_contained(data, name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    with refusals(f"ONNX Runtime {onnxruntime.__version__} cannot run {name}"):
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def check_self_contained(data: bytes, name: str) -> None:
    """RecordError unless `data` is an ONNX model that needs nothing but itself."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load_model_from_string(data)
    except DecodeError:
        raise RecordError(f"{name} is no ONNX file") from None
    foreign = {node.domain for node in _nodes(proto)} - set(_DOMAINS)
    if foreign:
        raise RecordError(f"{name} wants operators of {', '.join(sorted(map(repr, foreign)))}")
    if any(each.data_location == onnx.TensorProto.EXTERNAL for each in _tensors(proto)):
        raise RecordError(f"{name} keeps weights in other files, which are not opened")


def _graphs(proto: Any) -> Iterator[Any]:
    """The graph of a model, its functions, and the branches in any of them."""
    found = [proto.graph, *proto.functions]
    while found:
        graph = found.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                found += [attribute.g] if attribute.HasField("g") else []
                found += attribute.graphs


def _nodes(proto: Any) -> Iterator[Any]:
    return (node for graph in _graphs(proto) for node in graph.node)


def _tensors(proto: Any) -> Iterator[Any]:
    """Every tensor of a model: weights, and values of attributes."""
    sparse = []
    for graph in _graphs(proto):
        if hasattr(graph, "initializer"):
            yield from graph.initializer
            sparse += graph.sparse_initializer
    for node in _nodes(proto):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            sparse += (attribute.sparse_tensor, *attribute.sparse_tensors)
    for each in sparse:
        yield from (each.values, each.indices)


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """What ONNX, its quantiser and ONNX Runtime raise of a model, as one ConfigError."""
    from google.protobuf.message import EncodeError
    from onnx.checker import ValidationError
    from onnx.shape_inference import InferenceError
    from onnxruntime.capi import onnxruntime_pybind11_state as raised

    own = tuple(getattr(raised, name) for name in _RAISED if hasattr(raised, name))
    known = (ValueError, RuntimeError, TypeError, KeyError, AttributeError, AssertionError)
    try:
        yield
    except (*own, *known, EncodeError, InferenceError, ValidationError) as error:
        raise ConfigError(f"{what}: {one_line(error)[:300]}") from error
