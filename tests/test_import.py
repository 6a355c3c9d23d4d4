"""The Keras 2 guard, and the public names. Each case needs a process of its own."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tfrs_dlrm


def run(program, **environment):
    import os

    env = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"} | environment
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=300)


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


@pytest.mark.process
def test_a_program_loads_tensorflow_without_scipy_which_works_afterwards():
    program = """
import sys
from tfrs_dlrm.programs import launch
from tfrs_dlrm.programs.program_flags import ProgramFlags
launch._load_tensorflow(ProgramFlags("A program."), alone=True)
print("scipy" in sys.modules)
import pandas, scipy.stats, tf_keras
model = tf_keras.Sequential([tf_keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(pandas.DataFrame({"x": [1.0, 2.0]}), pandas.Series([1.0, 2.0]), verbose=0)
print(scipy.stats.norm.cdf(0.0))
"""
    done = run(program)
    assert done.stdout.split() == ["False", "0.5"], done.stderr[-500:]


@pytest.mark.parametrize(
    "imports",
    [
        "import tfrs_dlrm, tf_keras",
        pytest.param("import tensorflow, tf_keras, tfrs_dlrm", marks=pytest.mark.matrix),
        pytest.param("import tfrs_dlrm; tfrs_dlrm.MLP; import tf_keras", marks=pytest.mark.matrix),
        pytest.param(
            "import tfrs_dlrm, tensorflow; tensorflow.keras.layers; import tf_keras", marks=pytest.mark.matrix
        ),
    ],
)
def test_keras_finds_every_class_that_it_saves_once_both_are_imported(imports):
    show = "print([n for n in tf_keras.utils.get_custom_objects() if n.startswith('tfrs_dlrm>')])"
    done = run(f"{imports}; {show}")
    sources = (path.read_text(encoding="utf-8") for path in Path(tfrs_dlrm.__file__).parent.rglob("*.py"))
    written = {
        f"tfrs_dlrm>{name}"
        for s in sources
        for name in re.findall(r"^@.*(?:[rR]egister|serializable).*\nclass (\w+)", s, re.M)
    }
    assert set(ast.literal_eval(done.stdout)) == written and len(written) > 30, done.stderr[-500:]


def test_public_names_exist():
    names = set(tfrs_dlrm._MODULE_OF)
    assert names == set(tfrs_dlrm.__all__)
    assert all(getattr(tfrs_dlrm, name) for name in names)
