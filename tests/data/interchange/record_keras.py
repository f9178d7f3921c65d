"""Record what Keras computes for whole models, for `test_interchange_keras.py`.

    python -m pip install keras==3.15.1 torch==2.13.0 h5py numpy
    KERAS_BACKEND=torch python tests/data/interchange/record_keras.py

Each ``.npz`` holds the weights by layer and place (``weights/LAYER/NUMBER``, in the order of
`get_weights`), an input ``x`` and the output ``y`` from a zero state, both
``(batch, time, features)``, and the model's configuration as JSON; all in float32, Keras's own
precision. ``keras_lstm.weights.h5`` and ``keras_lstm.keras`` are what Keras's own `save_weights`
and `save` wrote for the first of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
from keras import layers

HERE = Path(__file__).parent
FRAMES, BATCH = 40, 3
SEQUENCES = {"return_sequences": True}

MODELS = {
    "lstm": lambda: [
        layers.LSTM(7, **SEQUENCES),
        layers.LSTM(5, **SEQUENCES),
        layers.Dense(6, "tanh"),
        layers.Dense(2),
        layers.Activation("sigmoid"),
    ],
    "rnn_tanh": lambda: [layers.SimpleRNN(5, **SEQUENCES), layers.Dense(2, "relu")],
    "rnn_relu": lambda: [layers.SimpleRNN(5, "relu", **SEQUENCES), layers.Dense(2)],
    "gru": lambda: [layers.GRU(6, **SEQUENCES), layers.Dropout(0.5), layers.Dense(2)],
    "gru_reset_before": lambda: [layers.GRU(6, reset_after=False, **SEQUENCES), layers.Dense(2)],
    "without_biases": lambda: [
        layers.GRU(6, use_bias=False, **SEQUENCES),
        layers.LSTM(4, use_bias=False, **SEQUENCES),
        layers.TimeDistributed(layers.Dense(2, use_bias=False)),
    ],
}


def main() -> None:
    rng = np.random.default_rng(20130804)
    for name, make in MODELS.items():
        model = keras.Sequential([keras.Input((None, 4)), *make()])
        model.set_weights([0.5 * rng.normal(size=w.shape) for w in model.get_weights()])
        x = rng.normal(size=(BATCH, FRAMES, 4)).astype(np.float32)
        arrays = {
            f"weights/{layer.name}/{number}": weight
            for layer in model.layers
            for number, weight in enumerate(layer.get_weights())
        }
        y = model.predict(x, verbose=0)
        config = [
            {"class_name": type(layer).__name__, "config": layer.get_config()}
            for layer in model.layers
        ]
        arrays |= {"x": x, "y": y, "config": np.array(json.dumps(config))}
        np.savez_compressed(HERE / f"keras_{name}.npz", **arrays)
        if name == "lstm":
            model.save_weights(HERE / "keras_lstm.weights.h5")
            model.save(HERE / "keras_lstm.keras")
    print(f"Keras {keras.__version__}: {len(MODELS)} files")


if __name__ == "__main__":
    main()
