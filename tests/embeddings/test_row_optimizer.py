import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.embeddings import FTRL, SGD, Adagrad, EmbeddingTables, LazyAdam, PerTableOptimizer, RowWiseAdagrad
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table
from tfrs_dlrm.training.schedules import WarmupPolynomialDecay

ROWS, DIM, BATCH = 30, 4, 16


def make_tables() -> EmbeddingTables:
    return EmbeddingTables(
        Schema(Label("y"), categorical=(CategoricalFeature("f"),), tables=(Table("f", DIM, ROWS, scale=1.0),))
    )


def numpy_sgd(w, g, slots, t, rate):
    return w - rate * g


def numpy_adagrad(w, g, slots, t, rate):
    slots["accumulator"] += g**2
    return w - rate * g / (np.sqrt(slots["accumulator"]) + 1e-3)


def numpy_rowwise_adagrad(w, g, slots, t, rate):
    slots["accumulator"] += (g**2).mean(-1, keepdims=True)
    return w - rate * g / (np.sqrt(slots["accumulator"]) + 1e-3)


def numpy_lazy_adam(w, g, slots, t, rate):
    slots["m"] += 0.2 * (g - slots["m"])
    slots["v"] += 0.1 * (g**2 - slots["v"])
    return w - rate * np.sqrt(1 - 0.9**t) / (1 - 0.8**t) * slots["m"] / (np.sqrt(slots["v"]) + 1e-3)


def numpy_ftrl(w, g, slots, t, rate):
    """One number at a time; see the class for what differs from the paper."""
    out = w.copy()
    for i in range(len(w)):
        n = slots["accumulator"][i]
        slots["accumulator"][i] = n + g[i] ** 2
        slots["linear"][i] += rate * g[i] - (np.sqrt(n + g[i] ** 2) - np.sqrt(n)) * w[i]
        z = slots["linear"][i]
        out[i] = 0.0 if abs(z) <= rate * 0.4 else -(z - np.sign(z) * rate * 0.4) / np.sqrt(n + g[i] ** 2)
    return out


CASES = {
    "sgd": (SGD, {}, numpy_sgd, {}),
    "adagrad": (Adagrad, {"initial_accumulator": 0.3, "epsilon": 1e-3}, numpy_adagrad, {"accumulator": 0.3}),
    "rowwise": (
        RowWiseAdagrad,
        {"initial_accumulator": 0.3, "epsilon": 1e-3},
        numpy_rowwise_adagrad,
        {"accumulator": 0.3},
    ),
    "ftrl": (
        FTRL,
        {"l1": 0.4, "initial_accumulator": 0.3},
        numpy_ftrl,
        {"accumulator": 0.3, "linear": 0.0},
    ),
    "adam": (LazyAdam, {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3}, numpy_lazy_adam, {"m": 0.0, "v": 0.0}),
}


@pytest.mark.parametrize(
    ("name", "l2", "decay"),
    [(name, 0.0, 0.0) for name in CASES]
    + [(name, 0.5, 0.0) for name in CASES]
    + [(name, 0.0, 0.7) for name in CASES if name != "ftrl"],  # which has no weight decay
)
def test_twenty_steps_equal_numpy(name, l2, decay):
    """With many duplicates, rows that come and go, and a schedule."""
    cls, arguments, numpy_step, initial = CASES[name]
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=5, decay_rate=0.5)
    if decay:
        arguments = arguments | {"weight_decay": decay}
    optimizer, tables = cls(schedule, l2=l2, **arguments), make_tables()
    optimizer.build(tables.tables)
    step = tf.function(lambda ids, g: tables.update({"ids": ids}, [g], optimizer))

    rng = np.random.default_rng(0)
    table = tables.tables["f"].numpy().astype(np.float64)
    slots = {key: np.full([ROWS, DIM], value) for key, value in initial.items()}
    for t in range(1, 21):
        ids = (ROWS * rng.random(BATCH) ** 3).astype(np.int32)
        gradients = rng.normal(size=(BATCH, DIM)).astype(np.float32)
        step(tf.constant(ids[:, None]), tf.constant(gradients))
        for row in set(ids):
            g = gradients[ids == row].sum(0) + l2 * table[row] * (ids == row).sum() / BATCH
            own = {key: slot[row] for key, slot in slots.items()}  # views
            rate = 0.1 * 0.5 ** ((t - 1) / 5)
            table[row] = numpy_step(table[row], g, own, t, rate) - rate * decay * table[row]
    np.testing.assert_allclose(tables.tables["f"], table, atol=1e-5)
    for key, slot in slots.items():
        actual = optimizer.slots["f"][key].numpy()
        np.testing.assert_allclose(actual, slot if actual.ndim == 2 else slot[:, 0], atol=1e-5)
    assert optimizer.iterations == 20


def test_l2_is_the_gradient_of_the_penalty_it_documents():
    """l2 / 2 times the mean over examples of the squared norms of the rows looked up; empty bags count as examples."""
    feature = CategoricalFeature("f", multi_valued=True, weights="w")
    tables = EmbeddingTables(Schema(Label("y"), categorical=(feature,), tables=(Table("f", DIM, ROWS),)))
    ids = tf.ragged.constant([[1, 2, 2], [], [2]], dtype=tf.int32)
    before = tables.tables["f"].numpy()
    with tf.GradientTape() as tape:
        looked_up = tf.gather(tables.tables["f"], ids.flat_values)
        penalty = 0.3 / 2 * tf.reduce_sum(looked_up**2) / 3
    gradient = tf.convert_to_tensor(tape.gradient(penalty, tables.tables["f"]))
    optimizer = SGD(1.0, l2=0.3)
    optimizer.build(tables.tables)
    weights = ids.with_values(tf.constant([5.0, 0.0, 1.0, 2.0]))
    tables.update({"f": ids, "f_weights": weights}, [tf.zeros([3, DIM])], optimizer)
    np.testing.assert_allclose(before - tables.tables["f"], gradient, atol=1e-7)
    assert np.any(gradient[2]) and not np.any(gradient[3])


@pytest.mark.parametrize("cls", [cls for cls, *_ in CASES.values()])
def test_config_round_trip(cls):
    one = cls(0.3, l2=0.5, **({"l1": 0.25} if cls is FTRL else {"weight_decay": 0.25}))
    assert cls.from_config(one.get_config()).get_config() == one.get_config()
    scheduled = cls(keras.optimizers.schedules.CosineDecay(0.5, 10))
    again = cls.from_config(scheduled.get_config())
    np.testing.assert_allclose(again.learning_rate(5), 0.25)


def test_a_row_moves_by_the_rate_at_first_whatever_the_batch_size():
    """Why accumulators begin at 0: with Keras' 0.1 these rows would move by 1e-5 of that."""
    tables = make_tables()
    before = tables.tables["f"].numpy()
    optimizer = RowWiseAdagrad()
    optimizer.build(tables.tables)
    tables.update({"ids": tf.constant([[3], [4]])}, [tf.fill([2, DIM], 1e-6)], optimizer)
    np.testing.assert_allclose((before - tables.tables["f"])[3:6], [[0.01] * 4, [0.01] * 4, [0] * 4], rtol=1e-3)


def test_checkpoints_name_slots_by_table(tmp_path):
    optimizer = LazyAdam()
    optimizer.build(make_tables().tables)
    path = tf.train.Checkpoint(optimizer=optimizer).write(str(tmp_path / "c"))
    names = {n.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for n, _ in tf.train.list_variables(path)}
    assert names - {"_CHECKPOINTABLE_OBJECT_GRAPH"} == {
        "optimizer/followed_rate",
        "optimizer/iterations",
        "optimizer/rate",
        "optimizer/slots/f/m",
        "optimizer/slots/f/v",
    }


def test_slots_are_made_once_and_belong_to_their_tables():
    optimizer, tables = RowWiseAdagrad(), make_tables()
    with pytest.raises(ValueError, match="RowWiseAdagrad has no slots; call build"):
        tables.update({"ids": tf.constant([[3]])}, [tf.ones([1, DIM])], optimizer)
    optimizer.build(tables.tables)
    slot = optimizer.slots["f"]["accumulator"]
    optimizer.build(tables.tables)
    assert optimizer.slots["f"]["accumulator"] is slot
    with pytest.raises(ValueError, match="slots of other tables"):
        optimizer.build(make_tables().tables)  # of the same shape, but of another model
    with pytest.raises(ValueError, match="slots of other tables"):
        optimizer.build({"f": tf.Variable(tf.zeros([ROWS + 1, DIM]))})


def test_refuses():
    with pytest.raises(ValueError, match="learning_rate=-1 is negative"):
        SGD(-1)
    for rate in (float("nan"), "0.1", None, True):
        with pytest.raises(ValueError, match=f"learning_rate={rate!r} is no number; a number of at least 0 is needed"):
            SGD(0.1).learning_rate = rate
    with pytest.raises(ValueError, match="l2=-0"):
        Adagrad(l2=-0.1)
    with pytest.raises(ValueError, match="weight_decay=-1 is negative"):
        LazyAdam(weight_decay=-1)
    with pytest.raises(ValueError, match="l1=-1"):
        FTRL(l1=-1)
    with pytest.raises(ValueError, match="PerTableOptimizer names table 'g', which stores no rows; name one of f"):
        PerTableOptimizer(SGD(), {"g": SGD()}).build(make_tables().tables)
    with pytest.raises(
        ValueError, match="PerTableOptimizer: 'a' is a PerTableOptimizer; one of RowWiseAdagrad, Adagrad"
    ):
        PerTableOptimizer(SGD(), {"a": PerTableOptimizer(SGD(), {})})
    with pytest.raises(ValueError, match="epsilon=0"):
        RowWiseAdagrad(epsilon=0)
    with pytest.raises(ValueError, match="beta_1=1"):
        LazyAdam(beta_1=1.0)


@pytest.mark.parametrize("schedule", ["constant", "decay to 0", "warmup"])
def test_ftrl_without_l1_is_adagrad(schedule):
    """At any learning rate, and with the initial rows kept: why accumulators begin at 0 and z has the rate in it."""
    rate = {
        "constant": lambda: 0.1,
        "decay to 0": lambda: keras.optimizers.schedules.PolynomialDecay(0.1, 8, 0.0),
        "warmup": lambda: WarmupPolynomialDecay(0.1, warmup_steps=10),
    }[schedule]
    rng, results = np.random.default_rng(2), []
    batches = [(rng.integers(0, ROWS, [BATCH, 1]), rng.normal(size=(BATCH, DIM))) for _ in range(12)]
    for optimizer in (FTRL(rate()), Adagrad(rate())):
        tables = make_tables()
        optimizer.build(tables.tables)
        for ids, gradient in batches:
            tables.update({"ids": tf.constant(ids, tf.int32)}, [tf.constant(gradient, tf.float32)], optimizer)
        results.append(tables.tables["f"].numpy())
    np.testing.assert_allclose(*results, atol=1e-5)
    assert not np.allclose(results[0], make_tables().tables["f"], atol=0.1)


def test_ftrl_at_a_constant_rate_is_that_of_keras():
    """On all rows at once, with L1, and Keras' way of starting."""
    tables, optimizer = make_tables(), FTRL(0.2, l1=0.3, initial_accumulator=0.1)
    optimizer.build(tables.tables)
    dense = tf.Variable(tables.tables["f"])
    reference = keras.optimizers.Ftrl(0.2, initial_accumulator_value=0.1, l1_regularization_strength=0.3)
    rng = np.random.default_rng(4)
    for _ in range(10):
        gradient = tf.constant(rng.normal(size=(ROWS, DIM)), tf.float32)
        tables.update({"ids": tf.range(ROWS)[:, tf.newaxis]}, [gradient], optimizer)
        reference.apply_gradients([(gradient, dense)])
    np.testing.assert_allclose(tables.tables["f"], dense, atol=1e-5)
    assert 0 < np.mean(dense == 0) < 1


def test_each_table_by_its_own_optimizer(tmp_path):
    names = ("a", "b", "c")
    schema = Schema(
        Label("y"),
        categorical=tuple(CategoricalFeature(n) for n in names),
        tables=(Table("a", 2, 5), Table("b", 2, 5), Table("c", 2, 6, remainders=2)),
    )
    tables = EmbeddingTables(schema)
    optimizer = PerTableOptimizer(SGD(1.0), {"b": LazyAdam(0.1), "c": RowWiseAdagrad(0.2)})
    optimizer.build(tables.tables)
    assert {n: sorted(s) for n, s in optimizer.slots.items()} == {
        "a": [],
        "b": ["m", "v"],
        "c__quotient": ["accumulator"],
        "c__remainder": ["accumulator"],
    }
    before = {n: v.numpy() for n, v in tables.tables.items()}
    tables.update({"ids": tf.constant([[1, 1, 1]])}, [tf.fill([1, 2], 0.5)] * 3, optimizer)
    moved = {n: np.abs(before[n] - v.numpy()).max() for n, v in tables.tables.items()}
    np.testing.assert_allclose(moved["a"], 0.5, rtol=1e-5)  # rate * g
    np.testing.assert_allclose(moved["b"], 0.1, rtol=1e-4)  # Adam's first step is the rate
    again = PerTableOptimizer.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config() and type(again.rule("c__remainder")) is RowWiseAdagrad
    path = tf.train.Checkpoint(optimizer=optimizer).write(str(tmp_path / "c"))
    names = {n.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for n, _ in tf.train.list_variables(path)}
    assert {"optimizer/iterations", "optimizer/slots/b/m", "optimizer/slots/c__quotient/accumulator"} <= names
