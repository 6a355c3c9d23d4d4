r"""UCI Adult: does a person of the 1994 census earn more than 50,000 dollars a year? 32,561 + 16,281 rows.

    python train/main.py --config=configs/adult.py \
        --config.data.raw_train=adult.data.gz --config.data.raw_eval=adult.test.gz

docs/start/your-own-data.md explains the steps. docs/guides/recipes.md has its results.
"""

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    """The recipe."""
    return RunConfig(
        data=DataConfig(path="data/adult", schema="configs/schemas/adult.json"),
        model=DLRMConfig(embedding_dim=8, bottom_mlp=(64, 32, 8), top_mlp=(64, 32, 1)),
        optimizer=OptimizerConfig(
            dense="adam", learning_rate=0.002, embedding_learning_rate=0.002, embedding="lazy_adam", embedding_l2=1e-3
        ),
        train=TrainConfig(batch_size=512, epochs=12, eval_every_steps=381),
    )
