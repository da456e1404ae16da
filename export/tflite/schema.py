"""The part of TensorFlow Lite's FlatBuffers schema that the exporter writes, and a packer for it.

Source of the field order and the numbers: tensorflow/compiler/mlir/lite/schema/schema.fbs (also LiteRT's
tflite/converter/schema/schema.fbs). FlatBuffers identifies a field by its slot, so every table below lists the slots
from the first to the last one written here; a union takes two slots, its type and its table.
"""

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

Values = Mapping[str, Any]

FILE_IDENTIFIER: Final = b"TFL3"
SCHEMA_VERSION: Final = 3
BUFFER_ALIGNMENT: Final = 16  # schema.fbs: Buffer.data has force_align: 16

TENSOR_TYPES: Final = {"float32": 0, "int32": 2, "int64": 4, "bool": 6, "int16": 7, "int8": 9, "resource": 13}

_SCHEMA: Final = """
table Model {
  version:uint; operator_codes:[OperatorCode]; subgraphs:[SubGraph]; description:string; buffers:[Buffer];
  metadata_buffer:[int]; metadata:[Metadata]; signature_defs:[SignatureDef];
}
table OperatorCode { deprecated_builtin_code:byte; custom_code:string; version:int = 1; builtin_code:int; }
table SubGraph { tensors:[Tensor]; inputs:[int]; outputs:[int]; operators:[Operator]; name:string; }
table Tensor {
  shape:[int]; type:byte; buffer:uint; name:string; quantization:QuantizationParameters; is_variable:bool;
  sparsity:SparsityParameters; shape_signature:[int];
}
table QuantizationParameters { min:[float]; max:[float]; scale:[float]; zero_point:[long]; }
table Operator {
  opcode_index:uint; inputs:[int]; outputs:[int]; builtin_options_type:ubyte; builtin_options:BuiltinOptions;
  custom_options:[ubyte]; custom_options_format:byte; mutating_variable_inputs:[bool]; intermediates:[int];
}
table Buffer { data:[ubyte]; }
table Metadata { name:string; buffer:uint; }
table SignatureDef {
  inputs:[TensorMap]; outputs:[TensorMap]; signature_key:string; deprecated_tag:string; subgraph_index:uint;
}
table TensorMap { name:string; tensor_index:uint; }
table FullyConnectedOptions { fused_activation_function:byte; weights_format:byte; keep_num_dims:bool; }
table UnidirectionalSequenceLSTMOptions { fused_activation_function:byte; }
table StridedSliceOptions {
  begin_mask:int; end_mask:int; ellipsis_mask:int; new_axis_mask:int; shrink_axis_mask:int;
}
table DivOptions { fused_activation_function:byte; }
table ReverseV2Options { }
table Conv2DOptions { padding:byte; stride_w:int; stride_h:int; }
table AddOptions { fused_activation_function:byte; pot_scale_int16:bool = 1; }
table SubOptions { fused_activation_function:byte; pot_scale_int16:bool = 1; }
table MulOptions { fused_activation_function:byte; }
table SplitOptions { num_splits:int; }
table ConcatenationOptions { axis:int; }
table ReshapeOptions { new_shape:[int]; }
table CastOptions { in_data_type:byte; out_data_type:byte; }
table QuantizeOptions { }
table SliceOptions { }
table LessOptions { }
table ShapeOptions { out_type:byte; }
table SelectV2Options { }
table WhileOptions { cond_subgraph_index:int; body_subgraph_index:int; }
table CallOnceOptions { init_subgraph_index:int; }
table VarHandleOptions { container:string; shared_name:string; }
table ReadVariableOptions { }
table AssignVariableOptions { }
"""


class OperatorType(NamedTuple):
    """One builtin operator: its code, its version, and its options table with the place in the BuiltinOptions union."""

    code: int
    version: int
    options: str | None = None
    options_type: int = 0


# Versions: the first with the types and options used here
# (tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc), the largest where several types use an operator.
OPERATORS: Final = {
    "ADD": OperatorType(0, 3, "AddOptions", 11),
    "CONCATENATION": OperatorType(2, 3, "ConcatenationOptions", 10),
    "CONV_2D": OperatorType(3, 4, "Conv2DOptions", 1),
    "FULLY_CONNECTED": OperatorType(9, 5, "FullyConnectedOptions", 8),
    "LOGISTIC": OperatorType(14, 3),
    "MUL": OperatorType(18, 4, "MulOptions", 21),
    "RESHAPE": OperatorType(22, 1, "ReshapeOptions", 17),
    "TANH": OperatorType(28, 3),
    "SUB": OperatorType(41, 5, "SubOptions", 28),
    "DIV": OperatorType(42, 1, "DivOptions", 29),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": OperatorType(44, 1, "UnidirectionalSequenceLSTMOptions", 71),
    "STRIDED_SLICE": OperatorType(45, 1, "StridedSliceOptions", 32),
    "SPLIT": OperatorType(49, 4, "SplitOptions", 35),
    "CAST": OperatorType(53, 3, "CastOptions", 37),
    "LESS": OperatorType(58, 1, "LessOptions", 41),
    "SLICE": OperatorType(65, 4, "SliceOptions", 48),
    "SHAPE": OperatorType(77, 1, "ShapeOptions", 55),
    "REVERSE_V2": OperatorType(105, 1, "ReverseV2Options", 81),
    "QUANTIZE": OperatorType(114, 2, "QuantizeOptions", 89),
    "WHILE": OperatorType(119, 1, "WhileOptions", 93),
    "SELECT_V2": OperatorType(123, 1, "SelectV2Options", 98),
    "CALL_ONCE": OperatorType(129, 1, "CallOnceOptions", 103),
    "VAR_HANDLE": OperatorType(142, 1, "VarHandleOptions", 111),
    "READ_VARIABLE": OperatorType(143, 1, "ReadVariableOptions", 112),
    "ASSIGN_VARIABLE": OperatorType(144, 1, "AssignVariableOptions", 113),
}
DEPRECATED_CODE_MAX: Final = 127  # deprecated_builtin_code is a byte; larger codes stand in builtin_code alone


@dataclass(frozen=True)
class _Field:
    name: str
    type: str
    default: int


def _parse(schema: str) -> dict[str, list[_Field]]:
    """{table: its fields in slot order} of a schema in the FlatBuffers language."""
    tables = re.findall(r"table (\w+) \{(.*?)\}", schema, re.DOTALL)
    field = re.compile(r"(\w+):(\[?\w+\]?)(?: = (\d+))?;")
    return {name: [_Field(n, t, int(d or 0)) for n, t, d in field.findall(body)] for name, body in tables}


_TABLES: Final = _parse(_SCHEMA)
_SCALARS: Final = {"bool": "Bool", "byte": "Int8", "ubyte": "Uint8", "int": "Int32", "uint": "Uint32"}
_VECTORS: Final = {"[int]": np.int32, "[long]": np.int64, "[float]": np.float32}


def pack(model: Values) -> bytes:
    """The file of a Model: nested dictionaries {field: value} with lists for vectors; absent fields keep defaults.

    A union's value is the pair (table, values). Equal parts are written once and shared, buffers start at multiples of
    16 bytes.
    """
    packer = _Packer()
    packer.builder.Finish(packer.table("Model", model), FILE_IDENTIFIER)
    return bytes(packer.builder.Output())


class _Packer:
    def __init__(self) -> None:
        import flatbuffers  # type: ignore[import-untyped]  # not for readers of the tables above

        self.builder: Any = flatbuffers.Builder(1 << 14)
        self._offsets: dict[Hashable, int] = {}

    def table(self, name: str, values: Values) -> int:
        """Write the table after everything it refers to; return its offset."""
        assert values.keys() <= {field.name for field in _TABLES[name]}, (name, values)
        slots = []
        for slot, field in enumerate(_TABLES[name]):
            if field.name in values:
                value = values[field.name]
                slots.append((slot, field, value if field.type in _SCALARS else self._reference(field.type, value)))
        return self._once((name, *((slot, value) for slot, _, value in slots)), lambda: self._table(name, slots))

    def _table(self, name: str, slots: list[tuple[int, _Field, Any]]) -> int:
        self.builder.StartObject(len(_TABLES[name]))
        for slot, field, value in slots:
            if field.type in _SCALARS:
                getattr(self.builder, f"Prepend{_SCALARS[field.type]}Slot")(slot, value, field.default)
            else:
                self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        return int(self.builder.EndObject())

    def _reference(self, type_name: str, value: Any) -> int:
        if type_name == "string":
            return self._once(("string", value), lambda: self.builder.CreateString(value))
        if type_name == "[ubyte]":
            return self._once(("bytes", value), lambda: self._data(value))
        if type_name in _VECTORS:
            array = np.asarray(value, _VECTORS[type_name])
            return self._once((type_name, array.tobytes()), lambda: self.builder.CreateNumpyVector(array))
        if type_name == "BuiltinOptions":
            return self.table(*value)
        if type_name.startswith("["):
            offsets = [self.table(type_name[1:-1], item) for item in value]
            return self._once((type_name, *offsets), lambda: self._offset_vector(offsets))
        return self.table(type_name, value)

    def _data(self, data: bytes) -> int:
        self.builder.Prep(BUFFER_ALIGNMENT, len(data))
        return int(self.builder.CreateByteVector(data))

    def _offset_vector(self, offsets: list[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def _once(self, key: Hashable, write: Callable[[], int]) -> int:
        if key not in self._offsets:
            self._offsets[key] = write()
        return self._offsets[key]
