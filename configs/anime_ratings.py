"""Anime ratings as numbers: which of 1 to 10 will a user give a title? The data of `configs/anime.py`, as a regression.

Join the ratings with the titles, then train, which prepares the data first:

    python -c "import duckdb; duckdb.sql(open('configs/schemas/anime.sql').read())"
    python train/main.py --config=configs/anime_ratings.py --config.data.raw_train=ratings.csv

One rating in five, chosen at random, is for evaluation. `python train/evaluate.py` prints RMSE and MAE, and those of
always predicting the mean. These logs hold ratings only. If -1 means no rating in yours, remove such rows first.
"""

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    """The recipe."""
    return RunConfig(
        data=DataConfig(path="data/anime_ratings", schema="configs/schemas/anime_ratings.json", eval_fraction=0.2),
        model=DLRMConfig(embedding_dim=16, bottom_mlp=(32, 16), top_mlp=(32, 1)),
        optimizer=OptimizerConfig(
            dense="adam", learning_rate=0.002, embedding_learning_rate=0.002, embedding="lazy_adam", embedding_l2=1e-3
        ),
        train=TrainConfig(batch_size=1024, epochs=3),
    )
