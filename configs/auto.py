"""Tries several models on your own data within a budget of time, and trains the best.

Prepare the data with a part for evaluation, then

    python train/main.py --config=configs/auto.py --budget=10m --config.data.path=data/NAME --workdir=runs/NAME

It prints a line for each trial, and ends with the best model in runs/NAME, a run like any other. If it is killed, the
same command resumes: trials that have finished are not repeated. docs/guides/defaults.md has the numbers behind the
list. The same list with several seeds: `python train/compare.py --config=configs/auto.py --data=data/NAME`.
"""

from tfrs_dlrm.config import (
    AUTO,
    FROM_DATA,
    DataConfig,
    DLRMConfig,
    OptimizerConfig,
    RunConfig,
    SearchConfig,
    TrainConfig,
)


def get_config() -> RunConfig:
    """The recipe: configs/default.py with candidates, the most promising first."""
    return RunConfig(
        data=DataConfig(path=""),
        model=DLRMConfig(embedding_dim=16, bottom_mlp=(64, 16), top_mlp=(64, 32, 1), dropout=FROM_DATA, linear=True),
        optimizer=OptimizerConfig(
            learning_rate=FROM_DATA, embedding_learning_rate=FROM_DATA, embedding_accumulator=FROM_DATA
        ),
        train=TrainConfig(
            batch_size=FROM_DATA,
            epochs=FROM_DATA,
            eval_every_steps=FROM_DATA,
            monitor=AUTO,
            patience=FROM_DATA,
        ),
        search=SearchConfig(
            candidates=(
                "dcn:model.dropout=0.3",
                "dlrm",
                "logistic_regression",
                "dcn",
                "deepfm:model.dropout=0.3",
                "dlrm:model.dropout=0.2",
                "dcn:model.dropout=0.5:model.embedding_dim=32",
            )
        ),
    )
