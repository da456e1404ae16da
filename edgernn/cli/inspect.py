"""inspect: what a file holds."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ._options import add_data, add_seed, model_file
from ._output import emit, percent, table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..floatmodel import FloatLayer
    from ..qmodel import Affine, Layer, QuantizedModel

_Layer = TypeVar("_Layer", "Layer", "FloatLayer")
_LIMITED = {"hidden": "hidden state", "cell": "cell state"}
HELP = "show what a .ernn, .safetensors, .tflite or .onnx file holds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=model_file, metavar="FILE", help="a .ernn, .safetensors, .tflite or .onnx file")
    add_data(parser, "count saturations on its test part (.ernn)")
    add_seed(parser)


def run(args: argparse.Namespace) -> int:
    kinds = {".ernn": _quantized, ".safetensors": _float, ".tflite": _exported, ".onnx": _exported}
    show = kinds.get(args.model.suffix.lower())
    if show is None:
        raise ValueError(f"{args.model}: not one of the files this can read: {', '.join(kinds)}")
    if args.data and show is not _quantized:
        raise ValueError("--data counts saturations, which only a .ernn file has")
    text, data = show(args)
    emit(args, text, {"path": str(args.model), "bytes": args.model.stat().st_size} | data)
    return 0


# ---- .ernn -----------------------------------------------------------------------------------------------------------


def _quantized(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    import numpy as np

    from ..qmodel import QuantizedModel

    model = QuantizedModel.load(args.model)
    maps = list(_maps(model))
    facts = {
        "profile": model.profile,
        "scheme": model.scheme,
        "bidirectional": model.bidirectional,
        "task": model.task,
        "head": None if model.head is None else model.head.kind,
        "labels": list(model.labels),
        "input_scale": model.input_scale,
        "input_zero_point": model.input_zero_point,
        "output_scale": model.output_scale,
        "macs_per_step": sum(entry["weights"] for entry in maps),
        "weight_bytes": sum(entry["bytes"] for entry in maps),
        "state_bytes": sum(np.dtype(spec.dtype).itemsize * spec.size for spec in model.states.values()),
        "arithmetic_version": model.arithmetic_version,
        "provenance": dict(model.provenance),
    }
    headers = ("map", "rows", "columns", "zeros", "zero unit blocks", "smallest scale", "largest scale", "bytes")
    rows = [
        (
            entry["name"],
            entry["rows"],
            entry["columns"],
            percent(entry["zeros"]),
            percent(entry["zero_unit_blocks"]),
            *entry["weight_scale"],
            entry["bytes"],
        )
        for entry in maps
    ]
    text = f"{_cells(model)}\n\n{table(headers, rows)}\n\n{_lines(facts)}"
    data: dict[str, Any] = facts | {"maps": maps}
    if args.data:
        counts = _saturation(args, model)
        data["saturation"] = counts
        shown = {name: percent(share) for name, share in counts.items()}
        text += f"\n\nvalues at an end of their range, on the test part of {args.data}\n{_lines(shown)}"
    return text, data


def _saturation(args: argparse.Namespace, model: "QuantizedModel") -> dict[str, Any]:
    """Shares of values at an end of their range, over the test part."""
    from ..firmware_sim import count_saturation
    from ._models import find_dataset

    dataset = find_dataset(args, model)
    assert dataset is not None
    test = dataset.test
    counts = count_saturation(model, model.quantize_input(test.x), test.lengths)
    shares = {"input": counts.input / (counts.steps * model.input_size)}
    for index, (layer, found) in enumerate(zip(model.layers, counts.layers, strict=True)):
        values = counts.steps * layer.output_size
        shares |= {f"layer {index} {_LIMITED.get(name, f'gate {name}')}": n / values for name, n in found.items()}
    return shares


def _maps(model: "QuantizedModel") -> Iterator[dict[str, Any]]:
    affines: list[tuple[str, Affine, Layer | None]] = [
        (f"{name} {part}", getattr(layer, part), layer)
        for name, layer in _directions(model.layers)
        for part in ("input", "recurrent")
    ]
    if model.head is not None:
        affines.append(("head", model.head.dense, None))
    for name, affine, layer in affines:
        yield {
            "name": name,
            "rows": affine.rows,
            "columns": affine.columns,
            "weights": affine.weight.size,
            "zeros": float((affine.weight == 0).mean()),
            "zero_unit_blocks": None if layer is None else _zero_unit_blocks(affine.weight, layer.hidden_size),
            "weight_scale": [float(affine.weight_scale.min()), float(affine.weight_scale.max())],
            "bytes": affine.weight.nbytes + affine.bias.nbytes + affine.weight_scale.nbytes,
        }


def _directions(layers: Iterable[_Layer]) -> Iterator[tuple[str, _Layer]]:
    """Every layer, and every backward direction, with its name."""
    from ..qmodel import DIRECTION_NAMES

    for index, layer in enumerate(layers):
        for name, direction in zip(DIRECTION_NAMES, (layer, layer.backward), strict=True):
            if direction is not None:
                yield f"layer {index}{name}", direction


def _zero_unit_blocks(weight: "npt.NDArray[np.int8]", hidden_size: int) -> float:
    """The share of blocks (all gate rows of a unit x 4 columns) that hold zeros alone and can be skipped."""
    import numpy as np

    padded = np.pad(weight, ((0, 0), (0, -weight.shape[1] % 4)))
    blocks = padded.reshape(-1, hidden_size, padded.shape[1] // 4, 4)
    return float((~blocks.any(axis=(0, 3))).mean())


def _cells(model: "QuantizedModel") -> str:
    rows = [
        (
            name.removeprefix("layer "),
            layer.cell if layer.reset_after else f"{layer.cell}, reset before",
            layer.input_size,
            layer.hidden_size,
            f"2^-{layer.cell_exponent}" if layer.cell == "lstm" else None,
        )
        for name, layer in _directions(model.layers)
    ]
    return table(("layer", "cell", "inputs", "hidden", "cell state scale"), rows)


def _lines(facts: dict[str, Any]) -> str:
    width = max(map(len, facts))
    return "\n".join(f"{name.replace('_', ' '):{width}}  {_words(value)}" for name, value in facts.items())


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(entry)}" for name, entry in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value)) or "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else f"{value:,}" if type(value) is int else str(value)


# ---- other files -----------------------------------------------------------------------------------------------------


def _float(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from ..floatmodel import FloatModel

    model = FloatModel.load(args.model)
    matrices = {
        f"{name} {part}": getattr(layer, attribute)
        for name, layer in _directions(model.layers)
        for part, attribute in (("input", "weight_ih"), ("recurrent", "weight_hh"))
    } | {"head": model.head_weight}
    maps = [
        {"name": name, "rows": len(weight), "columns": weight.shape[1], "zeros": float((weight == 0).mean())}
        for name, weight in matrices.items()
    ]
    facts = {
        "cell": model.layers[0].cell,
        "bidirectional": model.layers[0].backward is not None,
        "task": model.task,
        "head": model.head,
        "labels": list(model.labels),
        "weights": sum(weight.size for weight in matrices.values()),
    }
    rows = [(entry["name"], entry["rows"], entry["columns"], percent(entry["zeros"])) for entry in maps]
    return f"{table(('map', 'rows', 'columns', 'zeros'), rows)}\n\n{_lines(facts)}", facts | {"maps": maps}


def _exported(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from .._artifacts import read_artifact

    artifact = read_artifact(args.model)
    maps = [_stored(name, artifact.constants[name], scale) for name, scale in artifact.weights.items()]
    facts = dict(artifact.metadata) | {
        "inputs": {name: str(port) for name, port in artifact.inputs.items()},
        "outputs": {name: str(port) for name, port in artifact.outputs.items()},
        "operators": sum(artifact.operators.values()),
        "weights": sum(entry["weights"] for entry in maps),
        "constant_bytes": sum(value.nbytes for value in artifact.constants.values()),
        "bytes": args.model.stat().st_size,
    }
    operators = dict(artifact.operators.most_common())
    largest = sorted(artifact.constants.items(), key=lambda item: -item[1].nbytes)
    shown = largest if args.verbose else largest[:12]
    constants = [(name, str(value.dtype), _shape(value.shape), value.nbytes) for name, value in shown]
    headers = ("weights", "type", "shape", "zeros", "smallest scale", "largest scale", "bytes")
    rows = [
        (entry["name"], entry["type"], _shape(entry["shape"]), percent(entry["zeros"]), *scale, entry["bytes"])
        for entry in maps
        for scale in [entry["weight_scale"] or (None, None)]
    ]
    parts = [
        *([table(headers, rows)] if rows else []),
        table(("operator", "count"), operators.items()),
        table(("largest constants", "type", "shape", "bytes"), constants),
        _lines(facts),
    ]
    sizes = {name: value.nbytes for name, value in largest}
    return "\n\n".join(parts), facts | {"maps": maps, "operator_counts": operators, "constants": sizes}


def _stored(name: str, weight: "npt.NDArray[np.generic]", scale: "npt.NDArray[np.generic] | None") -> dict[str, Any]:
    """A weight matrix as an exported file holds it: LiteRT's with axes of length 1, ONNX's perhaps transposed."""
    return {
        "name": name,
        "type": str(weight.dtype),
        "shape": list(weight.shape),
        "weights": weight.size,
        "zeros": float((weight == 0).mean()),
        "weight_scale": None if scale is None else [float(scale.min()), float(scale.max())],
        "bytes": weight.nbytes + (0 if scale is None else scale.nbytes),
    }


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
