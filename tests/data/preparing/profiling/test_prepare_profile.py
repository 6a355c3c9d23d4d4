"""`profile.json` against pandas and scikit-learn, and how rows are drawn for it."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.preparing.profiling import row_sample
from tfrs_dlrm.data.preparing.profiling.column_profile import PROFILE_FILE, Profile
from tfrs_dlrm.data.preparing.profiling.single_column_auc import category_auc, values_auc
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table, TextFormat, Time

ROWS = 900
SCHEMA = Schema(
    Label("y"),
    dense=(
        DenseFeature("price", transform=["log1p", "standardize"], fill_value="mean"),
        DenseFeature("title", size=2, separator="|"),
    ),
    categorical=(
        CategoricalFeature("site", min_count=3),
        CategoricalFeature("user", encoding="hash"),
        CategoricalFeature("slot", encoding="ids", dtype="int64"),
        CategoricalFeature("tags", separator="|"),
        CategoricalFeature("width", encoding="buckets", buckets=4),
        CategoricalFeature("ts", time=Time(("hour",))),
        CategoricalFeature(cross=("site", "slot")),
    ),
    tables=(Table("user", 4, vocabulary_size=1000), Table("slot", 4, vocabulary_size=9)),
)


def log(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.random(rows) < 0.3
    site = [f"s{k}" if k < 40 else "" for k in np.minimum(rng.zipf(1.5, rows) + 2 * y, 40)]
    price = np.where(rng.random(rows) < 0.1 + 0.2 * y, np.nan, rng.normal(-3 * y, 2).round(2))
    tags = ["|".join(f"t{t}" for t in rng.integers(0, 6, rng.integers(0, 4))) for _ in range(rows)]
    return pd.DataFrame(
        {
            "y": y.astype(int),
            "price": price,
            "title": [f"{a}|{b}" if a else "" for a, b in rng.integers(0, 5, (rows, 2))],
            "site": site,
            "user": [f"u{k}" for k in rng.integers(0, 300, rows)],
            "slot": np.where(rng.random(rows) < 0.05, -1, rng.integers(1, 6, rows)),
            "tags": tags,
            "width": rng.exponential(size=rows).round(3),
            "ts": [f"2026-11-0{d} {h:02d}:30:00" for d, h in rng.integers([1, 0], [9, 24], (rows, 2))],
        }
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile")
    frame = log()
    prepare(SCHEMA, frame, str(path))
    return path, frame, Profile.load(str(path))


def test_labels_missing_values_and_numbers_equal_pandas(prepared):
    _, frame, found = prepared
    (label,) = found.labels
    assert (found.rows, found.sampled, found.positives) == (ROWS, ROWS, frame.y.sum())
    assert (label.mean, label.std) == pytest.approx((frame.y.mean(), frame.y.std(ddof=0)))
    missing = {c.name: c.missing for c in found.columns}
    empty = {name: (frame[name] == "").mean() for name in ("site", "tags", "title")}
    absent = {"slot": (frame.slot == -1).mean(), "price": frame.price.isna().mean()}
    crossed = {"site_x_slot": ((frame.site == "") | (frame.slot == -1)).mean()}
    assert missing == pytest.approx({**empty, **absent, **crossed, "user": 0, "width": 0, "ts_hour": 0}, abs=1e-6)
    kinds = ["number", "vector", "category", "category", "category", "values", "number", "time", "cross"]
    assert [c.kind for c in found.columns] == kinds
    title = frame.title[frame.title != ""].str.split("|", expand=True).astype(float)
    norms = np.sqrt((title**2).sum(axis=1))
    for name, numbers in (("price", frame.price.dropna()), ("width", frame.width), ("title", norms)):
        column = found.column(name)
        shares = [float(q) for q in column.quantiles]
        expected = np.quantile(numbers, shares, method="inverted_cdf")
        np.testing.assert_allclose(list(column.quantiles.values()), expected, rtol=1e-6)
        y = frame.y[numbers.index]
        area = roc_auc_score(y, numbers)
        assert column.auc == pytest.approx(max(area, 1 - area), abs=1e-6)
        assert (column.distinct, column.among) == (numbers.astype(np.float32).nunique(), len(numbers))
        until = np.cumsum(column.distribution.rows)
        np.testing.assert_array_equal(until, [(numbers <= v + 1e-5).sum() for v in column.distribution.values])
    assert found.column("price").missing_auc == pytest.approx(roc_auc_score(frame.y, frame.price.isna()), abs=1e-6)


def test_values_equal_pandas(prepared):
    _, frame, found = prepared
    present = frame[frame.site != ""]
    counts = present.site.value_counts()
    column, rare = found.column("site"), set(counts.index[counts < 3])
    assert (column.distinct, column.among, column.exact) == (len(counts), len(present), True)
    assert column.out_of_vocabulary == pytest.approx(present.site.isin(rare).mean(), abs=1e-6)
    assert column.expected_new == pytest.approx(counts[counts <= 3].sum() / counts.sum(), abs=1e-6)
    assert not column.since and column.top.among == len(present)
    by = present.groupby("site").y
    shown = dict(zip(column.top.values, zip(column.top.rows, column.top.label_mean, strict=True), strict=True))
    known = counts.index.difference(rare)
    assert shown == {v: (counts[v], pytest.approx(by.mean()[v], abs=1e-6)) for v in known}
    tags = frame.assign(tag=frame.tags.str.split("|")).explode("tag")
    tags = tags[tags.tag != ""]
    top = found.column("tags").top
    assert dict(zip(top.values, top.rows, strict=True)) == tags.tag.value_counts().to_dict()
    assert dict(zip(top.values, top.label_mean, strict=True)) == pytest.approx(tags.groupby("tag").y.mean().to_dict())
    assert found.column("slot").distinct == 5 and found.column("slot").out_of_vocabulary is None
    assert set(found.column("ts_hour").top.values) == {f"{h}h" for h in range(24)}


def by_hand(y, lists, folds):
    """The AUC within each fold of the mean smoothed label rate of values in the other folds, averaged over pairs."""
    rows = pd.DataFrame({"y": y, "value": lists, "fold": folds})
    area = pairs = 0
    for fold, here in rows.groupby("fold"):
        rest = rows[rows.fold != fold]
        each = rest.explode("value").dropna()
        prior = each.y.mean()
        sums = each.groupby("value").y.agg(["sum", "size"])
        rates = (sums["sum"] + 10 * prior) / (sums["size"] + 10)
        scores = [np.mean([rates.get(v, prior) for v in values]) if values else rest.y.mean() for values in here.value]
        weight = here.y.sum() * (1 - here.y).sum()
        area, pairs = area + weight * roc_auc_score(here.y, np.round(scores, 12)), pairs + weight
    return area / pairs


def test_auc_of_values_equals_a_plain_loop_and_rare_values_are_no_leak():
    rng = np.random.default_rng(1)
    y, codes, folds = rng.random(700) < 0.4, rng.zipf(1.6, 700) % 50, rng.integers(0, 5, 700)
    codes += y & (codes % 3 == 0)
    expected = by_hand(y.astype(int), [[c] for c in codes], folds)
    assert category_auc(y, codes, folds) == pytest.approx(expected) and expected > 0.55
    lengths = rng.integers(0, 4, 700)
    splits = np.concatenate([[0], np.cumsum(lengths)])
    values = rng.integers(0, 20, splits[-1]) + np.repeat(y, lengths)
    lists = [values[a:b].tolist() for a, b in itertools.pairwise(splits)]
    assert values_auc(y, values, splits, folds) == pytest.approx(by_hand(y.astype(int), lists, folds))
    assert category_auc(y, np.arange(700), folds) == 0.5
    assert category_auc(y, y.astype(int), folds) == 1.0


def test_rows_are_drawn_by_seed_alone(tmp_path, monkeypatch):
    frame = log(3000)
    frame.to_csv(tmp_path / "log.csv", index=False)
    monkeypatch.setattr(row_sample, "SAMPLE_ROWS", 1000)
    prepare(SCHEMA, [str(tmp_path / "log.csv")], str(tmp_path / "whole"), eval_fraction=0.2)
    monkeypatch.setattr(sources, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(prepare_job, "BLOCKS_PER_SEGMENT", 2)
    prepare(SCHEMA, [str(tmp_path / "log.csv")], str(tmp_path / "cut"), eval_fraction=0.2)
    prepare(SCHEMA, [str(tmp_path / "log.csv")], str(tmp_path / "seed"), eval_fraction=0.2, seed=1)
    whole, cut, seed = ((tmp_path / name / PROFILE_FILE).read_bytes() for name in ("whole", "cut", "seed"))
    assert whole == cut != seed
    found = Profile.load(str(tmp_path / "whole"))
    assert 900 < found.sampled <= 1000 and found.rows > 2300
    assert found.column("site").among > 2000  # counted, and not sampled
    assert found.column("price").missing == pytest.approx(frame.price.isna().mean(), abs=0.04)


def test_a_vocabulary_that_goes_on_says_since_when_its_values_have_rows(tmp_path):
    schema = Schema(Label("y"), categorical=(CategoricalFeature("site"),))
    days = [["a", "a", "b", ""], ["a", "b", "c", "c"], ["a", "c", "d", ""], ["d", "a", "a", "b"]]
    for n, values in enumerate(days):
        frame = pd.DataFrame({"y": [0, 1, 0, 1], "site": values})
        on = {"base": str(tmp_path / str(n - 1))} if n else {}
        prepare(None if n else schema, frame, str(tmp_path / str(n)), **on)
    first, second, third, none_new = (Profile.load(str(tmp_path / str(n))).column("site") for n in range(4))
    assert first.since == () and first.expected_new == pytest.approx(1 / 3)
    assert second.since == (0.5, 0.5)
    assert third.since == pytest.approx((1 / 3,) * 3) and third.missing == 0.25
    assert (third.distinct, third.among, third.exact) == (3, 3, False)
    assert none_new.since == (0.75, 0, 0.25, 0)


def test_labels_are_those_of_the_log_and_a_feature_may_have_any_name(tmp_path):
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"y": rng.random(400) < 0.2, "draw": rng.choice(["a", "b", ""], 400)})
    schema = Schema(Label("y"), categorical=(CategoricalFeature("draw"),))
    prepare(schema, frame, str(tmp_path), keep_negatives=0.5)
    found = Profile.load(str(tmp_path))
    assert found.labels[0].rows == 400 and found.labels[0].mean == pytest.approx(frame.y.mean())
    assert found.sampled == found.rows == 400 and found.positives == frame.y.sum()
    column = found.column("draw")
    present = frame[frame.draw != ""]
    assert dict(zip(column.top.values, column.top.rows, strict=True)) == present.draw.value_counts().to_dict()
    means = dict(zip(column.top.values, column.top.label_mean, strict=True))
    assert means == pytest.approx(present.groupby("draw").y.mean().to_dict()) and not column.exact
    assert column.missing == pytest.approx((frame.draw == "").mean())


def test_what_is_missing_is_what_the_encoder_takes_for_it(tmp_path):
    frame = pd.DataFrame({"y": [0, 1] * 30, "site": ["a", " ", "\u00a0", "\u3000", "", " a"] * 10})
    schema = Schema(Label("y"), categorical=(CategoricalFeature("site"),), text=TextFormat(strip=True))
    prepare(schema, frame, str(tmp_path))
    site = Profile.load(str(tmp_path)).column("site")
    assert site.top.values[0] == "a" and site.top.rows == (20, 10, 10)  # other spaces than those of ASCII are values
    assert site.missing == pytest.approx(1 / 3) and (site.distinct, site.among, site.out_of_vocabulary) == (3, 40, 0)


def test_rows_of_weight_0_are_left_out_and_nothing_is_exact(tmp_path):
    frame = pd.DataFrame({"y": [0, 1] * 30, "site": ["a", "b", "c"] * 20, "w": [1.0, 0.5, 0.0] * 20})
    prepare(Schema(Label("y"), weight="w", categorical=(CategoricalFeature("site"),)), frame, str(tmp_path))
    found = Profile.load(str(tmp_path))
    site = found.column("site")
    assert (found.rows, found.sampled, site.distinct, site.among, site.exact) == (60, 40, 2, 40, False)


def test_a_directory_without_a_profile_says_so(tmp_path, prepared):
    with pytest.raises(FileNotFoundError, match=r"no profile.json: .*; prepare the data again"):
        Profile.load(str(tmp_path))
    content = json.loads((prepared[0] / PROFILE_FILE).read_text())
    (tmp_path / PROFILE_FILE).write_text(json.dumps({**content, "rows": "many"}))
    with pytest.raises(ValueError, match=r"profile.json: .*rows"):
        Profile.load(str(tmp_path))
