"""What edgernn adds to torch's recurrent modules: pruning masks, initialisation, lengths, checked arguments."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ..qmodel import DIRECTION_SUFFIXES

State = Any  # torch's hx: [layers * directions, batch, hidden_size], for the LSTM a pair (h, c) of them
RecurrentInit = Literal["uniform", "orthogonal"]

_MASK = "_mask"


def check_lengths(lengths: Tensor, batch: int, steps: int) -> Tensor:
    """lengths as int64 on the CPU. Raises ValueError unless they are [batch] integers in 1 .. steps."""
    lengths = torch.as_tensor(lengths)
    if lengths.shape != (batch,) or lengths.is_floating_point():
        raise ValueError(
            f"lengths must be {batch} integers, one a sequence, not {lengths.dtype} {tuple(lengths.shape)}"
        )
    lengths = lengths.to("cpu", torch.int64)
    if batch and not 1 <= int(lengths.min()) <= int(lengths.max()) <= steps:
        raise ValueError(f"lengths must lie in 1 .. {steps}, found {int(lengths.min())} .. {int(lengths.max())}")
    return lengths


def valid_steps(lengths: Tensor, steps: int) -> Tensor:
    """bool [batch, steps]: which steps belong to their sequence."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def scan(
    step: Callable[..., tuple[Tensor, ...]],
    inputs: Tensor,
    state: tuple[Tensor, ...],
    valid: Tensor,
    backward: bool = False,
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """(hidden states [batch, steps, hidden_size]; the states in the order in which they were reached) of one direction.

    step(inputs[:, t], *state) gives the next state, the hidden one first. inputs [batch, steps, ..]; valid bool [batch,
    steps, 1]. Padding leaves the state as it was, so `backward` starts at each sequence's last valid step; the hidden
    states at padding are no outputs, and the caller masks them where they could be taken for some.
    """
    states = []
    steps = range(inputs.shape[1])
    for t in reversed(steps) if backward else steps:
        following = step(inputs[:, t], *state)
        state = tuple(torch.where(valid[:, t], new, old) for new, old in zip(following, state, strict=True))
        states.append(state)
    hidden = torch.stack([h for h, *_ in states], dim=1)
    return (hidden.flip(1) if backward else hidden), states


class RecurrentBase(nn.RNNBase):
    """Shared by LSTM, GRU and RNN, between them and torch's classes. Not meant to be made by itself."""

    gates: tuple[str, ...]
    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    own_options: tuple[str, ...]  # constructor arguments that only this kind has
    recurrent_init: RecurrentInit

    def _set_up(self, recurrent_init: RecurrentInit) -> None:
        """Call at the end of a constructor."""
        if recurrent_init not in ("uniform", "orthogonal"):
            raise ValueError(f"unknown recurrent_init {recurrent_init!r}; known are uniform, orthogonal")
        if self.input_size < 1:
            raise ValueError(f"input_size must be at least 1, not {self.input_size}")
        if self.proj_size:
            raise ValueError("proj_size is not supported; use proj_size=0")
        self.recurrent_init = recurrent_init
        self.register_state_dict_pre_hook(_zero_masked_first)  # type: ignore[no-untyped-call]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """torch's uniform initialisation, then the recurrent matrices orthogonal per gate if asked for.

        Orthogonal recurrent weights keep gradients from vanishing: Saxe et al. 2014, arXiv 1312.6120.
        """
        super().reset_parameters()
        if getattr(self, "recurrent_init", "uniform") == "orthogonal":
            for name in self.direction_names():
                for gate in getattr(self, f"weight_hh_{name}").chunk(len(self.gates)):
                    nn.init.orthogonal_(gate.data)

    # ---- directions --------------------------------------------------------------------------------------------------

    @property
    def output_size(self) -> int:
        """Values a step that the next layer, or the head, reads: the hidden states of all directions."""
        return self.hidden_size * (1 + self.bidirectional)

    def layers(self) -> list[tuple[str, ...]]:
        """Every layer's directions as torch names their weights: ("l0",), or ("l0", "l0_reverse"), .."""
        suffixes = DIRECTION_SUFFIXES[: 1 + self.bidirectional]
        return [tuple(f"l{index}{suffix}" for suffix in suffixes) for index in range(self.num_layers)]

    def direction_names(self) -> list[str]:
        """The directions of all layers, in the order of torch's hx."""
        return [name for names in self.layers() for name in names]

    def direction_weights(self, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(weight_ih, weight_hh, bias_ih, bias_hh) of one of `direction_names` as the forward pass uses them."""
        w_ih, w_hh, b_ih, b_hh = (
            self.effective(f"{kind}_{name}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        return w_ih, w_hh, b_ih, b_hh

    # ---- pruning masks -----------------------------------------------------------------------------------------------

    def set_mask(self, name: str, mask: Tensor) -> None:
        """Keep `name` (weight_ih_l0, weight_hh_l0_reverse, ..) at zero wherever mask is zero, from now on.

        The mask (same shape, zeros and ones) is a buffer `<name>_mask`: it is saved, copied and moved with the module.
        Raises ValueError for an unknown weight or a wrong shape.
        """
        weight = self._parameters.get(name)
        if weight is None or not name.startswith("weight_"):
            raise ValueError(f"no weight {name!r} to mask; there are {', '.join(self.weight_names())}")
        if mask.shape != weight.shape:
            raise ValueError(f"the mask of {name} has the shape {tuple(mask.shape)}, the weight {tuple(weight.shape)}")
        self.register_buffer(name + _MASK, (mask != 0).to(weight.device))
        self._zero_masked()

    def masks(self) -> dict[str, Tensor]:
        """The masks set so far, by the name of their weight."""
        return {name.removesuffix(_MASK): mask for name, mask in self.named_buffers(recurse=False)}

    def clear_masks(self) -> None:
        """Take every mask off: the weights it kept at zero are still zero, and free to change again."""
        for name in self.masks():
            delattr(self, name + _MASK)

    def weight_names(self) -> list[str]:
        return [name for name in self._parameters if name.startswith("weight_")]

    def _zero_masked(self) -> None:
        for name, mask in self.masks().items():
            getattr(self, name).data.mul_(mask)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in self.weight_names():
            key = prefix + name + _MASK
            if key in state_dict and name not in self.masks():
                self.set_mask(name, state_dict[key])
            elif key not in state_dict and name in self.masks():  # an unpruned checkpoint: the masks stay
                state_dict[key] = self.masks()[name]
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._zero_masked()

    def effective(self, name: str) -> Tensor:
        """The weight or bias called `name` as the forward pass uses it: masked, and zero for an absent bias."""
        if name not in self._parameters:
            weight: Tensor = getattr(self, name.replace("bias", "weight"))
            return weight.new_zeros(len(self.gates) * self.hidden_size)
        parameter: Tensor = getattr(self, name)
        mask = self._buffers.get(name + _MASK)
        return parameter if mask is None else parameter * mask

    @contextmanager
    def _masked_flat_weights(self) -> Iterator[None]:
        """Let torch's fused kernels read masked weights."""
        if not self.masks():
            yield
            return
        plain = self._flat_weights
        self._flat_weights = [self.effective(name) for name in self._flat_weights_names]
        try:
            yield
        finally:
            self._flat_weights = plain

    # ---- the forward pass --------------------------------------------------------------------------------------------

    def forward(
        self, input: Tensor | PackedSequence, hx: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Any, State]:
        """torch's forward, and `lengths` [batch]: later steps are padding, whose output is 0 and which changes nothing.

        input [batch, steps, input_size] with batch_first, else [steps, batch, input_size]; output likewise with
        output_size; the state that comes back is the one after each sequence's last valid step (of a backward direction
        after its first). Unbatched input and PackedSequence work as in torch. Raises ValueError for lengths that do not
        fit.
        """
        with self._masked_flat_weights():
            if lengths is None:
                return self._run(input, hx)
            if isinstance(input, PackedSequence) or input.dim() != 3:
                raise ValueError(
                    "lengths go with a padded batch [batch, steps, channels], not with other kinds of input"
                )
            batch, steps = input.shape[:2] if self.batch_first else (input.shape[1], input.shape[0])
            lengths = check_lengths(lengths, batch, steps)
            packed = pack_padded_sequence(input, lengths, self.batch_first, enforce_sorted=False)
            output, state = self._run(packed, hx)
            return pad_packed_sequence(output, self.batch_first, total_length=steps)[0], state

    def _run(self, input: Any, hx: State | None) -> tuple[Any, State]:
        output, state = super().forward(input, hx)
        return output, state


def _zero_masked_first(module: RecurrentBase, prefix: str, keep_vars: bool) -> None:
    """Before a state_dict is taken: an optimiser with momentum may have moved masked weights since the forward pass."""
    module._zero_masked()
