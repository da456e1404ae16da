"""NAME.h: what the program that uses the model sees."""

from collections.abc import Iterator

from ... import __version__
from ...fixedpoint import ARITHMETIC_VERSION
from ...qmodel import QuantizedModel
from .layouts import Layout
from .network import Part, padded


def header(model: QuantizedModel, name: str, target: str, layout: Layout, parts: list[Part]) -> str:
    upper = name.upper()
    macros: dict[str, object] = {
        "EDGERNN_VERSION": f'"{__version__}"',
        "ARITHMETIC_VERSION": ARITHMETIC_VERSION,
        "MODEL_HASH": f'"{model.fingerprint}"',
        "TARGET": f'"{target}"',
        "INPUT_SIZE": model.input_size,
        "OUTPUT_SIZE": model.output_size,
        "INPUT_SCALE": repr(float(model.input_scale)),
        "INPUT_ZERO_POINT": f"({model.input_zero_point})",
        "OUTPUT_SCALE": repr(float(model.output_scale)),
        "EVERY_STEP": int(model.every_step),
        "BIDIRECTIONAL": int(model.bidirectional),
        "MACS_PER_STEP": sum(part.macs for part in parts if part.layer is not None),
        "HEAD_MACS": sum(part.macs for part in parts if part.layer is None),
        "STATE_BYTES": _state_bytes(model, layout),
        "WEIGHT_BYTES": sum(values.nbytes for part in parts for values in part.arrays.values()),
    }
    guard = f"{upper}_H"
    kind = {"int8": "int8_t", "int16": "int16_t"}
    input_type, output_type = (kind[f"{t.__name__}"] for t in (model.input_dtype, model.output_dtype))
    lines = [
        f"/* {name}: a network of edgernn in the integers of its arithmetic. No library, no allocation, no float. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        *(f"#define {upper}_{key} {value}" for key, value in macros.items()),
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"typedef {input_type} {name}_input_t;",
        f"typedef {output_type} {name}_output_t;",
        "",
        "typedef struct {",
        *(f"  {line}" for line in _fields(model, layout)),
        f"}} {name}_state_t;",
        "",
        f"void {name}_reset({name}_state_t *state);",
        f"void {name}_step({name}_state_t *state, const {name}_input_t *x, {name}_output_t *y);",
        f"void {name}_run({name}_state_t *state, const {name}_input_t *x, uint32_t steps, {name}_output_t *y);",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def operand_type(model: QuantizedModel, layout: Layout) -> str:
    return "int16_t" if layout.wide or model.scheme == "w8a16" else "int8_t"


def buffers(model: QuantizedModel, layout: Layout) -> dict[str, int]:
    """The operands of products, beside the states: how many values. The input and the view of h lie side by side."""
    views = view_size(model, layout)
    before = [] if all(layer.reset_after for layer in model.layers) else [("reset", views)]
    return dict([("operands", input_size(model, layout) + views), *before])


def input_size(model: QuantizedModel, layout: Layout) -> int:
    """What the widest layer reads, padded."""
    return max(layout.columns(layer.input_size) for layer in model.layers)


def view_size(model: QuantizedModel, layout: Layout) -> int:
    return max(layout.columns(padded(layer.output_size)) for layer in model.layers)


def _fields(model: QuantizedModel, layout: Layout) -> Iterator[str]:
    operand = operand_type(model, layout)
    for name, size in buffers(model, layout).items():
        yield f"{operand} {name}[{size}];"
    for name, spec in model.states.items():
        yield f"int16_t {name}[{padded(spec.size)}];"


def _state_bytes(model: QuantizedModel, layout: Layout) -> int:
    width = 2 if operand_type(model, layout) == "int16_t" else 1
    return width * sum(buffers(model, layout).values()) + 2 * sum(padded(spec.size) for spec in model.states.values())
