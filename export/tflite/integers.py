"""The network of integers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...qmodel import Layer, QuantizedModel
from .arithmetic import Arithmetic
from .cells import passed_on
from .graph import Graph, Tensor
from .loops import loop
from .network import Direction, Emit, Variables


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """A QuantizedModel as `network.Network`."""

    model: QuantizedModel

    @property
    def layers(self) -> Sequence[Layer]:
        return self.model.layers

    @property
    def input_size(self) -> int:
        return self.model.input_size

    @property
    def output_size(self) -> int:
        return self.model.output_size

    @property
    def every_step(self) -> bool:
        return self.model.every_step

    @property
    def has_head(self) -> bool:
        return self.model.head is not None

    @property
    def state_sizes(self) -> Mapping[str, int]:
        return {name: state.size for name, state in self.model.states.items()}

    def arithmetic(self, graph: Graph) -> Arithmetic:
        return Arithmetic(graph, self.model.scheme)

    def input(self, graph: Graph, shape: tuple[int, ...]) -> Tensor:
        dtype = np.dtype(self.model.input_dtype).name
        return graph.tensor("x", shape, dtype, float(self.model.input_scale), self.model.input_zero_point)

    def prepared(self, graph: Graph, x: Tensor) -> Tensor:
        return x

    def state(self, graph: Graph, name: str, shape: tuple[int, ...]) -> Tensor:
        return graph.tensor(name, shape, "int16", self.model.states[name].scale)

    def zero_state(self, graph: Graph, name: str, batch: int) -> Tensor:
        size, scale, _ = self.model.states[name]
        return graph.constant(name, np.zeros((batch, 1, 1, size)), "int16", scale)

    def output(self, a: Arithmetic, hidden: Sequence[Tensor]) -> Tensor:
        """The head's int8, or the hidden states themselves."""
        head = self.model.head
        if head is None:
            return a.join(hidden)
        return a.narrow(a.affine(head.dense, passed_on(a, hidden), name="dense"), "out", head.output_scale)

    def loop(
        self, main: Graph, layers: Mapping[str, Direction], read: Variables, emit: Emit | None, reverse: bool
    ) -> Variables:
        return loop(main, self, layers, read, emit, reverse)
