"""The interpreters that run .tflite files in the tests: LiteRT with three sets of kernels, TensorFlow Lite Micro."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType  # type: ignore[import-untyped]
from tflite_micro import runtime  # type: ignore[import-untyped]

from edgernn.qmodel import IntArray, QuantizedModel

from .models import HEADS, SCHEMES, VARIANTS

RESOLVERS = (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.BUILTIN_REF)
ARENA_BYTES = 400_000
KINDS: list[Any] = list(product(VARIANTS, SCHEMES, HEADS, (1, 2)))  # of models: cell, scheme, head, layers

Run = Callable[..., dict[str, IntArray]]


def interpreter(content: bytes, resolver: OpResolverType) -> Any:
    return Interpreter(model_content=content, experimental_op_resolver_type=resolver, num_threads=1)


def micro(content: bytes) -> Any:
    return runtime.Interpreter.from_bytes(content, arena_size=ARENA_BYTES)


def litert_sequences(content: bytes, resolver: OpResolverType) -> Callable[..., IntArray]:
    """run(x [N, T, input_size], lengths) -> y, again and again in one interpreter."""
    engine = interpreter(content, resolver)
    places = {entry["name"]: entry["index"] for entry in engine.get_input_details()}
    (output,) = engine.get_output_details()

    def run(x: IntArray, lengths: IntArray | None = None) -> IntArray:
        engine.resize_tensor_input(places["x"], x.shape)
        engine.allocate_tensors()
        engine.set_tensor(places["x"], x)
        if lengths is not None:
            engine.set_tensor(places["lengths"], lengths.astype(np.int32))
        engine.invoke()
        y: IntArray = engine.get_tensor(output["index"])
        return y

    return run


def micro_sequences(content: bytes) -> Callable[..., IntArray]:
    """The same in TensorFlow Lite Micro."""
    engine = micro(content)

    def run(x: IntArray, lengths: IntArray | None = None) -> IntArray:
        engine.set_input(x, 0)
        if lengths is not None:
            engine.set_input(lengths.astype(np.int32), 1)
        engine.invoke()
        y: IntArray = engine.get_output(0).copy()
        return y

    return run


def litert_step(content: bytes, resolver: OpResolverType) -> Run:
    """run(x=, h_0=, ..) -> {"y": .., "h_0_out": .., ..}"""
    run: Run = interpreter(content, resolver).get_signature_runner("serving_default")
    return run


def micro_step(content: bytes, model: QuantizedModel) -> Run:
    """The same in TensorFlow Lite Micro."""
    engine = micro(content)
    names = list(model.states)

    def run(x: IntArray, **states: IntArray) -> dict[str, IntArray]:
        for place, value in enumerate([x, *(states[name] for name in names)]):
            engine.set_input(value, place)
        engine.invoke()
        return {name: engine.get_output(n).copy() for n, name in enumerate(["y", *(f"{name}_out" for name in names)])}

    return run


def run_steps(run: Run, model: QuantizedModel, x: IntArray) -> IntArray:
    """y [N, T, ..] of x [N, T, input_size], the states handed on from step to step."""
    states = {name: np.zeros((len(x), spec.size), np.int16) for name, spec in model.states.items()}
    outputs = []
    for vectors in np.moveaxis(x, 1, 0):
        result = run(x=np.ascontiguousarray(vectors), **states)
        outputs.append(result["y"])
        states = {name: result[f"{name}_out"] for name in states}
    return np.stack(outputs, axis=1)


def litert_stream(content: bytes, resolver: OpResolverType) -> Callable[[IntArray], IntArray]:
    """run(x [N, T, input_size]) -> y [N, T, ..]; the next call goes on."""
    step = interpreter(content, resolver).get_signature_runner("step")
    return lambda x: np.stack([step(x=vectors)["y"].copy() for vectors in np.moveaxis(x, 1, 0)], axis=1)


def micro_stream(engine: Any) -> Callable[[IntArray], IntArray]:
    """The same in `micro(content)`."""

    def next_step(vectors: IntArray) -> IntArray:
        engine.set_input(np.ascontiguousarray(vectors), 0)
        engine.invoke()
        y: IntArray = engine.get_output(0).copy()
        return y

    return lambda x: np.stack([next_step(vectors) for vectors in np.moveaxis(x, 1, 0)], axis=1)


def assert_same(found: IntArray, expected: IntArray, what: str) -> None:
    assert found.dtype == expected.dtype, what
    assert np.array_equal(found, expected), f"{what}: {found.tolist()} is not {expected.tolist()}"
