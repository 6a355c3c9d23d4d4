"""Rows of earlier days: which are drawn, and what their values mean now, compared with pandas."""

import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from daily_logs import MAX_SIZE, SCHEMA, day

import tfrs_dlrm as td
from tfrs_dlrm.data.encoding.vocabulary import read_vocabulary
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.reading.labels import label_counts
from tfrs_dlrm.tools.update.replay import days_to_replay, mix


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Three days, each on the one before; full tables give rows to new values."""
    root = tmp_path_factory.mktemp("chain")
    td.prepare(SCHEMA, day(1), str(root / "1"))
    for n in (2, 3):
        td.prepare(None, day(n), str(root / str(n)), base=str(root / str(n - 1)), half_life=1, eval_fraction=0.2)
    return root


def rows_of(directory):
    """The rows of the training set, as lists of the names of their values."""
    names = {t: [None, *read_vocabulary(str(directory), t)] for t in ("site", "tags")}
    parts = [pq.read_table(directory / s.path) for s in PreparedManifest.load(str(directory)).train]
    return names, [part.to_pandas() for part in parts]


def test_values_mean_what_they_meant(chain, tmp_path):
    links = days_to_replay(str(chain / "3"), 5)
    assert [os.path.basename(link.name) for link in links] == ["1", "2"]
    count = mix(str(chain / "3"), links, 10.0, 0, str(tmp_path / "all"))  # more than there are: all of them
    (names, parts), now = rows_of(tmp_path / "all"), PreparedManifest.load(str(chain / "3"))
    earlier = [(rows_of(chain / n)) for n in "12"]
    assert count == sum(len(p) for _, ps in earlier for p in ps) == len(parts[-1])
    assert PreparedManifest.load(str(tmp_path / "all")).eval == now.eval
    counted, labels = label_counts(str(tmp_path / "all"), "train")["label"], pd.concat(parts)["label"]
    assert (counted.count, counted.positives) == (len(labels), int(labels.sum()))
    replayed, begin, lost = parts[-1], 0, 0
    for old_names, old_parts in earlier:
        for old in old_parts:
            new = replayed[begin : begin + len(old)].reset_index(drop=True)
            begin += len(old)
            pd.testing.assert_frame_equal(*(x[[SCHEMA.label_columns[0], "price", "user", "width"]] for x in (new, old)))
            for feature in ("site", "referrer", "tags"):
                table = "tags" if feature == "tags" else "site"
                ids = [np.concatenate([np.atleast_1d(v) for v in days[feature]]) for days in (new, old)]
                for a, b in zip(*ids, strict=True):
                    value = old_names[table][b]
                    kept = value is not None and value in names[table] and names[table].index(value) == b
                    assert a == (b if kept else 0)
                    lost += not kept and b > 0
    assert lost > 0 and len(names["site"]) == MAX_SIZE + 1


def test_the_draw(chain, tmp_path):
    links = days_to_replay(str(chain / "3"), 1)
    assert [os.path.basename(link.name) for link in links] == ["2"]
    data, rows = str(chain / "3"), PreparedManifest.load(str(chain / "3")).rows("train")
    counts = [mix(data, links, 0.5, seed, str(tmp_path / f"{seed}")) for seed in (0, 1)]
    assert all(abs(c - rows / 2) < 4 * np.sqrt(rows / 4) for c in counts)
    files = [(tmp_path / f"{seed}/train/replayed.parquet").read_bytes() for seed in (0, 1)]
    os.remove(tmp_path / "0/prepared.json")  # as after a kill
    assert mix(data, links, 0.5, 0, str(tmp_path / "0")) == counts[0]
    assert (tmp_path / "0/train/replayed.parquet").read_bytes() == files[0] != files[1]
    list(td.dataset(str(tmp_path / "0"), 16))
    assert mix(data, [], 0.5, 0, str(tmp_path / "none")) == 0


def test_days_that_are_gone_are_left_out(chain, tmp_path):
    td.prepare(None, day(4), str(tmp_path / "4"), base=str(chain / "3"))
    moved = chain / "2"
    os.rename(moved, chain / "away")
    try:
        assert [os.path.basename(link.name) for link in days_to_replay(str(tmp_path / "4"), 2)] == ["1", "3"]
    finally:
        os.rename(chain / "away", moved)
