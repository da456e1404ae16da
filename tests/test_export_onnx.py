"""Exact ONNX files equal the oracle's integers in two runtimes; what every file holds besides."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime  # type: ignore[import-untyped]
import pytest
from onnx.reference import ReferenceEvaluator

from edgernn.export.onnx import Form, emitter, exact, to_onnx
from edgernn.qmodel import CELL_EXPONENTS, Affine, HeadKind, QuantizedModel, Scheme

from . import oracle
from .models import HEADS, SCHEMES, VARIANTS, Variant, random_affine, random_input, random_model

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
Runtime = Callable[[bytes, Feeds], dict[str, Array]]


def session(content: bytes, optimise: bool = True, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_ort(content: bytes, feeds: Feeds, optimise: bool = True, threads: int = 1) -> dict[str, Array]:
    loaded = session(content, optimise, threads)
    return dict(zip([o.name for o in loaded.get_outputs()], loaded.run(None, feeds), strict=True))


def run_unoptimised(content: bytes, feeds: Feeds) -> dict[str, Array]:
    return run_ort(content, feeds, optimise=False)


def run_reference(content: bytes, feeds: Feeds) -> dict[str, Array]:
    evaluator = ReferenceEvaluator(onnx.load_from_string(content))
    return dict(zip(evaluator.output_names, evaluator.run(None, feeds), strict=True))


RUNTIMES: tuple[Runtime, ...] = (run_ort, run_reference)


def check(content: bytes) -> onnx.ModelProto:
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    return model


def check_sequences(model: QuantizedModel, seed: int, run: Runtime, steps: int = 9) -> None:
    lengths = [steps, 1, max(1, steps // 2)]
    x = random_input(model, steps, seed, (3,))
    y = run(to_onnx(model), {"x": x, "lengths": np.array(lengths, np.int32)})["y"]
    want = oracle.run_batch(model, x, lengths)
    assert y.dtype == want.dtype, f"seed {seed}"
    assert np.array_equal(y, want), f"seed {seed}"


# ---- exact -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("saturating", [False, True])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("cell", VARIANTS)
def test_sequences_equal_the_oracle(cell: Variant, scheme: Scheme, head: HeadKind | None, saturating: bool) -> None:
    for seed, layers, size in ((11, 1, 13), (12, 2, 6)):
        model = random_model(
            seed, cell, scheme, head=head, layers=layers, input_size=5, hidden_size=size, saturating=saturating
        )
        check_sequences(model, seed, run_ort)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("cell", VARIANTS)
def test_sequences_equal_the_oracle_in_the_reference_runtime(
    cell: Variant, scheme: Scheme, head: HeadKind | None
) -> None:
    model = random_model(21, cell, scheme, head=head, layers=2, input_size=4, hidden_size=5, saturating=not head)
    check_sequences(model, 21, run_reference, steps=5)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("cell", VARIANTS)
def test_smallest_sizes(cell: Variant, scheme: Scheme) -> None:
    model = random_model(31, cell, scheme, input_size=1, hidden_size=1, output_size=1, layers=3)
    check_sequences(model, 31, run_ort, steps=1)
    check_sequences(model, 31, run_ort, steps=40)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("cell", VARIANTS)
def test_step_equals_the_oracle_from_any_state(cell: Variant, scheme: Scheme) -> None:
    """States anywhere in int16, also where no sequence leads."""
    seed, batch = 41, 24
    rng = np.random.default_rng(seed)
    model = random_model(seed, cell, scheme, hidden_size=6, layers=2, saturating=True)
    x = random_input(model, 1, seed, (batch,))[:, 0]
    names = ("h", "c") if cell == "lstm" else ("h",)
    limits = np.array([-32768, -32767, -1, 0, 1, 32766, 32767])
    feeds: Feeds = {"x": x}
    for index in range(2):
        for name in names:
            anywhere = rng.integers(-32768, 32768, (batch, 6))
            feeds[f"{name}_{index}"] = np.where(rng.random((batch, 6)) < 0.3, rng.choice(limits, (batch, 6)), anywhere)
    feeds = {name: value if name == "x" else value.astype(np.int16) for name, value in feeds.items()}
    out = run_ort(to_onnx(model, "step"), feeds)
    for name, value in run_reference(to_onnx(model, "step"), feeds).items():
        assert np.array_equal(value, out[name]), f"seed {seed}, {name}"
    for row in range(batch):
        vector: list[int] = x[row].tolist()
        for index, layer in enumerate(model.layers):
            old = [feeds[f"{name}_{index}"][row].tolist() for name in names]
            h, c = oracle.step(layer, scheme, vector, old[0], old[-1])
            new = dict(zip(names, (h, c), strict=False))
            for name in names:
                assert out[f"{name}_{index}_out"][row].tolist() == new[name], f"seed {seed}, {name}_{index}, row {row}"
            vector = oracle.view(h, scheme)
        assert model.head is not None
        want = [oracle.clamp(oracle.round_shift(v, 8), 8) for v in oracle.affine(model.head.dense, vector)]
        assert out["y"][row].tolist() == want, f"seed {seed}, row {row}"


@pytest.mark.parametrize("head", ["steps", None])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("cell", VARIANTS)
def test_looped_step_equals_the_sequence(cell: Variant, scheme: Scheme, head: HeadKind | None) -> None:
    model = random_model(51, cell, scheme, layers=2, head=head)
    x = random_input(model, 60, 51, (4,))
    whole = run_ort(to_onnx(model), {"x": x, "lengths": np.full(4, 60, np.int32)})["y"]
    stepper = session(to_onnx(model, "step"))
    outputs = [o.name for o in stepper.get_outputs()]
    feeds: Feeds = {i.name: np.zeros((4, i.shape[1]), np.int16) for i in stepper.get_inputs() if i.name != "x"}
    for t in range(60):
        out = dict(zip(outputs, stepper.run(None, {"x": x[:, t], **feeds}), strict=True))
        feeds = {name: out[f"{name}_out"] for name in feeds}
        assert np.array_equal(out["y"], whole[:, t]), f"seed 51, step {t}"


@pytest.mark.parametrize(("seed", "cell", "bidirectional"), [(61, "lstm", False), (241, "gru", True)])
@pytest.mark.parametrize("run", [run_ort, run_reference])
def test_lengths_of_zero_and_beyond_the_end(run: Runtime, seed: int, cell: Variant, bidirectional: bool) -> None:
    """An empty sequence reads the state zero, in both directions; a length beyond the end is the end."""
    model = random_model(seed, cell, head="last", hidden_size=7, bidirectional=bidirectional)
    assert model.head is not None
    x = random_input(model, 4, seed, (2,))
    y = run(to_onnx(model), {"x": x, "lengths": np.array([0, 99], np.int32)})["y"]
    empty = oracle.affine(model.head.dense, [0] * model.head.dense.columns)
    assert y[0].tolist() == [oracle.clamp(oracle.round_shift(v, 8), 8) for v in empty]
    assert np.array_equal(y[1], oracle.run(model, x[1]))


# ---- the primitives, on everything they can meet ---------------------------------------------------------------------


def check_graph(build: Callable[[emitter.Emitter], str], want: npt.ArrayLike, x: Array | None = None) -> None:
    """Emit one float64 value, of a float64 input `x` if there is one, and compare it in both runtimes."""
    g = emitter.Emitter()
    g.rename(build(g), "y")
    shape = [None] * np.ndim(want)
    inputs = [] if x is None else [emitter.tensor("x", np.float64, *shape)]
    content = g.finish("test", inputs, [emitter.tensor("y", np.float64, *shape)], {})
    for run in RUNTIMES:
        got = run(content, {} if x is None else {"x": x.astype(np.float64)})["y"]
        assert np.array_equal(got, want), run.__name__


def test_gate_tables() -> None:
    sums = [oracle.clamp(p, 16) for p in range(-65536, 65536)]
    check_graph(lambda g: g.op("Mul", exact.Tables(g).half_sigmoid, 2.0), [oracle.sigmoid(p) for p in sums])
    check_graph(lambda g: exact.Tables(g).tanh, [oracle.tanh(p) for p in sums])


def test_state_tables() -> None:
    states = [*range(32768), *range(-32768, 0)]
    check_graph(lambda g: exact.Tables(g).to_int8, [oracle.view([v], "w8a8")[0] for v in states])
    some = np.unique(np.r_[0:65536:37, 0:300, 32700:32900, 65300:65536])
    for k in CELL_EXPONENTS:

        def table(g: emitter.Emitter, k: int = k) -> str:
            return g.op("Gather", exact.Tables(g).cell_tanh(k), some)

        to_p = 1 / (2**k * oracle.f32(1 / 3072))
        check_graph(table, [oracle.tanh(oracle.clamp(oracle.rescale(states[i], to_p), 16)) for i in some])


def test_round_shift_around_every_kind_of_tie() -> None:
    rng = np.random.default_rng(71)
    for shift in (8, *range(15, 22)):
        ties = (2 * rng.integers(0, 2 ** (30 - shift), 800) + 1) << (shift - 1)
        near = np.concatenate([ties + d for d in range(-3, 4)])
        v = np.clip(np.concatenate([near, -near, [0, 1, -1, 2**30, -(2**30)]]), -(2**30), 2**30)

        def shifted(g: emitter.Emitter, shift: int = shift) -> str:
            return exact.round_shift(g, g.op("Mul", "x", 0.5), shift)

        check_graph(shifted, [oracle.round_shift(int(value), shift) for value in v], v)


def test_affine_at_large_accumulators() -> None:
    """Accumulators up to the 31 bits that a model may have, and multipliers from 2^-30 to 2^5."""
    rng = np.random.default_rng(72)
    weight = rng.choice(np.array([-127, -1, 0, 1, 127], np.int8), (200, 3))
    output_scale = float(np.float32(1e-3))
    scale = (2.0 ** rng.uniform(-30, 5, 200) * output_scale).astype(np.float32)
    to_the_rails = np.minimum(2**31 - 2**24, 2.0 ** rng.uniform(0, 17, 200) * output_scale / scale)
    bias = np.rint(to_the_rails * rng.choice([-1, 1], 200)).astype(np.int32)
    dense = Affine(weight, bias, scale, 1.0, output_scale)
    x = rng.choice(np.array([-32768, -1, 0, 1, 32767]), (30, 3))
    want = np.array([oracle.affine(dense, row) for row in x.tolist()])
    assert np.mean(np.abs(want) < 32767) > 0.3, "seed 72 should not saturate everywhere"
    check_graph(lambda g: exact.affine(g, "x", dense, 32768), want, x)


def test_sums_that_float64_cannot_hold_are_refused() -> None:
    dense = random_affine(np.random.default_rng(73), 4, 3, 1.0, 1.0, 2.0)
    exact.prove_exact(dense, 32768)
    with pytest.raises(ValueError, match="float64 does not hold exactly"):
        exact.prove_exact(dense, 2**40)


# ---- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights_only", [False, True])
@pytest.mark.parametrize("form", ["sequence", "step"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("cell", VARIANTS)
def test_checker_names_and_types(cell: Variant, head: HeadKind | None, form: Form, weights_only: bool) -> None:
    model = random_model(101, cell, head=head, layers=2, input_size=3, hidden_size=4)
    proto = check(to_onnx(model, form, weights_only))
    assert (proto.ir_version, proto.opset_import[0].version, proto.producer_name) == (8, 17, "edgernn")
    loaded = session(proto.SerializeToString())
    states = [f"{s}_{i}" for i in range(2) for s in (("h", "c") if cell == "lstm" else ("h",))]
    rank = ["N", "T"] if form == "sequence" else ["N"]
    found = {i.name: (i.type, i.shape) for i in loaded.get_inputs()}
    state_type = "tensor(float)" if weights_only else "tensor(int16)"
    want = {"x": ("tensor(float)" if weights_only else "tensor(int8)", [*rank, 3])}
    if form == "sequence":
        assert found == want | {"lengths": ("tensor(int32)", ["N"])}
        assert [o.name for o in loaded.get_outputs()] == ["y"]
    else:
        assert found == want | {name: (state_type, ["N", 4]) for name in states}
        assert [o.name for o in loaded.get_outputs()] == ["y", *(f"{name}_out" for name in states)]
    y = loaded.get_outputs()[0]
    assert y.shape == [*(rank if model.every_step else ["N"]), 3 if head else 4]
    assert y.type == ("tensor(float)" if weights_only else "tensor(int8)" if head else "tensor(int16)")


def with_normalisation(model: QuantizedModel, seed: int) -> QuantizedModel:
    rng = np.random.default_rng(seed)
    mean = rng.normal(0, 3, model.input_size).astype(np.float32)
    std = rng.uniform(0.5, 4, model.input_size).astype(np.float32)
    return QuantizedModel(
        model.layers, model.head, model.input_scale, model.input_zero_point, model.scheme, mean, std, model.labels
    )


def test_metadata_tell_what_a_host_needs() -> None:
    model = with_normalisation(random_model(102, "lstm", layers=2, input_size=3), 102)
    found = session(to_onnx(model)).get_modelmeta().custom_metadata_map
    assert found["edgernn.kind"] == "exact"
    assert found["edgernn.form"] == "sequence"
    assert found["edgernn.arithmetic_version"] == "1"
    assert found["edgernn.scheme"] == "w8a8"
    assert found["edgernn.task"] == "classification"
    assert json.loads(found["edgernn.labels"]) == ["class 0", "class 1", "class 2"]
    assert float(found["edgernn.input_scale"]) == model.input_scale
    assert int(found["edgernn.input_zero_point"]) == model.input_zero_point
    assert model.head is not None
    assert float(found["edgernn.output_scale"]) == np.float32(model.head.dense.output_scale) * 256
    assert np.array_equal(json.loads(found["edgernn.input_mean"]), model.input_mean)
    assert np.array_equal(json.loads(found["edgernn.input_std"]), model.input_std)
    cells = {f"c_{i}": 2.0**-layer.cell_exponent for i, layer in enumerate(model.layers)}
    assert json.loads(found["edgernn.state_scales"]) == {"h_0": 2.0**-15, "h_1": 2.0**-15} | cells
    assert session(to_onnx(model, "step")).get_modelmeta().custom_metadata_map["edgernn.form"] == "step"
    weights = session(to_onnx(model, weights_only=True)).get_modelmeta().custom_metadata_map
    assert weights["edgernn.kind"] == "weights_only"
    assert "edgernn.arithmetic_version" not in weights


def test_files_are_small() -> None:
    model = random_model(103, "gru", input_size=12, hidden_size=32, output_size=9)
    weights = sum(layer.input.weight.size + layer.recurrent.weight.size for layer in model.layers)
    assert len(to_onnx(model)) < 20_000
    assert len(to_onnx(model, weights_only=True)) < weights + 6_000


def test_runtime_folds_tables_and_weights_once(tmp_path: Any) -> None:
    """After loading, nothing but the loop and what depends on the input is left to compute."""
    model = random_model(104, "lstm", hidden_size=8)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3  # it warns that such a file is for this machine only
    onnxruntime.InferenceSession(to_onnx(model), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(options.optimized_model_filepath)
    assert len(optimised.graph.node) < 35
    body = next(a.g for n in optimised.graph.node if n.op_type == "Scan" for a in n.attribute if a.name == "body")
    assert len(body.node) < 32


@pytest.mark.parametrize("weights_only", [False, True])
def test_unknown_form_is_refused(weights_only: bool) -> None:
    model = random_model(105)
    with pytest.raises(ValueError, match="unknown form 'stream'"):
        to_onnx(model, "stream", weights_only)  # type: ignore[arg-type]


def test_more_than_protobuf_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(106, hidden_size=16)
    monkeypatch.setattr(emitter, "SIZE_LIMIT", 1000)
    with pytest.raises(ValueError, match="less than 2 GiB"):
        to_onnx(model)
