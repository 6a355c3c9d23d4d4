"""batching_params.pbtxt, as TensorFlow Serving's proto and its batching session have it."""

import pytest

from tfrs_dlrm.serving.bundle.batching_parameters import check_batching_parameters
from tfrs_dlrm.serving.bundle.deploy import write_batching


def test_what_an_export_writes_is_read(tmp_path):
    write_batching(str(tmp_path))
    assert check_batching_parameters((tmp_path / "batching_params.pbtxt").read_text()) == "batches of up to 256 rows"


def test_every_field_of_the_proto_is_known():
    text = """
        # a comment
        max_batch_size { value: 128 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 1 }
        num_batch_threads { value: 1 } thread_pool_name { value: "clicks" } allowed_batch_sizes: [1, 64, 128]
        pad_variable_length_inputs: true
    """
    assert check_batching_parameters(text) == "batches of up to 128 rows"
    split = "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 8 }"
    assert (
        check_batching_parameters(f"{split} max_batch_size {{ value: 99 }} allowed_batch_sizes: 8")
        == "batches of up to 8 rows"
    )
    assert check_batching_parameters("") == "batches of any size"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_size: 256", "line 1:"),
        (
            "max_batch_size { value: 256 }\nmax_batchsize { value: 1 }",
            'line 2:1 : Message type .* has no field named "max_ba',
        ),
        ("max_batch_size { value: 256", "line 1:"),
        ("max_batch_size { value: 1.5 }", "line 1:"),
        ("num_batch_threads { value: 0 }", "num_batch_threads is 0; at least 1"),
        ("max_batch_size { value: -1 }", "max_batch_size is -1; at least 1"),
        ("allowed_batch_sizes: 8 allowed_batch_sizes: 4", r"\[8, 4\]; they must increase"),
        (
            "max_batch_size { value: 256 } allowed_batch_sizes: 128",
            "is 128, and max_batch_size is 256: make them equal",
        ),
        ("allowed_batch_sizes: 128", "is 128, and max_batch_size is missing"),
    ],
)
def test_what_tensorflow_serving_refuses_is_refused_with_its_cause(text, words):
    with pytest.raises(ValueError, match=words):
        check_batching_parameters(text)
