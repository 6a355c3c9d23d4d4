"""The labels that stand in the manifest are those of the log, as pandas counts them."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from tfrs_dlrm.data.preparing.fit_encoder import fit_encoder
from tfrs_dlrm.data.preparing.label_counts import LabelCounter, LabelCounts, joined, label_notes
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.reading.labels import label_counts
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

SCHEMA = Schema(
    Label("clicked"),
    more_labels=(Label("bought", name="bought"), Label("seconds", name="seconds", task="regression")),
    categorical=(CategoricalFeature("site"),),
    tables=(Table("site", 4),),
    weight="weight",
)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = 3000
    frame = pd.DataFrame(
        {"clicked": (rng.random(rows) < 0.1).astype(int), "site": rng.integers(0, 5, rows).astype(str)}
    )
    frame["bought"] = np.where(rng.random(rows) < 0.3, np.nan, rng.random(rows) < 0.5)
    frame["seconds"] = np.where(rng.random(rows) < 0.4, np.nan, rng.normal(40, 7, rows).round(2))
    frame["weight"] = rng.choice([0.0, 0.5, 2.0], rows)
    directory = tmp_path_factory.mktemp("labels")
    train, evaluation = frame[:2500], frame[2500:]
    prepare(SCHEMA, train, str(directory / "prepared"), eval_inputs=evaluation)
    return directory / "prepared", {"train": train, "eval": evaluation}


def test_means_of_the_training_rows_stand_in_the_schema(log):
    directory, frames = log
    train = frames["train"]

    def weighted(column):
        seen = train[column].notna()
        return np.average(train[column][seen], weights=train.weight[seen])

    clicked, bought, seconds = Schema.load(directory / "schema.json").labels
    np.testing.assert_allclose([clicked.mean, bought.mean], [weighted("clicked"), weighted("bought")], rtol=1e-12)
    np.testing.assert_allclose(seconds.mean, train.seconds.mean(), rtol=1e-6)  # as before: of all rows alike
    in_memory = fit_encoder(SCHEMA, train).schema.labels
    assert [label.mean for label in in_memory] == [clicked.mean, bought.mean, seconds.mean]


def test_the_mean_needs_no_pass_over_rows_that_are_only_hashed(log, tmp_path):
    train = log[1]["train"]
    hashed = dataclasses.replace(
        SCHEMA,
        label=Label("clicked", mean=0.5),  # of other rows, on which the schema was prepared before
        more_labels=(Label("bought", name="bought"),),
        categorical=(CategoricalFeature("site", encoding="hash"),),
        tables=(Table("site", 4, 10),),
        weight=None,
    )
    stages = []
    prepare(hashed, train, str(tmp_path / "hashed"), progress=lambda stage, *_: stages.append(stage))
    found = [label.mean for label in Schema.load(tmp_path / "hashed" / "schema.json").labels]
    np.testing.assert_allclose(found, [train.clicked.mean(), train.bought.mean()], rtol=1e-12)
    assert "vocabulary" not in stages
    assert [label.mean for label in fit_encoder(hashed, train).schema.labels] == pytest.approx(found)


def known(counts):
    """The fields that have values; pytest.approx takes no None."""
    return {name: value for name, value in dataclasses.asdict(counts).items() if value is not None}


def test_counts_stand_in_the_manifest(log):
    directory, frames = log
    manifest = PreparedManifest.load(str(directory))
    for split, frame in frames.items():
        seen = frame[frame.weight > 0]
        found = manifest.labels[split]
        assert found["label"] == LabelCounts(len(seen), 0, positives=int(seen.clicked.sum()))
        assert found["label/bought"] == LabelCounts(
            seen.bought.count(), seen.bought.isna().sum(), positives=int(seen.bought.sum())
        )
        numbers = found["label/seconds"]
        values = seen.seconds.dropna().astype(np.float32).astype(np.float64)
        assert (numbers.count, numbers.missing) == (len(values), seen.seconds.isna().sum())
        assert (numbers.min, numbers.max) == (values.min(), values.max())
        np.testing.assert_allclose([numbers.mean, numbers.std], [values.mean(), values.std(ddof=0)], rtol=1e-12)
        assert label_counts(str(directory), split) == found


def test_manifests_from_before_have_their_labels_counted_when_they_are_asked_for(log, tmp_path):
    directory, _ = log
    content = json.loads((directory / "prepared.json").read_text())
    for name in ("train", "eval", "schema.json"):
        (tmp_path / name).symlink_to(directory / name)
    later = ("labels", "checksums", "crc32c")
    (tmp_path / "prepared.json").write_text(json.dumps({k: v for k, v in content.items() if k not in later}))
    before = PreparedManifest.load(str(tmp_path))
    assert before.labels == {}
    for split, found in PreparedManifest.load(str(directory)).labels.items():
        read = label_counts(str(tmp_path), split)
        for column, counts in found.items():
            assert known(read[column]) == pytest.approx(known(counts), rel=1e-12)


def test_parts_add_up():
    rng = np.random.default_rng(1)
    labels = np.stack([rng.integers(0, 2, 90), rng.integers(0, 2, 90), rng.normal(size=90)], axis=1)
    labels[:30, 1:] = np.nan  # a part without any
    parts = []
    for part in (labels[:30], labels[30:35], labels[35:]):
        counter = LabelCounter(SCHEMA)
        counter.add(part)
        parts.append(json.loads(json.dumps(counter.plain(), default=lambda x: x.tolist())))
    whole = LabelCounter(SCHEMA)
    whole.add(labels)
    for column, counts in whole.counts().items():
        assert known(joined(SCHEMA, parts)[column]) == pytest.approx(known(counts), rel=1e-12)


@pytest.mark.parametrize(
    ("counts", "note"),
    [
        (LabelCounts(98, 0, positives=0), "label: all 98 rows of the evaluation set are 0; it has no AUC there"),
        (LabelCounts(98, 0, positives=98), "label: all 98 rows of the evaluation set are 1; it has no AUC there"),
        (LabelCounts(98, 0, positives=1), "label: 1 of 98 rows of the evaluation set is 1; its AUC says little"),
        (LabelCounts(98, 0, positives=96), "label: 2 of 98 rows of the evaluation set are 0; its AUC says little"),
        (LabelCounts(0, 98, positives=0), "label: none of the rows of the evaluation set has it"),
        (LabelCounts(3, 0, None, 2.5, 0.0, 2.5, 2.5), "label: all 3 rows of the evaluation set are 2.5; its RMSE says"),
        (LabelCounts(98, 0, positives=40), ""),
        (LabelCounts(3, 0, None, 2.5, 0.5, 2.0, 3.0), ""),
    ],
)
def test_notes(counts, note):
    schema = dataclasses.replace(SCHEMA, more_labels=())
    found = label_notes(schema, {"eval": {"label": counts}})
    assert "".join(found).startswith(note) and bool(note) == bool(found)


def test_notes_of_labels_that_come_after_another():
    """Purchases of three of 60 clicked rows are not known, and those of a fourth after an unknown delivery."""
    steps = (Label("delivered", name="delivered", after="clicked"), Label("bought", name="bought", after="delivered"))
    schema = dataclasses.replace(SCHEMA, more_labels=steps)
    rows = np.zeros((100, 3))
    rows[:60, 0] = rows[:50, 1] = rows[:25, 2] = 1
    rows[[0, 26, 55], [1, 1, 1]] = rows[[0, 3, 4], [2, 2, 2]] = np.nan
    counter = LabelCounter(schema)
    counter.add(rows)
    notes = [note.partition(";")[0] for note in label_notes(schema, {"eval": counter.counts()})]
    assert notes == [
        "label delivered: 3 of 60 rows of the evaluation set with a 1 of clicked lack it",
        "label bought: 3 of 51 rows of the evaluation set with a 1 or nothing of delivered lack it",
    ]
    rows[:60, 1:] = np.nan
    counter = LabelCounter(schema)
    counter.add(rows[:60])
    notes = label_notes(schema, {"train": counter.counts()})
    assert [note for note in notes if "delivered" in note] == ["label delivered: none of the training rows has it"]
