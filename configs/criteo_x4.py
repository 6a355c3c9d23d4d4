r"""Criteo_x4 of the BARS benchmark: Criteo Kaggle, split 8:1:1 at random, all 39 features as categories.

Not run here: we may not distribute the data. Take train.csv, valid.csv and test.csv (reczoo/Datasets, Criteo_x4:
36,672,493, 4,584,062 and 4,584,062 rows), turn the integers into the benchmark's buckets, floor(log(x)^2), and train,
which prepares the data first:

    python -c "import duckdb; duckdb.sql(open('configs/schemas/criteo_x4.sql').read())"
    python train/main.py --config=configs/criteo_x4.py \
        --config.data.raw_train=x4_train.parquet --config.data.raw_eval=x4_valid.parquet

For the test set, as in `configs/criteo_x1.py`: prepare x4_train.parquet with `--eval_input=x4_test.parquet`, and
evaluate on that.

Source: reczoo/BARS, ranking/ctr/DeepFM/DeepFM_criteo_x4_001: AUC 0.8143, log loss 0.4376. Dimension 16, an MLP of five
layers of 1000, dropout 0.2, batch 10000, Adam with 0.001, cut by 10 after an epoch without a better AUC minus
log loss, until two such epochs in a row. Values that occur fewer than ten times share a row. BARS has no DLRM on these
data. docs/guides/recipes.md says where this recipe differs from theirs, and what other models reached.
"""

from tfrs_dlrm.config import DataConfig, DeepFMConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    """The recipe."""
    return RunConfig(
        data=DataConfig(path="data/criteo_x4", schema="configs/schemas/criteo_x4.json"),
        model=DeepFMConfig(embedding_dim=16, top_mlp=(1000, 1000, 1000, 1000, 1000, 1), dropout=0.2),
        optimizer=OptimizerConfig(
            dense="adam",
            learning_rate=0.001,
            embedding="lazy_adam",
            embedding_learning_rate=0.001,
            embedding_l2=1e-5,
            end_learning_rate=1e-6,
            plateau_factor=0.1,
        ),
        train=TrainConfig(
            batch_size=10_000,
            eval_batch_size=16384,
            epochs=100,
            patience=2,
            monitor="auc_minus_log_loss",
            seed=2019,
        ),
    )
