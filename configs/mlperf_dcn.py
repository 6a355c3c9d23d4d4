r"""MLPerf's second recommendation benchmark: DLRM-DCNv2 on multi-hot Criteo Terabyte (4.2 billion rows of 23 days).

Not run here: neither the data (3.8 TB) nor a machine for tables of 105 GB were available. Make the arrays with the
scripts of mlcommons/training, recommendation_v2/torchrec_dlrm, turn them into Parquet, and train, which prepares the
data first:

    python configs/schemas/mlperf_dcn.py --arrays=multi_hot --output=parquet
    python train/main.py --config=configs/mlperf_dcn.py --strategy=STRATEGY \
        --config.data.raw_train='parquet/day_*.parquet' --config.data.raw_eval=parquet/valid.parquet

Source: the README of these scripts. Dimension 128, dense MLP 13-512-256-128, three cross layers of rank 512, MLP
1024-1024-512-256-1, Adagrad with 0.005, batch 65536, one epoch with 20 evaluations, target AUC 0.80275.
docs/guides/recipes.md says where this recipe differs from theirs. What it would need:

    python train/plan.py --config=configs/mlperf_dcn.py --strategy=mirrored --topology=8x80GB
"""

from tfrs_dlrm.config import DataConfig, DCNConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    """The recipe."""
    return RunConfig(
        data=DataConfig(path="data/mlperf_dcn", schema="configs/schemas/mlperf_dcn.json"),
        model=DCNConfig(
            embedding_dim=128,
            dense_mlp=(512, 256, 128),
            cross_layers=3,
            cross_rank=512,
            top_mlp=(1024, 1024, 512, 256, 1),
        ),
        optimizer=OptimizerConfig(
            dense="adagrad",
            learning_rate=0.005,
            dense_accumulator=0.0,
            embedding="adagrad",
            embedding_learning_rate=0.005,
        ),
        train=TrainConfig(batch_size=65536, eval_batch_size=65536, epochs=1, eval_every_steps=3200, target_auc=0.80275),
    )
