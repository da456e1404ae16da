"""Outputs [n, output_size] of a network as results, and a result as a line of text."""

from collections.abc import Callable
from typing import Any


def text(result: dict[str, Any]) -> str:
    if "label" in result:
        return f"{result['label']}\t{result['score']:.4f}"
    return "\t".join(f"{value:.6g}" for value in result["values"])


def classes(labels: tuple[str, ...]) -> Callable[[Any], list[dict[str, Any]]]:
    import numpy as np

    def results(outputs: Any) -> list[dict[str, Any]]:
        logits = outputs.astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = odds / odds.sum(axis=1, keepdims=True)
        return [
            {"label": labels[best] if labels else str(best), "score": each[best], "scores": each}
            for best, each in zip(outputs.argmax(axis=1).tolist(), scores.tolist(), strict=True)
        ]

    return results


def values(outputs: Any) -> list[dict[str, Any]]:
    return [{"values": each} for each in outputs.tolist()]
