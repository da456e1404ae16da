"""make soak: thousands of random and adversarial models through every engine, and a tally.

python -m tests.soak --models 10000 --seed 0     one case alone: --seed S --models 1
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from .agreement import ORDER
from .tally import OPERATOR, Tally

BEGIN, END = "<!-- tally -->", "<!-- end of tally -->"
_COMMAND = (sys.executable, "-m", "tests.agreement")
_SEEDS = 100  # a process takes at once: a runtime's crash or leak stays in it
_SECONDS = 60  # that one seed may take on a busy machine; most take a fraction of one


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=10_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the first model")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="J", help="processes")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into FILE, between its marks")
    args = parser.parse_args()
    seeds, total = range(args.seed, args.seed + args.models), Tally()
    parts = [seeds[start : start + _SEEDS] for start in range(0, len(seeds), _SEEDS)]
    with tqdm(total=args.models, unit="model", disable=None) as bar, ThreadPoolExecutor(args.jobs) as pool:
        for future in as_completed([pool.submit(_tallies, part) for part in parts]):
            for tally in future.result():
                total.add(tally)
                bar.update(tally.cases)
    print(
        total.table(ORDER), total.table(ORDER, (OPERATOR,)), total.long_table(ORDER), total.summary(ORDER), sep="\n\n"
    )
    if args.write and not total.failures:
        _write(args.write, total)
    return 1 if total.failures else 0


def _write(path: Path, total: Tally) -> None:
    """Replace what stands between the two marks."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    models, integers = f"{total.cases:,} models", f"{total.integers.total():,} integers"
    text = f"{models}, {integers} compared, {total.differences.total():,} differences:\n\n{total.table(ORDER)}"
    operator = f"The profile tflite-lstm, which is among them:\n\n{total.table(ORDER, (OPERATOR,))}"
    details = f"<details><summary>By cell</summary>\n\n{total.long_table(ORDER)}\n\n</details>"
    path.write_text(f"{before}{BEGIN}\n{text}\n\n{operator}\n\n{details}\n{END}{after}")


def _tallies(seeds: range) -> list[Tally]:
    """Of these seeds, in a process of their own; one by one when that process crashes or hangs."""
    command = [*_COMMAND, str(seeds.start), str(seeds.stop)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS * len(seeds) + 60)
        if done.returncode == 0:
            return [Tally.from_json(done.stdout)]
        problem = (
            f"the process ended with {done.returncode}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
        )
    except subprocess.TimeoutExpired:
        problem = "the process did not end"
    if len(seeds) == 1:
        return [Tally(cases=1, failures=[f"seed {seeds[0]}: {problem}"])]
    return [tally for seed in seeds for tally in _tallies(range(seed, seed + 1))]


if __name__ == "__main__":
    raise SystemExit(main())
