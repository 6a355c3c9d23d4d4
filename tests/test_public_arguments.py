"""Arguments of public functions that are of a wrong type are refused where they are given, by name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tf_keras as keras

import tfrs_dlrm as td
from tfrs_dlrm.messages.arguments import check_fields, checked

FRAME = pd.DataFrame({"y": [0, 1, 0, 1], "a": ["u", "v", "u", "v"], "x": [1.0, 2.0, 3.0, 4.0]})
SCHEMA = td.Schema(td.Label("y"), dense=(td.DenseFeature("x"),), categorical=(td.CategoricalFeature("a"),))


def feature(**changes):
    return td.CategoricalFeature(**{"name": "a"} | changes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: td.Schema("y"), "Schema: label is the str 'y'; Label is needed"),
        (
            lambda: td.Schema(td.Label("y"), dense=td.DenseFeature("x")),
            "Schema: dense is a DenseFeature; a list of",
        ),
        (lambda: td.Schema(td.Label("y"), categorical=["a"]), "Schema: categorical is the list ['a']; a list of Categ"),
        (
            lambda: td.Schema(td.Label("y"), (td.DenseFeature("x"),), text={"delimiter": ","}),
            "Schema: text is a dict; ",
        ),
        (lambda: td.Label(FRAME), "Label: column is a DataFrame; str is needed"),
        (lambda: td.Label("y", positive="yes"), "Label: positive is the str 'yes'; a list of str is needed"),
        (lambda: td.Label("y", threshold="3"), "Label: threshold is the str '3'; float or None is needed"),
        (lambda: feature(min_count=2.5), "CategoricalFeature: min_count is the float 2.5; int is needed"),
        (lambda: feature(multi_valued="yes"), "CategoricalFeature: multi_valued is the str 'yes'; bool is needed"),
        (lambda: feature(separator=1), "CategoricalFeature: separator is the int 1; str or None is needed"),
        (lambda: td.Table("a", dim=True), "Table: dim is the bool True; int is needed"),
        (lambda: td.Table("a", vocabulary_size="9"), "Table: vocabulary_size is the str '9'; int or None is needed"),
        (lambda: td.DenseFeature(None), "DenseFeature: name is None; str is needed"),
        (lambda: td.TextFormat(columns="abc"), "TextFormat: columns is the str 'abc'; a list of str is needed"),
        (lambda: td.prepare(SCHEMA, FRAME, FRAME), "prepare: output is a DataFrame; str is needed"),
        (
            lambda: td.prepare("schema.json", FRAME, "out"),
            "prepare: schema is the str 'schema.json'; Schema or None is needed",
        ),
        (
            lambda: td.prepare(SCHEMA, FRAME, "out", eval_fraction="0.1"),
            "prepare: eval_fraction is the str '0.1'",
        ),
        (lambda: td.infer_schema(FRAME, label=3), "infer_schema: label is the int 3; str or None is needed"),
        (lambda: td.infer_schema(FRAME, rows=None), "infer_schema: rows is None; int is needed"),
        (lambda: td.fit_encoder(FRAME, SCHEMA), "fit_encoder: schema is a DataFrame; Schema is needed"),
        (lambda: td.dataset("data", "32"), "dataset: batch_size is the str '32'; int is needed"),
        (lambda: td.dataset("data", 1.5), "dataset: batch_size is the float 1.5; int is needed"),
        (lambda: td.dataset("data", 32, repeat="no"), "dataset: repeat is the str 'no'; bool is needed"),
        (lambda: td.dataset("data", 32, seed=[1]), "dataset: seed is the list [1]; int is needed"),
        (lambda: td.steps_per_epoch(FRAME, 32), "steps_per_epoch: directory is a DataFrame; str is needed"),
        (lambda: td.load_model(FRAME), "load_model: workdir is a DataFrame; str is needed"),
        (lambda: td.load_model(None), "load_model: workdir is None; str is needed"),
        (
            lambda: td.train_and_evaluate({"data": 1}, "run"),
            "train_and_evaluate: config is a dict; RunConfig",
        ),
        (lambda: td.make_strategy("mirrored", devices="2"), "make_strategy: devices is the str '2'; int is needed"),
        (lambda: td.Encoder.load(FRAME), "Encoder.load: directory is a DataFrame; str is needed"),
        (lambda: td.Encoder(FRAME, "data"), "Encoder: the schema is of type DataFrame; give a tfrs_dlrm.Schema"),
        (lambda: td.MLP(8), "MLP: units is the int 8; a list of int of at least 1 is needed"),
        (lambda: td.MLP("8-1"), "MLP: units is the str '8-1'; a list of int of at least 1 is needed"),
        (lambda: td.SGD("0.1"), "learning_rate='0.1' is no number; a number of at least 0 is needed"),
        (lambda: td.Adagrad(float("nan")), "learning_rate=nan is no number"),
        (lambda: td.LazyAdam(0.1, l2=None), "l2=None is no number"),
    ],
)
def test_wrong_types_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_right_types_in_other_forms_are_taken(tmp_path):
    """Paths, lists in place of tuples, numbers of NumPy."""

    @checked
    def called(path: str, rows: int, share: float, names: Sequence[str] = (), shuffle: bool | None = None) -> str:
        return "called"

    assert called(tmp_path, np.int64(3), np.float32(0), ["a"], np.bool_(True)) == "called"
    assert called("a", 3, 1, ("a", "b"), shuffle=None) == "called"
    label = td.Label("y", positive=["1"], negative=["0"])
    assert td.Schema(label, dense=[td.DenseFeature("x")], categorical=[feature()]).dense[0].name == "x"


@dataclasses.dataclass
class Named:
    name: str
    size: tuple[int, str] = (1, "a")
    any_name: Unknown | None = None  # noqa: F821
    any_attribute: unknown.Thing = None  # noqa: F821

    def __post_init__(self):
        check_fields(self)


@dataclasses.dataclass
class Rated(Named):
    rates: Sequence[float] = ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": 3}, "Rated: name is the int 3; str is needed"),
        ({"size": (1, 2)}, "Rated: size is the tuple (1, 2); a list of 2: int, str is needed"),
        ({"size": (1, "a", "b")}, "Rated: size is the tuple (1, 'a', 'b'); a list of 2: int, str is needed"),
        ({"rates": np.float32(1)}, "Rated: rates is a float32; a list of float is needed"),
        ({"rates": tf.constant(1.0)}, "Rated: rates is a EagerTensor; a list of float is needed"),
    ],
)
def test_fields_of_base_classes_tuples_and_tensors_of_no_dimension(given, message):
    Rated("a", (2, "b"), object(), object(), [1.5])
    Rated("a", rates=np.float32([1, 2]))
    with pytest.raises(ValueError, match=re.escape(message)):
        Rated(**{"name": "a"} | given)


def test_what_a_model_takes():
    encoder = td.fit_encoder(SCHEMA, FRAME)
    encoded = encoder(FRAME)
    assert encoder({"a": np.array(["u", "w"]), "x": np.array([1.0, 2.0])})["ids"].shape == (2, 1)
    with pytest.raises(ValueError, match=r"input 'a' is a dict; a tensor or an array of shape \(None,\) is needed"):
        encoder({"a": {"u": 1}, "x": tf.constant([1.0])})
    model = td.LogisticRegression(encoder.schema.with_dim(1))
    for given in ("data/clicks", 3, [1, 2]):
        with pytest.raises(ValueError, match=r"a model takes a mapping of features.* as td.dataset gives; found "):
            model(given)
    with pytest.raises(ValueError, match=r"metrics: str is a class; give a keras.metrics.Metric, a function of"):
        model.compile(metrics=[str])
    with pytest.raises(ValueError, match=r"metrics: AUC is a class; give an object of it, such as AUC\(\)"):
        model.compile(metrics=[keras.metrics.AUC])
    with pytest.raises(ValueError, match=r"no metric is called 'acu'; did you mean 'auc'"):
        model.compile(metrics=["acu"])
    assert encoded["ids"].shape == (4, 1)
