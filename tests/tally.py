"""The counts of a comparison of engines, and the tables that README shows of them."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

CELLS = ("LSTM", "GRU", "GRU, reset before", "RNN")
OPERATOR = "TFLite's LSTM"  # the profile tflite-lstm, which not every engine computes
FORMS = ("sequence", "sequence, bidirectional", "batch", "batch, bidirectional", "step", "stream", "chunks")


@dataclass
class Tally:
    """Counts by "engine/form/cell": models compared, integers, differing integers; and what went wrong, in words."""

    cases: int = 0
    models: Counter[str] = field(default_factory=Counter)
    integers: Counter[str] = field(default_factory=Counter)
    differences: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def count(self, engine: str, form: str, cell: str, integers: int, differences: int) -> None:
        """One model more."""
        key = f"{engine}/{form}/{cell}"
        self.models[key] += 1
        self.integers[key] += integers
        self.differences[key] += differences

    def add(self, other: "Tally") -> None:
        self.cases += other.cases
        self.models += other.models
        self.integers += other.integers
        self.differences += other.differences
        self.failures += other.failures

    @classmethod
    def from_json(cls, text: str) -> "Tally":
        """What `json` gave."""
        read = json.loads(text)
        counters = {name: Counter(read[name]) for name in ("models", "integers", "differences")}
        return cls(read["cases"], **counters, failures=read["failures"])

    def json(self) -> str:
        return json.dumps(vars(self))

    @property
    def engines(self) -> list[str]:
        return list(dict.fromkeys(key.split("/")[0] for key in self.models))

    def table(self, order: Iterable[str], cells: Sequence[str] = CELLS) -> str:
        """Markdown: engine against form; a tick and the number of models where all integers of all cells were equal."""
        lines = [f"| engine | {' | '.join(FORMS)} |", "|---|" + "---|" * len(FORMS)]
        for engine in (name for name in order if name in self.engines):
            entries = [self._entry([f"{engine}/{form}/{cell}" for cell in cells]) for form in FORMS]
            if set(entries) != {"–"}:
                lines.append(f"| `{engine}` | {' | '.join(entries)} |")
        return "\n".join(lines)

    def long_table(self, order: Iterable[str]) -> str:
        """Markdown: engine and form against cell."""
        lines = [f"| engine | form | {' | '.join(CELLS)} |", "|---|---|" + "---|" * len(CELLS)]
        for engine in (name for name in order if name in self.engines):
            for form in FORMS:
                entries = [self._entry([f"{engine}/{form}/{cell}"]) for cell in CELLS]
                if set(entries) != {"–"}:
                    lines.append(f"| `{engine}` | {form} | {' | '.join(entries)} |")
        return "\n".join(lines)

    def _entry(self, keys: list[str]) -> str:
        """A tick needs every one of these to have been compared."""
        models, wrong = (sum(counter[key] for key in keys) for counter in (self.models, self.differences))
        if wrong or not all(self.models[key] for key in keys):
            return f"{wrong:,} differ" if wrong else f"{models:,} of some cells" if models else "–"
        return f"✓ {models:,}"

    def summary(self, order: Iterable[str]) -> str:
        """A line an engine, the sum, and the failures."""
        lines = []
        for engine in (name for name in order if name in self.engines):
            models, integers, wrong = (
                sum(count for key, count in counter.items() if key.startswith(f"{engine}/"))
                for counter in (self.models, self.integers, self.differences)
            )
            lines.append(f"{engine:28}{models:>9,} models {integers:>14,} integers {wrong:>6,} differences")
        integers, wrong = self.integers.total(), self.differences.total()
        lines.append(f"{self.cases:,} models, {integers:,} integers compared, {wrong:,} differences")
        return "\n".join([*lines, *(f"FAILURE {failure}" for failure in self.failures)])
