"""A session: one emulated microcontroller with a model in it, asked for outputs and states."""

import struct
from typing import Final

import numpy as np

from ...qmodel import IntArray, State
from .build import Firmware, TooLarge
from .faults import describe
from .machine import Answer, Machine

# As harness.c has them.
RUN, STEP, GET, SET, TEST = 1, 2, 3, 4, 5
_FROM_ZERO: Final = 1
_DONE, _TOO_LONG, _STACK_OVERFLOW, _FAULT, _UNKNOWN, READY = range(6)

_SECONDS: Final = 20.0  # for anything, on a busy machine; and for every multiplication:
_SECONDS_PER_MAC: Final = 1e-5


class Session:
    """A firmware in its emulator, kept running. Not for two threads at once. Close it, or let it go.

    limit: seconds a call may take; by default what the model's multiplications allow for. Every method raises
    RuntimeError, with the registers, when the firmware stops on a fault, ends or hangs; the session is over then.
    """

    def __init__(self, firmware: Firmware, limit: float | None = None, plugin: str | None = None) -> None:
        self.firmware, self._limit = firmware, limit
        self._machine = Machine(firmware, plugin)
        self.stack = 0  # bytes of it that the model has used at most
        self._room = self._checked(self._machine.ask(b"", _SECONDS)).value

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._machine.close()

    def finish(self) -> None:
        """End it, but let a plugin write what it has found."""
        self._machine.finish()

    def run(self, x: IntArray, *, from_zero: bool = True) -> IntArray:
        """The outputs [T, output_size], or [output_size] of the last step, of x [T, input_size]; from the state zero,
        or from the one there is.

        A sequence longer than the RAM goes through in pieces. Raises ValueError for a wrong type or shape, TooLarge for
        a sequence that a bidirectional model needs more RAM for.
        """
        return self._outputs(RUN, x, from_zero)

    def step(self, x: IntArray) -> IntArray:
        """The outputs [T, output_size] after each step of x [T, input_size], from the state there is, whatever the
        head. Raises ValueError for a wrong type or shape, and for a bidirectional model."""
        if self.firmware.bidirectional:
            raise ValueError("a bidirectional model takes no single steps")
        return self._outputs(STEP, x, False)

    @property
    def state(self) -> State:
        """A copy of the states, by their names; where the image has room for more values than the model, with those."""
        states = self.firmware.states
        (values,) = np.frombuffer(self._ask(GET, states.itemsize).payload, states)
        return {name: values[name].astype(states[name].base.newbyteorder("=")) for name in states.names or ()}

    @state.setter
    def state(self, state: State) -> None:
        """Raises ValueError for other names or types, or for more values than the image has."""
        states = self.firmware.states
        fields = {name: (*states[name].shape, states[name].base) for name in states.names or ()}
        if set(state) != set(fields) or any(
            len(state[name]) > size or state[name].dtype != dtype for name, (size, dtype) in fields.items()
        ):
            wanted = ", ".join(f"{name} [{size}] {dtype}" for name, (size, dtype) in fields.items())
            raise ValueError(f"the firmware's states are {wanted}")
        values = np.zeros(1, states)
        for name, own in state.items():
            values[name][0, : len(own)] = own
        self._ask(SET, states.itemsize, values.tobytes())

    def reset(self) -> None:
        """Back to the state zero."""
        self._ask(SET, 0)

    def self_test(self) -> int:
        """How many integers the sources' own test finds wrong. Raises ValueError where there is none."""
        if f"{self.firmware.name}_test" not in self.firmware.elf.symbols:
            raise ValueError(f"the sources have no {self.firmware.name}_test.c")
        return self._ask(TEST, 0).value

    def _outputs(self, operation: int, x: IntArray, from_zero: bool) -> IntArray:
        firmware = self.firmware
        if x.dtype != firmware.input_dtype or x.ndim != 2 or x.shape[1] != firmware.input_size or not len(x):
            wanted = f"{firmware.input_dtype} [T, {firmware.input_size}]"
            raise ValueError(f"x is {x.dtype} {list(x.shape)}, the firmware takes {wanted}")
        every = firmware.every_step or operation == STEP
        pieces = []
        for start in range(0, len(x), size := self._steps_at_once(x, every)):
            piece = np.ascontiguousarray(x[start : start + size])
            flags = _FROM_ZERO if from_zero and start == 0 else 0
            limit = _SECONDS + len(piece) * firmware.macs_per_step * _SECONDS_PER_MAC
            answer = self._ask(operation, len(piece), piece.tobytes(), flags, limit)
            self.stack = max(self.stack, answer.value)
            pieces.append(np.frombuffer(answer.payload, firmware.output_dtype).reshape(-1, firmware.output_size))
        return np.concatenate(pieces) if every else pieces[-1][0].copy()

    def _steps_at_once(self, x: IntArray, every: bool) -> int:
        """As many as there is room for; all of a bidirectional model's."""
        firmware = self.firmware
        if firmware.bidirectional:
            return len(x)
        row = firmware.output_size * np.dtype(firmware.output_dtype).itemsize
        step = firmware.input_size * x.itemsize + (row if every else 0)
        room = self._room - 16 - (0 if every else row)
        if room < step:
            raise TooLarge(f"a step needs {step - room:,} bytes more than {firmware.core.name} has free")
        return room // step

    def _ask(self, operation: int, count: int, payload: bytes = b"", flags: int = 0, limit: float = _SECONDS) -> Answer:
        message = struct.pack("<3I", operation, count, flags) + payload
        return self._checked(self._machine.ask(message, self._limit or limit))

    def _checked(self, answer: Answer) -> Answer:
        if answer.status in (_DONE, READY):
            return answer
        core = self.firmware.core
        if answer.status == _TOO_LONG:
            raise TooLarge(f"the sequence is too long for {core.name}: it needs {answer.value:,} bytes of RAM more")
        self.close()
        if answer.status == _FAULT:
            raise RuntimeError(f"{core.name}: {describe(self.firmware, answer.payload)}")
        if answer.status == _STACK_OVERFLOW:
            raise RuntimeError(f"{core.name}: the model overflows a stack of {answer.value:,} bytes")
        raise RuntimeError(f"{core.name}: the firmware answers what is no answer ({answer.status})")
