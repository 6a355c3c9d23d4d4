r"""TaobaoAd_x1 of the BARS benchmark: clicks on advertisements, with the last 50 categories and brands of a user.

Not run here: we may not distribute the data. Take train.csv and test.csv (reczoo/Datasets, TaobaoAd_x1: 21,929,911 and
3,099,515 rows) and train, which prepares the data first:

    python train/main.py --config=configs/taobao_ad.py \
        --config.data.raw_train=train.csv --config.data.raw_eval=test.csv

BARS has no validation set here: the best checkpoint on the test set is what is published.

Source: reczoo/BARS, ranking/ctr/DIN/DIN_taobaoad_x1: AUC 0.6524, log loss 0.1924 (AUC within users 0.5765). Dimension
32, attention with hidden layers of 512 and 256, an MLP of 512-256-128-1, dropout 0.1, batch 8192, Adam with 0.001,
until an epoch without a better sum of both AUCs. Values that occur fewer than ten times share a row.
docs/guides/recipes.md says where this recipe differs from theirs.
"""

from tfrs_dlrm.config import DataConfig, DINConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    """The recipe."""
    return RunConfig(
        data=DataConfig(path="data/taobao_ad", schema="configs/schemas/taobao_ad.json"),
        model=DINConfig(embedding_dim=32, top_mlp=(512, 256, 128, 1), attention_mlp=(512, 256), dropout=0.1),
        optimizer=OptimizerConfig(
            dense="adam",
            learning_rate=0.001,
            embedding="lazy_adam",
            embedding_learning_rate=0.001,
            embedding_l2=5e-6,
        ),
        train=TrainConfig(batch_size=8192, eval_batch_size=16384, epochs=100, patience=1, seed=20222023),
    )
