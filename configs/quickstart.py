"""The quickstart: a planted model's clicks in raw Criteo format, from logs to a trained DLRM in a few minutes.

    python train/main.py

See the README for the time it took and the AUC it reached, and that of the model that the clicks were drawn from.
"""

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    """The recipe."""
    return RunConfig(
        data=DataConfig(path="data/quickstart", synthetic_rows=1_000_000, synthetic_eval_rows=100_000),
        model=DLRMConfig(embedding_dim=16, bottom_mlp=(64, 16), top_mlp=(64, 32, 1)),
        optimizer=OptimizerConfig(
            dense="adam",
            learning_rate=0.005,
            embedding_learning_rate=0.03,
            embedding_l2=1e-3,
            warmup_steps=20,
            decay_start_step=20,
            decay_steps=956,
            decay_power=1.0,
        ),
        train=TrainConfig(batch_size=2048, steps=976, eval_every_steps=244),
    )
