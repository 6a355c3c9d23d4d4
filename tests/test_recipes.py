"""Recipes whose data are not here: their formats on rows made for it, a few steps on these, and published sizes."""

import csv
import gzip
import itertools
import subprocess
import sys
import zipfile
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from tfrs_dlrm.config import RunConfig, as_model, load_recipe
from tfrs_dlrm.config.recipes import recipe_names
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.training.loop import train_and_evaluate

ROOT = Path(__file__).parents[1]
SCHEMAS = ROOT / "configs" / "schemas"
INTEGERS, IDS = [f"I{i}" for i in range(1, 14)], [f"C{i}" for i in range(1, 27)]


def few_steps(config: RunConfig, tmp_path: Path, schema: Path, train: str, evaluation: str) -> dict[str, np.ndarray]:
    """Two rounds of the recipe on small batches; returns the encoded training rows."""
    config.data.path, config.data.schema = str(tmp_path / "data"), str(schema)
    config.data.raw_train, config.data.raw_eval = train, evaluation
    config.train.batch_size, config.train.steps, config.train.eval_every_steps = 32, 4, 2
    config.train.target_auc, config.train.tensorboard = 0.0, False
    result = train_and_evaluate(config, str(tmp_path / "run"))
    assert result.step == 4 and 0 < result.best["auc"] < 1
    return pq.read_table(tmp_path / "data" / "train").to_pydict()


def weights(config: RunConfig, schema: Schema, name: str = "") -> int:
    """The number of weights of a recipe, perhaps with another model: those of the tables, and all others."""
    config.model = as_model(config.model, name or config.model.name)
    config.check()
    final = config.model.schema(schema)
    rows = sum(t.vocabulary_size * t.dim for t in config.model.table_schema(final).tables)
    return rows + config.model.dense_cost(final).weights


def with_vocabulary_sizes(name: str, total: int) -> Schema:
    """So many rows, however they are spread over the tables."""
    schema = Schema.load(SCHEMAS / f"{name}.json")
    first, *rest = schema.tables
    return schema.with_vocabulary_sizes({first.name: total - len(rest), **{t.name: 1 for t in rest}})


def test_sizes_are_the_published_ones():
    """The logs of BARS print the number of parameters: of LR one for each number, the bias, and one for each value."""
    x1 = with_vocabulary_sizes("criteo_x1", 2_086_317 - 13 - 1)
    assert weights(load_recipe("criteo_x1"), x1) == 21_664_241  # DLRM_criteo_x1
    assert weights(load_recipe("criteo_x1"), x1, name="factorization_machine") == 22_949_477  # FM_criteo_x1
    assert weights(load_recipe("criteo_x1"), x1, name="logistic_regression") == 2_086_317  # LR_criteo_x1
    x4 = with_vocabulary_sizes("criteo_x4", 910_709 - 1)
    assert weights(load_recipe("criteo_x4"), x4, name="logistic_regression") == 910_709  # LR_criteo_x4_001
    assert weights(load_recipe("criteo_x4"), x4, name="factorization_machine") == 15_482_037  # FM_criteo_x4_001
    deep = [39 * 16, *[1000] * 5, 1]
    layers = sum(a * b + b for a, b in itertools.pairwise(deep))
    assert weights(load_recipe("criteo_x4"), x4) == 910_708 * 17 + layers


def test_sizes_of_din_are_the_published_ones():
    """Less what is theirs: Dice, a number for each hidden unit; a kernel of the difference; a vector of the price."""
    amazon = Schema.load(SCHEMAS / "amazon_electronics.json").with_vocabulary_sizes({"item_id": 63_003, "cate_id": 803})
    dice = 512 + 256 + 1024 + 512 + 256
    assert weights(load_recipe("amazon_electronics"), amazon) == 5_403_522 - dice - 128 * 512
    sizes = (403_958, 99, 15, 4, 9, 6, 5, 4, 7, 246_851, 11_330, 191_771, 132_136, 308_870, 4, 6)
    taobao = Schema.load(SCHEMAS / "taobao_ad.json")
    taobao = taobao.with_vocabulary_sizes(dict(zip((t.name for t in taobao.tables), sizes, strict=True)))
    assert weights(load_recipe("taobao_ad"), taobao) == 42_263_682 - 96 * 512 - (32 + 31 * 512)


@pytest.mark.matrix
@pytest.mark.parametrize("name, label", [("amazon_electronics", "label"), ("taobao_ad", "clk")])
def test_logs_with_histories(name, label, tmp_path):
    """Texts of events that stand behind one another, the latest last, and fewer than ten rows of a value."""
    rng = np.random.default_rng(0)
    schema = Schema.load(SCHEMAS / f"{name}.json")
    histories = [f.name for f in schema.histories]
    columns = {f.name: rng.integers(0, 4, 240) for f in schema.categorical if not f.history_of}
    columns |= {f.name: rng.integers(1, 900, 240) for f in schema.dense}
    lengths = [0, 1, 120, *rng.integers(0, 9, 237)]
    columns |= {h: ["^".join(map(str, rng.integers(0, 4, n))) for n in lengths] for h in histories}
    for part, rows in {"train": range(200), "test": range(200, 240)}.items():
        with open(tmp_path / f"{part}.csv", "w", newline="") as f:
            made = ([r % 2, r % 7, *(values[r] for values in columns.values())] for r in rows)
            csv.writer(f).writerows([[label, "user_id", *columns], *made])
    files = (str(tmp_path / f"{part}.csv") for part in ("train", "test"))
    encoded = few_steps(load_recipe(name), tmp_path, SCHEMAS / f"{name}.json", *files)
    longest = schema.histories[0].sequence_length
    for h in histories:
        assert [len(x) for x in encoded[h]] == [min(n, longest) for n in lengths[:200]]


def test_sizes_of_esmm():
    """Two MLPs of the 23 vectors; a softmax over two outputs, as in the paper, is a logit, their difference."""
    schema = Schema.load(SCHEMAS / "ali_ccp.json")
    schema = schema.with_vocabulary_sizes({t.name: 10 for t in schema.tables})
    tower = 23 * 18 * 200 + 200 + 200 * 80 + 80 + 80 + 1
    assert weights(load_recipe("ali_ccp"), schema) == 23 * 10 * 18 + 2 * tower == 4_140 + 198_322


def test_sizes_of_mlperf():
    """By hand, from the layers that the references name."""

    def mlp(*units):
        return sum(a * b + b for a, b in itertools.pairwise(units))

    dense, top = (13, 512, 256, 128), (1024, 1024, 512, 256, 1)
    terabyte = Schema.load(ROOT / "docs" / "plans" / "criteo_terabyte.json")
    tables = 128 * sum(t.vocabulary_size for t in terabyte.tables)
    assert weights(load_recipe("criteo_terabyte"), terabyte) == tables + mlp(*dense) + mlp(128 + 27 * 26 // 2, *top)
    width = 27 * 128
    cross = 3 * (width * 512 + 512 * width + width)
    schema = Schema.load(SCHEMAS / "mlperf_dcn.json")
    assert weights(load_recipe("mlperf_dcn"), schema) == 128 * 204_184_588 + mlp(*dense) + cross + mlp(width, *top)


def test_criteo_x1(tmp_path):
    rng = np.random.default_rng(0)
    numbers, ids = rng.random((200, 13)).round(6), rng.integers(0, 12, (200, 26)) + 1000 * np.arange(26)
    for name, rows in {"train": range(160), "valid": range(160, 200)}.items():
        with open(tmp_path / f"{name}.csv", "w", newline="") as f:
            csv.writer(f).writerows([["label", *INTEGERS, *IDS], *([r % 2, *numbers[r], *ids[r]] for r in rows)])
    files = (str(tmp_path / f"{name}.csv") for name in ("train", "valid"))
    encoded = few_steps(load_recipe("criteo_x1"), tmp_path, SCHEMAS / "criteo_x1.json", *files)
    assert np.array_equal(np.transpose([encoded[n] for n in INTEGERS]), numbers[:160].astype(np.float32))
    rows = {t.name: t.vocabulary_size for t in Schema.load(tmp_path / "data" / "schema.json").tables}
    assert rows == {n: 1 + len(set(ids[:160, i])) for i, n in enumerate(IDS)}
    assert encoded["label"] == [r % 2 for r in range(160)]


@pytest.mark.matrix
def test_criteo_x4(tmp_path, monkeypatch):
    """The integers become floor(log(x)^2), and values that occur fewer than ten times row 0."""
    rng = np.random.default_rng(0)
    integers = rng.integers(-2, 3000, (240, 13))
    integers[:10, 0], integers[10:19, 0], integers[19:, 0] = 55, 20, 2
    ids = [[f"{i:02x}{v:06x}" for i, v in enumerate(row)] for row in rng.integers(0, 9, (240, 26))]
    for row in range(20, 40):
        ids[row][3] = ""
    for name, rows in {"train": range(200), "valid": range(200, 220), "test": range(220, 240)}.items():
        made = [[r % 2, *("" if v == 0 else v for v in integers[r]), *ids[r]] for r in rows]
        with open(tmp_path / f"{name}.csv", "w", newline="") as f:
            csv.writer(f).writerows([["Label", *INTEGERS, *IDS], *made])
    monkeypatch.chdir(tmp_path)
    duckdb.sql((SCHEMAS / "criteo_x4.sql").read_text())
    large = integers > 2
    buckets = np.where(large, np.floor(np.log(np.where(large, integers, 3)) ** 2), integers)
    for name, rows in {"train": slice(0, 200), "valid": slice(200, 220), "test": slice(220, 240)}.items():
        table = pq.read_table(f"x4_{name}.parquet").to_pydict()
        assert np.array_equal(np.transpose([table[n] for n in INTEGERS]), buckets[rows])
        assert [v or "" for v in table["C4"]] == [row[3] for row in ids[rows]]
    encoded = few_steps(
        load_recipe("criteo_x4"), tmp_path, SCHEMAS / "criteo_x4.json", "x4_train.parquet", "x4_valid.parquet"
    )
    # Of I1, 2 occurs 181 times, the bucket of 55 ten times, that of 20 nine times.
    assert buckets[0, 0] == 16 and encoded["I1"] == [2] * 10 + [0] * 9 + [1] * 181
    assert set(encoded["C4"][20:40]) == {np.argmax(np.bincount(encoded["C4"][20:40]))} and encoded["C4"][20] > 0


@pytest.mark.matrix
def test_ali_ccp(tmp_path, monkeypatch):
    """Files in the format that the authors' converter reads: rows name the user whose features they have."""
    rng, schema = np.random.default_rng(0), Schema.load(SCHEMAS / "ali_ccp.json")
    one = [f.name[1:] for f in schema.categorical if not f.multi_valued]
    lists = [f.name[1:] for f in schema.categorical if f.multi_valued]

    def fields(of_user, longest):
        names = [n for n in (*one, *lists) if of_user == (n[0] == "1")]
        counts = {n: 1 if n in one else rng.integers(0, longest) for n in names}
        return {
            n: list(zip(*(x[:c].tolist() for x in (rng.permutation(99), rng.permutation(99) / 8)), strict=True))
            for n, c in counts.items()
        }

    users, items = {f"u{i}": fields(True, 99) for i in range(9)}, [fields(False, 4) for _ in range(240)]
    owners, clicked = rng.choice([*users], 240), rng.integers(0, 2, 240)
    bought = clicked * rng.integers(0, 2, 240)
    owners[2], clicked[0], bought[0] = "nobody", 0, 1  # a purchase without a click, which is left out
    del items[2]["301"]

    def text(fields):
        features = [f"{name}\x02{id_}\x03{value}" for name, pairs in fields.items() for id_, value in pairs]
        return f"{len(features)},{chr(1).join(features)}"

    for part, rows in {"train": range(200), "test": range(200, 240)}.items():
        made = (f"{r},{clicked[r]},{bought[r]},{owners[r]},{text(items[r])}\n" for r in rows)
        (tmp_path / f"sample_skeleton_{part}.csv").write_text("".join(made))
        common = (f"{name},{text(fields)}\n" for name, fields in users.items())
        (tmp_path / f"common_features_{part}.csv").write_text("".join(common))
    monkeypatch.chdir(tmp_path)
    duckdb.sql((SCHEMAS / "ali_ccp.sql").read_text())
    found = pq.read_table("ali_ccp_train.parquet").to_pylist()

    def expected(r):
        row, pairs = {"click": clicked[r], "conversion": bought[r]}, items[r] | users.get(owners[r], {})
        for n in one:
            row[f"f{n}"] = pairs[n][0][0] if n in pairs else None
        for n in lists:
            most = sorted(pairs.get(n, []), key=lambda pair: -pair[1])[:50]
            row[f"f{n}"], row[f"f{n}_value"] = ([pair[i] for pair in most] for i in (0, 1))
        return row

    def as_text(row):
        return sorted(
            (name, "[]" if value is None and name[1:].removesuffix("_value") in lists else str(value))
            for name, value in row.items()
        )

    assert sorted(map(as_text, found)) == sorted(as_text(expected(r)) for r in range(1, 200))
    encoded = few_steps(
        load_recipe("ali_ccp"), tmp_path, SCHEMAS / "ali_ccp.json", "ali_ccp_train.parquet", "ali_ccp_test.parquet"
    )
    assert sum(encoded["label"]) == clicked[1:200].sum() and max(map(len, encoded["f109_14"])) == 50
    items[3]["205"] *= 2
    (tmp_path / "sample_skeleton_test.csv").write_text(f"3,1,0,u1,{text(items[3])}\n")
    with pytest.raises(duckdb.Error, match="a row has several ids of the field 205"):
        duckdb.sql((SCHEMAS / "ali_ccp.sql").read_text())


@pytest.mark.matrix
def test_criteo_terabyte(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for day in (0, 1, 10, 21, 22, 23):
        with gzip.open(tmp_path / f"day_{day}.gz", "wt") as f:
            for r in range(40):
                numbers = ["" if n < -1 else n for n in rng.integers(-3, 999, 13)]
                f.write(
                    "\t".join(map(str, [r % 2, day if r == 0 else 7, *numbers[1:], *rng.integers(0, 9, 26)])) + "\n"
                )
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "configs" / "criteo_terabyte.py").read_text()
    train = page.split("--config.data.raw_train='")[1].split("'")[0]
    encoded = few_steps(load_recipe("criteo_terabyte"), tmp_path, SCHEMAS / "criteo_terabyte.json", train, "day_23.gz")
    first = sorted(encoded["I1"][r] for r in range(0, 200, 40))
    np.testing.assert_allclose(first, np.log1p([0, 1, 10, 21, 22]), rtol=1e-6)


@pytest.mark.matrix
def test_mlperf_dcn(tmp_path):
    """From arrays as the reference leaves them, with tables of at most 50 rows."""
    rng = np.random.default_rng(0)
    schema = Schema.load(SCHEMAS / "mlperf_dcn.json")
    rows = {t.name: min(t.vocabulary_size, 50) for t in schema.tables}
    schema.with_vocabulary_sizes(rows).save(tmp_path / "schema.json")
    sizes = [3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1]
    arrays = {}
    for day, count in enumerate((70, 31)):
        ids = {str(i): rng.integers(0, rows[n], (count, sizes[i]), np.int32) for i, n in enumerate(IDS)}
        arrays[day] = (np.arange(count, dtype=np.int32)[:, None] % 2, rng.normal(size=(count, 13)).astype("f"), ids)
        np.save(tmp_path / f"day_{day}_labels.npy", arrays[day][0])
        np.save(tmp_path / f"day_{day}_dense.npy", arrays[day][1])
        np.savez(tmp_path / "packed.npz", **ids)
        with zipfile.ZipFile(tmp_path / "packed.npz") as packed:
            packed.extractall(tmp_path / f"day_{day}_sparse_multi_hot")
    program = [sys.executable, SCHEMAS / "mlperf_dcn.py", f"--arrays={tmp_path}", f"--output={tmp_path}", "--days=2"]
    subprocess.run(program, check=True, timeout=300)
    halves = [pq.read_table(tmp_path / f"{name}.parquet").to_pydict() for name in ("valid", "test")]
    for i, n in enumerate(IDS):
        assert halves[0][n] + halves[1][n] == arrays[1][2][str(i)].tolist()
    assert [len(half["label"]) for half in halves] == [16, 15]
    files = (str(tmp_path / f"{name}.parquet") for name in ("day_0", "valid"))
    encoded = few_steps(load_recipe("mlperf_dcn"), tmp_path, tmp_path / "schema.json", *files)
    assert encoded["label"] == arrays[0][0][:, 0].tolist()
    assert np.array_equal(np.transpose([encoded[n] for n in INTEGERS]), arrays[0][1])
    assert all(encoded[n] == arrays[0][2][str(i)].tolist() for i, n in enumerate(IDS))


def test_the_page_has_every_recipe():
    page = (ROOT / "docs/guides/recipes.md").read_text(encoding="utf-8")
    files = recipe_names()
    assert all(f"\n| `{name}` |" in page for name in files)


@pytest.mark.parametrize("name", ["criteo_x1", "criteo_x4", "criteo_terabyte", "mlperf_dcn"])
def test_schemas_are_where_recipes_say(name):
    schema = Schema.load(ROOT / load_recipe(name).data.schema)
    assert {t.dim for t in schema.tables} == {load_recipe(name).model.embedding_dim}
