"""C sources in the form of an export, written by hand: a network small enough to be computed in a line of Python."""

import numpy as np

from edgernn.qmodel import IntArray

HEADER = """
#ifndef MODEL_H
#define MODEL_H
#include <stdint.h>
#define MODEL_INPUT_SIZE 3
#define MODEL_OUTPUT_SIZE 2
#define MODEL_EVERY_STEP 1
#define MODEL_BIDIRECTIONAL 0
#define MODEL_MACS_PER_STEP 6
#define MODEL_HEAD_MACS 0
typedef int8_t model_input_t;
typedef int16_t model_output_t;
typedef struct {
  int16_t h_0[2];
  int32_t scratch[3];
} model_state_t;
void model_reset(model_state_t *state);
void model_step(model_state_t *state, const model_input_t *x, model_output_t *y);
void model_run(model_state_t *state, const model_input_t *x, uint32_t steps, model_output_t *y);
#endif
"""

SOURCE = """
#include "model.h"
#define PART __attribute__((noinline, noclone)) static
#define PLACE

static const int8_t weight[6] = {3, -1, 2, 0, 5, -7};

PART void model_layer_0(model_state_t *state, const model_input_t *x) {
  int row, column;
  PLACE;
  for (row = 0; row < 2; row++) {
    int32_t sum = state->h_0[row] >> 1;
    for (column = 0; column < 3; column++) sum += weight[3 * row + column] * x[column];
    state->h_0[row] = (int16_t)sum;
  }
}

/* An instruction, ten turns of two, and the return. */
__attribute__((naked, noinline, noclone, used)) static void model_head(void) {
#ifdef __riscv
  __asm__ volatile("li t0, 10\\n1: addi t0, t0, -1\\nbnez t0, 1b\\nret");
#else
  __asm__ volatile(".syntax unified\\nmovs r3, #10\\n1: subs r3, r3, #1\\nbne 1b\\nbx lr");
#endif
}

void model_reset(model_state_t *state) {
  state->h_0[0] = state->h_0[1] = 0;
}

void model_step(model_state_t *state, const model_input_t *x, model_output_t *y) {
  model_layer_0(state, x);
  model_head();
  if (y != 0) {
    y[0] = state->h_0[0];
    y[1] = state->h_0[1];
  }
}

void model_run(model_state_t *state, const model_input_t *x, uint32_t steps, model_output_t *y) {
  uint32_t t;
  for (t = 0; t < steps; t++) model_step(state, x + 3 * t, y + 2 * t);
}
"""

SOURCES = {"model.h": HEADER, "model.c": SOURCE}

UNDEFINED, HANG, RECURSION, EXIT, WRITE = 121, 122, 123, 124, 125  # as the first input

_MISBEHAVE = """
  if (x[0] == 121) __asm__ volatile(UNDEFINED);
  if (x[0] == 122) for (;;) __asm__ volatile("");
  if (x[0] == 123) state->h_0[0] = model_deeper(1);
  if (x[0] == 124) __asm__ volatile(EXIT ::: "memory");
  if (x[0] == 125) *(volatile uint32_t *)0x60000000 = 1
"""
_INSTRUCTIONS = """
#ifdef __riscv
#define UNDEFINED "unimp"
#define EXIT "li a0, 0x18\\nli a1, 0x20026\\n.option push\\n.option norvc\\n.balign 16\\n" \\
  "slli zero, zero, 0x1f\\nebreak\\nsrai zero, zero, 7\\n.option pop"
#else
#define UNDEFINED "udf #0"
#define EXIT "movs r0, #0x18\\nldr r1, =0x20026\\nbkpt 0xab"
#endif
__attribute__((noinline)) int16_t model_deeper(int n) {
  volatile int16_t memory[100];
  memory[n % 100] = (int16_t)n;
  return (int16_t)(model_deeper(n + 1) + memory[n % 100]);
}
"""


def misbehaving() -> dict[str, str]:
    """The same, with faults on certain inputs."""
    place = " ".join(_MISBEHAVE.replace("\n", " ").split())
    return {
        "model.h": HEADER,
        "model.c": SOURCE.replace("#define PLACE", "")
        .replace("PLACE;", f"{place};")
        .replace("static const", f"{_INSTRUCTIONS}\nstatic const", 1),
    }


def expected(x: IntArray, state: IntArray | None = None) -> IntArray:
    """The outputs [T, 2] of x [T, 3]."""
    weight = np.array([[3, -1, 2], [0, 5, -7]])
    h = np.zeros(2, np.int64) if state is None else state.astype(np.int64)
    outputs = []
    for row in x.astype(np.int64):
        h = (h >> 1) + weight @ row
        outputs.append(h)
    return np.array(outputs).astype(np.int16)


def inputs(steps: int, seed: int = 0) -> IntArray:
    return np.random.default_rng(seed).integers(-128, 120, (steps, 3)).astype(np.int8)
