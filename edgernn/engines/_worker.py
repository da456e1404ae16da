"""Runs .tflite files in a process of its own: `python -I _worker.py tflite_runtime` answers requests on stdin.

For a runtime that cannot be imported beside edgernn: because it needs another Python or NumPy, because it is of another
processor, or because it writes to the terminal as it likes. This file needs Python >= 3.10, NumPy and the runtime.

A message, in both directions, is the length of its JSON (uint32, little-endian), the JSON, and the bytes of the arrays
that the JSON's "arrays" names: [name, dtype, shape] each. Requests have an "op"; a reply to one that failed, "error".
"""

import json
import math
import os
import signal
import struct
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Any, BinaryIO

import numpy as np

JSON_MAX = 1 << 20
ERROR_MAX = 10_000  # characters of an error
ARRAYS_MAX = 1 << 30  # bytes of a message's arrays together
DTYPES = ("int8", "int16", "int32", "uint8", "float32")

Tensors = dict[str, Any]
Specs = dict[str, tuple[tuple[int, ...], str]]  # by name: shape, with -1 for any size, and dtype


# ---- messages --------------------------------------------------------------------------------------------------------


def pack(fields: dict[str, Any], arrays: Tensors) -> list[bytes]:
    """The parts of a message. Raises ValueError for an array of another dtype, and for more than fits a message."""
    heads = [[name, str(array.dtype), list(array.shape)] for name, array in arrays.items()]
    text = json.dumps({**fields, "arrays": heads}).encode()
    _size(heads)
    if len(text) > JSON_MAX:
        raise ValueError(f"a message of {len(text)} bytes is too long; {JSON_MAX} are the most")
    return [struct.pack("<I", len(text)), text, *(np.ascontiguousarray(array).tobytes() for array in arrays.values())]


def read(stream: BinaryIO) -> tuple[dict[str, Any], Tensors]:
    """The next message's fields and arrays. Raises EOFError at the end, ValueError for anything but a message."""
    (length,) = struct.unpack("<I", _take(stream, 4))
    if length > JSON_MAX:
        raise ValueError(f"a message of {length} bytes is too long; {JSON_MAX} are the most")
    fields = json.loads(_take(stream, length))
    if not isinstance(fields, dict) or not isinstance(fields.get("arrays"), list):
        raise ValueError("a message is a JSON object that names its arrays")
    heads = fields.pop("arrays")
    _size(heads)
    arrays = {
        name: np.frombuffer(_take(stream, _size([[name, dtype, shape]])), dtype).reshape(shape)
        for name, dtype, shape in heads
    }
    return fields, arrays


def _size(heads: list[Any]) -> int:
    """How many bytes follow the JSON. Raises ValueError for what is no array's head, or too much."""
    total = 0
    for head in heads:
        name, dtype, shape = head if isinstance(head, list) and len(head) == 3 else (None, None, None)
        if not isinstance(name, str) or dtype not in DTYPES or not isinstance(shape, list) or len(shape) > 8:
            raise ValueError(f"no array that can be sent: {head!r}")
        if not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"{name!r} has no shape: {shape!r}")
        total += math.prod(shape) * np.dtype(dtype).itemsize
    if total > ARRAYS_MAX:
        raise ValueError(f"arrays of {total} bytes are too large for one message; {ARRAYS_MAX} are the most")
    return total


def _take(stream: BinaryIO, count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError("the other end has closed the pipe")
    return content


# ---- graphs ----------------------------------------------------------------------------------------------------------


class InterpreterGraph:
    """A .tflite file in an Interpreter of LiteRT or of tflite-runtime, which are used alike."""

    def __init__(self, runtime: Any, content: bytes, resolver: str) -> None:
        """runtime: the module that holds Interpreter. Raises ValueError or RuntimeError for a file it refuses."""
        kind = runtime.OpResolverType[resolver]
        self._interpreter = runtime.Interpreter(
            model_content=content, num_threads=1, experimental_op_resolver_type=kind
        )
        self._interpreter.allocate_tensors()
        entries = {entry["name"]: entry for entry in self._interpreter.get_input_details()}
        self.inputs: Specs = {name: (_shape(entry), np.dtype(entry["dtype"]).name) for name, entry in entries.items()}
        self._places = {name: entry["index"] for name, entry in entries.items()}
        self._sizes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
        self._outputs = {entry["name"]: entry["index"] for entry in self._interpreter.get_output_details()}
        self.outputs = list(self._outputs)
        self._resets = "reset" in self._interpreter.get_signature_list()

    def __call__(self, feeds: Tensors) -> Tensors:
        sizes = {name: value.shape for name, value in feeds.items()}
        if sizes != self._sizes:
            for name, size in sizes.items():
                self._interpreter.resize_tensor_input(self._places[name], size)
            self._interpreter.allocate_tensors()
            self._sizes = sizes
        for name, value in feeds.items():
            self._interpreter.set_tensor(self._places[name], value)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}

    def reset(self) -> None:
        self._interpreter.reset_all_variables()
        if self._resets:
            self._interpreter.get_signature_runner("reset")()


def _shape(entry: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(size) for size in entry["shape_signature"])


class CompiledGraph:
    """A .tflite file in LiteRT's CompiledModel. Its shapes must be fixed: it fails on outputs of any length."""

    def __init__(self, content: bytes) -> None:
        """Raises RuntimeError for a file that it refuses."""
        from ai_edge_litert.compiled_model import CompiledModel  # type: ignore[import-untyped]

        self._model = CompiledModel.from_buffer(content)
        signatures = self._model.get_signature_list()
        self._resets = "reset" in signatures
        self._key = next(key for key in signatures if key != "reset")
        given = self._model.get_input_tensor_details(self._key)
        made = self._model.get_output_tensor_details(self._key)
        self.inputs: Specs = {name: (tuple(entry["shape"]), entry["dtype"]) for name, entry in given.items()}
        self._made: Specs = {name: (tuple(entry["shape"]), entry["dtype"]) for name, entry in made.items()}
        self.outputs = list(self._made)
        self._feeds = {name: self._model.create_input_buffer_by_name(self._key, name) for name in self.inputs}
        self._results = {name: self._model.create_output_buffer_by_name(self._key, name) for name in self.outputs}

    def __call__(self, feeds: Tensors) -> Tensors:
        for name, value in feeds.items():
            self._feeds[name].write(np.ascontiguousarray(value).reshape(-1).view(np.int8))  # it knows no int16
        self._model.run_by_name(self._key, self._feeds, self._results)
        return {name: self._result(name) for name in self.outputs}

    def _result(self, name: str) -> Any:
        shape, dtype = self._made[name]
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return self._results[name].read(size, np.int8).view(dtype).reshape(shape)

    def reset(self) -> None:
        if self._resets:
            self._model.run_by_name("reset", {}, {})


# ---- the process -----------------------------------------------------------------------------------------------------


def serve(package: str, requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until they end. The first message is sent unasked: which version of the runtime this is."""
    runtime = import_module(f"{package}.interpreter")
    _write(replies, pack({"version": version(package.replace("_", "-"))}, {}))
    graphs: dict[int, Any] = {}
    while True:
        try:
            fields, arrays = read(requests)
        except EOFError:
            return
        for number in fields.get("forget", []):
            graphs.pop(number, None)
        try:
            reply = pack(*_answer(runtime, graphs, fields, arrays))
        except Exception as error:
            reply = pack({"error": f"{error}"[:ERROR_MAX] or type(error).__name__}, {})
        _write(replies, reply)


def _answer(
    runtime: Any, graphs: dict[int, Any], fields: dict[str, Any], arrays: Tensors
) -> tuple[dict[str, Any], Tensors]:
    number = fields["graph"]
    if fields["op"] == "load":
        content, resolver = arrays["content"].tobytes(), fields["resolver"]
        graph = CompiledGraph(content) if resolver == "compiled" else InterpreterGraph(runtime, content, resolver)
        graphs[number] = graph
        return {"inputs": graph.inputs, "outputs": graph.outputs}, {}
    if fields["op"] == "reset":
        graphs[number].reset()
        return {}, {}
    return {}, graphs[number](arrays)


def _write(stream: BinaryIO, message: list[bytes]) -> None:
    stream.writelines(message)
    stream.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to every process; ours is asked to end
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a runtime prints must not get between the replies
    serve(sys.argv[1], sys.stdin.buffer, pipe)
