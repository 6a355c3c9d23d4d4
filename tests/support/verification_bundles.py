"""A real bundle, and ways to damage copies of it; each returns what a message about it has to say."""

import json
import shutil
from pathlib import Path

import click_log
import tensorflow as tf

import tfrs_dlrm as td
from tfrs_dlrm.serving.bundle.manifest import read_manifest, write_manifest
from tfrs_dlrm.serving.exporting.export import ExportOptions, export_model
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.tfrecord import read_records, record


def export(directory):
    """A bundle with every kind of feature and signature, and the prepared directory of its data."""
    data = click_log.make(f"{directory}/log")
    model = td.DLRM(td.Schema.load(f"{data}/schema.json"), (16, 8), (16, 1))
    model.compile(embedding_optimizer=td.RowWiseAdagrad(0.1))
    model.fit(td.dataset(data, 64), verbose=0)
    path, _ = export_model(model, data, f"{directory}/clicks", ExportOptions(context=("age", "user", "tags")))
    return Path(path), Path(data)


def seal(path):
    """Makes bundle.json list the files as they are now: a damage that no checksum shows."""
    write_manifest(path, read_manifest(path))


def change_manifest(path, change):
    file = path / "assets.extra/bundle.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def no_variables(path):
    (path / "variables/variables.data-00000-of-00001").unlink()
    return {"files": "variables/variables.data-00000-of-00001 is missing", "load": "variables.data-00000-of-00001"}


def flipped_byte(path):
    file = path / "variables/variables.data-00000-of-00001"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return {"files": "variables/variables.data-00000-of-00001 was changed: its SHA-256 is another"}


def flipped_byte_sealed(path):
    flipped_byte(path)
    seal(path)
    return {"load": "Checksum does not match"}


def short_graph(path):
    file = path / "saved_model.pb"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return {"files": "saved_model.pb has", "operations": "saved_model.pb"}


def no_graph(path):
    (path / "saved_model.pb").unlink()
    return {"files": "saved_model.pb is missing", "operations": "saved_model.pb is missing"}


def stranger(path):
    (path / "variables/old.bak").write_text("x")
    return {"files": "variables/old.bak exists but is not listed"}


def _warmup(path):
    return path / "assets.extra/tf_serving_warmup_requests"


def broken_warmup(path):
    data = bytearray(_warmup(path).read_bytes())
    data[-6] ^= 1
    _warmup(path).write_bytes(data)
    seal(path)
    return {"warmup": "record 18 is broken: its checksum is wrong"}


def _first_warmup(path, change):
    logs = [protos.prediction_log.PredictionLog.FromString(data) for data in read_records(str(_warmup(path)))]
    change(logs[0].predict_log.request)
    _warmup(path).write_bytes(b"".join(record(log.SerializeToString()) for log in logs))
    seal(path)


def warmup_of_unknown_input(path):
    _first_warmup(path, lambda request: request.inputs["colour"].CopyFrom(request.inputs["price"]))
    return {"warmup": "record 0: signature 'serving_default' has no input 'colour'"}


def warmup_of_unknown_signature(path):
    def change(request):
        request.model_spec.signature_name = "score"

    _first_warmup(path, change)
    return {"warmup": "record 0: the model has no signature 'score'"}


def warmup_too_long(path):
    first = next(read_records(str(_warmup(path))))
    _warmup(path).write_bytes(record(first) * 1001)
    seal(path)
    return {"warmup": "more than 1000 records"}


def no_warmup(path):
    _warmup(path).unlink()
    seal(path)
    return {"warmup": "tf_serving_warmup_requests is missing"}


def cold_signature(path):
    logs = [protos.prediction_log.PredictionLog.FromString(data) for data in read_records(str(_warmup(path)))]
    rest = [log for log in logs if log.predict_log.request.model_spec.signature_name != "encoded"]
    _warmup(path).write_bytes(b"".join(record(log.SerializeToString()) for log in rest))
    seal(path)
    return {"warmup": "no request for encoded"}


def changed_score(path):
    file = path / "assets.extra/reference.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[4]["probability"] += 2e-6
    lines[6]["probability"] += 0.01
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    seal(path)
    return {"scores": "2 of 259 scores differ", "": "line 7: "}


def renamed_input(path):
    def change(manifest):
        inputs = manifest["signatures"]["rank"]["inputs"]
        inputs["preis"] = inputs.pop("price")

    change_manifest(path, change)
    return {"signatures": "signature 'rank': input 'preis' is only in bundle.json"}


def other_type(path):
    def change(manifest):
        manifest["signatures"]["serving_default"]["inputs"]["slot"]["dtype"] = "int32"

    change_manifest(path, change)
    return {"signatures": "input 'slot' is int64 [?]; bundle.json says int32 [?]"}


def other_method(path):
    def change(manifest):
        manifest["signatures"]["regress"]["method"] = "predict"

    change_manifest(path, change)
    return {"signatures": "its method is tensorflow/serving/regress, not tensorflow/serving/predict"}


def _replace_graph(path, function, **variables):
    module = tf.Module()
    for name, value in variables.items():
        setattr(module, name, value)
    module.call = tf.function(lambda price: {"probability": function(price)}, [tf.TensorSpec([None], tf.float32)])
    other = path.parent / "other"
    tf.saved_model.save(module, str(other), {"serving_default": module.call})
    shutil.rmtree(path / "variables")
    shutil.copy(other / "saved_model.pb", path)
    shutil.copytree(other / "variables", path / "variables")
    seal(path)


def calls_python(path):
    _replace_graph(path, lambda price: tf.numpy_function(lambda x: x, [price], tf.float32))
    return {"operations": "operation PyFunc (", "": "calls Python, which TF Serving does not have"}


def calls_eager_python(path):
    _replace_graph(path, lambda price: tf.py_function(lambda x: x, [price], tf.float32))
    return {"operations": "operation EagerPyFunc ("}


def reads_files(path):
    def function(price):
        return price + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)

    _replace_graph(path, function)
    return {"operations": "operation ReadFile (", "": "reads or writes files"}


def assigns(path):
    """Which is fine in what restores the model, and nowhere else."""
    count = tf.Variable(0.0)

    def function(price):
        count.assign(2.0)
        return price + count

    _replace_graph(path, function, count=count)
    return {"operations": "operation AssignVariableOp (", "": "while a request is answered"}


def no_vocabulary(path):
    (path / "assets/site.txt").unlink()
    return {"files": "assets/site.txt is missing", "load": "site.txt"}


def _write_weights(path, change):
    """Writes the variables again, each as `change(name, value)`."""
    prefix = str(path / "variables/variables")
    reader = tf.train.load_checkpoint(prefix)
    names = sorted(reader.get_variable_to_shape_map())
    values = [change(name, reader.get_tensor(name)) for name in names]
    new = str(path.parent / "variables-new")
    tf.raw_ops.SaveV2(prefix=new, tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=[new], destination_prefix=prefix)
    seal(path)


def swapped_vocabulary(path):
    """Two values that are in the reference rows get each other's rows."""
    file = path / "assets/site.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[1::-1], *lines[2:]]) + "\n")
    seal(path)
    return {"scores": "differ from the training side's"}


def nan_weights(path):
    def change(name, value):
        return value * float("nan") if "float" in str(getattr(value, "dtype", "")) and value.ndim == 2 else value

    _write_weights(path, change)
    return {"scores": "look for NaN in the weights", "odd values": "the score is nan, which is no probability"}


def other_weights(path):
    def change(name, value):
        return value * 1.01 if "float" in str(getattr(value, "dtype", "")) and value.ndim == 2 else value

    _write_weights(path, change)
    return {"scores": "differ from the training side's by more than 1e-06"}


def no_manifest(path):
    (path / "assets.extra/bundle.json").unlink()
    return {"manifest": "bundle.json is missing"}


def broken_manifest(path):
    (path / "assets.extra/bundle.json").write_text("{")
    return {"manifest": "not valid JSON"}


def no_reference(path):
    (path / "assets.extra/reference.jsonl").unlink()
    seal(path)
    return {"reference": "reference.jsonl is missing"}


def batching_of_another_size(path):
    file = path / "batching_params.pbtxt"
    file.write_text(file.read_text().replace("max_batch_size { value: 256 }", "max_batch_size { value: 128 }"))
    seal(path)
    return {"batching": "the last of allowed_batch_sizes is 256, and max_batch_size is 128"}


def example_of_another_schema(path):
    file = path / "assets.extra/example_request.json"
    file.write_text(file.read_text().replace('"price"', '"cost"'))
    seal(path)
    return {"example": "instances[0] has other features than bundle.json lists: cost, price"}


DAMAGES = [
    batching_of_another_size,
    example_of_another_schema,
    no_variables,
    flipped_byte,
    flipped_byte_sealed,
    short_graph,
    no_graph,
    stranger,
    broken_warmup,
    warmup_of_unknown_input,
    warmup_of_unknown_signature,
    warmup_too_long,
    no_warmup,
    cold_signature,
    changed_score,
    renamed_input,
    other_type,
    other_method,
    calls_python,
    calls_eager_python,
    reads_files,
    assigns,
    no_vocabulary,
    swapped_vocabulary,
    nan_weights,
    other_weights,
    no_manifest,
    broken_manifest,
    no_reference,
]
