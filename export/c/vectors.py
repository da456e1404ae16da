"""NAME_test.c: a sequence and the outputs that the model has of it, to be run wherever the firmware runs."""

import numpy as np

from .network import Network
from .rows import Array


def self_test(network: Network, x: Array, y: Array) -> str:
    """The text of the test. x: input integers [T, input_size]; y: the outputs [T, output_size] or [output_size]."""
    name = network.name
    work = f", {name}_work" if network.model.bidirectional else ""
    lines = [
        f"/* Whether {name} computes here what it must: {name}_test returns how many integers are wrong, main whether",
        " * any is. Define EDGERNN_NO_MAIN to call the test from elsewhere. */",
        f'#include "{name}.h"',
        "",
        f"#define STEPS {len(x)}",
        "",
        _array(f"{name}_input_t", "inputs", x),
        _array(f"{name}_output_t", "expected", y),
        f"static {name}_output_t outputs[{y.size}];",
        f"static {name}_state_t state;",
        *([f"static {name}_work_t {name}_work[{name.upper()}_WORK_SIZE(STEPS)];"] if work else []),
        "",
        f"int {name}_test(void);",
        f"int {name}_test(void) {{",
        "  int n, wrong = 0;",
        f"  {name}_reset(&state);",
        f"  {name}_run(&state, inputs, STEPS, outputs{work});",
        f"  for (n = 0; n < {y.size}; n++) wrong += outputs[n] != expected[n];",
        "  return wrong;",
        "}",
        "",
        "#ifndef EDGERNN_NO_MAIN",
        f"int main(void) {{ return {name}_test() != 0; }}",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _array(kind: str, name: str, values: Array) -> str:
    rows = np.atleast_2d(values).tolist()
    body = ",\n".join("  " + ", ".join(map(str, row)) for row in rows)
    return f"static const {kind} {name}[{values.size}] = {{\n{body}}};\n"
