"""The steps of an update, killed before and after each write, move, deletion and call; what computes is stubbed."""

import json
import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from mortal import Killed, Life

from tfrs_dlrm.config import DataConfig, RunConfig
from tfrs_dlrm.schema import DenseFeature, Label, Schema
from tfrs_dlrm.tools.update import UpdateOptions, publishing, run, update
from tfrs_dlrm.training.evaluation import NonFiniteError
from tfrs_dlrm.training.run import Result, RunRecords
from tfrs_dlrm.training.workdir import Workdir


def write_run(directory, data, model):
    directory = Path(directory)
    (directory / "best").mkdir(parents=True, exist_ok=True)
    (directory / "best/model").write_text(str(model))
    (directory / "config.json").write_text(json.dumps(RunConfig(data=DataConfig(path=data)).to_dict()))


def model_of(directory):
    return int((Path(directory) / "best/model").read_text())


def manifest(output, version):
    model = Path(output, str(version), "saved_model.pb").read_text()
    return SimpleNamespace(checkpoint=model, context=(), tables={"storage": "float32"})


class Stubs:
    """Stands for what computes. The loss of model N is `losses[N]`; training makes N + 1 of N."""

    def __init__(self, losses):
        self.losses, self.trained = losses, 0

    def prepare(self, schema, inputs, output, **options):
        os.makedirs(output, exist_ok=True)
        Path(output, "rows").write_text(options["base"])
        return SimpleNamespace(rows=lambda split: 5000, bad_rows=0)

    def score(self, workdir, data, known, splits):
        loss = self.losses[model_of(workdir)]
        assert Path(data, "rows").exists()
        return [SimpleNamespace(metrics=lambda: {"log_loss": loss}) for _ in splits]

    def train(self, config, directory, show_progress=False):
        self.trained += 1
        model = model_of(config.train.warm_start) + 1
        if math.isnan(self.losses[model]):
            raise NonFiniteError("the loss is nan")
        write_run(directory, config.data.path, model)
        return Result(1, "all steps are done", 1, {})

    def export(self, directory, output, which, options):
        version = max([0, *(int(v) for v in os.listdir(output) if v.isdecimal())]) + 1
        half = Path(output, f"unfinished-{version}")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        (half / "saved_model.pb").write_text(str(model_of(directory)))
        os.replace(half, Path(output, str(version)))
        return SimpleNamespace(path=str(Path(output, str(version))))


@pytest.fixture
def stub(monkeypatch):
    def replace(losses):
        found = Stubs(losses)
        monkeypatch.setattr(run, "prepare", found.prepare)
        monkeypatch.setattr(run, "score_run", found.score)
        monkeypatch.setattr(run, "joined", lambda parts: parts[0])
        monkeypatch.setattr(run, "value_shares", lambda data, rows: ({"site": 0.25}, {"site": 0.1}))
        monkeypatch.setattr(run, "free_models", lambda: None)
        monkeypatch.setattr(run, "train_and_evaluate", found.train)
        monkeypatch.setattr(publishing, "export", found.export)
        monkeypatch.setattr(publishing, "_checkpoint", lambda home: str(model_of(home.file(""))))
        monkeypatch.setattr(publishing, "_manifest", manifest)
        monkeypatch.setattr(Workdir, "check_data", lambda self, data: None)
        monkeypatch.setattr(Workdir, "model_rows", lambda self, data: None)
        monkeypatch.setattr(Workdir, "schema", lambda self: Schema(Label("y"), (DenseFeature("x"),)))
        return found

    return replace


def begin(home):
    """A run, with reports, the data of an update before, and a served version; returns its directory."""
    shutil.rmtree(home, ignore_errors=True)
    write_run(home / "run", str(home / "run/updates/0007/data"), 0)
    (home / "run/updates/0007/data").mkdir(parents=True)
    (home / "run/updates/0007/data/rows").write_text("first")
    (home / "run/evaluation.json").write_text("of model 0")
    (home / "run/notes.txt").write_text("mine")
    (home / "exports/1").mkdir(parents=True)
    (home / "exports/1/saved_model.pb").write_text("0")
    return home / "run"


def contents(home):
    return {str(p.relative_to(home)): p.read_text() if p.is_file() else None for p in sorted(home.rglob("*"))}


def log(tmp_path, name="day.csv"):
    path = tmp_path / name
    path.write_text("y\n1\n")
    return str(path)


@pytest.mark.parametrize("losses, accepted", [((0.5, 0.4), True), ((0.5, 0.6), False), ((0.5, math.nan), False)])
def test_kills_change_nothing(tmp_path, stub, monkeypatch, losses, accepted):
    stubs, day, home, life = stub(losses), log(tmp_path), tmp_path / "home", Life()
    options = UpdateOptions(export=str(home / "exports"))
    before = contents(begin(home))
    whole = update(str(home / "run"), day, options).record
    expected = contents(home)
    assert whole.accepted == accepted and model_of(home / "run") == accepted and stubs.trained == 1
    names = set(contents(home / "run"))
    if accepted:
        kept = {name.replace("0007", "0008") for name in before if name != "evaluation.json"}
        assert names == kept | {"updates.jsonl"}
        assert (home / "exports/2/saved_model.pb").read_text() == "1"
    else:
        assert names == {*before, "updates.jsonl"} and not (home / "exports/2").exists()

    for where, name in ((os, "replace"), (os, "remove"), (shutil, "rmtree"), (RunRecords, "append"),
                        (run, "prepare"), (run, "train_and_evaluate"), (publishing, "export")):  # fmt: skip
        monkeypatch.setattr(where, name, life.mortal(getattr(where, name)))
    for moment in range(1000):
        life.left = math.inf
        begin(home)
        life.left, killed = moment, False
        try:
            update(str(home / "run"), day, options)
        except Killed:
            life.left, killed = math.inf, True
            assert (home / "exports/1/saved_model.pb").exists()
            update(str(home / "run"), day, options)
        assert contents(home) == expected, moment
        if not killed:
            break
    assert moment > (40 if accepted else 15)


def test_a_killed_move_is_told_by_other_programs(tmp_path, stub, monkeypatch):
    stub((0.5, 0.4))
    workdir, day = begin(tmp_path / "home"), log(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(run, "move_run", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            update(str(workdir), day)
    for use in (lambda home: home.config(), lambda home: home.claim()):
        with pytest.raises(FileNotFoundError, match=r"an update was interrupted .* same tfrs-dlrm update finish"):
            use(Workdir(str(workdir)))
    update(str(workdir), day)
    assert model_of(workdir) == 1 and Workdir(str(workdir)).config().train.warm_start == ""


def killed_in(step, monkeypatch, *arguments):
    """Ends an update in one of its functions."""
    with monkeypatch.context() as patch:
        patch.setattr(run, step, lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            update(*arguments)


def test_the_log_is_not_needed_once_it_is_prepared(tmp_path, stub, monkeypatch):
    """It was packed after the kill. An update whose model is accepted ends whatever the command is."""
    stubs = stub((0.5, 0.4, 0.3, 0.9))
    workdir, day = str(begin(tmp_path / "home")), log(tmp_path)
    for step in ("train_and_evaluate", "move_run"):
        killed_in(step, monkeypatch, workdir, day)
        os.utime(day, (1, 1))
    os.remove(day)
    assert update(workdir, day).record.accepted and model_of(workdir) == 1
    with pytest.raises(FileNotFoundError):
        update(workdir, day)
    killed_in("move_run", monkeypatch, workdir, log(tmp_path, "next.csv"))
    third = update(workdir, log(tmp_path, "third.csv"))
    assert model_of(workdir) == stubs.trained - 1 == 2 and third.record.decision == "rejected"


def test_another_working_directory_finds_everything_again(tmp_path, stub, monkeypatch):
    stub((0.5, 0.4, 0.6))
    (tmp_path / "elsewhere").mkdir()
    begin(tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    update("run", log(tmp_path))
    killed_in("score_run", monkeypatch, "run", log(tmp_path, "next.csv"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert not update(str(tmp_path / "home/run"), str(tmp_path / "next.csv")).record.accepted
    assert Path(Workdir(str(tmp_path / "home/run")).config().data.path, "rows").exists()


def test_a_lost_record_costs_no_data(tmp_path, stub):
    stub((0.5, 0.4, 0.3))
    workdir = begin(tmp_path / "home")
    update(str(workdir), log(tmp_path))
    (workdir / "updates.jsonl").unlink()
    assert update(str(workdir), log(tmp_path, "next.csv")).record.accepted
    assert model_of(workdir) == 2


def test_a_version_of_somebody_else_is_not_taken_for_the_new_one(tmp_path, stub, monkeypatch):
    stub((0.5, 0.4))
    workdir, day = str(begin(tmp_path / "home")), log(tmp_path)
    options, exports = UpdateOptions(export=str(tmp_path / "home/exports")), tmp_path / "home/exports"
    killed_in("export_once", monkeypatch, workdir, day, options)
    with pytest.raises(ValueError, match=r"is unfinished; finish it with its own --input and flags$"):
        update(workdir, day)
    shutil.copytree(exports / "1", exports / "2")
    assert update(workdir, day, options).record.version == 3
    assert [(exports / v / "saved_model.pb").read_text() for v in "123"] == ["0", "0", "1"]


def test_a_full_disk_changes_nothing(tmp_path, stub, monkeypatch):
    stub((0.5, 0.4))
    workdir, day = begin(tmp_path / "home"), log(tmp_path)
    before = contents(workdir)
    for name in ("prepare", "train_and_evaluate", "export_once"):
        with monkeypatch.context() as patch:

            def full(*args, **kwargs):
                raise OSError(28, "No space left on device")

            patch.setattr(run, name, full)
            with pytest.raises(OSError, match=r"the disk is full; .* run the same command again, which cont"):
                update(str(workdir), day, UpdateOptions(export=str(tmp_path / "home/exports")))
        kept = {k: v for k, v in contents(workdir).items() if not k.startswith(("updates/0008", "updates/unfinished"))}
        assert kept == before and sorted(os.listdir(tmp_path / "home/exports")) == ["1"], name
    assert update(str(workdir), day, UpdateOptions(export=str(tmp_path / "home/exports"))).record.version == 2
