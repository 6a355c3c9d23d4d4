"""A worker that trains through `model.fit` on prepared Parquet, and by bare steps; another one prepares the Parquet.

prepare             writes the data that the specification names
bare N              examples/s of N train steps on batches in memory
fit FIRST N         examples/s of `model.fit` from step FIRST to step N; starting it costs about a second
"""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

from training.worker import serve

_BATCH = 2048


class Prepare:
    def __init__(self, spec: dict[str, Any]):
        self._spec = spec

    def prepare(self) -> int:
        from tfrs_dlrm.data.preparing.prepare import prepare
        from tfrs_dlrm.data.synthetic.synthetic import criteo_schema, generate

        raw, rows = self._spec["raw"], self._spec["rows"]
        generate(raw, rows, 1000)
        prepare(criteo_schema(), [os.path.join(raw, "train.tsv")], self._spec["output"])
        return rows


class Fit:
    def __init__(self, spec: dict[str, Any]):
        import tensorflow as tf
        import tf_keras as keras

        import tfrs_dlrm as td

        keras.mixed_precision.set_global_policy("mixed_bfloat16" if spec["precision"] == "bf16" else "float32")
        schema = td.Schema.load(os.path.join(spec["data"], "schema.json"))
        self._model = td.DLRM(schema)
        self._model.compile(
            optimizer=keras.optimizers.Adagrad(0.01),
            embedding_optimizer=td.RowWiseAdagrad(0.01),
            steps_per_execution=spec["steps_per_execution"],
        )
        self._data = td.dataset(spec["data"], _BATCH, repeat=True)
        self._batches = list(itertools.islice(self._data, 32))
        self._step = tf.function(self._model.train_step)
        self._done = 0
        self.bare("5")

    def bare(self, steps: str) -> float:
        count = int(steps)
        begin = time.perf_counter()
        for _ in range(count):
            self._step(self._batches[self._done % len(self._batches)])["loss"].numpy()
            self._done += 1
        return count * _BATCH / (time.perf_counter() - begin)

    def fit(self, first: str, steps: str) -> float:
        import tf_keras as keras

        seen: list[tuple[int, float]] = []
        watch = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append((batch + 1, time.perf_counter()))
        )
        whole = -(-int(steps) // 8) * 8
        self._model.fit(self._data, steps_per_epoch=whole, callbacks=[watch], verbose=0)
        (begin, begun), (end, ended) = next(s for s in seen if s[0] >= int(first)), seen[-1]
        return (end - begin) * _BATCH / (ended - begun)


if __name__ == "__main__":
    serve(lambda spec: Fit(spec) if "data" in spec else Prepare(spec))
