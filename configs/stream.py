"""Continuous training on raw rows in Kafka. See docs/guides/streams.md.

Prepare some days of the log, which give the vocabularies and statistics that encode the stream, then

    python train/main.py --config=configs/stream.py --config.data.path=data/NAME --workdir=runs/NAME
        --config.data.source='kafka://HOST:PORT/TOPIC?format=json'

in one line. It runs until you stop it, and resumes when started again. Learning rates are constant, so that rows of
tomorrow count as much as those of today. Run here on a mock broker only.
"""

from tfrs_dlrm.config import DataConfig, DLRMConfig, RunConfig, TrainConfig


def get_config() -> RunConfig:
    """The recipe."""
    return RunConfig(
        data=DataConfig(path="", bad_rows="quarantine"),
        model=DLRMConfig(embedding_dim=16, bottom_mlp=(64, 16), top_mlp=(64, 32, 1)),
        train=TrainConfig(batch_size=1024),
    )
