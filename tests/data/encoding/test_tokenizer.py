"""Texts of Arrow strings, which are mostly found without TensorFlow, against those of its operations."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from tfrs_dlrm.data.encoding.tokenizer import Tokenizer
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, TextFormat

PLAIN = ["68fd1e64", "", "-", "007", "true", "false", "é", "<missing>", "n/a"]
# Each makes the whole array take the way through tensors.
SPELLED = [" a", "a\t", "a b", "24216.0", "0.5", "a.b", "True", "TRUE", "False", "FALSE", "\x1f"]


def tokenizer_of(**text):
    return Tokenizer(Schema(label=Label("y"), categorical=(CategoricalFeature("c"),), text=TextFormat(**text)))


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("missing", [(), ("-", "n/a", "24216", "a b")])
def test_texts_of_arrow_are_those_of_tensors(strip, missing):
    tokenizer = tokenizer_of(strip=strip, missing=missing)
    for values in (PLAIN, *([*PLAIN, value] for value in SPELLED), []):
        texts = tokenizer.texts(pa.array(values, pa.string()))
        assert texts.type == pa.string()
        expected = tokenizer.text(tf.constant(values, tf.string)).numpy()
        assert [text.encode() for text in texts.to_pylist()] == expected.tolist()


def test_texts_of_a_slice_depend_on_its_values_alone():
    tokenizer = tokenizer_of()
    array = pa.array([" a ", "b", "", "True"])
    assert tokenizer.texts(array.slice(1, 2)).to_pylist() == ["b", "<missing>"]
    assert tokenizer.texts(array.slice(2)).to_pylist() == ["<missing>", "true"]
    assert tokenizer.texts(pa.array(np.array([7, -1]))).to_pylist() == ["7", "<missing>"]
