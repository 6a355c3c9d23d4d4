"""A start for your own data.

Prepare it, then

    python train/main.py --config=configs/default.py --config.data.path=data/NAME --workdir=runs/NAME

and change what you need with more `--config.` flags, or in a copy of this file.
"""

from tfrs_dlrm.config import DataConfig, DLRMConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    """The recipe."""
    return RunConfig(
        data=DataConfig(path=""),
        model=DLRMConfig(embedding_dim=16, bottom_mlp=(64, 16), top_mlp=(64, 32, 1)),
        train=TrainConfig(batch_size=1024, epochs=10, patience=2),
    )
