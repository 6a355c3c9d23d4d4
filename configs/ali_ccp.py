r"""Ali-CCP: clicks on Taobao's recommendations, and the purchases after them, with ESMM.

Not run here: we may not distribute the data. Take sample_train.tar.gz and sample_test.tar.gz (Tianchi, data set 408),
join the rows with the features of their users, and train, which prepares the data first:

    tar -xzf sample_train.tar.gz && tar -xzf sample_test.tar.gz
    python -c "import duckdb; duckdb.sql(open('configs/schemas/ali_ccp.sql').read())"
    python train/main.py --config=configs/ali_ccp.py \
        --config.data.raw_train=ali_ccp_train.parquet --config.data.raw_eval=ali_ccp_test.parquet

The paper has no validation set: what it publishes is of the test set, the mean of ten runs.

Source: Ma et al. 2018, "Entire Space Multi-Task Model", SIGIR, arXiv 1804.07931, table 2: an AUC of 0.6532 (standard
deviation 0.0049) for purchases over all rows, and of 0.6856 (0.0037) for the rate of purchases among clicked rows.
Dimension 18, and two MLPs of 200-80 over shared embeddings, with ReLU and Adam. The batch of 5000, the rate of 0.001,
two epochs and the 23 fields are those of the authors' code (alibaba/x-deeplearning, xdl-algorithm-solution/ESMM), which
has no results. docs/guides/recipes.md says where this recipe differs from theirs.
"""

from tfrs_dlrm.config import DataConfig, MLPConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    """The recipe."""
    return RunConfig(
        data=DataConfig(path="data/ali_ccp", schema="configs/schemas/ali_ccp.json"),
        model=MLPConfig(embedding_dim=18, top_mlp=(200, 80, 1), sharing="towers"),
        optimizer=OptimizerConfig(
            dense="adam", learning_rate=0.001, embedding="lazy_adam", embedding_learning_rate=0.001
        ),
        train=TrainConfig(batch_size=5000, eval_batch_size=16384, epochs=2),
    )
