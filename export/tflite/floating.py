"""The network of floats: LSTM sequences by TensorFlow Lite's own operator, all else by loops over float operators.

The operator's gates have PyTorch's order. It keeps its states in variables of the interpreter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...floatmodel import FloatArray, FloatLayer, FloatModel
from ...qmodel import DIRECTION_SUFFIXES, GATES, STATES, Cell
from .arithmetic import Arithmetic
from .cells import passed_on
from .graph import Graph, Scale, Tensor
from .loops import loop
from .lstm import last_step, lstm, reversed_steps
from .network import Direction, Emit, Variables
from .shapes import reshape


@dataclass(frozen=True, eq=False)
class Dense:
    """weight @ x + bias: weight [rows, columns]."""

    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True, eq=False)
class FloatDirection:
    """A FloatLayer as `network.Direction`."""

    layer: FloatLayer
    cell_exponent: int = 0

    @property
    def cell(self) -> Cell:
        return self.layer.cell

    @property
    def input(self) -> Dense:
        return Dense(self.layer.weight_ih, self.layer.bias_ih)

    @property
    def recurrent(self) -> Dense:
        return Dense(self.layer.weight_hh, self.layer.bias_hh)

    @property
    def reset_after(self) -> bool:
        return self.layer.reset_after

    @property
    def hidden_size(self) -> int:
        return self.layer.hidden_size

    @property
    def backward(self) -> "FloatDirection | None":
        return None if self.layer.backward is None else FloatDirection(self.layer.backward)


class FloatArithmetic(Arithmetic):
    """The same operators on float32. Views and scales have no meaning."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph, "w8a16")  # in which a state is its own view

    def affine(self, affine: Dense, x: Tensor, rows: slice = slice(None), name: str = "p") -> Tensor:  # type: ignore[override]
        """weight @ x + bias for these rows."""
        weight = self.graph.constant("w", affine.weight[rows], "float32")
        bias = self.graph.constant("b", affine.bias[rows], "float32")
        out = self.graph.tensor(name, (*x.shape[:-1], len(affine.bias[rows])), "float32")
        self.graph.op("FULLY_CONNECTED", [x, weight, bias], [out], keep_num_dims=True)
        return out

    def pre_activation(self, c: Tensor, name: str) -> Tensor:
        return c

    def normalised(self, x: Tensor, mean: FloatArray, std: FloatArray) -> Tensor:
        """(x - mean) / std"""
        constants = [self.graph.constant(name, values, "float32") for name, values in (("mean", mean), ("std", std))]
        return self._pointwise("DIV", [self.sub(x, constants[0], "x"), constants[1]], "x", None)

    def _pointwise(self, op: str, inputs: list[Tensor], name: str, scale: Scale | None, **options: bool) -> Tensor:
        return super()._pointwise(op, inputs, name, None)


@dataclass(frozen=True, eq=False)
class FloatNetwork:
    """A FloatModel as `network.Network`."""

    model: FloatModel
    has_head: bool = True

    @cached_property
    def layers(self) -> Sequence[FloatDirection]:
        return [FloatDirection(layer) for layer in self.model.layers]

    @property
    def input_size(self) -> int:
        return self.model.input_size

    @property
    def output_size(self) -> int:
        return self.model.output_size

    @property
    def every_step(self) -> bool:
        return self.model.head == "steps"

    @cached_property
    def state_sizes(self) -> Mapping[str, int]:
        return {
            f"{name}_{index}{suffix}": layer.hidden_size
            for index, layer in enumerate(self.layers)
            for suffix in DIRECTION_SUFFIXES[: 1 if layer.backward is None else 2]
            for name in STATES[layer.cell]
        }

    def arithmetic(self, graph: Graph) -> FloatArithmetic:
        return FloatArithmetic(graph)

    def input(self, graph: Graph, shape: tuple[int, ...]) -> Tensor:
        return graph.tensor("x", shape, "float32")

    def prepared(self, graph: Graph, x: Tensor) -> Tensor:
        return self.arithmetic(graph).normalised(x, self.model.input_mean, self.model.input_std)

    def state(self, graph: Graph, name: str, shape: tuple[int, ...]) -> Tensor:
        return graph.tensor(name, shape, "float32")

    def zero_state(self, graph: Graph, name: str, batch: int) -> Tensor:
        return graph.constant(name, np.zeros((batch, 1, 1, self.state_sizes[name])), "float32")

    def output(self, a: Arithmetic, hidden: Sequence[Tensor]) -> Tensor:
        """The head's real values."""
        assert isinstance(a, FloatArithmetic)
        return a.affine(Dense(self.model.head_weight, self.model.head_bias), passed_on(a, hidden), name="dense")

    def loop(
        self, main: Graph, layers: Mapping[str, Direction], read: Variables, emit: Emit | None, reverse: bool
    ) -> Variables:
        if next(iter(layers.values())).cell != "lstm":
            return loop(main, self, layers, read, emit, reverse)
        return _lstm_operators(self.arithmetic(main), layers, read, emit, reverse)


# ---- the LSTM operator -----------------------------------------------------------------------------------------------


def _lstm_operators(
    a: FloatArithmetic, layers: Mapping[str, Direction], read: Variables, emit: Emit | None, reverse: bool
) -> Variables:
    """What `loops.loop` gives, of whole sequences at once: the last hidden states, and y."""
    (batch, steps, _, size), end = read["x"].shape, Variables()
    every = reshape(a.graph, read["x"], (batch, steps, size), "x")
    every = reversed_steps(a.graph, every) if reverse else every
    for place, layer in layers.items():
        every = _lstm_operator(a.graph, layer, every)
        end[f"h_{place}"] = last_step(a.graph, every)
    if emit is not None:
        every = reversed_steps(a.graph, every) if reverse else every
        hidden = reshape(a.graph, every, (batch, steps, 1, every.shape[2]), "h")
        end["y"] = emit(a, [hidden, *([read["beside"]] if "beside" in read else [])])
    return end


def _lstm_operator(graph: Graph, layer: Direction, x: Tensor) -> Tensor:
    """The hidden states [batch, T, hidden_size] of x [batch, T, size]."""
    gates, size = len(GATES["lstm"]), layer.hidden_size
    weights = [*np.split(layer.input.weight, gates), *np.split(layer.recurrent.weight, gates)]
    bias = np.split(layer.input.bias + layer.recurrent.bias, gates)
    kernels, biases = (
        [graph.constant(name, one, "float32") for one in part] for name, part in (("w", weights), ("b", bias))
    )
    states = [graph.tensor(name, (x.shape[0], size), "float32", variable=True) for name in STATES["lstm"]]
    out = graph.tensor("h", (*x.shape[:2], size), "float32")
    return lstm(graph, x, kernels, biases, states, out)
