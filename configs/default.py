"""A start for your own data.

Prepare it, then

    python train/main.py --config=configs/default.py --config.data.path=data/NAME --workdir=runs/NAME

The run begins with a table of what it chose for your data, and why; docs/guides/defaults.md has the numbers behind the
rules. Any field with a value keeps it: change what you need with more `--config.` flags, or in a copy of this file.
"""

from tfrs_dlrm.config import AUTO, FROM_DATA, DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    """The recipe."""
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
            center_rows=FROM_DATA,
        ),
    )
