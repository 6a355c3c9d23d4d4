"""Anime ratings: will a user rate a title 8 or more? 419,943 ratings of 7,157 titles by 4,714 users, with genres.

Join the ratings with the titles, then train, which prepares the data first:

    python -c "import duckdb; duckdb.sql(open('configs/schemas/anime.sql').read())"
    python train/main.py --config=configs/anime.py --config.data.raw_train=ratings.csv

One rating in five, chosen at random, is for evaluation. docs/guides/recipes.md has its results.
"""

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    """The recipe."""
    return RunConfig(
        data=DataConfig(path="data/anime", schema="configs/schemas/anime.json", eval_fraction=0.2),
        model=DLRMConfig(embedding_dim=16, bottom_mlp=(32, 16), top_mlp=(32, 1)),
        optimizer=OptimizerConfig(
            dense="adam", learning_rate=0.002, embedding_learning_rate=0.002, embedding="lazy_adam", embedding_l2=1e-3
        ),
        train=TrainConfig(batch_size=1024, epochs=3),
    )
