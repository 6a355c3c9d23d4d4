"""Runs along streams that have something wrong with them."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfrs_dlrm.config import DataConfig, DLRMConfig, RunConfig, StreamConfig, TrainConfig
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema
from tfrs_dlrm.streaming import client, confluent, loop
from tfrs_dlrm.streaming.loop import train_on_stream
from tfrs_dlrm.streaming.reader import StreamError
from tfrs_dlrm.tools.report.findings import ReportOptions, examine
from tfrs_dlrm.tools.report.page import page
from tfrs_dlrm.training.callbacks import Interrupted
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.run import RunRecords

ROWS = 600


def lines(workdir, name):
    return [json.loads(line) for line in Path(workdir, name).read_text().splitlines()]


@pytest.fixture
def config(tmp_path, kafka):
    schema = Schema(Label("clicked"), (DenseFeature("price"),), (CategoricalFeature("site"),)).with_dim(4)
    rng = np.random.default_rng(0)
    rows = [f"{rng.integers(2)},{rng.random():.3f},s{rng.integers(9)}\n" for _ in range(ROWS)]
    (tmp_path / "log.csv").write_text("".join(["clicked,price,site\n", *rows]))
    prepare(schema, [str(tmp_path / "log.csv")], str(tmp_path / "data"))
    kafka.rows = [dict(zip(("clicked", "price", "site"), row.strip().split(","), strict=True)) for row in rows]
    kafka.topic("bad", 1)
    return RunConfig(
        DataConfig(
            path=str(tmp_path / "data"), source=f"kafka://{kafka.servers}/clicks?dead_letter=bad", bad_rows="quarantine"
        ),
        DLRMConfig(embedding_dim=4, bottom_mlp=(4,), top_mlp=(8, 1)),
        train=TrainConfig(batch_size=50, tensorboard=True),
        stream=StreamConfig(window_rows=100, checkpoint_every_windows=2, stop_at_end=True),
    )


def test_a_run_with_everything_in_its_way(kafka, config, tmp_path, monkeypatch):
    workdir, change = str(tmp_path / "run"), dataclasses.replace
    monkeypatch.setattr(confluent, "_STALL", 1.0)
    big = b'{"clicked": 1, "price": 1, "site": "' + b"x" * 10_000_000 + b'"}'
    kafka.send("clicks", [*kafka.rows[:300], big, *kafka.rows[300:]])

    # The broker goes away after the second window, until a warning says so.
    add, warn = RunRecords.append, loop.StreamProgress.warn

    def append(self, record):
        add(self, record)
        if record.get("window") == 2 and "step" in record:
            kafka.down()

    def warn_and_mend(self, line):
        warn(self, line)
        kafka.up()

    with monkeypatch.context() as patch:
        patch.setattr(RunRecords, "append", append)
        patch.setattr(loop.StreamProgress, "warn", warn_and_mend)
        # As train/main.py has it.
        result = train_on_stream(config, workdir, tf.distribute.OneDeviceStrategy("/cpu:0"))
    assert result.reason == "the rows that the topic held at the start are done"
    records = lines(workdir, "metrics.jsonl")
    assert sum(r["rows"] for r in records) == ROWS and records[-1]["retries"] >= 1 and records[-1]["lag"] == 0
    assert all(r["eval"]["log_loss"] > 0 and r["train"]["loss"] > 0 for r in records)
    assert result.step == records[-1]["step"] == sum(-(-r["rows"] // 50) for r in records)
    assert list(Path(workdir).glob("tensorboard/events*"))
    (bad,) = lines(workdir, "quarantine.jsonl")
    assert "10,000,038 bytes; a row may have 1,048,576" in bad["reason"] and len(bad["text"]) < 2000
    (letter,) = kafka.messages("bad")
    assert letter.key().decode() == f"clicks/{bad['partition']}/{bad['offset']}"
    assert letter.value() == big[:1024] and dict(letter.headers())["reason"].decode() == bad["reason"]

    found = examine(workdir, ReportOptions(split="train", examples=0))
    assert len(found.history) == len(records) and page(found).count("<img") == 5  # curves, scores, groups of site

    # SIGTERM while there is nothing to do: a checkpoint, and where it goes on.
    waiting = change(config, stream=change(config.stream, stop_at_end=False))
    with monkeypatch.context() as patch:
        patch.setattr(loop.StreamProgress, "lag", lambda self, lag: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match=rf"after step {result.step}; the checkpoint is .*step-{result.step}"):
            train_on_stream(waiting, workdir)

    # A stream of another schema: nothing is set aside. A few malformed rows in a row are no other schema.
    kafka.send("clicks", [{"label": 1, "price": 2, "site": "s1"}] * 120)
    with pytest.raises(
        StreamError, match=r"all 100 messages of window 8 are malformed, .* no such field. None of this"
    ):
        train_on_stream(config, workdir)
    assert len(lines(workdir, "quarantine.jsonl")) == 1 and len(lines(workdir, "metrics.jsonl")) == 7
    with pytest.raises(StreamError, match=r"column 'clicked': .* no such field. Mend what writes them"):
        train_on_stream(change(config, data=change(config.data, bad_rows="error")), workdir)

    # Retention: rows that were not trained on are gone.
    kafka.forget("clicks", 2, 230)
    with pytest.raises(
        StreamError, match=r"partition 2: \d+ rows that were not trained on are gone: the checkpoint resumes"
    ):
        train_on_stream(config, workdir)

    # Another topic, and files, in the directory of this run.
    other = change(config, data=change(config.data, source=f"kafka://{kafka.servers}/bad"))
    with pytest.raises(
        ValueError, match="holds a run on the topic 'clicks'; choose another --workdir for the topic 'bad'"
    ):
        train_on_stream(other, workdir)


def test_streams_that_cannot_be_begun(kafka, config, tmp_path, monkeypatch):
    """All of them before a model is made."""
    monkeypatch.setattr(loop, "_FIRST_ANSWER", 0.2)
    monkeypatch.setattr(client, "ANSWER", 0.5)

    def run(**data):
        train_on_stream(
            dataclasses.replace(config, data=dataclasses.replace(config.data, **data)), str(tmp_path / "run")
        )

    kafka.down()
    with pytest.raises(StreamError, match=r"no answer: .*refused.*; gave up after \d+ s and \d retries"):
        run()
    kafka.up()
    with pytest.raises(StreamError, match="the topic 'nothing' does not exist"):
        run(source=f"kafka://{kafka.servers}/nothing")
    with pytest.raises(StreamError, match="the topic 'nowhere' does not exist"):
        run(source=f"kafka://{kafka.servers}/clicks?dead_letter=nowhere")
    with pytest.raises(ValueError, match=r"config.data.source='s3://a/b': kafka://HOST:PORT/TOPIC is needed"):
        run(source="s3://a/b")
    with pytest.raises(ValueError, match="train_on_stream trains on a stream"):
        train_and_evaluate(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "section, change, message",
    [
        ("train", {"patience": 2}, "train.patience=2: a stream has no evaluation set to stop by"),
        ("optimizer", {"plateau_factor": 0.5}, "plateau_factor=0.5: a stream has no evaluation set"),
        ("stream", {"window_rows": 0}, "stream.window_rows=0: at least 1"),
        ("stream", {"export_every_windows": 10}, "stream.export_to='': it goes with stream.export_every_windows"),
        ("stream", {"export_to": "x", "export_every_windows": 3}, "export_every_windows=3: a multiple of .*windows=2"),
    ],
)
def test_configurations_that_do_not_fit(config, section, change, message):
    changed = dataclasses.replace(getattr(config, section), **change)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **{section: changed}).check()
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
