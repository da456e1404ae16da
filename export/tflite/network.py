"""What forms, loops and cells need of a network, be its numbers integers or floats."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ...qmodel import Cell
from .arithmetic import Arithmetic
from .graph import Graph, Tensor

Emit = Callable[[Arithmetic, Sequence[Tensor]], Tensor]
Variables = dict[str, Tensor]


class Direction(Protocol):
    """One direction of a recurrent layer; `input` and `recurrent` are what the network's `arithmetic` calls affine."""

    @property
    def cell(self) -> Cell: ...
    @property
    def input(self) -> Any: ...
    @property
    def recurrent(self) -> Any: ...
    @property
    def reset_after(self) -> bool: ...
    @property
    def cell_exponent(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def backward(self) -> "Direction | None": ...


class Network(Protocol):
    """The layers, and what the graphs of this kind of numbers are made of."""

    @property
    def layers(self) -> Sequence[Direction]: ...
    @property
    def input_size(self) -> int: ...
    @property
    def output_size(self) -> int: ...
    @property
    def every_step(self) -> bool: ...
    @property
    def has_head(self) -> bool: ...
    @property
    def state_sizes(self) -> Mapping[str, int]:
        """By the states' names: h_0 (and c_0 for an LSTM), h_1, .."""
        ...

    def arithmetic(self, graph: Graph) -> Arithmetic: ...

    def input(self, graph: Graph, shape: tuple[int, ...]) -> Tensor:
        """x as whoever runs the file gives it."""
        ...

    def prepared(self, graph: Graph, x: Tensor) -> Tensor:
        """x [.., input_size] as the first layer reads it."""
        ...

    def state(self, graph: Graph, name: str, shape: tuple[int, ...]) -> Tensor:
        """A new tensor for a state."""
        ...

    def zero_state(self, graph: Graph, name: str, batch: int) -> Tensor:
        """A state before the first step, [batch, 1, 1, hidden_size]."""
        ...

    def output(self, a: Arithmetic, hidden: Sequence[Tensor]) -> Tensor:
        """What the network says about its last hidden states, one a direction."""
        ...

    def loop(
        self, main: Graph, layers: Mapping[str, Direction], read: Variables, emit: Emit | None, reverse: bool
    ) -> Variables:
        """As `loops.loop`."""
        ...
