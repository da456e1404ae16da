"""A builder for .tflite files: subgraphs of tensors and operators, signatures and metadata."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .schema import DEPRECATED_CODE_MAX, OPERATORS, SCHEMA_VERSION, TENSOR_TYPES, pack

Scale = float | npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of one subgraph. A dimension of -1 is dynamic; scale None means not quantised."""

    index: int
    shape: tuple[int, ...]
    dtype: str
    scale: Scale | None
    zero_point: int


class Graph:
    """One subgraph under construction."""

    def __init__(self, file: "TFLiteFile", index: int, name: str) -> None:
        self.file = file
        self.index = index
        self.name = name
        self.inputs: Sequence[Tensor] = ()
        self.outputs: Sequence[Tensor] = ()
        self._tensors: list[dict[str, Any]] = []
        self._operators: list[dict[str, Any]] = []
        self._constants: dict[tuple[Any, ...], Tensor] = {}

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        scale: Scale | None = None,
        zero_point: int = 0,
        buffer: int = 0,
        variable: bool = False,
    ) -> Tensor:
        """A new tensor that an operator or the caller fills, or (with a buffer) one whose values stand in the file.

        variable: an operator keeps its state in it, from one run to the next.
        """
        table: dict[str, Any] = {"shape": np.abs(shape), "type": TENSOR_TYPES[dtype], "buffer": buffer, "name": name}
        if variable:
            table["is_variable"] = True
        if -1 in shape:
            table["shape_signature"] = shape
        if scale is not None:
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            table["quantization"] = {"scale": scales, "zero_point": np.full(scales.shape, zero_point)}
        self._tensors.append(table)
        return Tensor(len(self._tensors) - 1, tuple(shape), dtype, scale, zero_point)

    def constant(self, name: str, values: npt.ArrayLike, dtype: str = "int32", scale: Scale | None = None) -> Tensor:
        """These values as a tensor, once a graph. A vector of scales quantises the first axis, entry by entry."""
        array = np.asarray(values, dtype)
        key = (array.tobytes(), array.shape, dtype, None if scale is None else np.asarray(scale).tobytes())
        if key not in self._constants:
            self._constants[key] = self.tensor(name, array.shape, dtype, scale, 0, self.file.buffer(array.tobytes()))
        return self._constants[key]

    def op(
        self, name: str, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor] = (), **options: int | bool | str
    ) -> None:
        """Append a builtin operator of schema.OPERATORS; None is an optional input that is left out."""
        operator: dict[str, Any] = {
            "opcode_index": self.file.operator_index(name),
            "inputs": [-1 if tensor is None else tensor.index for tensor in inputs],
            "outputs": [tensor.index for tensor in outputs],
        }
        kind = OPERATORS[name]
        if kind.options is not None:
            operator |= {"builtin_options_type": kind.options_type, "builtin_options": (kind.options, options)}
        self._operators.append(operator)

    def table(self) -> dict[str, Any]:
        """The SubGraph as schema.pack wants it."""
        return {
            "tensors": self._tensors,
            "inputs": [tensor.index for tensor in self.inputs],
            "outputs": [tensor.index for tensor in self.outputs],
            "operators": self._operators,
            "name": self.name,
        }


class TFLiteFile:
    """A .tflite file under construction; equal buffers are stored once."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._graphs: list[Graph] = []
        self._buffers: dict[bytes, int] = {b"": 0}  # by convention buffer 0 is the empty one
        self._operator_codes: dict[str, int] = {}
        self._signatures: list[dict[str, Any]] = []
        self._metadata: list[dict[str, Any]] = []

    def graph(self, name: str) -> Graph:
        """A new subgraph; the first one is what an interpreter runs."""
        self._graphs.append(Graph(self, len(self._graphs), name))
        return self._graphs[-1]

    def buffer(self, data: bytes) -> int:
        """The index of the buffer that holds these bytes."""
        return self._buffers.setdefault(data, len(self._buffers))

    def operator_index(self, name: str) -> int:
        """The place of a builtin operator in the file's list of operators."""
        return self._operator_codes.setdefault(name, len(self._operator_codes))

    def signature(self, key: str, graph: Graph, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """Name a subgraph's inputs and outputs, in order, and make it callable by `key`."""
        graph.inputs, graph.outputs = tuple(inputs.values()), tuple(outputs.values())
        maps = [[{"name": n, "tensor_index": t.index} for n, t in names.items()] for names in (inputs, outputs)]
        self._signatures.append(
            {"inputs": maps[0], "outputs": maps[1], "signature_key": key, "subgraph_index": graph.index}
        )

    def metadata(self, name: str, data: bytes) -> None:
        """Attach bytes that runtimes ignore and tools can read."""
        self._metadata.append({"name": name, "buffer": self.buffer(data)})

    def pack(self) -> bytes:
        """The file."""
        codes = [OPERATORS[name] for name in self._operator_codes]
        return pack(
            {
                "version": SCHEMA_VERSION,
                "operator_codes": [
                    {
                        "deprecated_builtin_code": min(operator.code, DEPRECATED_CODE_MAX),
                        "version": operator.version,
                        "builtin_code": operator.code,
                    }
                    for operator in codes
                ],
                "subgraphs": [graph.table() for graph in self._graphs],
                "description": self._description,
                "buffers": [{"data": data} if data else {} for data in self._buffers],
                "metadata": self._metadata,
                "signature_defs": self._signatures,
            }
        )
