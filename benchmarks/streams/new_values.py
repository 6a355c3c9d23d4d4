"""Training along a stream whose values come and go: is it exactly once, and what are rows for new values worth?

make bench-new-values
PYTHONPATH=benchmarks python -m streams.new_values --rows=20000     # on few rows

The first day of a log that moves (see train/synthesize.py --days) is prepared. Its items have larger weights, since in
logs of clicks it is new items, users and campaigns that matter. Eight further days are the rows of a topic, on a broker
on loopback as in stream.py, and a last one is for evaluation. A trainer along the topic, with
`stream.new_values=admit`, counts in its own weights how often it was trained on each row, and is killed with SIGKILL at
random moments. In the end each count has to be 1, and all weights, slots and vocabularies those of a trainer that was
not killed, bit for bit. The AUC on those rows of the last day that have a value which the first day's vocabulary lacks
has to be 0.02 above that of a trainer with `stream.new_values=off`.
"""

import csv
import dataclasses
import json
import os
import random
import shutil
import sys
import tempfile
import unittest.mock

import numpy as np
from absl import app, flags
from machine import describe, machine

from streams import stream

_AFTER = flags.DEFINE_integer("admit_after", 3, "How often a value is seen before it gets a row.")
_WITHIN = flags.DEFINE_integer("admit_within", 50_000, "Within how many rows; also the half-life of counts.")

flags.set_default(stream._ROWS, 200_000)

_DAYS, _WINDOW = 8, 4096
# Little more than what the first day has, so that rows change hands.
_MAX_SIZE = 250
# How many items a day has, the standard deviation of their weights (in the plain log 0.4), and that new ones come.
_ITEM = (200, 1.0, True)


def prepare_days(home: str, rows: int) -> tuple[str, list[str], list[dict], float]:
    """The first day as prepared data, those of the stream as JSON, the rows of the last one, and their best AUC."""
    from tfrs_dlrm.data.preparing.prepare import prepare
    from tfrs_dlrm.data.synthetic import moving
    from tfrs_dlrm.data.synthetic.days import generate_days
    from tfrs_dlrm.schema import CategoricalFeature, Schema, Table

    logs = os.path.join(home, "logs")
    with unittest.mock.patch.dict(moving.FIELDS, item=_ITEM):
        days = generate_days(logs, _DAYS + 2, rows // _DAYS)
    plain = Schema.load(os.path.join(logs, "schema.json"))
    row = CategoricalFeature("row", encoding="ids", dtype="int64")
    total = _DAYS * (rows // _DAYS)
    schema = dataclasses.replace(
        plain,
        categorical=(*(dataclasses.replace(f, max_size=_MAX_SIZE) for f in plain.categorical), row),
        tables=(*plain.tables, Table("row", vocabulary_size=total + 1, initializer="zeros")),
    )
    read = []
    for day in days:
        with open(os.path.join(logs, day.file), encoding="utf-8", newline="") as f:
            read.append(list(csv.DictReader(f)))
    first, *between, last = read
    path = os.path.join(home, "first.csv")
    with open(path, "w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, [*first[0], "row"])
        writer.writeheader()
        writer.writerows({**values, "row": total} for values in first)  # which the stream does not have
    prepare(schema, path, os.path.join(home, "prepared"), eval_fraction=0.1)
    of_stream = [values for day in between for values in day]
    messages = [json.dumps({**values, "row": number}) for number, values in enumerate(of_stream)]
    return os.path.join(home, "prepared"), messages, [{**values, "row": total} for values in last], days[-1].auc


def make_config(prepared: str, source: str, new_values: str):
    from tfrs_dlrm.config import StreamConfig

    config = stream.make_config(prepared, source)
    config.stream = StreamConfig(
        window_rows=_WINDOW,
        checkpoint_every_windows=3,
        stop_at_end=True,
        new_values=new_values,
        admit_after=_AFTER.value,
        admit_within=_WITHIN.value,
    )
    return config


def train(home: str, name: str, config, kills: list[int]) -> tuple[str, list[int]]:
    """Trains in a process that is killed now and then: the directory of the run, and after which windows."""
    path, workdir = os.path.join(home, f"{name}.json"), os.path.join(home, name)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config.to_dict(), f)
    print(name, flush=True)
    return workdir, stream.run_killed(path, workdir, kills)


def weights(workdir: str) -> dict[str, bytes]:
    """All that the latest checkpoint holds: tables, slots, layers, vocabularies, counts and candidates."""
    import tensorflow as tf

    from tfrs_dlrm.training.workdir import Workdir

    checkpoint, found = Workdir(workdir).checkpoint("latest"), {}
    for file in ("rows", "dense"):
        reader = tf.train.load_checkpoint(os.path.join(checkpoint, file))
        names = set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
        found |= {name: np.asarray(reader.get_tensor(name)).tobytes() for name in names}
    return found


def score(workdir: str, prepared: str, rows: list[dict]) -> tuple[float, float, float]:
    """The AUC on all rows, that on rows with a value that the first vocabulary lacks, and the share of these."""
    import pandas as pd

    from tfrs_dlrm.data.encoding.encoder import Encoder
    from tfrs_dlrm.metrics import exact_auc
    from tfrs_dlrm.training.factory import load_run
    from tfrs_dlrm.training.workdir import Workdir

    model, _, checkpoint = load_run(workdir, "latest")
    encoder, first = Encoder.load(Workdir(workdir).encoder_of(checkpoint)), Encoder.load(prepared)
    frame = pd.DataFrame(rows).astype({"click": int, "price": float, "age": float, "row": int})
    parts = [frame.iloc[i : i + 8192].reset_index(drop=True) for i in range(0, len(frame), 8192)]
    logits = np.concatenate([np.ravel(model(encoder(part), training=False, logits=True)) for part in parts])
    counted = [i for i, f in enumerate(first.schema.one_hot) if f.encoding == "vocabulary"]
    ids = np.concatenate([first(part)["ids"].numpy() for part in parts])[:, counted]
    new, labels = (ids == 0).any(axis=1), frame["click"].to_numpy()
    return exact_auc(labels, logits), exact_auc(labels[new], logits[new]), float(new.mean())


def main(argv: list[str]) -> None:
    del argv
    from streams import stream_worker
    from tfrs_dlrm.training.workdir import Workdir

    stream_worker.count_rows()
    home = tempfile.mkdtemp(prefix="tfrs-dlrm-new-values-")
    try:
        print(describe(machine()), flush=True)
        prepared, messages, last, best = prepare_days(home, stream._ROWS.value)
        broker, servers = stream.start_broker({"rows": messages})
        source = f"kafka://{servers}/rows?format=json"
        admit, off = (make_config(prepared, source, mode) for mode in ("admit", "off"))
        windows = -(-len(messages) // _WINDOW)
        kills = stream._KILLS.value
        moments = [random.randint(1, max(1, (windows - 2) // max(1, kills))) for _ in range(kills)]
        killed, after = train(home, "killed", admit, moments)
        whole, _ = train(home, "whole", admit, [])
        without, _ = train(home, "off", off, [])
        del broker

        counts = stream_worker.counts(Workdir(killed).checkpoint("latest"), stream._RATE)[: len(messages)]
        once, same = bool((np.abs(counts - 1) < 1e-3).all()), weights(killed) == weights(whole)
        records = stream._lines(os.path.join(whole, "metrics.jsonl"))
        auc, auc_new, share = score(whole, prepared, last)
        auc_off, auc_new_off, _ = score(without, prepared, last)
        result = {
            "machine": machine(),
            "rows": len(messages),
            "killed_after_windows": after,
            "each_row_once": once,
            "same_weights": same,
            "admitted": sum(sum(r["new_values"]["admitted"].values()) for r in records),
            "evicted": sum(sum(r["new_values"]["evicted"].values()) for r in records),
            "auc": {"admit": auc, "off": auc_off, "planted": best},
            "auc_new_values": {"admit": auc_new, "off": auc_new_off, "share_of_rows": share},
            "rows_per_s_median": float(np.median([r["rows_per_s"] for r in records])),
        }
        print(json.dumps(result, indent=2))
        if stream._OUTPUT.value:
            with open(stream._OUTPUT.value, "w", encoding="utf-8") as f:
                json.dump(result, f, indent=2)
        if not once or not same or auc_new < auc_new_off + 0.02:
            sys.exit(1)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    app.run(main)
