"""Labels that share experts, each with a top MLP: MMoE and PLE, from the formula to what is exported."""

import dataclasses
import itertools

import funnel_log
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from any_model import any_model
from family import SCHEMA, batch
from numpy_models import rows_of_tables

import tfrs_dlrm as td
from tfrs_dlrm.config import DLRMConfig, MLPConfig
from tfrs_dlrm.schema import Label
from tfrs_dlrm.serving.exporting.export import ExportOptions, export_model
from tfrs_dlrm.serving.verification.verify import verify

THREE = dataclasses.replace(SCHEMA, more_labels=(Label("z"), Label("w", task="regression")))
EXPERTS = {"experts": 3, "task_experts": 2, "expert_mlp": (7, 5), "expert_levels": 2}
SHAPE = {"top_mlp": (6, 4, 1), "embedding_dim": 4, "bottom_mlp": (5, 4)} | EXPERTS
MODELS = ["dlrm", "mlp", "dcn", "gdcn", "mask_net", "auto_int", "din", "bst"]
SHARING = pytest.mark.parametrize("sharing", ["towers", "mmoe", "ple"])


def relu_mlp(layers, number, x, relu_last=True):
    """One of parallel MLPs, [B, n] -> [B, units]."""
    for i, units in enumerate(layers.units):
        kernel, bias = layers.kernels[i].numpy(), layers.biases[i].numpy()[number]
        mine = slice(number * units, (number + 1) * units)
        x = x @ (kernel[:, mine] if kernel.ndim == 2 else kernel[number]) + bias
        x = np.maximum(x, 0) if relu_last or i < len(layers.units) - 1 else x
    return x


def gate(gates, number, x):
    kernel, experts = gates.kernel.numpy(), gates.experts
    logits = x @ (kernel[:, number * experts : (number + 1) * experts] if kernel.ndim == 2 else kernel[number])
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def mixed(weights, outputs):
    return sum(weights[:, [e]] * output for e, output in enumerate(outputs))


def numpy_mmoe(layer, x):
    experts = [relu_mlp(layer.experts, e, x) for e in range(layer.experts.count)]
    return [mixed(gate(layer.gates, t, x), experts) for t in range(layer.gates.tasks)]


def numpy_ple(layer, x):
    inputs = [x] * (layer.levels[0].tasks + 1)
    for level in layer.levels:
        m = level.task_experts
        own = [[relu_mlp(level.own, t * m + i, inputs[t]) for i in range(m)] for t in range(level.tasks)]
        shared = [relu_mlp(level.shared, j, inputs[-1]) for j in range(level.shared.count)]
        outputs = [mixed(gate(level.gates, t, inputs[t]), own[t] + shared) for t in range(level.tasks)]
        if level.shared_gate is not None:
            outputs.append(mixed(gate(level.shared_gate, 0, inputs[-1]), [*itertools.chain(*own), *shared]))
        inputs = outputs
    return inputs


@SHARING
def test_logits_equal_numpy(sharing):
    model = td.EmbeddingMLP(THREE, (6, 4, 1), seed=1, sharing=sharing, **EXPERTS)
    model.build()
    rng = np.random.default_rng(5)
    for v in model.trainable_variables:
        v.assign(rng.normal(0, 0.6, v.shape))
    for size in (6, 1):
        features = batch(THREE, size)
        x = np.concatenate([*rows_of_tables(model, features), features["dense"].numpy()], axis=1)
        of_labels = {"towers": lambda _, x: [x] * 3, "mmoe": numpy_mmoe, "ple": numpy_ple}[sharing](
            model.top_mlp.mixture, x
        )
        towers = [relu_mlp(model.top_mlp.towers, t, y, False)[:, 0] for t, y in enumerate(of_labels)]
        np.testing.assert_allclose(model.logits(features), np.stack(towers, axis=1), rtol=1e-5, atol=1e-5)
    assert np.std(towers) > 0.02


@SHARING
@pytest.mark.parametrize("name", MODELS)
def test_weights_are_all_counted_trained_and_configured(name, sharing):
    config = any_model(name, **SHAPE, sharing=sharing, loss_weights="uncertainty")
    config.check()
    schema = config.schema(THREE)
    model = config.build(schema, seed=1)
    model.build()
    assert config.dense_cost(schema).weights == sum(v.shape.num_elements() for v in model.dense_variables)
    assert model.output_bias.shape == [3, 1]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model.logits(batch(THREE)) - 3))
    variables = model.trainable_variables
    unread = [v.name for v, g in zip(variables, tape.gradient(loss, variables), strict=True) if g is None]
    assert unread == ["log_variances:0"]  # which the loss alone reads
    again = type(model).from_config(model.get_config())
    again.build()
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again.logits(batch(THREE)), model.logits(batch(THREE)))


def test_one_label_has_nobody_to_share_with():
    wanted = "'mmoe' is for several labels, and the schema has one, 'y'; list others in more_labels, or choose"
    with pytest.raises(ValueError, match=wanted):
        td.DLRM(SCHEMA.with_dim(4), (5, 4), sharing="mmoe")
    with pytest.raises(ValueError, match="sharing='all': choose shared_bottom, towers, mmoe, ple"):
        td.DLRM(THREE.with_dim(4), (5, 4), sharing="all")
    with pytest.raises(ValueError, match=r"model\.sharing='ple': it is for several labels, and the data have one, 'y'"):
        MLPConfig(sharing="ple").features(SCHEMA)
    for field, value, message in (
        ("sharing", "all", "model.sharing='all'"),
        ("loss_weights", "learned", "model.loss_weights='learned'"),
        ("experts", 0, "model.experts=0"),
        ("expert_mlp", (), r"model.expert_mlp=\(\): a tuple of positive"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(DLRMConfig(), **{field: value}).check()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return funnel_log.make(str(tmp_path_factory.mktemp("funnel")), rows=1500)


@SHARING
def test_what_was_trained_is_saved_restored_elsewhere_and_exported(data, tmp_path, sharing):
    schema = td.Schema.load(f"{data}/schema.json")

    def made():
        model = td.DLRM(schema, (16, 8), (8, 1), sharing=sharing, **EXPERTS)
        model.compile(keras.optimizers.Adam(0.01), td.RowWiseAdagrad(0.05), metrics=[[], [], []])
        return model

    model = made()
    model.fit(td.dataset(data, 128), epochs=1, verbose=0)
    features = next(iter(td.dataset(data, 64, split="eval", shuffle=False)))[0]
    expected = model.logits(features)
    model.save(f"{tmp_path}/model.keras")
    np.testing.assert_array_equal(keras.models.load_model(f"{tmp_path}/model.keras").logits(features), expected)
    td.save_checkpoint(model, f"{tmp_path}/checkpoint")
    with td.make_strategy("mirrored", 2).scope():
        other = made()
        td.restore_checkpoint(other, f"{tmp_path}/checkpoint")
    np.testing.assert_allclose(other.logits(features), expected, rtol=1e-5, atol=1e-6)
    path, _ = export_model(model, data, f"{tmp_path}/exported", ExportOptions(context=("user",)))
    report = verify(path, latency=False)
    assert report.passed, [check for check in report.checks if check.status != "ok"]
