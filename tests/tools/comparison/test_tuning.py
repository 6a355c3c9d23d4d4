"""Tuning: what is tried, and that interruptions change nothing."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click_log
import pytest
from mortal import Killed, Life
from waiting import wait_for

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.tools.comparison import tuning
from tfrs_dlrm.tools.comparison.contestants import Contestant

ROOT = Path(__file__).parents[3]
TRIALS = 9


def contestant(label="dlrm"):
    model = DLRMConfig(embedding_dim=8, bottom_mlp=(8,), top_mlp=(8, 1))
    optimizer = OptimizerConfig(learning_rate=0.01, embedding_learning_rate=0.05, embedding_l2=0.0)
    return Contestant(label, RunConfig(model=model, optimizer=optimizer, train=TrainConfig(steps=40)))


def bowl(config, workdir):
    """Least for a learning rate of 1e-3 and a dropout of 0.2; diverges for high rates, as runs do."""
    os.makedirs(workdir, exist_ok=True)
    rate = config.optimizer.learning_rate
    return (math.log10(rate) + 3) ** 2 + (config.model.dropout - 0.2) ** 2 if rate < 0.02 else math.inf


def files(directory):
    """The text of every file below a directory."""
    return {str(p.relative_to(directory)): p.read_text() for p in Path(directory).rglob("*") if p.is_file()}


def test_the_recipe_is_tried_first_and_the_best_is_chosen(tmp_path):
    tried, said = [], []

    def loss(config, workdir):
        tried.append(config)
        return bowl(config, workdir)

    chosen = tuning.tune(contestant(), str(tmp_path), TRIALS, 0.5, loss, lambda *line: said.append(line))
    recipe = tuning.shortened(contestant().config, 0.5)
    assert tried[0] == recipe and tried[0].optimizer.embedding_l2 == 0  # which a logarithmic scale does not have
    losses = [bowl(config, str(tmp_path / "x")) for config in tried]
    assert math.inf in losses and len(set(losses)) > TRIALS / 2
    assert tuning.shortened(tuning.applied(contestant().config, chosen), 0.5) == tried[losses.index(min(losses))]
    assert said == [(i + 1, min(losses[: i + 1])) for i in range(TRIALS)]
    tuning.tune(contestant("other"), str(tmp_path / "other"), 2, 0.5, loss)
    assert tried[-2] == recipe and tried[-1] != tried[1]
    with pytest.raises(ValueError, match=r"trial-3.json: not a trial of a comparison; delete it"):
        (tmp_path / "trial-3.json").write_text("[]")
        tuning.tune(contestant(), str(tmp_path), TRIALS, 0.5, loss)
    (tmp_path / "trial-3.json").unlink()
    assert tuning.tune(contestant(), str(tmp_path), TRIALS, 0.5, loss) == chosen


def test_a_recipe_that_cannot_be_improved(tmp_path):
    """If all runs diverge, or no number is the result, the recipe stays."""
    for name, result in (("infinite", math.inf), ("nan", math.nan)):
        chosen = tuning.tune(contestant(), str(tmp_path / name), 4, 1.0, lambda config, workdir, r=result: r)
        assert tuning.applied(contestant().config, chosen) == contestant().config
    assert tuning.tune(contestant(), str(tmp_path / "none"), 0, 1.0, bowl) == {}


def test_kills_change_nothing(tmp_path, monkeypatch, moments):
    """Before and after each write, deletion and run, again and again, until the study ends."""
    expected = tuning.tune(contestant(), str(tmp_path / "whole"), TRIALS, 1.0, bowl)
    life = Life()
    monkeypatch.setattr(tuning, "write_json", life.mortal(tuning.write_json))
    monkeypatch.setattr(shutil, "rmtree", life.mortal(shutil.rmtree))
    kills, found = 0, None
    while found is None:
        life.left = moments.randrange(30)
        try:
            found = tuning.tune(contestant(), str(tmp_path / "cut"), TRIALS, 1.0, life.mortal(bowl))
        except Killed:
            kills += 1
    assert kills > 2 and found == expected
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


@pytest.mark.process
def test_compare_is_killed_in_the_middle_of_a_trial(tmp_path):
    data = click_log.make(str(tmp_path / "log"))
    recipe = tmp_path / "recipe.py"
    config = RunConfig(
        data=DataConfig(path=data),
        train=TrainConfig(batch_size=64, steps=60, eval_every_steps=30, tensorboard=False),
    )
    recipe.write_text(
        "import json\nfrom tfrs_dlrm.config import RunConfig\n\n\ndef get_config():\n"
        f"    return RunConfig.from_dict(json.loads({json.dumps(config.to_dict())!r}))\n"
    )

    def start(output):
        command = [sys.executable, str(ROOT / "train/compare.py"), f"--config={recipe}", "--models=logistic_regression"]
        command += ["--seeds=1", "--budget=3", "--nomeasure", f"--output={output}"]
        return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert start(whole).wait() == 0
    killed, tuned = start(cut), cut / "logistic_regression/tuning"
    try:
        wait_for(lambda: killed.poll() is not None or (tuned / "trial-1").is_dir(), "the second trial began")
    finally:
        killed.kill()
    assert killed.wait() == -signal.SIGKILL and not (cut / "compare.json").exists()
    assert start(cut).wait() == 0
    for name in (
        "compare.json",
        "logistic_regression/chosen.json",
        *(f"logistic_regression/tuning/trial-{i}.json" for i in range(3)),
    ):
        assert (cut / name).read_text() == (whole / name).read_text(), name
