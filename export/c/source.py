"""NAME.c: the data, and one small function for every part, around the hand-written kernels in `kernels/`."""

from collections.abc import Iterator
from importlib.resources import files
from typing import Final

import numpy as np

from .functions import functions
from .network import Network, Part
from .rows import Array
from .tables import tables
from .words import left_name, stream

_NUMBERS_A_LINE: Final = 16


def source(network: Network) -> str:
    """The text of the source file."""
    name, layout = network.name, network.layout
    blocks = [
        f"/* {name}: made by edgernn, see {name}.h. The weights lie as {layout.name} kernels read them. */",
        f'#include "{name}.h"\n',
        f"#define ERN_W8A16 {int(network.model.scheme == 'w8a16')}",
        f"#define ERN_BLOCK {layout.block} /* rows of a map that lie beside each other */",
        f"#define ERN_INPUT {network.input_columns} /* values of input before the view of the hidden state */\n",
        kernel("common.h"),
        *(array_text(table, f"{values.dtype}_t", values) for table, values in tables(layout.table).items()),
        *(kernel(file) for file in layout.kernels),
        kernel("cells.h"),
        *(kernel(file) for file in layout.operator if network.operator),
        *(block for part in network.parts for block in _data(network, part)),
        *functions(network),
        f"typedef char {name}_state_has_its_size[sizeof({name}_state_t) == {name.upper()}_STATE_BYTES ? 1 : -1];",
    ]
    return "\n".join(blocks) + "\n"


def kernel(file: str) -> str:
    """A hand-written file of C."""
    return (files(__package__) / "kernels" / file).read_text(encoding="utf-8")


def array_text(name: str, kind: str, values: Array) -> str:
    """The definition of a constant array."""
    numbers = [_number(v, kind) for v in values.ravel().tolist()]
    rows = (numbers[start : start + _NUMBERS_A_LINE] for start in range(0, len(numbers), _NUMBERS_A_LINE))
    body = ",\n".join("  " + ", ".join(row) for row in rows)
    return f"static const {kind} {name}[{len(numbers)}] ERN_ALIGNED = {{\n{body}}};\n"


def _number(value: int, kind: str) -> str:
    if kind == "uint32_t":
        return f"{value}u"
    return "(-2147483647 - 1)" if value == np.iinfo(np.int32).min else str(value)


def _data(network: Network, part: Part) -> Iterator[str]:
    layout = network.layout
    for name, kind in layout.arrays.items():
        yield array_text(f"{part.name}_{name}", kind, part.arrays[name])
    if part.layer is not None:
        columns = ", ".join(str(layout.columns(affine.columns)) for affine in part.maps)
        lefts = ", ".join(left_name(left) for left in part.lefts)
        units = layout.units(part.layer.hidden_size)
        yield (
            f"static const ern_layer {part.name} = {{\n"
            f"  {stream(network, part)}, {units}, {columns}, {lefts}, {part.layer.cell_exponent}}};\n"
        )
    if part.factors is not None:
        rows = ",\n".join("  {" + ", ".join(map(str, row)) + "}" for row in part.factors.tolist())
        yield f"static const ern_factor {part.name}_factors[{len(part.factors)}] = {{\n{rows}}};\n"
