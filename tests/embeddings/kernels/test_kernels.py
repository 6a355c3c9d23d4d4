"""The kernels compute what NumPy does, refuse what would read other memory, and are found where they were built."""

import numpy as np
import pytest
import tensorflow as tf

from tfrs_dlrm.embeddings import kernels

RATE, EPSILON = 0.1, 1e-3


def lookups(rng, bags, sizes):
    """Rows of three features: one row per bag, ragged bags, and ragged bags with a scale; the last two of table 1."""
    lengths = [None, rng.integers(0, 4, bags), rng.integers(0, 30, bags)]
    counts = [bags if n is None else n.sum() for n in lengths]
    rows = [rng.integers(0, sizes[t], n).astype(np.int32) for t, n in zip((0, 1, 1), counts, strict=True)]
    splits = [np.zeros(0, np.int64) if n is None else np.concatenate([[0], np.cumsum(n)]) for n in lengths]
    scales = [np.zeros(0, np.float32), np.zeros(0, np.float32), rng.random(bags).astype(np.float32)]
    return {"rows": rows, "splits": splits, "scales": scales}


def lookups_of(rows, splits):
    return {
        "rows": [tf.constant(rows, tf.int32)],
        "splits": [tf.constant(splits, tf.int64)],
        "scales": [tf.zeros([0])],
    }


def each(found):
    """Yields (feature, bag, row, scale) of every lookup."""
    for i, (rows, splits, scales) in enumerate(zip(*found.values(), strict=True)):
        bag_of = np.repeat(np.arange(len(splits) - 1), np.diff(splits)) if len(splits) else np.arange(len(rows))
        for bag, row in zip(bag_of, rows, strict=True):
            yield i, bag, row, scales[bag] if len(scales) else np.float32(1)


@pytest.mark.parametrize("rule", ["sgd", "adagrad", "rowwise_adagrad"])
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("bags", [1, 700])
def test_lookup_and_step_are_those_of_numpy(built, rule, dtype, bags):
    rng = np.random.default_rng(bags)
    sizes, dims, of, columns, width = (5000, 40), (3, 20), (0, 1, 1), (0, 3, 23), 43
    tables = [rng.normal(size=(n, d)).astype(np.float32) for n, d in zip(sizes, dims, strict=True)]
    slots = [
        rng.random((n, d) if rule == "adagrad" else n).astype(np.float32) for n, d in zip(sizes, dims, strict=True)
    ]
    found = lookups(rng, bags, sizes)
    variables, slot_variables = [tf.Variable(t) for t in tables], [tf.Variable(s) for s in slots]
    shared = {"table_of": of, "columns": columns, "width": width}
    inputs = {name: [tf.constant(x) for x in values] for name, values in found.items()}
    vectors = built.tfrs_dlrm_lookup(tables=[v.handle for v in variables], **inputs, **shared, T=dtype)

    wanted = np.zeros([bags, width], np.float32)
    for i, bag, row, scale in each(found):
        wanted[bag, columns[i] : columns[i] + dims[of[i]]] += scale * tables[of[i]][row]
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == tf.float32 else {"rtol": 0.01, "atol": 0.01}
    np.testing.assert_allclose(tf.cast(vectors, tf.float32), wanted, **close)

    upstream = tf.cast(rng.normal(size=[bags, width]).astype(np.float32), dtype)
    built.tfrs_dlrm_step(
        tables=[v.handle for v in variables],
        slots=[] if rule == "sgd" else [v.handle for v in slot_variables],
        gradient=upstream,
        rate=RATE,
        rule=rule,
        epsilon=EPSILON,
        **inputs,
        **shared,
    )
    g = [np.zeros_like(t, np.float64) for t in tables]
    for i, bag, row, scale in each(found):
        g[of[i]][row] += scale * tf.cast(upstream, tf.float32)[bag, columns[i] : columns[i] + dims[of[i]]].numpy()
    for t in range(2):
        if rule == "sgd":
            moved = RATE * g[t]
        else:
            slots[t] = slots[t] + (g[t] ** 2 if rule == "adagrad" else (g[t] ** 2).mean(axis=1))
            root = np.sqrt(slots[t]) + EPSILON
            moved = RATE * g[t] / (root if rule == "adagrad" else root[:, None])
            np.testing.assert_allclose(slot_variables[t], slots[t], rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(variables[t], tables[t] - moved, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "splits", "said"),
    [
        ([0, 4], [], "outside its table"),
        ([0, -1], [], "outside its table"),
        ([0, 1], [0, 3], "not in order"),
        ([0, 1], [0, 2, 1], "not in order"),
        ([0, 1], [-1, 2], "not in order"),
    ],
)
def test_what_would_read_other_memory_is_refused_before_anything_is_written(built, rows, splits, said):
    variable = tf.Variable(np.ones([4, 2], np.float32))
    inputs = {
        "rows": [tf.constant(rows, tf.int32)],
        "splits": [tf.constant(splits, tf.int64)],
        "scales": [tf.zeros([0])],
    }
    given = {"tables": [variable.handle], **inputs, "table_of": [0], "columns": [0], "width": 2}
    with pytest.raises(tf.errors.InvalidArgumentError, match=said):
        built.tfrs_dlrm_lookup(**given, T=tf.float32)
    bags = len(splits) - 1 if splits else len(rows)
    with pytest.raises(tf.errors.InvalidArgumentError, match=said):
        built.tfrs_dlrm_step(**given, slots=[], gradient=tf.ones([bags, 2]), rate=1.0, rule="sgd", epsilon=0.0)
    np.testing.assert_array_equal(variable, np.ones([4, 2]))


def test_a_tensor_that_was_read_before_a_step_keeps_its_values(built):
    variable = tf.Variable(np.ones([4, 2], np.float32))
    before = variable.read_value()
    inputs = lookups_of([1], [])
    given = {"tables": [variable.handle], **inputs, "table_of": [0], "columns": [0], "width": 2}
    built.tfrs_dlrm_step(**given, slots=[], gradient=tf.ones([1, 2]), rate=1.0, rule="sgd", epsilon=0.0)
    np.testing.assert_array_equal(before, np.ones([4, 2]))
    np.testing.assert_array_equal(variable, [[1, 1], [0, 0], [1, 1], [1, 1]])


def test_they_are_found_only_where_they_were_built_and_not_switched_off(built, monkeypatch, tmp_path):
    assert kernels.find() is built
    monkeypatch.setenv(kernels.SWITCH, "0")
    assert kernels.find() is None
    monkeypatch.setenv(kernels.SWITCH, "yes")
    with pytest.raises(ValueError, match=r"TFRS_DLRM_KERNELS='yes'.*set it to 0"):
        kernels.find()
    monkeypatch.setenv(kernels.SWITCH, "1")
    monkeypatch.setenv("TFRS_DLRM_CACHE", str(tmp_path))
    assert kernels.find() is None


@pytest.mark.parametrize(("compiler", "said"), [("no-such-compiler", "no C\\+\\+ compiler"), ("false", "exit code 1")])
def test_a_build_that_fails_says_why_and_leaves_nothing(compiler, said, monkeypatch, tmp_path):
    monkeypatch.setenv("TFRS_DLRM_CACHE", str(tmp_path))
    with pytest.raises(RuntimeError, match=said):
        kernels.build(compiler)
    assert not list(tmp_path.glob("**/*.so"))
