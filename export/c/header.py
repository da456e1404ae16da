"""NAME.h: what the program that uses the model sees."""

from collections.abc import Iterator

from ... import __version__
from ...fixedpoint import ARITHMETIC_VERSION
from .network import Network

_C_TYPES = {"int8": "int8_t", "int16": "int16_t"}
_OPERATOR = (
    " *",
    " * Its layers are TensorFlow Lite's LSTM operator in int8, the profile tflite-lstm, in CMSIS-NN's arithmetic,",
    " * whose kernels TensorFlow Lite Micro has for Cortex-M; its reference kernels give the same integers. LiteRT's",
    " * differ in a few hidden states of a hundred, mostly by one.",
)


def header(network: Network, target: str) -> str:
    """The text of the header."""
    name, guard = network.name, f"{network.name.upper()}_H"
    lines = [
        f"/* {name}: a recurrent network in the integers of edgernn's arithmetic. No library, no allocation, no float.",
        *(_OPERATOR if network.operator else ()),
        " *",
        f" * An input is rintf((value - mean) / (std * {name.upper()}_INPUT_SCALE)) + {name.upper()}_INPUT_ZERO_POINT,",
        " * clipped to its type, all in float, halves rounded to even; mean and std are the channel's. An output",
        f" * stands for output * {name.upper()}_OUTPUT_SCALE. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        *(f"#define {name.upper()}_{key} {value}" for key, value in _macros(network, target).items()),
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"typedef {_C_TYPES[network.model.input_dtype.__name__]} {name}_input_t;",
        f"typedef {_C_TYPES[network.model.output_dtype.__name__]} {name}_output_t;",
        "",
        *_state(network),
        "",
        *_functions(network),
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _macros(network: Network, target: str) -> dict[str, object]:
    model = network.model
    macros: dict[str, object] = {
        "EDGERNN_VERSION": f'"{__version__}"',
        "ARITHMETIC_VERSION": ARITHMETIC_VERSION,
        "MODEL_HASH": f'"{model.fingerprint}"',
        "PROFILE": f'"{model.profile}"',
        "TARGET": f'"{target}"',
        "INPUT_SIZE": model.input_size,
        "INPUT_SCALE": f"{float(model.input_scale)!r}f",
        "INPUT_ZERO_POINT": f"({model.input_zero_point})",
        "INPUT_MEAN": _floats(model.input_mean.tolist()),
        "INPUT_STD": _floats(model.input_std.tolist()),
        "OUTPUT_SIZE": model.output_size,
        "OUTPUT_SCALE": f"{float(model.output_scale)!r}f",
        "EVERY_STEP": f"{int(model.every_step)} /* {_answers(network)} */",
        "BIDIRECTIONAL": int(model.bidirectional),
        "MACS_PER_STEP": sum(part.macs for part in network.directions),
        "HEAD_MACS": sum(part.macs for part in network.parts if part.layer is None),
        "STATE_BYTES": network.state_bytes,
        "WEIGHT_BYTES": sum(values.nbytes for part in network.parts for values in part.arrays.values()),
    }
    if model.labels:
        macros["LABELS"] = "{" + ", ".join(f'"{_escaped(label)}"' for label in model.labels) + "}"
    if model.bidirectional:
        values = sum(network.work)
        macros["WORK_SIZE(steps)"] = f"({values} * (steps))" if values else "1"
    return macros


def _floats(values: list[float]) -> str:
    return "{" + ", ".join(f"{value!r}f" for value in values) + "}"


def _answers(network: Network) -> str:
    return "an output for every step" if network.model.every_step else "one output a sequence"


def _escaped(label: str) -> str:
    """The inside of a string literal: all but printable ASCII in octal."""
    printable = set(range(32, 127)) - set(b'"\\?')
    return "".join(chr(byte) if byte in printable else f"\\{byte:03o}" for byte in label.encode(errors="replace"))


def _state(network: Network) -> Iterator[str]:
    spans = network.model.states.items()
    if network.model.bidirectional:
        yield "/* Memory to work in. */"
    else:
        yield "/* The state between steps, and memory to work in. h_.. and c_.. alone are the state: write one there to"
        yield f" * go on from it. Sizes are rounded up to a multiple of {network.layout.group}. */"
    yield "typedef struct {"
    for name, spec in spans:
        yield f"  {_C_TYPES[spec.dtype.__name__]} {name}[{network.layout.units(spec.size)}];"
    for buffer, size in network.buffers.items():
        yield "  union {"
        yield f"    {network.operand_type} values[{size}];"
        yield "    int32_t aligned;"
        yield f"  }} {buffer};"
    yield f"}} {network.name}_state_t;"


def _functions(network: Network) -> Iterator[str]:
    name, model = network.name, network.model
    upper = name.upper()
    shape = f"{upper}_OUTPUT_SIZE values{' for every step' if model.every_step else ', of the last step'}"
    run = f"void {name}_run({name}_state_t *state, const {name}_input_t *x, uint32_t steps, {name}_output_t *y"
    if model.bidirectional:
        yield f"/* What {name}_run begins with. */"
    else:
        yield "/* Before the first step. */"
    yield f"void {name}_reset({name}_state_t *state);"
    yield ""
    if model.bidirectional:
        yield f"/* A whole sequence, steps >= 1: x holds {upper}_INPUT_SIZE values a step, y gets {shape}."
        yield f" * work: memory of {upper}_WORK_SIZE(steps) values. */"
        yield f"typedef {network.operand_type} {name}_work_t;"
        yield f"{run}, {name}_work_t *work);"
        return
    yield f"/* One step: x holds {upper}_INPUT_SIZE values, y gets {upper}_OUTPUT_SIZE, or is 0 for no output. */"
    yield f"void {name}_step({name}_state_t *state, const {name}_input_t *x, {name}_output_t *y);"
    yield ""
    yield f"/* Many steps: x holds {upper}_INPUT_SIZE values for each, y gets {shape}, or is 0. */"
    yield f"{run});"
