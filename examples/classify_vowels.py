"""Which of nine speakers said it: train a GRU, quantise and prune it, and run the very file a device gets.

python examples/classify_vowels.py            (ten seconds on one core)
"""

from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edgernn import GRU, SequenceModel, TrainConfig, convert, fit
from edgernn.data import load, normalisation
from edgernn.export import to_tflite
from edgernn.firmware_sim import run_batch

OUT = Path("runs/example-vowels")


def main() -> None:
    data = load("vowels")
    mean, std = normalisation(data.train)
    rnn = GRU(data.input_size, 32, batch_first=True, recurrent_init="orthogonal")
    model = SequenceModel(rnn, data.output_size, labels=data.labels, input_mean=mean, input_std=std)
    fit(model, data, TrainConfig(qat="w8a8", sparsity=0.75, input_noise=0.5), out=OUT)

    quantized = convert(model, provenance={"data": data.name})
    quantized.save(OUT / "model.ernn")
    content = to_tflite(quantized)
    (OUT / "model.tflite").write_bytes(content)
    print(f"model.tflite: {len(content)} bytes")

    # The integers of the Numba kernel and of LiteRT are the same, for every test sequence.
    x = quantized.quantize_input(data.test.x)
    kernel = run_batch(quantized, x, data.test.lengths)
    litert = np.stack([run_litert(content, row[:length]) for row, length in zip(x, data.test.lengths, strict=True)])
    print(f"accuracy {np.mean(kernel.argmax(axis=1) == data.test.y):.4f}")
    print(f"integers that differ between kernel and LiteRT: {np.count_nonzero(kernel != litert)} of {kernel.size}")


def run_litert(content: bytes, x: np.ndarray) -> np.ndarray:
    """One sequence of any length through the interpreter."""
    interpreter = Interpreter(model_content=content)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], (1, *x.shape))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x[None])
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


if __name__ == "__main__":
    main()
