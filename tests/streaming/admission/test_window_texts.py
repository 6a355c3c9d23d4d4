"""The values of a window are those that `prepare` counts in the same rows."""

from collections import Counter

import numpy as np
import pyarrow as pa

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.blocks import BlockCounter
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.data.raw.typed_rows import parse
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema
from tfrs_dlrm.streaming.admission.first_counts import counted_rows, first_counts
from tfrs_dlrm.streaming.admission.window_texts import WindowTexts

ROWS = 400


def make_log():
    rng = np.random.default_rng(3)
    spelled = ["7", "7.0", "True", "true", " a", "", "b\nc", "b"]
    seen = [[spelled[i] for i in rng.integers(0, len(spelled), n)] for n in rng.integers(0, 6, ROWS)]
    seen = [values if any(values) else [] for values in seen]
    return pa.table(
        {
            "clicked": rng.integers(0, 2, ROWS),
            "price": rng.normal(size=ROWS),
            "site": [spelled[i] for i in rng.integers(0, len(spelled), ROWS)],
            "referrer": [spelled[i] for i in rng.integers(0, len(spelled), ROWS)],
            "tags": ["|".join(f"t{t}" for t in rng.integers(0, 5, rng.integers(0, 4))) for _ in range(ROWS)],
            "user": rng.integers(0, 9, ROWS),
            "seen": ["|".join(values) for values in seen],
            "seen_by": [[None if rng.random() < 0.3 else int(u) for u in rng.integers(0, 9, len(s))] for s in seen],
        }
    )


def test_equals_the_counts_of_prepare(tmp_path):
    log = make_log()
    features = (
        CategoricalFeature("site", table="sites", max_size=9),
        CategoricalFeature("referrer", table="sites", max_size=9),
        CategoricalFeature("tags", multi_valued=True, separator="|", max_size=9),
        CategoricalFeature("user", dtype="int64", max_size=9),
        CategoricalFeature("pair", cross=("user", "site"), max_size=90),
        CategoricalFeature("seen", separator="|", sequence_length=2, history_of="site"),
        CategoricalFeature("seen_by", history_of="user", parallel_to="seen"),
    )
    schema = Schema(Label("clicked"), (DenseFeature("price"),), features)
    prepare(schema, log, str(tmp_path / "prepared"))
    encoder = Encoder.load(str(tmp_path / "prepared"))
    rows = parse(RawBlock("log", 0, 1, ROWS, log, tuple(log.column_names)), encoder.schema)

    found = WindowTexts(encoder, ["sites", "tags", "user", "pair"])(rows, 1000)
    expected = {table: Counter() for table in found}
    for table, values, counts in BlockCounter(encoder.schema, sketch=False)(rows, np.ones(len(rows), bool)).values:
        texts = values.cast(pa.binary()).to_pylist()
        for value, count in zip(texts, counts, strict=True):  # spellings of one value come apart
            expected[table].update({value: int(count)} if b"\n" not in value else {})
    for table, seen in found.items():
        assert Counter(seen.texts[code] for code in seen.codes) == expected[table], table
        assert (np.diff(seen.positions) >= 0).all()
    # Of a history its last two events that have a site, and of parallel lists a value, maybe a missing one, for each.
    both = zip(*(log[name].to_pylist() for name in ("seen", "seen_by")), strict=True)
    events = [[(s, u) for s, u in zip(sites.split("|"), users, strict=False) if s][-2:] for sites, users in both]
    texts = ["<missing>" if user is None else str(user) for pairs in events for _, user in pairs]
    assert expected["user"] == Counter(text.encode() for text in [*map(str, log["user"].to_pylist()), *texts])
    rows = zip(log["site"].to_pylist(), log["referrer"].to_pylist(), events, strict=True)
    values = [[site, referrer, *(s for s, _ in pairs)] for site, referrer, pairs in rows]
    positions = [1000 + i for i, of_row in enumerate(values) for value in of_row if "\n" not in value]
    assert found["sites"].positions.tolist() == positions


def test_first_counts_are_those_of_a_stream_in_the_mean(tmp_path):
    log = make_log()
    schema = Schema(Label("clicked"), (), (CategoricalFeature("user", dtype="int64", max_size=9),))
    prepare(schema, log, str(tmp_path / "prepared"))
    vocabulary = (tmp_path / "prepared" / "vocabulary" / "user.txt").read_text().split()
    users, weights = log["user"].to_numpy(), 0.5 ** (np.arange(ROWS) / 100)
    expected = [(users == int(value)).mean() * weights.sum() for value in vocabulary]
    np.testing.assert_allclose(_first_counts(tmp_path / "prepared", schema, len(vocabulary)), expected, rtol=1e-6)

    # The same rows once more: the counts are of both, and so is the number of rows.
    prepare(schema, log.take(np.arange(ROWS)[::-1]), str(tmp_path / "more"), base=str(tmp_path / "prepared"))
    weights = 0.5 ** (np.arange(2 * ROWS) / 100)
    expected = [(users == int(value)).mean() * weights.sum() for value in vocabulary]
    np.testing.assert_allclose(_first_counts(tmp_path / "more", schema, len(vocabulary)), expected, rtol=1e-6)


def _first_counts(data, schema, values):
    return first_counts(str(data), "user", values, counted_rows(str(data), schema), 100)
