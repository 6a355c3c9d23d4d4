r"""Criteo Kaggle display advertising (45 million rows, 26 vocabularies) with the DLRM reference's hyper-parameters.

Not run here: we may not distribute the data. Take `train.txt` of the Kaggle challenge, set its last seventh (the
seventh day) aside for evaluation, and write the schema of these logs:

    python -c "from tfrs_dlrm.data.synthetic.synthetic import criteo_schema as s; s().save('criteo.json')"
    python train/main.py --config=configs/criteo_kaggle.py --config.data.raw_train=day_0-5.tsv \
        --config.data.raw_eval=day_6.tsv --config.data.schema=criteo.json

Source: facebookresearch/dlrm, bench/dlrm_s_criteo_kaggle.sh: dimension 16, bottom MLP 13-512-256-64-16, top MLP
512-256-1, batch 128, SGD with learning rate 0.1, one epoch, a test every 10,240 steps.
"""

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    """The recipe."""
    return RunConfig(
        data=DataConfig(path="data/criteo_kaggle"),
        model=DLRMConfig(embedding_dim=16, bottom_mlp=(512, 256, 64, 16), top_mlp=(512, 256, 1)),
        optimizer=OptimizerConfig(dense="sgd", learning_rate=0.1, embedding_learning_rate=0.1, embedding="sgd"),
        train=TrainConfig(batch_size=128, eval_batch_size=16384, epochs=1, eval_every_steps=10_240, seed=123),
    )
