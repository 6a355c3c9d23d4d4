r"""Criteo_x1 of the BARS benchmark: Criteo Kaggle, split 7:2:1 at random, with the numbers already scaled.

Not run here: we may not distribute the data. Take train.csv, valid.csv and test.csv (reczoo/Datasets, Criteo_x1:
33,003,326, 8,250,124 and 4,587,167 rows) and train, which prepares the data first:

    python train/main.py --config=configs/criteo_x1.py \
        --config.data.raw_train=train.csv --config.data.raw_eval=valid.csv

The published numbers are those of the test set, with the best checkpoint on the validation set. Encode the test set
with the vocabularies of train.csv:

    python train/prepare.py --schema=configs/schemas/criteo_x1.json --input=train.csv --eval_input=test.csv \
        --output=data/criteo_x1_test
    python train/evaluate.py --workdir=RUN --data=data/criteo_x1_test

Source: reczoo/BARS, ranking/ctr/DLRM/DLRM_criteo_x1: AUC 0.8138, log loss 0.4382. Dimension 10, bottom MLP
13-400-400-400-10, top MLP 400-400-400-1, batch normalization, dropout 0.2, batch 4096, Adam with 0.001, cut by 10
after an epoch without a better AUC, until two such epochs in a row. docs/guides/recipes.md says where this recipe
differs from theirs, and what other models reached.
"""

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    """The recipe."""
    return RunConfig(
        data=DataConfig(path="data/criteo_x1", schema="configs/schemas/criteo_x1.json"),
        model=DLRMConfig(
            embedding_dim=10,
            bottom_mlp=(400, 400, 400, 10),
            top_mlp=(400, 400, 400, 1),
            dropout=0.2,
            batch_norm=True,
        ),
        optimizer=OptimizerConfig(
            dense="adam",
            learning_rate=0.001,
            embedding="lazy_adam",
            embedding_learning_rate=0.001,
            embedding_l2=1e-5,
            end_learning_rate=1e-6,
            plateau_factor=0.1,
        ),
        train=TrainConfig(batch_size=4096, eval_batch_size=16384, epochs=100, patience=2, seed=2021),
    )
