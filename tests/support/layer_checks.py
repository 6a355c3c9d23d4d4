"""What every public layer must pass, whatever it computes; each layer's own test says what that is."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras


@contextlib.contextmanager
def global_policy(name: str) -> Iterator[None]:
    """Sets the global dtype policy, and puts back the old one."""
    old = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(old)


def check_layer(layer: keras.layers.Layer, inputs: Any, path: Path, tables: bool = False, files: bool = True) -> None:
    """Checks the config, dtypes, gradients, batches of 1, and saving and loading in every format.

    Args:
      layer: any; it is called here.
      inputs: of a batch of at least 2: tensors, ragged or not, in any structure.
      path: a directory to save to.
      tables: whether its variables stay float32 under every policy.
      files: whether to save and load it, which takes most of the time.
    """
    outputs = layer(inputs)
    twin = _twin(layer, inputs)
    assert twin.get_config() == layer.get_config()
    _assert_close(twin(inputs), outputs, 1e-6)

    mixed = _twin(layer, inputs, "mixed_bfloat16")
    assert all(v.dtype == tf.float32 for v in mixed.trainable_variables)
    assert {y.dtype for y in tf.nest.flatten(mixed(inputs))} == {tf.bfloat16}
    _assert_close(mixed(inputs), outputs, 0.05)

    first = tf.nest.map_structure(lambda x: x[:1], inputs)
    _assert_close(layer(first), tf.nest.map_structure(lambda y: y[:1], outputs), 1e-5)

    if tables:  # linear in the variables, so that a large step is exact
        _check_gradient(layer, inputs, step=0.25, tolerance=1e-4)
    else:
        _check_gradient(_twin(layer, inputs, "float64"), _cast(inputs, tf.float64), step=1e-6, tolerance=1e-6)
    if files:
        _check_saved_model(layer, inputs, outputs, path)
        _check_keras_files(layer, inputs, outputs, path)


def _twin(layer: keras.layers.Layer, inputs: Any, dtype: str | None = None) -> keras.layers.Layer:
    """A layer made from the config of `layer`, with its weights."""
    config = layer.get_config()
    twin = type(layer).from_config(config if dtype is None else config | {"dtype": dtype})
    twin(inputs)
    twin.set_weights(layer.get_weights())
    return twin


def _check_gradient(layer: keras.layers.Layer, inputs: Any, step: float, tolerance: float) -> None:
    """The derivative of a random function of the outputs, in a random direction, against a central difference."""
    rng = np.random.default_rng(7)
    sources = [x for x in tf.nest.flatten(inputs) if isinstance(x, tf.Tensor) and x.dtype.is_floating]
    outputs = tf.nest.flatten(layer(inputs))
    factors = [tf.constant(rng.normal(size=y.shape), y.dtype) for y in outputs]
    variables = layer.trainable_variables
    directions = [tf.constant(rng.normal(size=x.shape), x.dtype) for x in [*sources, *variables]]

    def value(inputs: Any) -> tf.Tensor:
        products = zip(tf.nest.flatten(layer(inputs)), factors, strict=True)
        return tf.add_n([tf.reduce_sum(y * f) for y, f in products])

    def moved(distance: float) -> tf.Tensor:
        old = [v.numpy() for v in variables]
        steps = iter(directions)
        shifted = tf.nest.map_structure(
            lambda x: x + distance * next(steps) if any(x is s for s in sources) else x, inputs
        )
        for v, w in zip(variables, old, strict=True):
            v.assign(w + distance * next(steps))
        result = value(shifted)
        for v, w in zip(variables, old, strict=True):
            v.assign(w)
        return result

    with tf.GradientTape() as tape:
        tape.watch(sources)
        y = value(inputs)
    gradients = [tf.convert_to_tensor(g) for g in tape.gradient(y, [*sources, *variables])]
    derivative = sum(float(tf.reduce_sum(g * d)) for g, d in zip(gradients, directions, strict=True))
    numerical = float(moved(step) - moved(-step)) / (2 * step)
    np.testing.assert_allclose(derivative, numerical, rtol=tolerance)


def _check_saved_model(layer: keras.layers.Layer, inputs: Any, outputs: Any, path: Path) -> None:
    module = tf.Module()
    module.layer = layer
    module.serve = tf.function(lambda x: layer(x), input_signature=[tf.nest.map_structure(_spec, inputs)])
    tf.saved_model.save(module, str(path))
    loaded = tf.saved_model.load(str(path))
    _assert_close(loaded.serve(inputs), outputs, 1e-6)


def _check_keras_files(layer: keras.layers.Layer, inputs: Any, outputs: Any, path: Path) -> None:
    """Saves and loads the layer inside a functional model."""
    symbolic = tf.nest.map_structure(lambda x: keras.Input(type_spec=_spec(x)), inputs)
    model = keras.Model(symbolic, layer(symbolic))
    for name in ("model.keras", "model"):
        model.save(path / name)
        loaded = keras.models.load_model(path / name)
        _assert_close(loaded(inputs), outputs, 1e-6)
        assert [type(x) for x in loaded.layers] == [type(x) for x in model.layers]
    for name in ("weights.h5", "model.weights.h5", "weights") if layer.weights else ():
        model.save_weights(path / name)
        clone = keras.models.clone_model(model)
        for v in clone.variables:
            v.assign(tf.zeros_like(v))
        clone.load_weights(path / name)
        _assert_close(clone(inputs), outputs, 1e-6)


def _spec(x: tf.Tensor | tf.RaggedTensor) -> tf.TypeSpec:
    shape = [None, *x.shape[1:]]
    return tf.RaggedTensorSpec(shape, x.dtype) if isinstance(x, tf.RaggedTensor) else tf.TensorSpec(shape, x.dtype)


def _cast(inputs: Any, dtype: tf.DType) -> Any:
    return tf.nest.map_structure(lambda x: tf.cast(x, dtype) if x.dtype.is_floating else x, inputs)


def _assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    pairs = zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True)
    for a, e in pairs:
        np.testing.assert_allclose(tf.cast(a, tf.float64), tf.cast(e, tf.float64), rtol=tolerance, atol=tolerance)
