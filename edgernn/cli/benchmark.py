"""benchmark: float against integers on this machine, and this machine against another."""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ._options import add_data, add_models, add_seed, positive_int
from ._output import emit, progress, table

if TYPE_CHECKING:
    from ..benchmark import Contender
    from ..data import Dataset
    from ..qmodel import QuantizedModel

HELP = "compare float and integers on this machine: accuracy, size, memory and time in every installed runtime"
PACKAGES: Final = ("edgernn", "numpy", "numba", "ai-edge-litert", "tflite-micro", "onnxruntime", "torch")
EQUAL: Final = {True: "yes", False: "NO", None: "-"}
WHAT: Final = ("fingerprints", "data", "sequences")  # were timed: the same ones, where two machines can be compared

Found = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_models(parser, "a quantised model (.ernn); several of one task are timed in turn and listed together")
    add_data(parser, "(default: the data the first model was trained on)")
    parser.add_argument("--sequences", type=positive_int, default=20, metavar="N", help="how many to time (default 20)")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="show the ratios to another machine too: FILE has its --json"
    )
    add_seed(parser)


def run(args: argparse.Namespace) -> int:
    from ..qmodel import QuantizedModel
    from ._models import check_model_fits, headline, require_dataset

    models = _distinct((path, QuantizedModel.load(path)) for path in args.models)
    first, *others = models.values()
    dataset = require_dataset(args, first)
    for model in others:
        check_model_fits(dataset, model)
    fingerprints = [model.fingerprint for model in models.values()]
    what = dict(zip(WHAT, (fingerprints, dataset.name, min(args.sequences, len(dataset.test))), strict=True))
    other = None if args.against is None else _other(args.against, what)
    found = what | _measure(args, models, dataset)
    lines = [_table(found, *headline(first.task)), "", *_legend(found)]
    if other is not None:
        found["against"] = {"machine": other["machine"], "rows": list(_compared(found["rows"], other["rows"]))}
        lines += ["", *_against(found["against"])]
    lines += found["notes"]
    lines += [f"not installed: {name} ({command})" for name, command in found["missing"].items()]
    lines += [f"warning: {sentence}" for sentence in found["warnings"]]
    emit(args, "\n".join(lines), found)
    return 0 if all(row["equals_kernel"] is not False for row in found["rows"]) else 1


def _distinct(models: Iterable[tuple[Path, "QuantizedModel"]]) -> dict[Path, "QuantizedModel"]:
    """By path. Raises ValueError for a model that is there twice: nothing would tell its rows apart."""
    seen: dict[str, tuple[Path, QuantizedModel]] = {}
    for path, model in models:
        if model.fingerprint in seen:
            raise ValueError(f"{path} is the same model as {seen[model.fingerprint][0]}; name each once")
        seen[model.fingerprint] = path, model
    return dict(seen.values())


def _measure(args: argparse.Namespace, models: Mapping[Path, "QuantizedModel"], dataset: "Dataset") -> Found:
    from dataclasses import asdict

    from .._device import condition, machine, warnings
    from ..benchmark import bare_memory, benchmark, contenders, kernel_of, reference_of
    from ._models import float_file

    about, before = machine(), condition()
    notes, with_float = _other_splits(models), False
    networks: list[Contender] = []
    for path, model in models.items():
        beside, said = float_file(path, model)
        notes += said
        with_float |= beside is not None
        networks += contenders(model, path, beside)
    with progress(args, "run") as report:
        rows = benchmark(networks, dataset.test, args.sequences, report)
    after, (bare, why) = condition(), bare_memory()
    unmeasured = {why: ["Python"], **{row.memory_note: [] for row in rows}}
    for row in rows:
        unmeasured[row.memory_note].append(row.name)
    notes += [f"no memory of {', '.join(names)}: {reason}" for reason, names in unmeasured.items() if reason]
    paths = {model.fingerprint: str(path) for path, model in models.items()}
    return {
        "machine": about | {"versions": _versions()},
        "reference": reference_of(networks).name,
        "kernel": kernel_of(networks).name,
        "flavoured": any(model.profile != "portable" for model in models.values()),
        "bare_memory": bare,
        "rows": [{"model": paths[row.fingerprint], **asdict(row)} for row in rows],
        "conditions": [asdict(before), asdict(after)],
        "warnings": warnings(before, after, about["cores"] or 1),
        "missing": _missing(with_float),
        "notes": notes,
    }


def _other_splits(models: Mapping[Path, "QuantizedModel"]) -> list[str]:
    """Notes on the models whose test part may be another one than the first's."""
    trained_on = {path: [model.provenance.get(name) for name in ("data", "seed")] for path, model in models.items()}
    first, *others = trained_on
    return [
        f"{path} was trained on other data than {first}, or with another seed: both are tested on those of {first}"
        for path in others
        if trained_on[path] != trained_on[first]
    ]


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _missing(with_float: bool) -> dict[str, str]:
    """What to do to have the contenders that are not here."""
    from ..engines import ENGINES, missing

    commands = {name: engine.missing() for name, engine in ENGINES.items() if engine.usual}
    commands["torch float"] = missing("torch") if with_float else None
    return {name: command for name, command in commands.items() if command is not None}


# ---- what is shown ---------------------------------------------------------------------------------------------------


def _table(found: Found, metric: str, show: Any) -> str:
    several = len(found["fingerprints"]) > 1
    what = (*["model"] * several, "runtime", metric, "equals kernel", "bytes", "MB RSS")
    return table(
        (*what, "sequence", "us", "95 %", "step", "us", "95 %"),
        [
            (
                *[row["model"]] * several,
                row["name"],
                show(row["quality"]),
                EQUAL[row["equals_kernel"]],
                row["bytes"],
                None if row["memory"] is None else f"{row['memory'] / 1e6:.0f}",
                *_cells(row["sequence"]),
                *_cells(row["step"]),
            )
            for row in found["rows"]
        ],
    )


def _cells(latency: Mapping[str, float] | None) -> tuple[str | None, ...]:
    if latency is None:
        return (None,) * 3
    return f"{latency['ratio']:.2f}", f"{1e6 * latency['median']:.1f}", f"{1e6 * latency['p95']:.1f}"


def _legend(found: Found) -> Iterator[str]:
    flavoured = ", in the runtime's flavour of the profile tflite-lstm" if found["flavoured"] else ""
    yield f"test part of {found['data']}; equals kernel: the integers of {found['kernel']}{flavoured}, all of that part"
    of_first = f" of {found['rows'][0]['model']}" if len(found["fingerprints"]) > 1 else ""
    yield f"sequence, step: CPU time as a ratio to {found['reference']}{of_first}, one thread, Python calls included"
    yield f"us: the median of single calls and their 95th percentile, of {found['sequences']} sequences"
    if found["bare_memory"] is not None:
        yield f"MB RSS: peak of a process that runs it; {found['bare_memory'] / 1e6:.0f} of them are Python and NumPy"
    yield _named(found["machine"])


def _named(machine: Mapping[str, Any]) -> str:
    board = f"{machine['board']}, " if machine["board"] else ""
    return f"{board}{machine['cpu']}, {machine['cores']} cores, {machine['os']}, Python {machine['python']}"


# ---- another machine -------------------------------------------------------------------------------------------------


def _other(path: Path, what: Found) -> Found:
    """What another machine printed. Raises ValueError when it is not that, or of another model or other data."""
    try:
        found: Found = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            (row["fingerprint"], row["name"], row["sequence"]["median"], row["step"] and row["step"]["median"])
            for row in found["rows"]
        ]
        values = [value for row in rows for value in row[2:] if value is not None]
        if not all(isinstance(value, float) and value > 0 for value in values):
            raise ValueError("a time is no number above 0")
        _named(found["machine"])
        theirs = {name: found[name] for name in WHAT}
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path}: not what edgernn benchmark --json prints ({error})") from None
    for name, own in what.items():
        if theirs[name] != own:
            raise ValueError(f"{path}: cannot be compared: its {name} is {theirs[name]}, here {own}")
    return found


def _compared(rows: Sequence[Found], others: Sequence[Found]) -> Iterator[Found]:
    """The medians here over those there, of the rows that both have."""
    theirs = {(row["fingerprint"], row["name"]): row for row in others}
    for row in rows:
        other = theirs.get((row["fingerprint"], row["name"]))
        if other is not None:
            ratios = {
                name: row[name]["median"] / other[name]["median"] if row[name] and other[name] else None
                for name in ("sequence", "step")
            }
            yield {"model": row["model"], "name": row["name"], **ratios}


def _against(against: Found) -> Iterator[str]:
    several = len({row["model"] for row in against["rows"]}) > 1
    cells = [
        [*[row["model"]] * several, row["name"], *(row[n] and f"{row[n]:.2f}" for n in ("sequence", "step"))]
        for row in against["rows"]
    ]
    yield table((*["model"] * several, "runtime", "sequence", "step"), cells)
    yield ""
    yield f"median times here, as ratios to those of {_named(against['machine'])}"
