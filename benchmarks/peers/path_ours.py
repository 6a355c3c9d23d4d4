"""This package, by its functions; see `path_task`. The tables take lazy Adam: rows that a batch lacks do not move."""

import numpy as np
import tf_keras as keras

import tfrs_dlrm as td
from peers.path_task import LABEL, NUMBERS, VALUES, PathRun, PathTask, run_path


def learn(task: PathTask, run: PathRun) -> None:
    with run.phase("prepare"):
        schema = td.Schema(
            td.Label(LABEL),
            dense=tuple(td.DenseFeature(name, transform="log1p") for name in NUMBERS),
            categorical=tuple(td.CategoricalFeature(name, min_count=task.min_count) for name in VALUES),
        ).with_dim(task.dim)
        data = run.path("prepared")
        td.prepare(schema, [task.train], data, eval_inputs=[task.test])
    with run.phase("train"):
        schema = td.Schema.load(f"{data}/schema.json")
        model = td.DCN(
            schema,
            top_mlp=(*task.deep, 1),
            cross_layers=task.cross_layers,
            cross_structure="parallel",
            seed=task.seed,
        )
        rate = task.learning_rate
        model.compile(keras.optimizers.Adam(rate), embedding_optimizer=td.LazyAdam(rate), metrics=[])
        batches = td.dataset(data, task.batch_size, seed=task.seed, drop_remainder=False)
        model.fit(batches, epochs=task.epochs, verbose=0)
    with run.phase("save"):
        td.save_checkpoint(model, run.path("model"))
    with run.phase("predict"):
        rows = td.dataset(data, task.batch_size, split="eval")
        predictions = model.predict(rows, verbose=0)
        labels = np.concatenate([label for _, label in rows.as_numpy_iterator()])
    with run.phase("export"):
        td.export_model(model, data, run.path("export"))
    run.answer(labels, predictions, run.path("model"), sum(table.vocabulary_size for table in schema.tables))


if __name__ == "__main__":
    run_path(learn)
