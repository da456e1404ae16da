"""Options that several verbs share, and the checks of their values."""

import argparse
from pathlib import Path
from typing import Final

NOISE_MAX: Final = 10.0  # TrainConfig's; reading it there would import torch


def model_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; name a file in it, such as {path / 'model.ernn'}")
    return path


def positive_int(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def positive_float(text: str) -> float:
    value = _real(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be positive and finite, not {text}")
    return value


def seed(text: str) -> int:
    value = _whole(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"must be 0 .. 2**63 - 1, not {value}")
    return value


def noise(text: str) -> float:
    value = _real(text)
    if not 0 <= value <= NOISE_MAX:
        raise argparse.ArgumentTypeError(f"must be 0 .. {NOISE_MAX:g} standard deviations, not {text}")
    return value


def fraction(text: str) -> float:
    value = _real(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, not {text}")
    return value


def names(text: str) -> tuple[str, ...]:
    """A comma-separated list."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise argparse.ArgumentTypeError("names nothing")
    return found


def gates(text: str) -> dict[str, float]:
    """Shares of single gates: r=0.5,z=0.9."""
    pairs = [part.partition("=") for part in names(text)]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise argparse.ArgumentTypeError(f"must be GATE=SHARE,.. such as r=0.5,z=0.9, not {text!r}")
    found = {name.strip(): fraction(share) for name, _, share in pairs}
    if len(found) < len(pairs):
        raise argparse.ArgumentTypeError(f"names a gate twice: {text!r}")
    return found


def add_model(parser: argparse.ArgumentParser, what: str = "a quantised model (.ernn)") -> None:
    parser.add_argument("model", type=model_file, metavar="MODEL", help=what)


def add_models(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("models", type=model_file, nargs="+", metavar="MODEL", help=what)


def add_data(parser: argparse.ArgumentParser, why: str, *, required: bool = False) -> None:
    parser.add_argument("--data", metavar="NAME|PATH", required=required, help=why)


def add_profile(parser: argparse.ArgumentParser) -> None:
    text = "arithmetic of the integers: edgernn's own, or that of TensorFlow Lite's LSTM operator (default portable)"
    parser.add_argument("--profile", choices=("portable", "tflite-lstm"), default="portable", help=text)


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=seed, default=0, help="seed of everything random (default 0)")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None
