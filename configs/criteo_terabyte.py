r"""Criteo Terabyte (4.4 billion rows, 24 days) with the DLRM reference's hyper-parameters for MLPerf.

Not run here: neither the data nor a machine for tables of this size were available. At dimension 128 and up to 40
million rows per table, the tables alone need about 100 GB.

    python train/main.py --config=configs/criteo_terabyte.py --strategy=STRATEGY \
        --config.data.raw_train='day_[0-9].gz,day_1?.gz,day_2[0-2].gz' --config.data.raw_eval=day_23.gz

Source: facebookresearch/dlrm, bench/run_and_time.sh: dimension 128, bottom MLP 13-512-256-128, top MLP
1024-1024-512-256-1, batch 2048, SGD with learning rate 1.0, a test every 102,400 steps, target AUC 0.8025, within an
epoch. Submissions with batch 32768 used learning rate 18, 8000 steps of warmup, and from step 70,000 on 30,000 steps of
decay: `--config.train.batch_size=32768 --config.optimizer.learning_rate=18
--config.optimizer.embedding_learning_rate=18 --config.optimizer.warmup_steps=8000
--config.optimizer.decay_start_step=70000 --config.optimizer.decay_steps=30000`. docs/guides/recipes.md has published
results, and says where this recipe differs; docs/guides/planner.md, what a run would need.
"""

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    """The recipe."""
    return RunConfig(
        data=DataConfig(path="data/criteo_terabyte", schema="configs/schemas/criteo_terabyte.json"),
        model=DLRMConfig(embedding_dim=128, bottom_mlp=(512, 256, 128), top_mlp=(1024, 1024, 512, 256, 1)),
        optimizer=OptimizerConfig(dense="sgd", learning_rate=1.0, embedding_learning_rate=1.0, embedding="sgd"),
        train=TrainConfig(
            batch_size=2048, eval_batch_size=16384, epochs=1, eval_every_steps=102_400, target_auc=0.8025
        ),
    )
