"""`keep_negatives`: which rows stay, against pandas; what is counted; that a stopped run ends with the same bytes."""

import filecmp

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_tree import assert_same_bytes

from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.preparing.fit_encoder import fit_encoder
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

SCHEMA = Schema(
    Label("y", threshold=3.0),
    more_labels=(Label("bought"), Label("paid", task="regression")),
    dense=(DenseFeature("row"), DenseFeature("age", transform="standardize", fill_value="mean")),
    categorical=(CategoricalFeature("site", min_count=2), CategoricalFeature("user", encoding="hash")),
    tables=(Table("user", vocabulary_size=50),),
    weight="w",
)
OPTIONS = {"eval_fraction": 0.25, "seed": 3}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(prepare_job, "BLOCKS_PER_SEGMENT", 2)


def log(rows=2000):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "y": rng.choice([0, 1, 2, 3, 4], rows, p=[0.3, 0.3, 0.2, 0.1, 0.1]),
            "bought": rng.choice(["", "0", "1"], rows),
            "paid": rng.choice(["", "7", "9.5"], rows),
            "w": rng.choice([0, 0.5, 2], rows),
            "row": np.arange(rows),
            "age": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(40, 9, rows)),
            "site": [f"s{k}" for k in np.minimum(rng.zipf(1.3, rows), 400)],
            "user": rng.integers(0, 90, rows),
        }
    )


def encoded(directory, split):
    shards = PreparedManifest.load(str(directory)).shards(split)
    return pa.concat_tables([pq.read_table(directory / s.path) for s in shards])


def kept(directory, split):
    return encoded(directory, split)["row"].to_numpy().astype(int)


def test_a_share_of_the_negative_training_rows_as_if_the_log_had_no_others(tmp_path):
    rows = log()
    rows.to_csv(tmp_path / "log.csv", index=False)
    prepare(SCHEMA, str(tmp_path / "log.csv"), str(tmp_path / "all"), **OPTIONS)
    manifest = prepare(SCHEMA, str(tmp_path / "log.csv"), str(tmp_path / "kept"), keep_negatives=0.2, **OPTIONS)
    train, evaluation = kept(tmp_path / "kept", "train"), kept(tmp_path / "kept", "eval")
    everything, positive = kept(tmp_path / "all", "train"), (rows["y"] >= 3).to_numpy()
    np.testing.assert_array_equal(evaluation, kept(tmp_path / "all", "eval"))
    np.testing.assert_array_equal(train[positive[train]], everything[positive[everything]])
    share = (~positive[train]).sum() / (~positive[everything]).sum()
    assert 0.15 < share < 0.25 and np.isin(train, everything).all()

    # Vocabularies, statistics, units of labels and rows are those of a log that has the kept rows alone.
    rows.iloc[train].to_csv(tmp_path / "train.csv", index=False)
    rows.iloc[evaluation].to_csv(tmp_path / "eval.csv", index=False)
    prepare(SCHEMA, str(tmp_path / "train.csv"), str(tmp_path / "alone"), eval_inputs=[str(tmp_path / "eval.csv")])
    for split in ("train", "eval"):
        pd.testing.assert_frame_equal(*(encoded(tmp_path / d, split).to_pandas() for d in ("alone", "kept")), rtol=1e-6)
    for name in ("vocabulary/site.txt", "samples.jsonl"):
        assert filecmp.cmp(tmp_path / "alone" / name, tmp_path / "kept" / name, shallow=False), name
    schema, alone = (Schema.load(str(tmp_path / d / "schema.json")) for d in ("kept", "alone"))
    assert (schema.label.keep_negatives, schema.tables) == (0.2, alone.tables)
    assert schema.more_labels[1].mean == pytest.approx(alone.more_labels[1].mean)

    counts = PreparedManifest.load(str(tmp_path / "kept")).labels
    for split, numbers in (("train", train), ("eval", evaluation), ("log", everything)):
        heavy = rows.iloc[numbers].query("w > 0")
        assert counts[split]["label"].count == len(heavy)
        assert counts[split]["label"].positives == (heavy["y"] >= 3).sum()
        assert counts[split]["label/bought"].positives == (heavy["bought"] == "1").sum()
        assert counts[split]["label/paid"].mean == pytest.approx(pd.to_numeric(heavy["paid"]).mean())
    assert manifest.labels == counts and manifest.rows("train") == len(train)


def test_stopped_in_either_pass_it_ends_with_the_same_bytes(tmp_path):
    """Also with the share in the schema, where a prepared schema has it."""
    log(600).to_csv(tmp_path / "log.csv", index=False)
    call = (str(tmp_path / "log.csv"),)
    calls = []
    prepare(SCHEMA, *call, str(tmp_path / "whole"), keep_negatives=0.3, progress=lambda *x: calls.append(x), **OPTIONS)
    assert calls[-1][3] == 600  # dropped rows were read, too
    for stage in ("vocabulary", "encode"):

        def stop(at, done, total, rows, stage=stage):
            if at == stage and 0 < done < total:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare(SCHEMA, *call, str(tmp_path / "out"), keep_negatives=0.3, progress=stop, **OPTIONS)
    prepare(SCHEMA.with_keep_negatives(0.3), *call, str(tmp_path / "out"), **OPTIONS)
    assert_same_bytes(tmp_path / "whole", tmp_path / "out")


def test_what_has_no_negatives_is_refused(tmp_path):
    rating = Schema(Label("paid", task="regression"), (DenseFeature("row"),))
    for schema, share, message in (
        (rating, 0.1, "keep_negatives=0.1 drops rows with a 0, and task 'regression' has no negatives"),
        (SCHEMA, 0.0, "keep_negatives=0.0; a share above 0 and at most 1 is needed"),
        (SCHEMA, 1.5, "keep_negatives=1.5; a share above 0 and at most 1 is needed"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare(schema, log(10), str(tmp_path / "out"), keep_negatives=share)
    with pytest.raises(ValueError, match="only the first label decides which rows are kept"):
        Schema(Label("y"), (DenseFeature("row"),), more_labels=(Label("bought", keep_negatives=0.5),))
    with pytest.raises(ValueError, match="fit_encoder takes all rows"):
        fit_encoder(SCHEMA.with_keep_negatives(0.5), log(10))
    assert not (tmp_path / "out").exists()
