"""FuxiCTR on PyTorch: its feature processor, its Parquet loader on Ray, and DCN-v2 of its layers, as in its model zoo.

Its package has no DCN-v2 for features of this kind. The model zoo of its repository makes vectors of numbers too; here
they are inputs themselves, as in its DLRM. Missing values share a row with rare ones. It evaluates after an epoch.
"""

import os

import numpy as np
import polars as pl
import torch
from fuxictr.features import FeatureMap
from fuxictr.preprocess import FeatureProcessor, build_dataset
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything

from peers.path_task import LABEL, NUMBERS, VALUES, PathRun, PathTask, run_path


class Processor(FeatureProcessor):
    def log1p(self, name):
        return pl.col(name).clip(lower_bound=0).log1p()


class DCNv2(BaseModel):
    def __init__(self, feature_map, task: PathTask, **kwargs):
        super().__init__(feature_map, model_id="DCNv2", **kwargs)
        width = len(NUMBERS) + task.dim * len(VALUES)
        self.embedding_layer = FeatureEmbedding(feature_map, task.dim, required_feature_columns=VALUES)
        self.crossnet = CrossNetV2(width, task.cross_layers)
        self.parallel_dnn = MLP_Block(input_dim=width, hidden_units=list(task.deep), hidden_activations="ReLU")
        self.fc = torch.nn.Linear(width + task.deep[-1], 1)
        self.compile("adam", "binary_crossentropy", task.learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs):
        features = self.get_inputs(inputs)
        numbers = torch.stack([features[name].float() for name in NUMBERS], dim=1)
        x = torch.cat([self.embedding_layer(features, flatten_emb=True), numbers], dim=1)
        logits = self.fc(torch.cat([self.crossnet(x), self.parallel_dnn(x)], dim=1))
        return {"y_pred": self.output_activation(logits)}


def learn(task: PathTask, run: PathRun) -> None:
    with run.phase("prepare"):
        seed_everything(task.seed)
        numbers = {"name": NUMBERS, "active": True, "dtype": "float", "type": "numeric", "preprocess": "log1p"}
        values = {"name": VALUES, "active": True, "dtype": "str", "type": "categorical"}
        label = {"name": LABEL, "dtype": "float"}
        processor = Processor([numbers, values], label, dataset_id="log", data_root=run.output)
        source = {"train_data": task.train, "valid_data": task.test, "data_format": "csv", "sep": ","}
        train, valid, _ = build_dataset(processor, min_categr_count=task.min_count, **source)
    with run.phase("train"):
        feature_map = FeatureMap("log", run.path("log"))
        feature_map.load(run.path("log/feature_map.json"), {"embedding_dim": task.dim})
        model = DCNv2(feature_map, task, metrics=["AUC"], model_root=run.path("models"), verbose=0)
        os.makedirs(model.model_dir)
        files = {"train_data": train, "valid_data": valid, "data_format": "parquet"}
        batches, rows = RankDataLoader(feature_map, stage="train", batch_size=task.batch_size, **files)
        model.fit(batches, validation_data=rows, epochs=task.epochs)
    with run.phase("save"):
        model.save_weights(run.path("model.pt"))
    with run.phase("predict"), torch.no_grad():
        model.eval()
        found = [(model.get_labels(batch).numpy(), model(batch)["y_pred"].numpy()) for batch in rows]
        labels, predictions = map(np.concatenate, zip(*found, strict=True))
    table_rows = sum(feature_map.features[name]["vocab_size"] for name in VALUES)
    run.answer(labels, predictions, run.path("model.pt"), table_rows)


if __name__ == "__main__":
    run_path(learn)
