"""The doctor as a program on this machine, and without a TensorFlow that loads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from tfrs_dlrm.tools.doctor.machine import Machine, logical_devices

ROOT = Path(__file__).parents[3]


def run(*command, shadow=None):
    """Runs Python, with a directory of modules that come before all others."""
    paths = [str(p) for p in (shadow, ROOT) if p]
    environment = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"} | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.process
def test_reports_what_is_here():
    done = run("-m", "tfrs_dlrm.cli", "doctor")
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert any(line.split()[:2] == ["tensorflow", tf.__version__] and "2.22" in line for line in lines)
    assert any(line.startswith("TensorFlow's devices") and "/device:CPU:0" in line for line in lines)
    assert (
        "one_device        yes, on the" in done.stdout and "multi_worker      no: TF_CONFIG is not set" in done.stdout
    )


def test_quick_json_loads_no_tensorflow(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise AssertionError('loaded')")
    done = run("-m", "tfrs_dlrm.cli", "doctor", "--quick", "--json", "--tpu=a b", shadow=tmp_path)
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["strategies"]["one_device"]["runs"] and not report["logical_devices"]
    assert report["packages"]["tensorflow"] == tf.__version__
    assert report["strategies"]["tpu"]["problems"][0] == "'a b' is no TPU"


def test_a_crash_of_tensorflow_is_reported(tmp_path, monkeypatch):
    (tmp_path / "tensorflow.py").write_text("import os, sys; print('F not available', file=sys.stderr); os.abort()")
    done = run("-m", "tfrs_dlrm.cli", "doctor", shadow=tmp_path)
    assert done.returncode == 1 and done.stderr == ""
    assert "one_device        no: loading TensorFlow ends in SIGABRT: F not available" in done.stdout


def test_what_else_can_become_of_loading_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    tensorflow = tmp_path / "tensorflow.py"
    tensorflow.write_text("import time; time.sleep(60)")
    with pytest.raises(RuntimeError, match=r"^TensorFlow was not loaded within 1 seconds$"):
        logical_devices(Machine(), seconds=1)
    tensorflow.write_text("raise ImportError('DLL missing')")
    with pytest.raises(RuntimeError, match=r"^loading TensorFlow fails: ImportError: DLL missing$"):
        logical_devices(Machine())


def test_train_on_a_tpu_that_is_not_there_ends_before_tensorflow_is_loaded(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise AssertionError('loaded')")
    done = run(ROOT / "train/main.py", "--strategy=tpu", f"--workdir={tmp_path}/run", shadow=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: --tpu=local: TensorFlow would find no TPU\n  - ")
    assert "What to do:\n  - " in done.stderr and "train/doctor.py" in done.stderr
    assert not (tmp_path / "run").exists()
