"""Every engine against the kernel, and the kernel against the oracle, on the random cases of `draw`: with a tally.

python -m tests.agreement START STOP prints the tally of these seeds as JSON.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgernn._targets import reference
from edgernn._tflite_lstm import FLAVOURS, Flavour
from edgernn.engines import ENGINES, Engine, stepwise
from edgernn.firmware_sim import run
from edgernn.qmodel import IntArray, QuantizedModel
from edgernn.verify import SLOW_STEPS

from . import oracle
from . import tflite_lstm_oracle as operator
from .cases import Case, draw, multiplications
from .shrink import shrink
from .tally import OPERATOR, Tally

ORDER = ("oracle", "torch", *ENGINES)
SHARE, SOAK_SHARE = 0.05, 0.2  # of the models that an engine is given that compiles each; here, and in `make soak`
NATIVE_EVERY = 10  # of so many models one is compiled for this computer
_ORACLE_MAX = 30_000  # multiplications: it is written in plain Python


def compare(seeds: Iterable[int], share: float = SHARE) -> Tally:
    """The tally of these cases: each through the oracle where it is affordable, and through every installed engine.

    Of the engines that compile each model, `share` of the models go through one, a drawn one; native has its own part.
    """
    tally = Tally()
    present = [(number, engine) for number, engine in enumerate(ENGINES.values()) if engine.missing() is None]
    quick, compiled = ([one for one in present if one[1].compiled is kind] for kind in (False, True))
    for seed in seeds:
        tally.cases += 1
        case = draw(seed)
        _compare_oracle(tally, case)
        _compare_training(tally, case)
        rng = np.random.default_rng([seed, len(ENGINES)])
        drawn = [compiled[int(rng.integers(len(compiled)))]] if compiled and rng.random() < share else []
        for number, engine in [*quick, *drawn]:
            if engine.name == "native" and (seed + seed // NATIVE_EVERY) % NATIVE_EVERY:  # cells come in turns of four
                continue
            _compare_engine(tally, case, engine, np.random.default_rng([seed, number]))
    return tally


def forms_of(engine: Engine, model: QuantizedModel) -> list[str]:
    """The ways to feed this model to that engine; none where it refuses the model."""
    if engine.name == "numba":
        return ["batch"] if model.bidirectional else ["batch", "step", "chunks"]
    forms: list[str] = list(engine.forms_of(model))
    return [*forms, *["batch"] * engine.takes_batches(model), *["chunks"] * ("step" in forms)]


def _compare_oracle(tally: Tally, case: Case) -> None:
    """The kernel itself, on what plain Python can afford."""
    model, x = case.model, case.x[0, : case.lengths[0]]
    if multiplications(model) * len(x) > _ORACLE_MAX:
        return
    flavour = _drawn_flavour(case)
    own = (lambda: oracle.run(model, x)) if model.profile == "portable" else lambda: operator.run(model, x, flavour)
    _count(tally, case, "oracle", "sequence", own, run(model, x, flavour=flavour)[0])


def _compare_training(tally: Tally, case: Case) -> None:
    """What QAT's forward pass computed, where the model was made by it."""
    trained = case.trained
    if trained is not None:
        kernel = replace(ENGINES["numba"], flavour="tflm")
        _count(tally, case, "torch", "batch", lambda: trained, _one_by_one(kernel, case.model, case.x, case.lengths))


def _compare_engine(tally: Tally, case: Case, engine: Engine, rng: np.random.Generator) -> None:
    """One form of the engine, drawn for this case."""
    model = case.model
    forms = forms_of(engine, model)
    if not forms:
        return
    if engine.name == "numba":
        engine = replace(engine, flavour=_drawn_flavour(case))
    form, kernel = str(rng.choice(forms)), reference(engine)
    steps = min(case.x.shape[1], SLOW_STEPS if engine.slow else case.x.shape[1])
    x, lengths = case.x[:, :steps], np.minimum(case.lengths, steps)
    first = x[0, : lengths[0]]
    if form == "batch":
        expected = _one_by_one(kernel, model, x, lengths)
        _count(tally, case, engine.name, form, lambda: engine.open_batch(model)(x, lengths), expected)
        return
    ways: dict[str, Callable[[QuantizedModel], Callable[[IntArray], IntArray]]] = {
        "chunks": lambda m: lambda values: _in_chunks(engine, m, values, rng),
        "step": lambda m: stepwise(engine.stream(m), m.every_step),
        "stream": lambda m: engine.open(m, "stream"),
        "sequence": lambda m: engine.open(m, "sequence"),
    }
    way = ways[form]
    if not _count(tally, case, engine.name, form, lambda: way(model)(first), kernel.run(model, first)):
        tally.failures[-1] += f"; {shrink(way, kernel.run, model, first)}"


def _drawn_flavour(case: Case) -> Flavour:
    """Of the profile tflite-lstm, where whoever computes it has no flavour of its own."""
    return FLAVOURS[int(np.random.default_rng([case.seed, 23]).integers(len(FLAVOURS)))]


def _count(
    tally: Tally, case: Case, engine: str, form: str, outputs: Callable[[], IntArray], expected: IntArray
) -> bool:
    """Compare, and count it under the engine, form and cell. False when integers differ: worth shrinking."""
    cell = _cell(case.model)
    kind = f"{form}, bidirectional" if case.model.bidirectional else form
    try:
        found = outputs()
    except (ValueError, RuntimeError) as error:
        if isinstance(error, MemoryError):  # more than a core has: not compared, not counted
            return True
        tally.count(engine, kind, cell, expected.size, expected.size)
        tally.failures.append(f"{case}; {engine}, {form}: {error}")
        return True  # nothing to shrink
    same_shape = (found.shape, found.dtype) == (expected.shape, expected.dtype)
    wrong = int(np.count_nonzero(found != expected)) if same_shape else expected.size
    tally.count(engine, kind, cell, expected.size, wrong)
    if wrong:
        tally.failures.append(f"{case}; {engine}, {form}: {wrong} of {expected.size} integers differ")
    return not wrong or not same_shape


def _cell(model: QuantizedModel) -> str:
    """As the tally names it."""
    if model.profile != "portable":
        return OPERATOR
    layer = model.layers[0]
    return layer.cell.upper() if layer.reset_after else "GRU, reset before"


def _in_chunks(engine: Engine, model: QuantizedModel, x: IntArray, rng: np.random.Generator) -> IntArray:
    """In pieces of random sizes, each from the state that the one before left, and in a stepper of its own."""
    cuts = np.unique(rng.integers(1, len(x) + 1, int(rng.integers(1, 4))))
    outputs, state = [], model.zero_state()
    for chunk in np.split(x, cuts[cuts < len(x)]):
        if engine.name == "numba":
            y, state = run(model, chunk, state, engine.flavour or "litert")
            outputs += list(y) if model.every_step else [y]
            continue
        stepper = engine.stream(model)
        stepper.state = state
        outputs += [stepper.step(row) for row in chunk]
        state = stepper.state
    return np.array(outputs) if model.every_step else outputs[-1]


def _one_by_one(kernel: Engine, model: QuantizedModel, x: IntArray, lengths: npt.NDArray[np.integer]) -> IntArray:
    """What the kernel gives of each sequence alone, with zeros after its end."""
    outputs = [kernel.run(model, one[:length]) for one, length in zip(x, lengths, strict=True)]
    if not model.every_step:
        return np.stack(outputs)
    return np.stack([np.pad(y, ((0, x.shape[1] - len(y)), (0, 0))) for y in outputs])


if __name__ == "__main__":
    print(compare(range(int(sys.argv[1]), int(sys.argv[2])), SOAK_SHARE).json())
