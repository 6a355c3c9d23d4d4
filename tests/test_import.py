"""The Keras 2 guard, and the public names. Each case needs a process of its own."""

import subprocess
import sys

import pytest

import tfrs_dlrm


def run(program, **environment):
    import os

    env = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"} | environment
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "program, environment",
    [
        pytest.param("import tensorflow as tf; tf.keras.layers.Dense; import tfrs_dlrm", {}, marks=pytest.mark.process),
        ("import tfrs_dlrm", {"TF_USE_LEGACY_KERAS": "0"}),
    ],
)
def test_keras_3_is_refused_with_what_to_write(program, environment):
    done = run(program, **environment)
    assert done.returncode == 1
    assert "ImportError: tf.keras is Keras 3 in this process" in done.stderr
    assert "Write `import tfrs_dlrm` above the first use of tf.keras" in done.stderr


@pytest.mark.process
def test_importing_keras_3_by_its_own_name_does_no_harm():
    done = run("import keras, tensorflow as tf, tfrs_dlrm; print(tf.keras.layers.Layer.__module__)")
    assert done.stdout.startswith("tf_keras."), done.stderr[-500:]


def test_import_alone_loads_no_tensorflow():
    done = run("import sys, tfrs_dlrm; print('tensorflow' in sys.modules)")
    assert done.stdout.strip() == "False"


def test_public_names_exist():
    names = set(tfrs_dlrm._MODULE_OF)
    assert names == set(tfrs_dlrm.__all__)
    assert all(getattr(tfrs_dlrm, name) for name in names)
