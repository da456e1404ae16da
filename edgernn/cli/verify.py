"""verify: every engine against the kernel, integer for integer."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ._models import find_dataset
from ._options import add_data, add_model, add_seed, names, positive_int
from ._output import PATIENCE, emit, table

if TYPE_CHECKING:
    from .._adversarial import Named
    from ..engines import Engine
    from ..qmodel import QuantizedModel
    from ..verify import FlavourDifference, Result

HELP = "check that every engine computes the kernel's integers, with the exported files beside the model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--engines", type=names, metavar="E,..", help="engines to check (default all installed)")
    add_data(parser, "sequences to compare on (default: the data the model was trained on, else random integers)")
    parser.add_argument("--sequences", type=positive_int, default=20, metavar="N", help="how many (default 20)")
    add_seed(parser)


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..engines import ENGINES, select
    from ..qmodel import QuantizedModel
    from ..verify import SLOW_SEQUENCES, SLOW_STEPS, flavour_differences, other_sources, targets, verify

    model = QuantizedModel.load(args.model)
    engines = select(args.engines)
    refusals = [refusal for engine in engines if (refusal := engine.refusal(model))]
    running = [engine for engine in engines if engine.refusal(model) is None]
    cut = [
        *_about_compiled([engine.name for engine in running if engine.compiled]),
        *(
            f"{engine.name} is slow: given at most {SLOW_SEQUENCES} sequences, and {SLOW_STEPS} steps of each"
            for engine in running
            if engine.slow
        ),
        *(f"not edgernn's, left alone: {source}" for source in other_sources(engines, args.model)),
    ]
    commands = {} if args.engines else {name: engine.missing() for name, engine in ENGINES.items()}
    absent = {name: command for name, command in commands.items() if command is not None}
    source, sequences = _sequences(model, args)
    results = []
    found = verify(model, targets(model, engines, args.model), sequences, args.seed)
    silent = True if args.quiet or args.verbose else None  # None: shown on a terminal alone
    for result in tqdm(found, "comparisons", unit="", leave=False, delay=PATIENCE, disable=silent):
        results.append(result)
        if args.verbose:
            print(f"{result.engine} {result.file or 'fresh export'}, {result.model}: done", file=sys.stderr)
    failures = _failures(results)
    skipped = list(dict.fromkeys(f"{result.engine}: {result.skipped}" for result in results if result.skipped))
    if args.engines:  # asked for, and not done
        failures += [*skipped, *refusals]
    if args.quiet and failures and not args.json:
        print(*(f"edgernn verify: {failure}" for failure in failures), sep="\n", file=sys.stderr)
    data: dict[str, Any] = {"ok": not failures, "data": source, "results": [asdict(result) for result in results]}
    apart = flavour_differences(model, sequences)
    notes = [
        *cut,
        *_about_flavours(running, apart),
        *(f"not compared: {reason}" for reason in [*skipped, *refusals] if not args.engines),
        *(f"not installed: {name} ({command})" for name, command in absent.items()),
    ]
    data |= {"missing": absent, "notes": cut}
    if apart:
        data |= {
            "flavours": {engine.name: engine.flavour for engine in running},
            "flavour_differences": [asdict(one) for one in apart],
        }
    emit(args, _text(results, failures, source, notes), data)
    return 1 if failures else 0


def _failures(results: "list[Result]") -> list[str]:
    """The problems; one that two forms of the same file have, once."""
    first: dict[tuple[object, ...], str] = {}
    for one in results:
        if one.problem:
            key = (one.engine, one.file or one.model, one.problem)
            first.setdefault(key, f"{one.engine} ({one.file or 'fresh export'}, {one.model}): {one.problem}")
    return list(first.values())


def _about_compiled(names: list[str]) -> list[str]:
    from ..verify import COMPILED_ADVERSARIAL

    if not names:
        return []
    return [f"{', '.join(names)}: compiled for each model, given one adversarial model ({COMPILED_ADVERSARIAL})"]


def _about_flavours(engines: "list[Engine]", apart: "list[FlavourDifference]") -> Iterator[str]:
    """In which arithmetic each engine computes the profile tflite-lstm, and how far these are apart."""
    from .._tflite_lstm import FLAVOURS

    for flavour in FLAVOURS if apart else ():
        names = ", ".join(engine.name for engine in engines if engine.flavour == flavour and engine.forms)
        if names:
            yield f"compared with the kernel's flavour {flavour}: {names}"
    for one in apart:
        first, second = one.flavours
        share = f"{one.differences:,} of {one.integers:,} hidden states ({one.differences / one.integers:.2%})"
        by = f", by {one.largest} at most" if one.differences else ""
        yield f"the flavours {first} and {second} differ in {share} of these sequences{by}"
    if apart:
        yield "cmsis is the C export's, and TensorFlow Lite Micro's with CMSIS-NN (which keeps no states between calls)"


def _sequences(model: "QuantizedModel", args: argparse.Namespace) -> "tuple[str, Named]":
    """(where they come from, real sequences or random ones) as the model's input integers."""
    import numpy as np

    dataset = find_dataset(args, model)
    if dataset is not None:
        test = dataset.test
        count = min(args.sequences, len(test))
        return f"{count} test sequences of {dataset.name}", [
            (f"test {index}", model.quantize_input(test.x[index, : test.lengths[index]])) for index in range(count)
        ]
    rng = np.random.default_rng(args.seed)
    drawn: Named = []
    for index in range(args.sequences):
        shape = (int(rng.integers(1, 60)), model.input_size)
        x = rng.integers(-model.input_limit, model.input_limit, shape)
        drawn.append((f"drawn {index}", x.astype(model.input_dtype)))
    return f"{args.sequences} random sequences (no data named)", drawn


def _reference() -> str:
    from ..engines import kernel

    return "the Numba kernel" if kernel().name == "numba" else f"the engine {kernel().name} (Numba is not installed)"


def _text(results: "list[Result]", failures: list[str], source: str, notes: list[str]) -> str:
    rows = [(r.engine, r.file or "fresh export", r.model, r.sequences, r.integers, r.differences) for r in results]
    lines = [table(("engine", "file", "model", "sequences", "integers", "differences"), rows), "", *notes]
    total = sum(result.integers for result in results)
    lines.append(f"compared with {_reference()} on {source} and on adversarial integers and models")
    lines += failures or [f"0 differences in {total:,} integers"]
    return "\n".join(lines)
