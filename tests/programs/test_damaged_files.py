"""Files of JSON that are cut, emptied, or hold something else: each program that reads one names it in one line."""

import json
import os
import shutil

import click_log
import pytest
from cases import matrix

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.programs import launch
from tfrs_dlrm.training.loop import train_and_evaluate

TRAIN = ["--config=configs/default.py", "--config.data.path=prepared", "--config.train.batch_size=100"]
COMPARE = ["compare", *TRAIN, "--data=prepared", "--models=logistic_regression", "--seeds=1", "--output=compared"]
READERS = {
    "prepared/prepared.json": [["train", *TRAIN, "--workdir=new"], ["evaluate", "--workdir=run"], COMPARE],
    "prepared/schema.json": [["train", *TRAIN, "--workdir=new"], ["evaluate", "--workdir=run"]],
    "prepared/profile.json": [["profile", "--data=prepared"]],
    "run/config.json": [
        ["evaluate", "--workdir=run"],
        ["export", "--workdir=run", "--output=x"],
        ["report", "--workdir=run"],
    ],
    "run/encoder/schema.json": [["evaluate", "--workdir=run"], ["export", "--workdir=run", "--output=x"]],
    "run/encoder/statistics.json": [["export", "--workdir=run", "--output=x"]],
    "run/encoder/checksums.json": [["evaluate", "--workdir=run"], ["export", "--workdir=run", "--output=x"]],
    "run/encoder/samples.jsonl": [["export", "--workdir=run", "--output=x"]],
    "run/best/step-8/manifest.json": [["evaluate", "--workdir=run"], ["export", "--workdir=run", "--output=x"]],
    "run/metrics.jsonl": [["report", "--workdir=run", "--examples=0"]],
    "run/result.json": [["report", "--workdir=run", "--examples=0"]],
    "compared/comparison.json": [COMPARE],
    "compared/logistic_regression/seed-0/outcome.json": [COMPARE],
}
# By file with fields that programs read, a wrong type of one. Files of lines are changed in their first line.
WRONG = {
    "prepared/prepared.json": {"train": [{"path": 3, "rows": "many"}]},
    "prepared/schema.json": {"label": 3},
    "prepared/profile.json": {"columns": 3},
    "run/config.json": {"train": {"batch_size": "large"}},
    "run/encoder/schema.json": {"tables": "none"},
    "run/encoder/statistics.json": {"dense": {"age": {"count": 3, "mean": "x", "std": 1}}},
    "run/best/step-8/manifest.json": {"rows": {"tables/site": 3}},
    "run/metrics.jsonl": {"step": "one"},
    "compared/logistic_regression/seed-0/outcome.json": {"metrics": {"auc": "good"}},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Prepared data, a run on them, and what a comparison leaves; copied by each test."""
    home = tmp_path_factory.mktemp("whole")
    shutil.copytree(click_log.make(str(home / "log"), rows=1500), home / "prepared")
    before = os.getcwd()
    os.chdir(home)
    try:
        config = RunConfig(
            DataConfig(path="prepared"),
            DLRMConfig(embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(8, 1)),
            OptimizerConfig("adam", 0.005, "rowwise_adagrad", 0.02),
            TrainConfig(batch_size=100, steps=8, tensorboard=False),
        )
        train_and_evaluate(config, "run")
    finally:
        os.chdir(before)
    outcome = {
        "label": "logistic_regression",
        "seed": 0,
        "shown": ["auc"],
        "metrics": {"auc": 0.5},
        "curve": [],
        "chosen": {},
    }
    (home / "compared/logistic_regression/seed-0").mkdir(parents=True)
    (home / "compared/logistic_regression/seed-0/outcome.json").write_text(json.dumps(outcome))
    (home / "compared/comparison.json").write_text("{}")
    return home


def cases():
    """Every file that is cut, emptied, of another kind, and with a field of a wrong type; few in `make test`."""
    found = [(kind, path) for kind in ("cut", "empty", "list", "wrong") for path in READERS]
    found = [(kind, path) for kind, path in found if kind != "wrong" or path in WRONG]
    found.remove(("empty", "run/metrics.jsonl"))  # a run that was not evaluated yet
    fast = ("run/config.json", "prepared/prepared.json")
    return matrix(found, fast=[case for case in found if case[1] in fast])


def damaged(kind: str, path: str, text: str) -> str:
    if kind == "cut":
        half = text[: len(text) // 2]
        # The end of a file of lines may be cut by a kill; its middle may not.
        return half.rstrip("\n") + "\n" + text if path.endswith("l") else half
    if kind == "empty":
        return ""
    if kind == "list":
        return "[1, 2]\n" + (text if path.endswith("l") else "")
    change = WRONG[path]
    first, _, rest = text.partition("\n")
    return (
        json.dumps(json.loads(first) | change) + "\n" + rest
        if path.endswith("l")
        else json.dumps(json.loads(text) | change)
    )


@pytest.mark.parametrize(("kind", "path"), cases())
def test_the_file_is_named_in_one_line(whole, tmp_path, monkeypatch, capfd, kind, path):
    for name in ("prepared", "run", "compared"):
        os.symlink(whole / name, tmp_path / name)
    top, _, below = path.partition("/")
    os.remove(tmp_path / top)
    shutil.copytree(whole / top, tmp_path / top)
    file = tmp_path / top / below
    file.write_text(damaged(kind, path, file.read_text()))
    monkeypatch.chdir(tmp_path)
    for program, *arguments in READERS[path]:
        capfd.readouterr()
        code = launch.call(program, arguments)
        error = capfd.readouterr().err.splitlines()[-1]
        assert code == 1 and error.startswith("error: "), (program, error)
        assert path in error, (program, error)


def test_every_json_file_has_a_reader_here(whole):
    """A new file of JSON needs a line in `READERS`."""
    found = {str(p.relative_to(whole)) for name in ("prepared", "run") for p in (whole / name).rglob("*.json*")}
    checkpoints = {name for name in found if name.startswith("run/checkpoints/")}
    # A run has its own copies of these, which all programs but `verify --data` read.
    copied = {"prepared/statistics.json", "prepared/samples.jsonl"}
    assert found - checkpoints - copied <= READERS.keys()


@pytest.mark.parametrize(
    ("split", "program"),
    [
        ("train", ["train", *TRAIN, "--workdir=new"]),
        ("train", ["evaluate", "--workdir=run", "--split=train"]),
        ("eval", ["train", *TRAIN, "--config.train.steps=2", "--workdir=new"]),
        ("eval", ["evaluate", "--workdir=run"]),
        ("eval", ["export", "--workdir=run", "--output=x", "--tables=int8"]),
    ],
)
def test_a_damaged_shard_is_named(whole, tmp_path, monkeypatch, capfd, split, program):
    os.symlink(whole / "run", tmp_path / "run")
    shutil.copytree(whole / "prepared", tmp_path / "prepared")
    shard = next((tmp_path / "prepared" / split).iterdir())
    content = bytearray(shard.read_bytes())
    content[200:260] = bytes(255 - byte for byte in content[200:260])
    shard.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert launch.call(program[0], program[1:]) == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert f"prepared/{split}/{shard.name}: cannot be read; prepare the data again: " in error
    assert "ValueError" not in error and "function_node" not in error and "Graph" not in error
    if program[0] == "train" and split == "eval":
        assert error.startswith(
            "error: the evaluation at step 2 failed, and the weights are saved in new/checkpoints/s"
        )
