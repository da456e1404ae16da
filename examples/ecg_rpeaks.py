"""Find heart beats while the signal arrives: one sample in, one decision out, as firmware would run it.

python examples/ecg_rpeaks.py                 (half a minute on one core)
"""

import numpy as np

from edgernn import GRU, SequenceModel, TrainConfig, convert, fit
from edgernn.data import load, make_ecg, normalisation
from edgernn.firmware_sim import Stream

RATE_HZ = 125
REFRACTORY = 25  # samples (0.2 s): a heart does not beat again sooner


def main() -> None:
    data = load("ecg")
    mean, std = normalisation(data.train)
    rnn = GRU(data.input_size, 16, batch_first=True)
    model = SequenceModel(rnn, 2, "steps", labels=data.labels, input_mean=mean, input_std=std)
    fit(model, data, TrainConfig(epochs=16, batch_size=16, qat="w8a8"))
    quantized = convert(model)

    patient = make_ecg(n_train=1, n_test=1, steps=20 * RATE_HZ, seed=7).test  # 20 seconds of a new heart
    stream, found, last = Stream(quantized), [], -REFRACTORY
    for t, sample in enumerate(quantized.quantize_input(patient.x[0])):
        no_peak, peak = stream.step(sample)
        if peak > no_peak and t - last >= REFRACTORY:
            found.append(t)
            last = t
    starts = np.flatnonzero(np.diff(patient.y[0], prepend=0) == 1)
    hits = sum(any(abs(t - start) <= REFRACTORY // 2 for t in found) for start in starts)
    print(f"{hits} of {len(starts)} beats found, {len(found) - hits} false")
    if len(found) > 1:
        print(f"{60 * RATE_HZ / np.diff(found).mean():.0f} beats a minute")


if __name__ == "__main__":
    main()
