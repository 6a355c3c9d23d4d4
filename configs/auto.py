"""Tries several models on your own data within a budget of time, and trains the best.

Prepare the data with a part for evaluation, then

    python train/main.py --config=configs/auto.py --budget=10m --config.data.path=data/NAME --workdir=runs/NAME

It prints a line for each trial, and ends with the best model in runs/NAME, a run like any other. If it is killed, the
same command resumes: trials that have finished are not repeated. docs/guides/defaults.md has the numbers behind the
list. The same list with several seeds: `python train/compare.py --config=configs/auto.py --data=data/NAME`.
"""

from tfrs_dlrm.config import RunConfig, SearchConfig, load_recipe


def get_config() -> RunConfig:
    """The recipe: configs/default.py with candidates, the most promising first."""
    config = load_recipe("configs/default.py")
    config.search = SearchConfig(
        candidates=(
            "dcn:model.dropout=0.3",
            "dlrm",
            "logistic_regression",
            "dcn",
            "deepfm:model.dropout=0.3",
            "dlrm:model.dropout=0.2",
            "dcn:model.dropout=0.5:model.embedding_dim=32",
        )
    )
    return config
