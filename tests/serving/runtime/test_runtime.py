"""The C++ runtime, tensors, records and protos without TensorFlow's Python, against TensorFlow's Python."""

import concurrent.futures
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from tfrs_dlrm.serving.runtime import protos, tensors
from tfrs_dlrm.serving.runtime.c_api import tensorflow_version
from tfrs_dlrm.serving.runtime.saved_model import RunError, SavedModel
from tfrs_dlrm.serving.runtime.tfrecord import read_records, record


def strings(values, *shape):
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape or [len(values)])


ARRAYS = {
    "float32": np.float32([[1.5, np.nan], [-np.inf, 0]]),
    "float64": np.float64([1e300]),
    "int32": np.int32([[[-(2**31)], [2**31 - 1]]]),
    "int64": np.int64([2**63 - 1, -1]),
    "uint8": np.uint8([0, 255]),
    "int8": np.int8([-128, 127]),
    "bool": np.array([True, False]),
    "string": strings([b"", b"short", b"a\0b\0", "ä".encode() * 40, b"x" * 100_000, b"\xff\xfe"], 3, 2),
    "scalar": np.float32(2.5).reshape(()),
    "empty": np.zeros((0, 3), np.float32),
    "no strings": strings([], 0),
    "not contiguous": np.arange(12, dtype=np.int64).reshape(3, 4).T[::2],
}


class _Echo(tf.Module):
    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(2.0)
        keys = tf.constant(["a", "a name that is longer than 22 bytes"])
        self.names = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, tf.constant([7, 8])), -1)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.float32, "price"),
            tf.TensorSpec([None, None], tf.string, "tags"),
            tf.TensorSpec([None], tf.int64, "slot"),
        ]
    )
    def __call__(self, price, tags, slot):
        tf.debugging.assert_less(slot, tf.constant(10, tf.int64), "slot: below 10 is expected")
        return {
            "scaled": price * self.scale,
            "joined": tf.strings.reduce_join(tags, axis=1),
            "tags": tags,
            "ids": self.names.lookup(tags),
            "next": slot + 1,
            "any": tf.reduce_any(slot > 3),
        }


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    """The same model in Python and in the runtime."""
    path = str(tmp_path_factory.mktemp("echo"))
    module = _Echo()
    tf.saved_model.save(module, path, {"serving_default": module.__call__})
    with SavedModel(path, threads=1) as model:
        yield tf.saved_model.load(path).signatures["serving_default"], model, path


def batch(price, tags, slot):
    return {"price": np.float32(price), "tags": tags, "slot": np.int64(slot)}


BATCHES = {
    "one": batch([1.5], strings([b"a"], 1, 1), [2]),
    "many": batch(
        [np.nan, -1, 0],
        strings([b"a", b"", b"\0", b"a\0", "é".encode(), b"a name that is longer than 22 bytes"], 3, 2),
        [-5, 9, 2],
    ),
    "lengths around the inline size": batch(
        np.arange(30), strings([bytes([65 + n]) * n for n in range(30)], 30, 1), [0] * 30
    ),
    "a million bytes": batch([0], strings([b"x" * 1_000_000, b"y" * 23], 1, 2), [0]),
    "no rows": batch([], strings([], 0, 4), []),
    "no tags": batch([1, 2], strings([], 2, 0), [1, 2]),
    "transposed": batch([1, 2], strings([b"a", b"b", b"c", b"d"], 2, 2).T, np.int64([9, 1, 2, 3])[1:3]),
}


@pytest.mark.parametrize("inputs", BATCHES.values(), ids=BATCHES)
def test_a_run_gives_what_python_gives(echo, inputs):
    python, model, _ = echo
    found = model.run("serving_default", inputs)
    expected = {k: v.numpy() for k, v in python(**{k: tf.constant(v) for k, v in inputs.items()}).items()}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].shape == values.shape and found[name].dtype == values.dtype, name
        np.testing.assert_array_equal(found[name], values, name)


def test_signatures_have_names_types_and_shapes(echo):
    signature = echo[1].signatures["serving_default"]
    assert list(echo[1].signatures) == ["serving_default"] and signature.method == "tensorflow/serving/predict"
    assert {n: str(i) for n, i in signature.inputs.items()} == {
        "price": "float32 [?]", "tags": "string [?, ?]", "slot": "int64 [?]"
    }  # fmt: skip
    assert str(signature.outputs["any"]) == "bool []" and str(signature.outputs["ids"]) == "int32 [?, ?]"
    graph = echo[1].meta_graph.graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert {"LookupTableFindV2", "RestoreV2"} <= {node.op for node in nodes}
    assert tensorflow_version() == tf.__version__


def test_errors_have_the_code_and_the_text_of_tensorflow(echo, tmp_path):
    _, model, _ = echo
    good = BATCHES["one"]
    with pytest.raises(RunError, match="slot: below 10 is expected") as caught:
        model.run("serving_default", {**good, "slot": np.int64([10])})
    assert caught.value.code_name == "INVALID_ARGUMENT"
    with pytest.raises(ValueError, match="input 'slot' is of type int32; int64 is needed"):
        model.run("serving_default", {**good, "slot": np.int32([1])})
    with pytest.raises(KeyError, match="tags"):
        model.run("serving_default", {k: v for k, v in good.items() if k != "tags"})
    with pytest.raises(KeyError, match="score"):
        model.run("score", good)
    assert model.run("serving_default", good)["next"] == [3], "an error leaves nothing behind"
    with pytest.raises(RunError, match="Could not find SavedModel") as caught:
        SavedModel(str(tmp_path))
    assert caught.value.code_name == "NOT_FOUND"


def test_scalars_stay_scalars_and_a_type_that_is_not_supported_leaves_nothing_loaded(tmp_path, monkeypatch):
    def save(dtype):
        module = tf.Module()
        module.call = tf.function(lambda x: {"rank": tf.rank(x), "x": x}, [tf.TensorSpec(None, dtype, "x")])
        tf.saved_model.save(module, str(tmp_path), {"serving_default": module.call})

    save(tf.float32)
    with SavedModel(str(tmp_path)) as model:
        for x in (np.float32(3), np.float32([3])):
            found = model.run("serving_default", {"x": np.asarray(x)})
            assert found["rank"] == x.ndim and found["x"].shape == x.shape
    save(tf.float16)
    closed = []
    monkeypatch.setattr(SavedModel, "close", lambda model, close=SavedModel.close: (close(model), closed.append(model)))
    with pytest.raises(ValueError, match="DT_HALF are not supported"):
        SavedModel(str(tmp_path))
    assert closed and closed[0]._session is None


def test_a_model_that_calls_python_does_not_run(tmp_path):
    """In a process of its own: in this one, Python's TensorFlow has what it calls."""
    module = tf.Module()
    module.call = tf.function(
        lambda x: {"y": tf.numpy_function(lambda v: v, [x], tf.float32)}, [tf.TensorSpec([None], tf.float32)]
    )
    tf.saved_model.save(module, str(tmp_path), {"serving_default": module.call})
    program = f"""
import sys, numpy as np
from tfrs_dlrm.serving.runtime.saved_model import RunError, SavedModel
try:
    SavedModel({str(tmp_path)!r}).run("serving_default", {{"x": np.float32([1])}})
except RunError as e:
    print("refused", e)
"""
    assert "refused" in python(program) and "PyFunc" in python(program)


def test_threads_get_their_own_answers(echo):
    def ask(n):
        inputs = batch([n], strings([f"thread {n} ".encode() * 5], 1, 1), [n % 10])
        return model.run("serving_default", inputs)

    model = echo[1]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for n, found in enumerate(pool.map(ask, range(400))):
            assert found["scaled"] == [2 * n] and found["joined"] == [f"thread {n} ".encode() * 5]


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_tensors_travel_to_tensorflow_and_back(array):
    for as_bytes in (True, False):
        ours = tensor_pb2.TensorProto.FromString(tensors.to_proto(array, as_bytes).SerializeToString())
        np.testing.assert_array_equal(tf.make_ndarray(ours), array)
        assert ours.dtype == tf.constant(array).dtype.as_datatype_enum
        np.testing.assert_array_equal(tensors.from_proto(tensors.to_proto(array, as_bytes)), array)
    assert not ours.tensor_content, "published clients read float_val and its siblings only"
    theirs = protos.tensor.TensorProto.FromString(tf.make_tensor_proto(array).SerializeToString())
    found = tensors.from_proto(theirs)
    assert found.dtype == array.dtype and found.shape == array.shape
    np.testing.assert_array_equal(found, array)


def test_tensors_with_values_one_by_one_are_read():
    proto = protos.tensor.TensorProto
    shape = tf.TensorShape([2, 2]).as_proto().SerializeToString()

    def make(**values):
        tensor = proto(**values)
        tensor.tensor_shape.MergeFromString(shape)
        taken = tensors.memory_of_proto(tensor)  # refuses what cannot be read, before it is made
        found = tensors.from_proto(tensor)
        assert tensors.memory(found) <= taken <= tensors.memory(found) + tensor.ByteSize()
        return found

    assert make(dtype=protos.types_.DT_INT64, int64_val=[1, 2, 3, 4]).tolist() == [[1, 2], [3, 4]]
    assert make(dtype=protos.types_.DT_FLOAT, float_val=[0.5]).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert make(dtype=protos.types_.DT_STRING, string_val=[b"a\0"]).tolist() == [[b"a\0"] * 2] * 2
    shape = tf.TensorShape([1 << 24]).as_proto().SerializeToString()
    with pytest.raises(ValueError, match=r"\[16777216\] is more than 1048576 equal values"):
        make(dtype=protos.types_.DT_FLOAT, float_val=[0.5])
    shape = tf.TensorShape([2, 2]).as_proto().SerializeToString()
    # tensorflow/core/framework/tensor.cc, FromProtoField: the last value is repeated, and no value is zero.
    assert make(dtype=protos.types_.DT_INT64, int64_val=[1, 2, 3]).tolist() == [[1, 2], [3, 3]]
    assert make(dtype=protos.types_.DT_STRING, string_val=[b"a", b"b"]).tolist() == [[b"a", b"b"], [b"b", b"b"]]
    assert make(dtype=protos.types_.DT_FLOAT).tolist() == [[0, 0], [0, 0]]
    assert make(dtype=protos.types_.DT_STRING).tolist() == [[b"", b""], [b"", b""]]
    with pytest.raises(ValueError, match=r"5 values do not fit \[2, 2\]"):
        make(dtype=protos.types_.DT_INT64, int64_val=[1, 2, 3, 4, 5])
    with pytest.raises(ValueError, match=r"4 bytes do not fill \[2, 2\] of float32"):
        make(dtype=protos.types_.DT_FLOAT, tensor_content=b"1234")
    with pytest.raises(ValueError, match="DT_COMPLEX64 are not supported"):
        make(dtype=protos.types_.DT_COMPLEX64)
    with pytest.raises(ValueError, match="complex64 are not supported"):
        tensors.to_proto(np.zeros(1, np.complex64))


def test_strings_in_tensor_content_are_read():
    texts = [b"", b"a\0", b"x" * 300, "ä".encode()]
    content = b"\x00\x02\xac\x02\x02" + b"".join(texts)  # 300 is the varint ac 02
    proto = protos.tensor.TensorProto(dtype=protos.types_.DT_STRING, tensor_content=content)
    proto.tensor_shape.dim.add(size=4)
    assert tensors.from_proto(proto).tolist() == texts
    # TensorFlow itself reads it so: tensorflow/core/lib/strings/coding.cc, DecodeStringList.
    theirs = tensor_pb2.TensorProto.FromString(proto.SerializeToString())
    assert tf.raw_ops.ParseTensor(serialized=theirs.SerializeToString(), out_type=tf.string).numpy().tolist() == texts
    for damaged, words in (
        (content[:-1], "their lengths say 304"),
        (content + b"x", "their lengths say 304"),
        (b"\xff" * 4, "lengths of 4 strings"),
        (b"\xff\xff\xff\xff\xff\xff\x01\x00\x00\x00", "lengths of 4 strings"),
        (b"\x00", r"do not fill \[4\] of string"),
    ):
        proto.tensor_content = damaged
        with pytest.raises(ValueError, match=words):
            tensors.from_proto(proto)
    proto.tensor_content = content
    assert tensors.memory(tensors.from_proto(proto)) <= tensors.memory_of_proto(proto) <= 4 * 80 + proto.ByteSize()


RECORDS = [b"", b"one", b"\0" * 23, bytes(range(256)) * 1000]


def test_records_are_those_of_tensorflow(tmp_path):
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    with open(ours, "wb") as f:
        f.writelines(map(record, RECORDS))
    with tf.io.TFRecordWriter(theirs) as writer:
        for data in RECORDS:
            writer.write(data)
    assert list(tf.data.TFRecordDataset(ours).as_numpy_iterator()) == RECORDS
    assert list(read_records(theirs)) == RECORDS


def test_broken_records_are_named_by_their_number(tmp_path):
    file = tmp_path / "records"
    whole = b"".join(map(record, RECORDS[:3]))
    last = len(record(RECORDS[2]))
    for end in (len(whole) - 1, len(whole) - 4, len(whole) - last + 13, len(whole) - last + 5):
        file.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"record 2 is broken: .*cut off"):
            list(read_records(str(file)))
    for place in (-1, -last + 12, -last, -last + 8):
        data = bytearray(whole)
        data[place] ^= 1
        file.write_bytes(data)
        with pytest.raises(ValueError, match=r"record 2 is broken: .*checksum"):
            list(read_records(str(file)))


def python(program):
    """What a fresh process prints."""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.process
def test_protos_leave_tensorflow_unloaded_and_importable(echo):
    program = f"""
import sys
import numpy as np
from tfrs_dlrm.serving.runtime import protos, tensors, tfrecord
from tfrs_dlrm.serving.runtime.saved_model import SavedModel
protos.services()
request = protos.predict.PredictRequest()
request.inputs["x"].CopyFrom(tensors.to_proto(np.float32([1, 2])))
model = SavedModel({echo[2]!r})
tags = np.array([[b"a"]], object)
inputs = {{"price": np.float32([4]), "tags": tags, "slot": np.int64([1])}}
assert model.run("serving_default", inputs)["scaled"] == [8]
model.close()
assert not [m for m in sys.modules if m.split(".")[0] == "tensorflow"]
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
assert tf.make_ndarray(request.inputs["x"]).tolist() == [1, 2]
assert tensor_pb2.TensorProto.DESCRIPTOR is protos.tensor.TensorProto.DESCRIPTOR
assert tf.reduce_sum(tf.keras.layers.Dense(1)(tf.ones((1, 2)))).shape == []
print("both")
"""
    assert python(program).strip().endswith("both")
