"""The .tflite files: what runtimes compute from them, to the bit, and what stands in them."""

import dataclasses
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-untyped]
from ai_edge_litert.interpreter import OpResolverType  # type: ignore[import-untyped]

from edgernn.export.tflite import to_tflite
from edgernn.qmodel import IntArray, QuantizedModel
from tests import oracle
from tests.models import HEADS, SCHEMES, VARIANTS, random_input, random_model
from tests.tflite_runtimes import (
    KINDS,
    RESOLVERS,
    assert_same,
    interpreter,
    litert_sequences,
    litert_step,
    litert_stream,
    micro,
    micro_sequences,
    micro_step,
    micro_stream,
    run_steps,
)


def make(seed: int, cell: Any, scheme: Any, head: Any, layers: int, saturating: bool = False) -> QuantizedModel:
    rng = np.random.default_rng(seed)
    hidden, outputs = int(rng.integers(1, 13)), int(rng.integers(1, 6))
    return random_model(
        seed, cell, scheme, hidden_size=hidden, layers=layers, head=head, output_size=outputs, saturating=saturating
    )


def every_step(model: QuantizedModel) -> QuantizedModel:
    """The model that says at every step what `model` would say if the sequence ended there."""
    if model.head is None:
        return model
    return dataclasses.replace(model, head=dataclasses.replace(model.head, kind="steps"))


# ---- what runtimes compute -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("saturating", [False, True])
@pytest.mark.parametrize(("cell", "scheme", "head", "layers"), KINDS)
def test_every_form_on_every_runtime_computes_the_oracles_integers(
    cell: str, scheme: str, head: str | None, layers: int, saturating: bool
) -> None:
    seed = 2 * KINDS.index((cell, scheme, head, layers)) + saturating
    model = make(seed, cell, scheme, head, layers, saturating)
    x = random_input(model, 2 + seed % 7, seed)
    steps = oracle.run(every_step(model), x)
    expected = steps if model.every_step else steps[-1]
    dynamic, static = to_tflite(model), to_tflite(model, steps=len(x))
    step, stream = to_tflite(model, "step"), to_tflite(model, "stream")
    for resolver in RESOLVERS:
        where = f"seed {seed}, {resolver}"
        assert_same(litert_sequences(dynamic, resolver)(x[None])[0], expected, f"{where}, any T")
        assert_same(litert_sequences(static, resolver)(x[None])[0], expected, f"{where}, fixed T")
        assert_same(run_steps(litert_step(step, resolver), model, x[None])[0], steps, f"{where}, step")
        assert_same(litert_stream(stream, resolver)(x[None])[0], steps, f"{where}, stream")
    assert_same(micro_sequences(static)(x[None])[0], expected, f"seed {seed}, TFLM, sequence")
    assert_same(run_steps(micro_step(step, model), model, x[None])[0], steps, f"seed {seed}, TFLM, step")
    assert_same(micro_stream(micro(stream))(x[None])[0], steps, f"seed {seed}, TFLM, stream")


@pytest.mark.parametrize("steps", [1, 2, 3, 31])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_file_without_steps_takes_any_length(scheme: str, head: str | None, steps: int) -> None:
    model = make(7, "gru", scheme, head, 1)
    x = random_input(model, steps, steps)
    expected = oracle.run(model, x)
    content = to_tflite(model)
    for resolver in RESOLVERS:
        assert_same(litert_sequences(content, resolver)(x[None])[0], expected, f"{resolver}, T={steps}")
        runner = interpreter(content, resolver).get_signature_runner()
        assert_same(runner(x=x[None])["y"][0], expected, f"{resolver}, T={steps}, by the signature")


@pytest.mark.parametrize("head", HEADS)
def test_one_fixed_step_runs_in_tflite_micro(head: str | None) -> None:
    model = make(8, "lstm", "w8a8", head, 1)
    x = random_input(model, 1, 8)
    assert_same(micro_sequences(to_tflite(model, steps=1))(x[None])[0], oracle.run(model, x), f"head {head}")


def test_a_sequence_does_not_depend_on_the_one_before() -> None:
    model = make(9, "lstm", "w8a16", "last", 2)
    first, second = random_input(model, 6, 1), random_input(model, 6, 2)
    content = to_tflite(model, steps=6)
    engine, micro_engine = litert_sequences(content, OpResolverType.AUTO), micro_sequences(content)
    for x in (first, second):
        assert_same(engine(x[None])[0], oracle.run(model, x), "LiteRT")
        assert_same(micro_engine(x[None])[0], oracle.run(model, x), "TFLM")


@pytest.mark.parametrize("cell", VARIANTS)
def test_a_stream_goes_on_across_chunks_and_starts_anew_after_reset(cell: str) -> None:
    model = make(10, cell, "w8a8", "last", 2)
    x = random_input(model, 9, 10)
    expected = oracle.run(every_step(model), x)
    content = to_tflite(model, "stream")
    for resolver in RESOLVERS:
        engine = interpreter(content, resolver)
        step, reset = engine.get_signature_runner("step"), engine.get_signature_runner("reset")
        reset()  # also before the first step
        for _ in range(2):
            for chunk, wanted in zip(np.split(x, [2, 3]), np.split(expected, [2, 3]), strict=True):
                found = np.array([step(x=vector[None])["y"][0].copy() for vector in chunk])
                assert_same(found, wanted, f"{cell}, {resolver}")
            reset()
    micro_engine = micro(content)
    for _ in range(2):
        assert_same(micro_stream(micro_engine)(x[None])[0], expected, f"{cell}, TFLM")
        micro_engine.reset()


def test_the_state_can_be_handed_from_one_runtime_to_another() -> None:
    model = make(11, "lstm", "w8a8", "last", 2)
    x = random_input(model, 8, 11)
    content = to_tflite(model, "step")
    runs = [litert_step(content, OpResolverType.AUTO), micro_step(content, model)]

    def alternate(x: IntArray, **states: IntArray) -> dict[str, IntArray]:
        runs.reverse()
        return runs[0](x=x, **states)

    assert_same(run_steps(alternate, model, x[None])[0], oracle.run(every_step(model), x), "LiteRT and TFLM in turn")


# ---- what stands in the file -----------------------------------------------------------------------------------------


def parse(content: bytes) -> Any:
    assert schema.Model.ModelBufferHasIdentifier(content, 0)
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def named(subgraph: Any, indices: npt.NDArray[np.int32]) -> dict[str, Any]:
    return {subgraph.tensors[index].name.decode(): subgraph.tensors[index] for index in indices}


def quantisation(tensor: Any) -> tuple[float, int]:
    (scale,), (zero_point,) = tensor.quantization.scale, tensor.quantization.zeroPoint
    return float(scale), int(zero_point)


@pytest.mark.parametrize("form", ["sequence", "step", "stream"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_tensors_say_names_shapes_types_and_quantisation(form: Any, scheme: str) -> None:
    model = make(12, "lstm", scheme, "last", 2)
    assert model.head is not None
    main = parse(to_tflite(model, form)).subgraphs[0]
    inputs, outputs = named(main, main.inputs), named(main, main.outputs)
    states = list(model.states) if form == "step" else []
    assert list(inputs) == ["x", *states]
    assert list(outputs) == ["y", *(f"{name}_out" for name in states)]
    x, y = inputs["x"], outputs["y"]
    assert x.shape.tolist() == ([1, 1, model.input_size] if form == "sequence" else [1, model.input_size])
    assert y.shape.tolist() == [1, model.output_size]
    assert (x.type, y.type) == (
        schema.TensorType.INT8 if scheme == "w8a8" else schema.TensorType.INT16,
        schema.TensorType.INT8,
    )
    assert quantisation(x) == (float(np.float32(model.input_scale)), model.input_zero_point)
    assert quantisation(y) == (float(np.float32(256 * model.head.dense.output_scale)), 0)
    for name in states:
        scale = 2.0**-15 if name.startswith("h") else 2.0 ** -model.layers[int(name[-1])].cell_exponent
        for tensor in (inputs[name], outputs[f"{name}_out"]):
            assert tensor.shape.tolist() == [1, model.layers[0].hidden_size]
            assert tensor.type == schema.TensorType.INT16
            assert quantisation(tensor) == (scale, 0)


@pytest.mark.parametrize(("head", "dtype"), [("last", "INT8"), ("steps", "INT8"), (None, "INT16")])
def test_a_sequences_time_axis_is_dynamic_or_fixed(head: str | None, dtype: str) -> None:
    model = make(13, "gru", "w8a8", head, 1)
    for steps in (None, 5):
        main = parse(to_tflite(model, steps=steps)).subgraphs[0]
        x, y = main.tensors[main.inputs[0]], main.tensors[main.outputs[0]]
        assert x.shape.tolist() == [1, steps or 1, model.input_size]
        assert y.shape.tolist() == [1, *([steps or 1] if model.every_step else []), model.output_size]
        assert y.type == getattr(schema.TensorType, dtype)
        signatures = [None if t.shapeSignature is None else t.shapeSignature.tolist() for t in (x, y)]
        fixed = steps is not None
        assert signatures[0] == (None if fixed else [1, -1, model.input_size])
        assert signatures[1] == (None if fixed or head == "last" else [1, -1, model.output_size])


@pytest.mark.parametrize(
    ("form", "signatures"),
    [("sequence", ["serving_default"]), ("step", ["serving_default"]), ("stream", ["step", "reset"])],
)
def test_signatures(form: Any, signatures: list[str]) -> None:
    model = make(14, "lstm", "w8a8", "last", 1)
    listed = interpreter(to_tflite(model, form), OpResolverType.AUTO).get_signature_list()
    assert list(listed) == sorted(signatures) or list(listed) == signatures
    states = ["c_0", "h_0"] if form == "step" else []
    assert sorted(listed[signatures[0]]["inputs"]) == [*states, "x"]
    assert sorted(listed[signatures[0]]["outputs"]) == [*(f"{name}_out" for name in states), "y"]
    if form == "stream":
        assert listed["reset"] == {"inputs": [], "outputs": []}


def test_metadata_tells_what_a_program_needs() -> None:
    model = make(15, "gru", "w8a8", "last", 1)
    mean, std = (np.linspace(a, b, model.input_size, dtype=np.float32) for a, b in ((-0.3, 7.1), (0.1, 3.3)))
    model = dataclasses.replace(model, input_mean=mean, input_std=std)
    tree = parse(to_tflite(model, "step"))
    found = {entry.name.decode(): bytes(tree.buffers[entry.buffer].data) for entry in tree.metadata}
    assert found.keys() == {"edgernn", "min_runtime_version"}
    assert len(found["min_runtime_version"]) == 16
    entry = json.loads(found["edgernn"])
    assert entry["arithmetic_version"] == model.arithmetic_version
    assert (entry["scheme"], entry["form"], entry["task"]) == ("w8a8", "step", "classification")
    assert entry["labels"] == list(model.labels)
    assert np.array_equal(np.float32(entry["input_mean"]), mean)
    assert np.array_equal(np.float32(entry["input_std"]), std)
    assert tree.description.decode().startswith("edgernn gru")


def test_the_metadata_hold_the_fingerprint() -> None:
    model = make(16, "gru", "w8a8", "last", 1)
    for form in ("sequence", "step", "stream"):
        tree = parse(to_tflite(model, form))
        (entry,) = (entry for entry in tree.metadata if entry.name == b"edgernn")
        assert json.loads(bytes(tree.buffers[entry.buffer].data))["fingerprint"] == model.fingerprint


@pytest.mark.parametrize("form", ["sequence", "step", "stream"])
@pytest.mark.parametrize("cell", VARIANTS)
def test_buffers_are_aligned_and_stored_once(cell: str, form: Any) -> None:
    content = to_tflite(make(17, cell, "w8a8", "steps", 2), form)
    model = schema.Model.GetRootAs(content, 0)
    data = []
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        assert (index == 0) == buffer.DataIsNone()
        if index:
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            assert start % 16 == 0
            data.append(content[start : start + buffer.DataLength()])
    assert len(data) == len(set(data))


def test_weights_and_biases_are_the_models() -> None:
    model = make(18, "lstm", "w8a16", "last", 1)
    assert model.head is not None
    tree = parse(to_tflite(model))
    convolutions = [
        (subgraph, operator)
        for subgraph in tree.subgraphs
        for operator in subgraph.operators
        if tree.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.CONV_2D
    ]
    layer = model.layers[0]
    affines = [model.head.dense, layer.input, layer.recurrent]
    assert len(convolutions) == len(affines)
    for (subgraph, operator), affine in zip(convolutions, affines, strict=True):
        weight, bias = (subgraph.tensors[index] for index in operator.inputs[1:])
        assert np.array_equal(np.frombuffer(bytes(tree.buffers[weight.buffer].data), np.int8), affine.weight.ravel())
        assert np.array_equal(np.frombuffer(bytes(tree.buffers[bias.buffer].data), np.int64), affine.bias)
        assert np.array_equal(weight.quantization.scale, affine.weight_scale)


def test_a_gru_of_32_fits_16_kilobytes() -> None:
    model = random_model(19, "gru", "w8a8", input_size=12, hidden_size=32, output_size=9)
    for form, steps in (("sequence", None), ("sequence", 100), ("step", None), ("stream", None)):
        assert len(to_tflite(model, form, steps)) < 16_384  # type: ignore[arg-type]


def test_the_same_model_gives_the_same_bytes() -> None:
    assert to_tflite(make(20, "lstm", "w8a8", "steps", 2)) == to_tflite(make(20, "lstm", "w8a8", "steps", 2))


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "loop"}, "unknown form 'loop'; known are sequence, step, stream"),
        ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
        ({"steps": -3}, "steps must be a whole number of at least 1, not -3"),
        ({"form": "step", "steps": 4}, "steps=4 goes with the form sequence"),
        ({"form": "stream", "steps": 1}, "steps=1 goes with the form sequence"),
        ({"steps": 2**31}, "2 GiB"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_tflite(make(21, "rnn", "w8a8", "last", 1), **arguments)


def test_an_output_scale_beyond_float32_is_refused() -> None:
    model = make(22, "rnn", "w8a8", "last", 1)
    assert model.head is not None
    dense = model.head.dense
    huge = dataclasses.replace(dense, weight_scale=np.full_like(dense.weight_scale, 1e35), output_scale=3e36)
    with pytest.raises(ValueError, match="beyond float32"):
        to_tflite(dataclasses.replace(model, head=dataclasses.replace(model.head, dense=huge)))
