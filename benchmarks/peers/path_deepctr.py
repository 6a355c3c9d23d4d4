"""DeepCTR-Torch, as its documentation does it: pandas and scikit-learn's LabelEncoder, then its DCN; see `path_task`.

It encodes the values of both files at once and holds all rows in memory. It knows no rare values: they are replaced
here before. Its penalties on weights are off, since the other libraries have none.
"""

import numpy as np
import pandas as pd
import torch
from deepctr_torch.inputs import DenseFeat, SparseFeat
from deepctr_torch.models import DCN
from sklearn.preprocessing import LabelEncoder

from peers.path_task import LABEL, NUMBERS, VALUES, PathRun, PathTask, run_path


def learn(task: PathTask, run: PathRun) -> None:
    with run.phase("prepare"):
        types = dict.fromkeys(NUMBERS, "float32") | dict.fromkeys(VALUES, "str")
        parts = [pd.read_csv(path, dtype=types) for path in (task.train, task.test)]
        train_rows = len(parts[0])
        data = pd.concat(parts, ignore_index=True)
        del parts
        data[VALUES] = data[VALUES].fillna("-1")
        data[NUMBERS] = np.log1p(data[NUMBERS].fillna(0).clip(lower=0))
        for name in VALUES:
            counts = data[name][:train_rows].value_counts()
            frequent = data[name].isin(counts.index[counts >= task.min_count])
            data[name] = LabelEncoder().fit_transform(data[name].where(frequent, "rare"))
        columns = [SparseFeat(name, int(data[name].max()) + 1, embedding_dim=task.dim) for name in VALUES]
        columns += [DenseFeat(name, 1) for name in NUMBERS]
        train, test = data[:train_rows], data[train_rows:]
    with run.phase("train"):
        model = DCN(
            [],
            columns,
            cross_num=task.cross_layers,
            cross_parameterization="matrix",
            dnn_hidden_units=task.deep,
            l2_reg_linear=0,
            l2_reg_embedding=0,
            l2_reg_cross=0,
            seed=task.seed,
        )
        model.compile(torch.optim.Adam(model.parameters(), lr=task.learning_rate), "binary_crossentropy")
        features = {name: train[name].to_numpy() for name in NUMBERS + VALUES}
        model.fit(features, train[LABEL].to_numpy(), batch_size=task.batch_size, epochs=task.epochs, verbose=0)
    with run.phase("save"):
        torch.save(model.state_dict(), run.path("model.pt"))
    with run.phase("predict"):
        features = {name: test[name].to_numpy() for name in NUMBERS + VALUES}
        predictions = model.predict(features, batch_size=task.batch_size)
    table_rows = sum(column.vocabulary_size for column in columns[: len(VALUES)])
    run.answer(test[LABEL].to_numpy(), predictions, run.path("model.pt"), table_rows)


if __name__ == "__main__":
    run_path(learn)
