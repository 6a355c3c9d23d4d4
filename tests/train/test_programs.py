"""The programs end in one line of what is wrong, not in a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(cwd, script, *arguments):
    return subprocess.run(
        [sys.executable, ROOT / script, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config.train.bach_size=3"], "config.train has no field 'bach_size'; did you mean 'batch_size'? It has"),
        (["--config.train.batch_size=many"], "--config.train.batch_size=many: invalid literal for int()"),
        (["--strategy=tpu"], "strategy 'tpu' is not in this version; there is one_device"),
        (["--config={root}/configs/default.py", "--config.data.path=nowhere"], "no prepared data there; make it with"),
    ],
)
def test_train_says_what_is_wrong(tmp_path, arguments, message):
    done = run(tmp_path, "train/main.py", *(a.format(root=ROOT) for a in arguments))
    assert done.returncode != 0
    assert message in done.stderr and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_evaluate_and_export_without_a_run(tmp_path):
    for script, arguments in (("train/evaluate.py", []), ("export/main.py", ["--output=out"])):
        done = run(tmp_path, script, "--workdir=nothing", *arguments)
        assert done.returncode == 1
        assert done.stderr == "error: nothing: no run in there (no config.json); python train/main.py makes one\n"


def test_help_lists_the_flags_of_the_program_alone(tmp_path):
    shown = run(tmp_path, "train/main.py", "--help").stdout
    assert "--workdir" in shown and "--strategy" in shown and "quickstart" in shown
    assert "--alsologtostderr" not in shown
