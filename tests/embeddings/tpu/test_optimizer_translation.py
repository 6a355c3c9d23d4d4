"""Row optimizers in the formulas of the embedding hardware."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.embeddings import FTRL, SGD, Adagrad, LazyAdam, RowWiseAdagrad
from tfrs_dlrm.embeddings.tpu.optimizer_translation import translate

api = tf.tpu.experimental.embedding
SCHEDULE = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=3, decay_rate=0.5)


# The formulas as optimization_parameters.proto and sparse_core_xla_ops.cc have them.
def hardware_sgd(o, w, g, s, rate):
    return w - rate * g


def hardware_adagrad(o, w, g, s, rate):
    s["accumulators"] += g**2
    new = w - rate * g / np.sqrt(s["accumulators"])
    return new - (rate * o.weight_decay_factor * w if o.weight_decay_factor else 0)


def hardware_adam(o, w, g, s, rate):
    s["momenta"] = o.beta_1 * s["momenta"] + (1 - o.beta_1) * g
    s["velocities"] = o.beta_2 * s["velocities"] + (1 - o.beta_2) * g**2
    inside, outside = (o.epsilon**2, 0) if o.sum_inside_sqrt else (0, o.epsilon)
    return w - rate * s["momenta"] / (np.sqrt(s["velocities"] + inside) + outside)


def hardware_ftrl(o, w, g, s, rate):
    old = s["accumulators"]
    s["accumulators"] = new = old + g**2
    grown = new**-o.learning_rate_power - old**-o.learning_rate_power
    if o.multiply_linear_by_learning_rate:
        s["linears"] += rate * g - grown * w
        limit, denominator = rate * o.l1_regularization_strength, new**-o.learning_rate_power + o.beta
    else:
        s["linears"] += g - grown * w / rate
        limit, denominator = o.l1_regularization_strength, (new**-o.learning_rate_power + o.beta) / rate
    return (np.clip(s["linears"], -limit, limit) - s["linears"]) / denominator


CASES = {
    "sgd": (lambda: SGD(SCHEDULE), hardware_sgd),
    "adagrad": (lambda: Adagrad(SCHEDULE), hardware_adagrad),
    "adagrad from 0.1": (lambda: Adagrad(0.2, initial_accumulator=0.1), hardware_adagrad),
    "adagrad, decay": (lambda: Adagrad(SCHEDULE, weight_decay=0.3), hardware_adagrad),
    "adam": (lambda: LazyAdam(SCHEDULE), hardware_adam),
    "adam, others": (lambda: LazyAdam(0.1, beta_1=0.5, beta_2=0.7, epsilon=1e-2), hardware_adam),
    "ftrl": (lambda: FTRL(SCHEDULE, l1=0.02, initial_accumulator=0.1), hardware_ftrl),
}


@pytest.mark.parametrize("name", CASES)
def test_the_hardware_takes_the_same_steps(name):
    make, formula = CASES[name]
    rule = make()
    iterations = tf.Variable(0, dtype=tf.int64)
    translated = translate("t", rule, iterations, sparse_core=False)
    optimizer = translated.optimizer

    rng = np.random.default_rng(0)
    w = rng.normal(size=[5, 3]).astype(np.float32)
    theirs, ours = w.astype(np.float64), tf.constant(w)
    names = optimizer._slot_names()
    slots = {
        n: init([5, 3]).numpy().astype(np.float64)
        for n, init in zip(names, optimizer._slot_initializers(), strict=True)
    }
    own_slots = {n: tf.fill([5, 3], tf.constant(s.initial)) for n, s in rule.slot_types().items()}
    assert translated.slots.keys() == own_slots.keys() and set(translated.slots.values()) == set(names)
    for step in range(1, 11):
        g = (rng.normal(size=[5, 3]) * rng.choice([1e-6, 1e-3, 1.0], size=[5, 1])).astype(np.float32)
        theirs = formula(optimizer, theirs, g.astype(np.float64), slots, float(optimizer.learning_rate()))
        own_rate = rule.rate_at(tf.constant(step - 1))
        new, own_slots = rule.row_step(ours, tf.constant(g), own_slots, own_rate, tf.constant(float(step)))
        ours = new - own_rate * rule.weight_decay * ours
        iterations.assign_add(1)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        for n, own in own_slots.items():
            np.testing.assert_allclose(own, slots[translated.slots[n]], rtol=1e-4, atol=1e-6)


def test_a_rate_is_the_one_of_the_step():
    iterations = tf.Variable(3, dtype=tf.int64)
    rule = Adagrad(0.3)
    rule.build({})
    rate = translate("t", rule, iterations, False).optimizer.learning_rate
    np.testing.assert_allclose(rate(), 0.3)
    rule.learning_rate = 0.2
    np.testing.assert_allclose(rate(), 0.2)
    scheduled = translate("t", Adagrad(SCHEDULE), iterations, False).optimizer.learning_rate
    np.testing.assert_allclose(scheduled(), 0.05)
    # The hardware's Adam corrects no bias.
    corrected = translate("t", LazyAdam(0.5, beta_1=0.9, beta_2=0.99), iterations, False).optimizer.learning_rate
    np.testing.assert_allclose(corrected(), 0.5 * np.sqrt(1 - 0.99**4) / (1 - 0.9**4), rtol=1e-6)


def test_duplicates_are_added_up_before_the_formula():
    for rule in (SGD(), Adagrad(), LazyAdam(), FTRL(initial_accumulator=0.1)):
        optimizer = translate("t", rule, tf.Variable(0, dtype=tf.int64), False).optimizer
        assert optimizer.use_gradient_accumulation and getattr(optimizer, "lazy_adam", True)


@pytest.mark.parametrize(
    ("rule", "sparse_core", "text"),
    [
        (RowWiseAdagrad(), False, r"has no RowWiseAdagrad: use td.Adagrad.*embedding_optimizer=\{'t': td.Adagrad"),
        (SGD(weight_decay=0.1), False, r"no weight_decay=0.1 for SGD \(only Adagrad has it\)"),
        (LazyAdam(weight_decay=0.1), False, r"no weight_decay=0.1 for LazyAdam \(only Adagrad has it\)"),
        (Adagrad(weight_decay=0.1), True, r"no weight_decay=0.1 for Adagrad \(SparseCore has none\)"),
        (Adagrad(epsilon=1e-3), False, "epsilon=0.001 must be at most 1e-08"),
        (FTRL(), True, "needs a positive initial_accumulator of FTRL, not 0.0"),
    ],
)
def test_what_the_hardware_cannot_do_is_refused_by_name(rule, sparse_core, text):
    with pytest.raises(ValueError, match=f"table 't' is on TPU embedding hardware.*{text}"):
        translate("t", rule, tf.Variable(0, dtype=tf.int64), sparse_core)
