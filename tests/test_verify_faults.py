"""What `verify` says where an engine differs: engines that are wrong on purpose."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from edgernn._adversarial import adversarial_models
from edgernn.engines import ENGINES, BatchSession, Engine, Form, Graph, Session, Tensors
from edgernn.qmodel import IntArray, QuantizedModel
from edgernn.verify import targets, verify

from . import oracle
from .models import random_input, random_model
from .test_verify import check


class FaultyGraph:
    """A runtime with a fault: from step 5 on, the lowest bit of unit 3 of layer 1 is wrong."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._step = graph, 0
        self.inputs, self.outputs = graph.inputs, graph.outputs

    def __call__(self, feeds: Tensors) -> Tensors:
        result = {name: value.copy() for name, value in self._graph(feeds).items()}
        if self._step >= 5 and "h_1_out" in result:
            result["h_1_out"][0, 3] ^= 1
            if result["y"].dtype == np.int16:
                result["y"][0, 3] ^= 1
            else:
                result["y"][0, 2] ^= 1
        self._step += 1
        return result

    def reset(self) -> None:
        self._step = 0
        self._graph.reset()


@pytest.mark.parametrize("head", ["last", "steps"])
def test_verify_names_the_place_of_a_fault(head: str) -> None:
    model = random_model(15, "gru", hidden_size=6, layers=2, head=head)  # type: ignore[arg-type]
    right = ENGINES["litert"].load
    assert right is not None
    faulty = dataclasses.replace(
        ENGINES["litert"], name="faulty", forms=("step",), load=lambda content: FaultyGraph(right(content))
    )
    own, hostile, _ = check(model, [faulty])
    assert own.differences > 0
    assert own.first is not None
    assert (own.first.sequence, own.first.step, own.first.output) == ("drawn 0", 5, 2)
    expected = oracle.run(model, random_input(model, 12, seed=0)[:6]).reshape(-1, 3)[-1][2]
    assert (own.first.expected, own.first.found) == (expected, expected ^ 1)
    assert own.problem is not None
    assert "sequence 'drawn 0', step 5, output 2" in own.problem
    assert "layer 1, step 5, unit 3" in own.problem
    assert hostile.problem is not None
    assert "layer 1, step 5, unit 3" in hostile.problem


class FaultyBackward:
    """A runtime with a fault in the backward direction: in step 5 of the last of two layers, unit 3 goes wrong."""

    def __init__(self, graph: Graph, faulty: bool) -> None:
        self._graph, self._faulty = graph, faulty
        self.inputs, self.outputs, self.reset = graph.inputs, graph.outputs, graph.reset

    def __call__(self, feeds: Tensors) -> Tensors:
        y = self._graph(feeds)["y"].copy()
        if self._faulty:
            y[0, :6, 2 if y.dtype == np.int8 else 6 + 3] ^= 1  # it reads from the end: all earlier steps are wrong too
        return {"y": y}


def test_verify_names_the_direction_of_a_fault() -> None:
    model = random_model(22, "gru", hidden_size=6, layers=2, head="steps", bidirectional=True)
    engine = ENGINES["onnxruntime"]
    load, size = engine.load, len(engine.export(model.without_head(1), "sequence"))
    assert load is not None
    faulty = dataclasses.replace(
        engine, name="faulty", load=lambda content: FaultyBackward(load(content), len(content) > size)
    )
    own = next(verify(model, targets(model, [faulty]), [("drawn 0", random_input(model, 12, seed=0))]))
    assert own.problem is not None
    assert "sequence 'drawn 0', step 0, output 2" in own.problem
    assert "layer 1 backward, step 5, unit 3" in own.problem


class CarelessGraph:
    """A runtime that takes padding for steps, unless it is zeros."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.inputs, self.outputs, self.reset = graph.inputs, graph.outputs, graph.reset

    def __call__(self, feeds: Tensors) -> Tensors:
        x, lengths = feeds["x"], feeds["lengths"]
        ends = (x.any(axis=2) * np.arange(1, x.shape[1] + 1, dtype=np.int32)).max(axis=1)
        return self._graph({**feeds, "lengths": np.maximum(lengths, ends)})


@pytest.mark.parametrize("bidirectional", [False, True])
def test_verify_tells_padding_from_steps(bidirectional: bool) -> None:
    model = random_model(23, "lstm", hidden_size=6, head="last", bidirectional=bidirectional)
    load = ENGINES["onnxruntime"].load
    assert load is not None
    careless = dataclasses.replace(
        ENGINES["onnxruntime"], name="careless", load=lambda content: CarelessGraph(load(content))
    )
    own, hostile, batch = check(model, [careless])
    assert own.problem is hostile.problem is None
    assert batch.differences > 0
    assert batch.problem is not None
    assert "sequence 'drawn 0', step 11" in batch.problem  # of 12, in a batch of 24 steps
    assert f"layer 0{' forward' if bidirectional else ''}, step 12" in batch.problem


Change = Callable[[QuantizedModel, IntArray], IntArray]


@dataclass(frozen=True)
class Altered(Engine):
    """The kernel, with its outputs y changed to change(model, y)."""

    change: Change = field(kw_only=True)

    def open(self, model: QuantizedModel, form: Form | None = None, content: bytes | None = None) -> Session:
        session = ENGINES["numba"].open(model)
        return lambda x: self.change(model, session(x))

    def open_batch(self, model: QuantizedModel, content: bytes | None = None) -> BatchSession:
        session = ENGINES["numba"].open_batch(model)
        return lambda x, lengths: self.change(model, session(x, lengths))


def altered_kernel(change: Change) -> Engine:
    return Altered("altered", "a kernel with a fault", "numba", forms=("sequence",), change=change)


@pytest.mark.parametrize(
    ("change", "outputs"),
    [
        (lambda model, y: y.astype(np.int32), r"int32 \(3,\), the kernel int8 \(3,\)"),
        (lambda model, y: y[..., None], r"int8 \(3, 1\), the kernel int8 \(3,\)"),
    ],
    ids=["type", "shape"],
)
def test_equal_numbers_of_another_type_or_shape_are_a_problem(change: Change, outputs: str) -> None:
    own, hostile, batch = check(random_model(27, hidden_size=4, head="last"), [altered_kernel(change)])
    assert re.fullmatch(f"altered gives outputs {outputs}", own.problem or "")
    assert "hidden states, altered gives outputs int" in (hostile.problem or "")
    assert "the model, altered gives outputs int" in (batch.problem or "")


def compared_models(model: QuantizedModel) -> Iterator[tuple[str, str, QuantizedModel]]:
    """(which result, name, model): everything that verify should run for one target."""
    yield "the model", "", model
    yield "hidden states, adversarial models", "hidden states, ", model.without_head()
    for name, hostile in adversarial_models(model):
        yield "hidden states, adversarial models", f"{name}, ", hostile.without_head()
        if name == "mixed":
            yield "hidden states, adversarial models", f"{name}, ", hostile
    yield "a padded batch", "the model, ", model
    yield "a padded batch", "hidden states, ", model.without_head()


def test_a_fault_of_any_model_that_is_compared_is_found() -> None:
    """One by one, by a kernel that is wrong for that model alone."""
    model = random_model(28, "lstm", hidden_size=4, input_size=3, head="last")
    for where, name, wrong in compared_models(model):

        def change(given: QuantizedModel, y: IntArray, wrong: QuantizedModel = wrong) -> IntArray:
            return y ^ 1 if given.fingerprint == wrong.fingerprint else y

        problems = {result.model: result.problem or "" for result in check(model, [altered_kernel(change)])}
        assert problems[where].startswith(f"{name}sequence "), (where, name)
