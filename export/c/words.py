"""Expressions that the generated C has in more than one place."""

from .layouts import GENERAL
from .network import Network, Part


def left_name(left: int) -> str:
    """A left shift, or the kernels' word for something else in its place."""
    return "ERN_GENERAL" if left == GENERAL else str(left)


def stream(network: Network, part: Part) -> str:
    """The initializer of a part's ern_stream."""
    return "{" + ", ".join(f"{part.name}_{name}" for name in network.layout.arrays) + "}"


def operand(network: Network, part: Part) -> str:
    """Where a part's input is in memory: just before the view of the hidden state."""
    return f"state->operands.values + ERN_INPUT - {network.layout.columns(part.maps[0].columns)}"


def view(network: Network, h: str, count: int, place: str) -> str:
    """The statement that makes the operand of products at `place` from a hidden state."""
    return f"{'ern_view_of_bytes' if network.operator else 'ern_view_of'}({h}, {count}, {place});"


def give(network: Network, h: str, count: int, y: str) -> str:
    """The statement that makes the output `y` from a hidden state."""
    return f"{'ern_give_bytes' if network.operator else 'ern_give_state'}({h}, {count}, {y});"
