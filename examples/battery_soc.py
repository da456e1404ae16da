"""State of charge of a lithium cell at every step, from voltage, current and temperature, with 8 and with 16 bits.

python examples/battery_soc.py                (about two minutes on one core)
"""

from edgernn import GRU, SequenceModel, TrainConfig, convert, fit
from edgernn.data import load, normalisation
from edgernn.train import evaluate


def main() -> None:
    data = load("battery")
    mean, std = normalisation(data.train)
    for scheme in ("w8a8", "w8a16"):
        rnn = GRU(data.input_size, 16, batch_first=True)
        model = SequenceModel(rnn, 1, "steps", task="regression", input_mean=mean, input_std=std)
        history = fit(model, data, TrainConfig(epochs=12, batch_size=8, qat=scheme))
        quantized = convert(model)
        measured = evaluate(quantized, data.test)
        print(
            f"{scheme}: mean absolute error of the state of charge {measured['mae']:.4f} in integers "
            f"(float {history.metrics['test']['float']['mae']:.4f}); one output step is {quantized.output_scale:.4f}"
        )


if __name__ == "__main__":
    main()
