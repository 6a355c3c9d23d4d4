r"""AmazonElectronics_x1 of the BARS benchmark: reviews of products, with the last 100 products of a user.

Not run here: we may not distribute the data. Take train.csv and test.csv (reczoo/Datasets, AmazonElectronics_x1:
2,608,764 and 384,806 rows) and train, which prepares the data first:

    python train/main.py --config=configs/amazon_electronics.py \
        --config.data.raw_train=train.csv --config.data.raw_eval=test.csv

BARS has no validation set here: the best checkpoint on the test set is what is published.

Source: reczoo/BARS, ranking/ctr/DIN/DIN_amazonelectronics_x1: AUC 0.8860, log loss 0.4302 (AUC within users 0.8835).
Dimension 64, attention with hidden layers of 512 and 256 and a softmax, an MLP of 1024-512-256-1 with batch
normalization, dropout 0.1, batch 1024, Adam with 0.0005, cut by 10 after an epoch without a better AUC within users,
until two such epochs in a row. docs/guides/recipes.md says where this recipe differs from theirs.
"""

from tfrs_dlrm.config import DataConfig, DINConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    """The recipe."""
    return RunConfig(
        data=DataConfig(path="data/amazon_electronics", schema="configs/schemas/amazon_electronics.json"),
        model=DINConfig(
            embedding_dim=64,
            top_mlp=(1024, 512, 256, 1),
            attention_mlp=(512, 256),
            attention_softmax=True,
            dropout=0.1,
            batch_norm=True,
        ),
        optimizer=OptimizerConfig(
            dense="adam",
            learning_rate=0.0005,
            embedding="lazy_adam",
            embedding_learning_rate=0.0005,
            embedding_l2=0.005,
            end_learning_rate=1e-6,
            plateau_factor=0.1,
        ),
        train=TrainConfig(batch_size=1024, eval_batch_size=4096, epochs=100, patience=2, seed=20222023),
    )
