"""Reading exported files back: the names, operators and constants inside a `.tflite` or `.onnx`.

The `.tflite` reader knows the slots of the schema that `export.tflite` writes by, checks every bound and needs no
runtime, so that a damaged file is found here and not inside a runtime. Time and memory stay proportional to the file:
a forged one in which everything points to the same large part is refused.
"""

import json
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ._files import read_bytes

Constants = dict[str, npt.NDArray[Any]]

_WEIGHT_READERS = ("Cast", "Transpose", "Unsqueeze")
_PREFIX: Final = "edgernn."  # of the properties in an ONNX file
_WORDS: Final = ("edgernn.fingerprint", "edgernn.checksum")  # properties that can look like numbers


@dataclass(frozen=True)
class Port:
    """An input or output of a file. shape: an axis of any size is -1, or what the file calls it.

    scale, zero_point: of a tensor of integers, where the file says them.
    """

    dtype: str
    shape: tuple[int | str, ...]
    scale: float | None = None
    zero_point: int = 0

    def __str__(self) -> str:
        kind = f"{self.dtype} [{', '.join('?' if size == -1 else str(size) for size in self.shape)}]"
        return kind if self.scale is None else f"{kind}, scale {self.scale:.6g}, zero point {self.zero_point}"


@dataclass(frozen=True, eq=False)
class Artifact:
    """What an exported file holds. `skeleton` is the file with the values of its constants taken out.

    weights: the constants that are weights of the network, by name, with their scales where the file holds them.
    metadata: what edgernn wrote about the model.
    """

    inputs: Mapping[str, "Port"]
    outputs: Mapping[str, "Port"]
    operators: Counter[str]
    constants: Constants
    skeleton: bytes
    weights: Mapping[str, npt.NDArray[Any] | None]
    metadata: Mapping[str, Any]


def read_artifact(path: Path) -> Artifact:
    """Read a `.tflite` or `.onnx`. Raises ValueError when it is missing, empty or damaged, and ImportError."""
    content = read_bytes(path)
    try:
        return read_onnx(content) if path.suffix.lower() == ".onnx" else read_tflite(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_tflite(content: bytes) -> Artifact:
    """Read a TensorFlow Lite model. Raises ValueError when it is not one, or damaged."""
    if content[4:8] != b"TFL3":
        raise ValueError("not a TensorFlow Lite file")
    try:
        return _parse_tflite(content)
    except (struct.error, ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"a damaged TensorFlow Lite file ({error}); export it anew") from None


def read_onnx(content: bytes) -> Artifact:
    """Read an ONNX model. Raises ValueError when it is not one, or damaged; ImportError without the onnx package."""
    import onnx

    try:
        return _parse_onnx(onnx.load_model_from_string(content))
    except Exception as error:  # protobuf and onnx raise many kinds for the many ways to be damaged
        raise ValueError(f"not an ONNX file, or damaged ({error}); export it anew") from None


def _parse_onnx(model: Any) -> Artifact:
    from onnx import numpy_helper

    if not model.graph.node:
        raise ValueError("it has no operators")
    constants: Constants = {}
    operators: Counter[str] = Counter()
    readers: dict[str, Any] = {}
    for graph in _onnx_graphs(model.graph):
        readers |= {name: node for node in graph.node for name in node.input}
        operators.update(node.op_type for node in graph.node)
        for tensor in [*graph.initializer, *_onnx_constants(graph)]:
            if tensor.data_location == tensor.EXTERNAL:  # to_array would open whatever file it names
                raise ValueError(f"the values of {tensor.name} are in another file")
            if min(tensor.dims, default=0) < 0:
                raise ValueError(f"{tensor.name} has the shape {list(tensor.dims)}")
            constants[tensor.name] = numpy_helper.to_array(tensor)
            tensor.ClearField("raw_data")
    inputs, outputs = (
        {value.name: _onnx_port(value.type.tensor_type) for value in values}
        for values in (model.graph.input, model.graph.output)
    )
    skeleton = model.SerializeToString(deterministic=True)
    weights = _onnx_weights(constants, readers)
    metadata = plain_properties({prop.key: prop.value for prop in model.metadata_props})
    return Artifact(inputs, outputs, operators, constants, skeleton, weights, metadata)


def _onnx_port(tensor: Any) -> Port:
    from onnx import helper

    sizes = (size.dim_value if size.HasField("dim_value") else str(size.dim_param) for size in tensor.shape.dim)
    return Port(str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)), tuple(sizes))


def _onnx_weights(constants: Constants, readers: Mapping[str, Any]) -> dict[str, npt.NDArray[Any] | None]:
    """Matrices that are cast (and perhaps multiplied with their scales) or given another shape before they are used."""
    weights = {}
    for name, value in constants.items():
        reader = readers.get(name)
        if value.ndim == 2 and value.dtype in (np.int8, np.float32) and reader and reader.op_type in _WEIGHT_READERS:
            scaling = readers.get(reader.output[0])
            scale = constants.get(scaling.input[1]) if scaling and scaling.op_type == "Mul" else None
            weights[name] = None if scale is None or scale.dtype != np.float32 else scale  # float64: a multiplier
    return weights


def plain_properties(properties: Mapping[str, str]) -> dict[str, Any]:
    """What edgernn wrote about a model into an ONNX file's properties: JSON where it is JSON."""
    return {name.removeprefix(_PREFIX): _plain(name, text) for name, text in properties.items()}


def _plain(name: str, text: str) -> Any:
    try:
        return text if name in _WORDS else json.loads(text)
    except ValueError:
        return text


def _onnx_graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _onnx_graphs(attribute.g)


def _onnx_constants(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            tensor = node.attribute[0].t
            tensor.name = tensor.name or node.output[0]
            yield tensor


# ---- flatbuffers -----------------------------------------------------------------------------------------------------


_REREADING: Final = 8  # how often a file's bytes may be read: names and shared constants a few times


@dataclass
class _Bytes:
    """A file's content, and how many bytes may still be read of it."""

    content: bytes
    left: int

    def number(self, kind: str, position: int) -> int:
        if position < 0:
            raise ValueError("an offset points before the start")
        return int(struct.unpack_from(kind, self.content, position)[0])

    def spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ValueError("its parts overlap")


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of a flatbuffer: fields by their slot number; an absent field is the default, 0 or empty."""

    data: _Bytes
    position: int

    def scalar(self, slot: int, kind: str) -> int:
        place = self._place(slot)
        return self.data.number(kind, place) if place else 0

    def text(self, slot: int) -> str:
        return self.array(slot, np.uint8)[1].tobytes().decode()

    def tables(self, slot: int) -> list["_Table"]:
        start, offsets = self.array(slot, np.uint32)
        return [_Table(self.data, start + 4 * index + offset) for index, offset in enumerate(offsets.tolist())]

    def table(self, slot: int) -> "_Table | None":
        place = self._place(slot)
        return _Table(self.data, place + self.data.number("<I", place)) if place else None

    def array(self, slot: int, dtype: type[np.generic]) -> tuple[int, npt.NDArray[Any]]:
        """(position in the file, values) of a vector."""
        place = self._place(slot)
        if not place:
            return 0, np.zeros(0, dtype)
        start = place + self.data.number("<I", place)
        length = self.data.number("<I", start)
        size = length * np.dtype(dtype).itemsize
        if start + 4 + size > len(self.data.content):
            raise ValueError("a vector reaches beyond the end")
        self.data.spend(size)
        return start + 4, np.frombuffer(self.data.content, dtype, length, start + 4)

    def _place(self, slot: int) -> int:
        vtable = self.position - self.data.number("<i", self.position)
        entry = 4 + 2 * slot
        if entry >= self.data.number("<H", vtable):
            return 0
        offset = self.data.number("<H", vtable + entry)
        return self.position + offset if offset else 0


def _parse_tflite(content: bytes) -> Artifact:
    from .export.tflite.schema import OPERATORS

    known = {kind.code: name for name, kind in OPERATORS.items()}
    data = _Bytes(content, _REREADING * len(content))
    model = _Table(data, data.number("<I", 0))
    buffers = [table.array(0, np.uint8) for table in model.tables(4)]
    codes = [max(code.scalar(0, "<b"), code.scalar(3, "<i")) for code in model.tables(1)]
    skeleton = bytearray(content)
    constants: Constants = {}
    taken_out: set[tuple[int, int]] = set()  # tensors may share their values
    operators: Counter[str] = Counter()
    graphs = [(graph, graph.text(4), graph.tables(0)) for graph in model.tables(2)]
    if not graphs:
        raise ValueError("it has no graph")
    for graph, title, tensors in graphs:
        for index, tensor in enumerate(tensors):
            for part, start, values in _tflite_constants(tensor, buffers):
                name = f"{title}/{index}:{tensor.text(3)}{part}"  # the tensors' names alone need not differ
                constants[name] = values
                data.spend(len(name))
                place = (start, values.nbytes)
                if place not in taken_out:
                    data.spend(values.nbytes)
                    skeleton[start : start + values.nbytes] = bytes(values.nbytes)
                    taken_out.add(place)
        for operator in graph.tables(3):
            code = codes[operator.scalar(0, "<I")]
            operators[known.get(code, f"operator {code}")] += 1
    main, _, tensors = graphs[0]
    numbers = [main.array(slot, np.int32)[1].tolist() for slot in (1, 2)]
    if min((index for part in numbers for index in part), default=0) < 0:
        raise ValueError("an input or output has a negative number")
    inputs, outputs = ({tensors[index].text(3): _tflite_port(tensors[index]) for index in part} for part in numbers)
    weights = {name: constants.get(f"{name}.scale") for name in constants if name.endswith(":w")}
    return Artifact(inputs, outputs, operators, constants, bytes(skeleton), weights, _tflite_metadata(model, buffers))


def _tflite_port(tensor: _Table) -> Port:
    from .export.tflite.schema import TENSOR_TYPES

    code = tensor.scalar(1, "<b")
    name = next((name for name, known in TENSOR_TYPES.items() if known == code), f"type {code}")
    signature = tensor.array(7, np.int32)[1]
    shape = tuple((signature if len(signature) else tensor.array(0, np.int32)[1]).tolist())
    quantization = tensor.table(4)
    if quantization is None:
        return Port(name, shape)
    scales, points = quantization.array(2, np.float32)[1], quantization.array(3, np.int64)[1]
    return Port(name, shape, float(scales[0]), int(points[0])) if len(scales) and len(points) else Port(name, shape)


def _tflite_metadata(model: _Table, buffers: list[tuple[int, npt.NDArray[Any]]]) -> dict[str, Any]:
    found: dict[str, Any] = {"description": model.text(3)}
    for entry in model.tables(6):
        if entry.text(0) == "edgernn":
            found |= dict(json.loads(buffers[entry.scalar(1, "<I")][1].tobytes()))
    return found


def _tflite_constants(
    tensor: _Table, buffers: list[tuple[int, npt.NDArray[Any]]]
) -> Iterator[tuple[str, int, npt.NDArray[Any]]]:
    """("" or ".scale", position in the file, values) of a tensor's constant value, and of its scales."""
    from .export.tflite.schema import TENSOR_TYPES

    start, raw = buffers[tensor.scalar(2, "<I")]
    if len(raw):
        types = {code: name for name, code in TENSOR_TYPES.items() if name != "resource"}
        name = types.get(tensor.scalar(1, "<b"))
        shape = tensor.array(0, np.int32)[1].tolist()
        if min(shape, default=0) < 0:
            raise ValueError(f"a constant has the shape {shape}")
        yield "", start, raw if name is None else raw.view(name).reshape(shape)
    quantization = tensor.table(4)
    if quantization is not None:
        start, scales = quantization.array(2, np.float32)
        if len(scales):
            yield ".scale", start, scales
