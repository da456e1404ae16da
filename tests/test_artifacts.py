"""Exported files read back, and the adversarial models and inputs."""

from pathlib import Path

import numpy as np
import pytest

from edgernn._adversarial import adversarial_inputs, adversarial_models
from edgernn._artifacts import read_artifact, read_onnx, read_tflite
from edgernn.engines import ENGINES, Form
from edgernn.export import to_onnx
from edgernn.qmodel import Scheme

from .models import SCHEMES, VARIANTS, Variant, random_model

# ---- reading files back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["sequence", "step", "stream"])
def test_tflite_constants_hold_the_weights(form: Form) -> None:
    model = random_model(8, "lstm", hidden_size=6, input_size=4)
    artifact = read_tflite(ENGINES["litert"].export(model, form))
    found = [c.reshape(len(c), -1) for c in artifact.constants.values() if c.dtype == np.int8]
    for weight in (model.layers[0].input.weight, model.layers[0].recurrent.weight):
        assert any(np.array_equal(constant, weight) for constant in found)
    steps = "1, ?, 4" if form == "sequence" else "1, 4"
    scale = f"scale {model.input_scale:.6g}, zero point {model.input_zero_point}"
    assert str(artifact.inputs["x"]) == f"int8 [{steps}], {scale}"
    assert str(artifact.outputs["y"]).startswith("int8 [1, 3], scale ")
    assert (next(iter(artifact.inputs)), next(iter(artifact.outputs))) == ("x", "y")
    assert artifact.operators["CONV_2D"] == 3


def test_the_weights_and_the_words_of_the_model_are_found_again() -> None:
    model = random_model(8, "lstm", hidden_size=6, input_size=4, layers=2)
    maps = [affine for layer in model.layers for affine in (layer.input, layer.recurrent)]
    maps += [model.head.dense] if model.head else []
    exact, floating = (read_onnx(to_onnx(model, weights_only=only)) for only in (False, True))
    for artifact in (read_tflite(ENGINES["litert"].export(model, "step")), exact, floating):
        zeros = sorted(int((artifact.constants[name] == 0).sum()) for name in artifact.weights)
        assert zeros == sorted(int((affine.weight == 0).sum()) for affine in maps)
        for scale in artifact.weights.values():
            known = [np.sort(affine.weight_scale) for affine in maps]
            assert artifact is exact or any(np.array_equal(np.sort(scale.ravel()), one) for one in known)  # type: ignore[union-attr]
        assert artifact.metadata["scheme"] == model.scheme
        assert artifact.metadata["labels"] == list(model.labels)


@pytest.mark.parametrize("name", ["litert", "onnxruntime"])
def test_readers_survive_damage(name: str) -> None:
    """Any byte changed, any cut: an Artifact or a ValueError, nothing else."""
    content = ENGINES[name].export(random_model(9, "gru", hidden_size=4, input_size=2), "step")
    read = read_tflite if name == "litert" else read_onnx
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        try:
            read(bytes(damaged[: int(rng.integers(len(content)))] if rng.random() < 0.2 else damaged))
        except ValueError:
            refused += 1
    assert 0 < refused < 300


def test_read_artifact_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent.tflite: no such file"):
        read_artifact(tmp_path / "absent.tflite")
    for name in ("a.tflite", "a.onnx"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match=f"{name}: .*not a"):
            read_artifact(tmp_path / name)


# ---- adversarial models ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", VARIANTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_adversarial_models_reach_the_limits(cell: Variant, scheme: Scheme) -> None:
    model = random_model(10, cell, scheme, layers=2, head="steps")
    made = dict(adversarial_models(model, seed=3))
    shifts = {name: made[name].layers[0].recurrent.shift for name in made}
    assert np.abs(made["saturating"].layers[0].input.weight).min() == 127
    assert shifts["largest multipliers"].min() < 15
    assert shifts["smallest multipliers"].max() >= 45
    assert np.ptp(shifts["mixed"]) > 15
    for other in made.values():
        assert other.output_size == model.output_size
        assert [layer.hidden_size for layer in other.layers] == [layer.hidden_size for layer in model.layers]
    again = dict(adversarial_models(model, seed=3))["mixed"]
    assert np.array_equal(again.layers[1].input.weight, made["mixed"].layers[1].input.weight)


def test_wide_adversarial_models_still_fit_their_accumulators() -> None:
    wide = random_model(12, "rnn", "w8a8", input_size=2, hidden_size=700)
    assert len(adversarial_models(wide)) == 4
    narrow = random_model(12, "rnn", "w8a16", input_size=1, hidden_size=1)
    assert len(adversarial_models(narrow)) == 4


def test_adversarial_inputs_cover_the_range() -> None:
    for scheme in SCHEMES:
        model = random_model(13, "gru", scheme)
        inputs = dict(adversarial_inputs(model))
        assert inputs["all minimum"].max() == -model.input_limit
        assert inputs["all maximum"].min() == model.input_limit - 1
        assert set(np.unique(inputs["alternating"])) == {-model.input_limit, model.input_limit - 1}
        assert {x.dtype for x in inputs.values()} == {np.dtype(model.input_dtype)}
        assert {len(x) for x in inputs.values()} == {1, 24}


def test_the_kinds_of_inputs_tell_what_to_feed() -> None:
    model = random_model(9, "gru", "w8a16", hidden_size=6, input_size=4, head="steps")
    batch = read_tflite(ENGINES["litert"].export(model, "sequence", 7, 5))
    assert str(batch.inputs["x"]).startswith("int16 [5, 7, 4], scale ")
    assert str(batch.inputs["lengths"]) == "int32 [5]"
    onnx = read_onnx(ENGINES["onnxruntime"].export(model, "sequence"))
    assert {name: str(port) for name, port in onnx.inputs.items()} == {"x": "int16 [N, T, 4]", "lengths": "int32 [N]"}
    assert {name: str(port) for name, port in onnx.outputs.items()} == {"y": "int8 [N, T, 3]"}
