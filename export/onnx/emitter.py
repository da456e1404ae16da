"""A thin layer over `onnx.helper`: names nodes by itself, shares equal constants, and makes the finished file."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from ... import __version__
from ..._files import UNSEALED, seal

OPSET: Final = 17
IR_VERSION: Final = 8  # read by every ONNX Runtime since 1.13
SIZE_LIMIT: Final = 2**31 - 2**20  # bytes of constants: a protobuf message is below 2 GiB

Array: TypeAlias = npt.NDArray[Any]
Value: TypeAlias = str | float | list[int] | Array | np.generic  # a name, or a constant: float64, int64 [n], an array
Dimension: TypeAlias = int | str | None


class Emitter:
    """A graph in the making.

    The body of a loop (`body`) has nodes of its own but shares the names and the constants of the graph around it,
    which is `main`: what is emitted there is computed once, and what is constant there is folded when a runtime loads
    the file.
    """

    def __init__(self) -> None:
        self.main = self
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}
        self._numbers: Iterator[int] = itertools.count()

    def body(self) -> "Emitter":
        inner = Emitter()
        inner.main, inner._constants, inner._numbers = self.main, self._constants, self._numbers
        return inner

    def name(self, prefix: str) -> str:
        return f"{prefix.lower()}_{next(self._numbers)}_"  # the trailing _ keeps clear of the file's inputs and outputs

    def constant(self, value: Value) -> str:
        """The name of a constant; a name stands for itself."""
        if isinstance(value, str):
            return value
        array = np.asarray(value, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, self.name("k"))
        return self._constants[key].name

    def op(self, kind: str, *inputs: Value, **attributes: Any) -> str:
        """Add a node with one output, and give the output's name."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: Value, outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        names = [self.name(kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, [self.constant(value) for value in inputs], names, **attributes))
        return names

    def split(self, value: str, *sizes: int) -> list[str]:
        """Cut the last axis into pieces of these sizes."""
        return self.ops("Split", value, list(sizes), outputs=len(sizes), axis=-1)

    def concat(self, *values: str) -> str:
        """Join along the last axis; a single value stays as it is."""
        return self.op("Concat", *values, axis=-1) if len(values) > 1 else values[0]

    def stack(self, *values: str) -> str:
        """Join along a new first axis."""
        return self.op("Concat", *(self.op("Unsqueeze", value, [0]) for value in values), axis=0)

    def flip(self, value: str) -> str:
        """The first axis from its end to its start."""
        return self.op("Slice", value, [-1], [1 - 2**63], [0], [-1])

    def cast(self, value: Value, dtype: npt.DTypeLike) -> str:
        return self.op("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def rename(self, value: str, name: str) -> None:
        """Give a value the name under which it leaves the graph."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))

    def body_graph(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> Any:
        return helper.make_graph(self.nodes, "step", inputs, outputs)

    def finish(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        properties: Mapping[str, str],
    ) -> bytes:
        """The file: opset 17, IR 8, `properties` as metadata. Raises ValueError when it would exceed 2 GiB."""
        size = sum(len(tensor.raw_data) for tensor in self._constants.values())
        if size >= SIZE_LIMIT:
            raise ValueError(f"the weights take {size} bytes; one ONNX file holds less than 2 GiB: use a smaller model")
        graph = helper.make_graph(self.nodes, name, inputs, outputs, list(self._constants.values()))
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="edgernn",
            producer_version=__version__,
        )
        helper.set_model_props(model, {**properties, "edgernn.checksum": UNSEALED})
        return seal(model.SerializeToString())


def tensor(name: str, dtype: npt.DTypeLike, *shape: Dimension) -> onnx.ValueInfoProto:
    """The declaration of an input or output; a dimension given as text is free."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def valid_steps(g: Emitter) -> str:
    """Bool [T, N, 1]: whether step t of sequence n is before its end, from the inputs `x` [N, T, ..] and `lengths`."""
    steps = g.op("Squeeze", g.op("Shape", "x", start=1, end=2))
    times = g.cast(g.op("Range", np.int64(0), steps, np.int64(1)), np.int32)
    return g.op("Less", g.op("Unsqueeze", times, [1, 2]), g.op("Unsqueeze", "lengths", [0, 2]))
