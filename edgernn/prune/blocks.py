"""Block shapes: which weights of a recurrent matrix live and die together, as a block number for every weight."""

import re
from typing import Final

import torch
from torch import Tensor

UNIT_COLUMNS: Final = 4  # the columns of a "unit" block: one 32-bit load of int8 inputs on a microcontroller


def parse_block(block: str) -> tuple[int, int] | None:
    """(rows, columns) of "element" or "RxC"; None for "unit". Raises ValueError for anything else."""
    if block == "unit":
        return None
    if block == "element":
        return 1, 1
    match = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", block) if isinstance(block, str) else None
    if match is None:
        raise ValueError(f"unknown block {block!r}; known are unit, element, and ROWSxCOLUMNS such as 4x1")
    return int(match[1]), int(match[2])


def block_numbers(rows: int, columns: int, hidden_size: int, block: str) -> Tensor:
    """int64 [rows, columns]: the number of the block that each weight belongs to.

    "unit" joins row u of every gate (rows u, hidden_size + u, ..) over UNIT_COLUMNS columns: what a kernel that
    computes all gates of one hidden unit at once can skip. "RxC" tiles the matrix as it lies. Blocks at the right and
    lower edge are smaller where the sizes do not divide. Raises ValueError for an unknown block.
    """
    shape = parse_block(block)
    height, width = shape or (1, UNIT_COLUMNS)
    row = torch.arange(rows) % hidden_size if shape is None else torch.arange(rows) // height
    column = torch.arange(columns) // width
    return row[:, None] * (int(column[-1]) + 1) + column


def magnitude_mask(weight: Tensor, numbers: Tensor, sparsity: float) -> Tensor:
    """bool like `weight`, False on the weakest blocks, so many that the masked share comes nearest to `sparsity`.

    A block's strength is its mean square: its L2 norm, made comparable between whole blocks and the smaller ones at an
    edge. At least one block stays. Equal blocks fall in the order of their numbers.
    """
    numbers = numbers.flatten()
    size = torch.bincount(numbers)
    energy = torch.zeros(len(size), dtype=torch.float64)
    energy.index_add_(0, numbers, weight.detach().cpu().double().square().flatten())
    order = torch.argsort(energy / size, stable=True)
    masked = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cumsum(size[order], 0)[:-1]])
    count = int(torch.argmin((masked - sparsity * weight.numel()).abs()))
    keep = torch.ones(len(size), dtype=torch.bool)
    keep[order[:count]] = False
    return keep[numbers].reshape(weight.shape).to(weight.device)
