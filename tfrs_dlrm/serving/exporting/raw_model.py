"""A Keras model from the values of the log to probabilities: an encoder and a trained model."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.serving.exporting.serving_model import check_ranking_model


def raw_model(model: RankingModel, encoder: Encoder | str) -> keras.Model:
    """Returns a functional Keras model of raw values, which can be called, saved, loaded and served like any other.

        raw = td.raw_model(model, "data/clicks")
        raw({"price": tf.constant([3.5]), "site": tf.constant(["news"])})
        raw.predict(encoder.raw_inputs(frame))
        raw.save("clicks.keras")

    Its inputs are those of the signature `serving_default` of an exported bundle, by name: float32 for dense features
    (NaN is missing), string or int64 for categorical ones; see `Encoder.signature`. It shares its weights with `model`.
    `export_model` makes a bundle for production: smaller, checked, with ranking of candidates.

    Args:
      model: built; its weights are shared, not copied.
      encoder: of the training data, or the prepared directory that has it.

    Returns:
      A model that returns what `model` returns: probabilities, or numbers of a regression, float32 [B]; for several
      labels [B, labels]. Of one label, its name is that of the bundle: `probability` or `prediction`.

    Raises:
      FileNotFoundError: the path is no prepared directory.
      ValueError: the model is no `RankingModel`, the encoder is of other features than the model, or a feature has the
        name of a layer.
    """
    check_ranking_model(model, "raw_model")
    encoder = encoder if isinstance(encoder, Encoder) else Encoder.load(encoder)
    _check_same_features(model.schema, encoder.schema)
    specs = encoder.serving_signature()
    for name in (encoder.name, model.name):
        if name in specs:
            raise ValueError(f"feature {name!r}: a layer has this name; give the {name} another, by its argument name")
    inputs = {name: keras.Input(spec.shape[1:], dtype=spec.dtype, name=name) for name, spec in specs.items()}
    answers = model(encoder(inputs))
    if not model.schema.more_labels:
        answers = keras.layers.Activation("linear", name=model.label_tasks.first.output, dtype=tf.float32)(answers)
    return keras.Model(inputs, answers, name=f"raw_{model.name}")


def _check_same_features(model: Schema, encoder: Schema) -> None:
    wanted, given = _encoded(model), _encoded(encoder)
    if list(wanted.items()) != list(given.items()):
        differing = [name for name in {**wanted, **given} if wanted.get(name, 0) != given.get(name, 0)]
        raise ValueError(
            f"the encoder and the model differ in {', '.join(differing[:5]) or 'the order of their features'}; give the"
            " encoder of the data that the model was trained on"
        )


def _encoded(schema: Schema) -> dict[str, Any]:
    """What encoded batches of a schema hold, by feature, in order."""
    return dict.fromkeys(schema.dense_columns) | {
        f.name: (f.multi_valued, bool(f.weights), schema.table_of(f).vocabulary_size) for f in schema.categorical
    }
