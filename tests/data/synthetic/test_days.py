"""The log that moves: what changes from day to day, what does not, and the best AUC of each day."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare
from sklearn.metrics import log_loss, roc_auc_score

from tfrs_dlrm.data.synthetic import days as days_module
from tfrs_dlrm.data.synthetic.days import draw_block, generate_days
from tfrs_dlrm.data.synthetic.moving import FIELDS, moving_days
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores.files import read_json
from tfrs_dlrm.stores.lock import Lock

ROWS = 8_000


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(days_module, "_CHUNK", 3_000)
        yield


@pytest.fixture(scope="module")
def log(tmp_path_factory, small_chunks):
    output = tmp_path_factory.mktemp("days")
    found = generate_days(str(output), 4, ROWS, seed=3)
    return output, found, [pd.read_csv(output / day.file, parse_dates=["time"]) for day in found]


def test_the_best_auc_of_each_day_is_that_of_the_planted_probabilities(log):
    output, found, tables = log
    for number, (day, planted, table) in enumerate(zip(moving_days(3, 4, 0.1, 0.07), found, tables, strict=True)):
        blocks = [draw_block(day, 3, number, chunk, ROWS) for chunk in range(3)]
        labels, logits = (np.concatenate([block[i] for block in blocks]) for i in (1, 2))
        probabilities = 1 / (1 + np.exp(-logits))
        assert table.click.tolist() == labels.tolist()
        assert planted.auc == pytest.approx(roc_auc_score(labels, probabilities), abs=1e-12)
        assert planted.log_loss == pytest.approx(log_loss(labels, probabilities), abs=1e-9)
        assert planted.label_mean == table.click.mean()
        for group in np.array_split(np.argsort(probabilities), 5):
            p = probabilities[group]
            assert abs(labels[group].mean() - p.mean()) < 4 * np.sqrt((p * (1 - p)).sum()) / len(group)
        assert 0.7 < planted.auc < 0.88
        assert table.time.is_monotonic_increasing and set(table.time.dt.date.astype(str)) == {planted.day}
    written = read_json(str(output / "planted.json"))
    assert [d["auc"] for d in written["days"]] == [d.auc for d in found] and written["seed"] == 3
    assert not {"time"} & set(Schema.load(output / "schema.json").columns)


@pytest.mark.parametrize("field", ["item", "campaign"])
def test_new_values_come_and_old_ones_go(log, field):
    _, found, tables = log
    days = moving_days(3, 4, 0.1, 0.07)
    for earlier, later, planted, table in zip(days[:-1], days[1:], found[1:], tables[1:], strict=True):
        before, now = set(earlier.fields[field].ids), set(later.fields[field].ids)
        texts = {f"{field[0]}{number:06d}" for number in now - before}
        assert texts == {f"{field[0]}{number:06d}" for number in later.fields[field].ids[later.fields[field].new]}
        share = table[field].isin(texts).mean()
        assert planted.new_values[field] == pytest.approx(share)
        assert abs(share - 0.1) < 4 * np.sqrt(0.1 * 0.9 / ROWS)
        assert len(before - now) == len(now - before) > 0
    assert not set(days[3].fields[field].ids) & (set(days[0].fields[field].ids) - set(days[1].fields[field].ids))
    assert set(tables[3].site) <= {f"s{k:06d}" for k in range(FIELDS["site"][0])}


def test_weights_turn_evenly_and_keep_their_size():
    days = moving_days(0, 6, 0.0, 0.2)
    weights = [np.concatenate([day._weights[name] / FIELDS[name][1] for name in FIELDS]) for day in days]
    angles = [np.degrees(np.arccos(np.corrcoef(weights[0], w)[0, 1])) for w in weights[1:]]
    np.testing.assert_allclose(angles, [18, 36, 54, 72, 90], atol=6)
    np.testing.assert_allclose([w.std() for w in weights], 1, atol=0.1)


def test_weights_of_earlier_days_lose_what_the_guide_says(monkeypatch):
    monkeypatch.setattr(days_module, "_CHUNK", 50_000)
    days = moving_days(0, 7, days_module.NEW_VALUES, days_module.DRIFT)
    lost = []
    for number, day in enumerate(days[1:], 1):
        rows, labels, logits = draw_block(day, 0, number, 0, 50_000)
        best = roc_auc_score(labels, logits)
        lost.append([best - roc_auc_score(labels, d.logits(rows)) for d in (days[0], days[number - 1])])
    np.testing.assert_allclose(np.mean(lost, axis=0), [0.04, 0.006], rtol=0.25)


def test_without_drift_and_new_values_all_days_are_alike():
    days = moving_days(1, 3, 0.0, 0.0)
    drawn = [draw_block(day, 1, number, 0, 3_000) for number, day in enumerate(days)]
    first, last = (np.bincount(rows.places["region"], minlength=20) for rows, _, _ in (drawn[0], drawn[2]))
    assert first.tolist() != last.tolist()
    expected = days[0].fields["region"].probabilities(0.0, 0.0) * 3_000
    for counts in (first, last):
        assert chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-4
    same = [day.logits(drawn[0][0]) for day in days]
    assert np.array_equal(same[0], same[1]) and np.array_equal(same[0], same[2])


def test_equal_arguments_give_equal_bytes_and_more_days_the_same_ones(log, tmp_path):
    output, found, _ = log
    generate_days(str(tmp_path / "again"), 2, ROWS, seed=3)
    generate_days(str(tmp_path / "other"), 1, ROWS, seed=4)
    for day in found[:2]:
        assert (output / day.file).read_bytes() == (tmp_path / "again" / day.file).read_bytes()
    assert (output / found[0].file).read_bytes() != (tmp_path / "other" / found[0].file).read_bytes()
    with pytest.raises(
        ValueError, match=r"again holds 2026-11-02\.csv, of a log of more than 1 days; remove its files"
    ):
        generate_days(str(tmp_path / "again"), 1, ROWS, seed=3)
    assert (output / found[0].file).read_bytes() == (tmp_path / "again" / found[0].file).read_bytes()


def test_who_has_waited_for_the_same_log_takes_it(tmp_path, monkeypatch):
    found, drawn = generate_days(str(tmp_path), 2, 1_000, seed=3), []
    acquire = Lock.acquire
    monkeypatch.setattr(Lock, "acquire", lambda lock, wait=None: acquire(lock, wait) or True)
    assert generate_days(str(tmp_path), 2, 1_000, seed=3, progress=drawn.append) == found and not drawn
    assert generate_days(str(tmp_path), 2, 1_000, seed=4, progress=drawn.append) != found and drawn


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"days": 0}, "days=0 and rows=10: give at least 1"),
        ({"new_values": 1.0}, "new_values=1.0 is no share; give 0 or more, and less than 1"),
        ({"drift": -0.1}, "drift=-0.1 is no share"),
        ({"seed": -1}, "seed=-1 is out of range; give 0 to 9223372036854775807"),
    ],
)
def test_arguments_out_of_range(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        generate_days(str(tmp_path), **{"days": 2, "rows": 10} | arguments)
