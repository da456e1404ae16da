"""Watch a heart: a simulated ECG passes through a model's file, sample by sample, and R peaks are marked as they come.

edgernn train --data ecg --cell gru --hidden 16 --batch-size 16 --epochs 16 -o runs/ecg       (makes the model)
python examples/ecg_live.py runs/ecg/model.ernn                                       (Ctrl-C ends it; no torch needed)
python examples/ecg_live.py runs/ecg/model_step.tflite --fast --seconds 60

The file may be a .ernn, a .tflite or .onnx of the form step, or what `edgernn build` made.
"""

import argparse
import time

import numpy as np

from edgernn import Predictor
from edgernn.data import make_ecg

RATE_HZ = 125
REFRACTORY = 25  # samples (0.2 s): a heart does not beat again sooner
SAMPLES_A_LINE = 5  # 40 ms
WIDTH = 60


def main() -> None:
    parser = argparse.ArgumentParser(description="Mark the R peaks of a simulated ECG while it arrives.")
    parser.add_argument("model", help="a model trained on the data ecg, or an export of it that takes single steps")
    parser.add_argument("--seconds", type=float, default=20, help="of ECG (default 20)")
    parser.add_argument("--fast", action="store_true", help="as fast as the model can, not 125 samples a second")
    parser.add_argument("--seed", type=int, default=7, help="which heart (default 7)")
    args = parser.parse_args()

    predictor = Predictor.open(args.model)
    heart = make_ecg(n_train=1, n_test=1, steps=round(args.seconds * RATE_HZ), seed=args.seed).test
    found: list[int] = []
    try:
        watch(predictor, heart.x[0].tolist(), found, live=not args.fast)
    except KeyboardInterrupt:
        return
    starts = np.flatnonzero(np.diff(heart.y[0], prepend=0) == 1)  # of the labels, 64 ms after each R peak
    hits = sum(any(abs(t - start) <= REFRACTORY // 2 for t in found) for start in starts)
    print(f"{len(found)} marks, at {hits} of the {len(starts)} beats that were there")


def watch(predictor: Predictor, samples: list[list[float]], found: list[int], live: bool) -> None:
    """Print the curve from top to bottom; append the numbers of the samples at which a peak was seen to `found`."""
    start = time.monotonic()
    marked = False
    for t, sample in enumerate(samples):
        if live:
            time.sleep(max(0.0, start + t / RATE_HZ - time.monotonic()))
        no_peak, peak = predictor.step(sample)
        if peak > no_peak and t - (found[-1] if found else -REFRACTORY) >= REFRACTORY:
            found.append(t)
            marked = True
        if t % SAMPLES_A_LINE == SAMPLES_A_LINE - 1:
            strongest = max((row[0] for row in samples[t + 1 - SAMPLES_A_LINE : t + 1]), key=abs)  # millivolts
            curve = " " * max(0, min(WIDTH, round(WIDTH * (strongest + 1) / 3))) + "*"
            print(f"{t / RATE_HZ:6.2f} s  {curve:{WIDTH + 2}}{beat(found) if marked else ''}".rstrip(), flush=live)
            marked = False


def beat(found: list[int]) -> str:
    rate = 60 * RATE_HZ / (found[-1] - found[-2]) if len(found) > 1 else None
    return "<- R peak" + (f", {rate:.0f} a minute" if rate else "")


if __name__ == "__main__":
    main()
