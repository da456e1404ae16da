"""A network that takes real numbers and gives real answers, whatever kind of file it lies in."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ._interface import Interface
from ._opening import Opened, Session, Steps, open_file
from .fixedpoint import STATE_SCALE, STATE_VIEW_SCALE

FloatArray = npt.NDArray[np.float32]


class Predictor:
    """A network in a file: `window` for whole sequences, and (where it `streams`) `step` for one row after the other.

    engine: what computes. length: the only number of rows that `window` takes, or None for any. notes: what the user
    should know of the choice of the engine.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened, self._interface = opened, opened.interface
        self.engine, self.length, self.notes = opened.engine, opened.length, opened.notes

    @classmethod
    def open(cls, path: str | Path, engine: str | None = None) -> "Predictor":
        """Read a .ernn, .tflite, .onnx, or what `edgernn build` made (.so, .dylib, .dll).

        engine: of `edgernn.engines.ENGINES`, one that reads such a file. By default a .ernn is computed by the library
        that was built of it beside it, else by numba, else by an engine native; a .tflite by LiteRT, else by
        tflite-runtime; an .onnx by ONNX Runtime.

        Raises ValueError for a file that is missing, damaged, of another program or of a newer arithmetic, and for an
        engine that does not read it or is not installed.
        """
        return cls(open_file(Path(path), engine))

    @property
    def input_size(self) -> int:
        return self._interface.input_size

    @property
    def output_size(self) -> int:
        return self._interface.output_size

    @property
    def labels(self) -> tuple[str, ...]:
        return self._interface.labels

    @property
    def task(self) -> str:
        return self._interface.task

    @property
    def classifies(self) -> bool:
        """Whether the outputs are the logits of classes; else they are values, or a hidden state (no head)."""
        hidden = (STATE_SCALE, STATE_VIEW_SCALE)  # the latter in the profile tflite-lstm
        if isinstance(self._interface, Interface) and self._interface.output_scale not in hidden:
            return self.task == "classification"
        return bool(self.labels)

    @property
    def every_step(self) -> bool:
        """Whether a window has an output for each of its rows ([N, output_size]), or one ([output_size])."""
        return self._interface.every_step

    @property
    def streams(self) -> bool:
        return self._opened.steps is not None

    def step(self, row: npt.ArrayLike) -> FloatArray:
        """The output [output_size] after one more row of finite real numbers [input_size]; the state is carried on."""
        y: FloatArray = self.steps(np.asarray(row, np.float32)[None])[0]
        return y

    def steps(self, rows: npt.ArrayLike) -> FloatArray:
        """The outputs [n, output_size] after each of n more rows [n, input_size], as n calls of `step` give them."""
        return self._real(self._steps(self._interface.quantize_input(rows)))

    def window(self, rows: npt.ArrayLike) -> FloatArray:
        """The output of rows [N, input_size] from the state zero: [output_size], or [N, output_size] (`every_step`).

        Where the file takes single steps alone, the state of `step` is lost.
        """
        x = self._interface.quantize_input(rows)
        if self.length not in (None, len(x)):
            raise ValueError(f"the file was exported for {self.length} steps, there are {len(x)}")
        if self._opened.session is not None:
            return self._real(self._session(x))
        self._steps.reset()
        y = self._steps(x)
        return self._real(y if self.every_step else y[-1])

    def reset(self) -> None:
        """Forget all rows: the state is zero again."""
        self._steps.reset()

    @cached_property
    def _session(self) -> Session:
        assert self._opened.session is not None
        return self._opened.session()

    @cached_property
    def _steps(self) -> Steps:
        if self._opened.steps is None:
            raise ValueError("the network reads whole sequences and takes no single steps: use windows")
        return self._opened.steps()

    def _real(self, y: npt.NDArray[Any]) -> FloatArray:
        if y.shape[-1] != self.output_size:
            raise ValueError(f"the file gives {y.shape[-1]} outputs and describes {self.output_size}; export it anew")
        return self._interface.dequantize_output(y)
