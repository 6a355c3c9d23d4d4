"""The programs: help, errors in one line, hints that work where they are printed, calls in one process."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import click_log
import pytest
from waiting import wait_for

from tfrs_dlrm.programs import commands, launch
from tfrs_dlrm.programs.commands import SCRIPTS
from tfrs_dlrm.programs.program_flags import ProgramFlags

ROOT = Path(__file__).parents[2]


def run(cwd, script, *arguments):
    return subprocess.run(
        [sys.executable, ROOT / script, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def program(name, *arguments):
        capfd.readouterr()
        return launch.call(name, arguments), *capfd.readouterr()

    return program


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["--config.train.bach_size=3"], 2, "config.train has no field 'bach_size'; did you mean 'batch_size'? It has"),
        (
            ["--config.model.name=deepfm", "--config.model.bottom_mlp=(4,)"],
            2,
            "config.model (deepfm) has no field 'bottom_mlp'; did you mean 'top_mlp'? It has name, embedding_dim",
        ),
        (["--config.model.name", "deep_fm"], 2, "config.model.name='deep_fm': choose one of dlrm, logistic_regression"),
        (["--config.train.batch_size=many"], 2, "--config.train.batch_size=many: invalid literal for int()"),
        (["--strategy=tpus"], 2, "--strategy=tpus: value should be one of <one_device|mirrored|"),
        (
            ["--config=quickstrat"],
            2,
            "--config: 'quickstrat' is neither a file nor a recipe; did you mean 'quickstart'?",
        ),
        (["quickstart"], 2, "unknown argument 'quickstart'; arguments look like --name=value"),
        (
            ["--config=default", "--config.data.path=nowhere"],
            1,
            "the directory holds no prepared data; make it with tfrs-dlrm prepare",
        ),
    ],
)
def test_train_says_what_is_wrong(call, tmp_path, arguments, code, message):
    exit_code, _, shown = call("train", *arguments)
    assert exit_code == code and message in shown and shown.startswith("error: ") and "Traceback" not in shown
    assert not list(tmp_path.iterdir())


def test_names_need_no_quotes():
    program = ProgramFlags("A program.")
    recipe = program.config("default")
    for given in ("user,item-1", "('user', 'item-1')"):
        program.parse(["program", "--config.model.name=final_mlp", f"--config.model.first_context={given}"])
        assert recipe.value.model.first_context == ("user", "item-1")


def test_evaluate_and_export_without_a_run(call):
    assert call("evaluate") == (2, "", "error: --workdir must be given; --help lists the flags\n")
    for name, arguments in (("evaluate", []), ("export", ["--output=out"])):
        shown = call(name, "--workdir=nothing", *arguments)
        assert shown == (1, "", "error: nothing: holds no run (no config.json); tfrs-dlrm train makes one\n")


def test_a_call_leaves_nothing_to_the_next(call):
    plan = ["plan", "--config=mlperf_dcn", "--strategy=mirrored", "--topology=8x80GB"]
    first = call(*plan)
    assert first[0] == 0, first
    changed = call(*plan, "--config.train.batch_size=8192", "--verbosity=0")
    assert changed[0] == 0 and changed[1] != first[1]
    assert call(*plan) == first


@pytest.mark.process
@pytest.mark.parametrize("name", SCRIPTS)
def test_help_lists_the_flags_of_the_program_alone(tmp_path, name):
    """A cold start of each program, as a script of a checkout."""
    done = run(tmp_path, SCRIPTS[name], "--help")
    assert (done.returncode, done.stderr) == (0, "") and f"{ROOT}/{SCRIPTS[name]}" in done.stdout
    assert "--alsologtostderr" not in done.stdout
    assert ("--config: A recipe (default: quickstart)" in done.stdout) == (name in ("train", "compare", "plan"))
    with_workdir = ("train", "update", "evaluate", "calibrate", "explain", "report", "export", "cluster")
    assert ("--workdir" in done.stdout) == (name in with_workdir)


def test_the_command_lists_its_programs(tmp_path):
    shown = subprocess.run([sys.executable, "-m", "tfrs_dlrm.cli"], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0 and re.findall(r"^  ([a-z-]+)  ", shown.stdout, re.MULTILINE) == list(SCRIPTS)
    wrong = subprocess.run([sys.executable, "-m", "tfrs_dlrm.cli", "trian"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (2, "error: tfrs-dlrm has no program 'trian'; did you mean 'train'?\n")


def test_hints_name_commands_that_work_where_they_are_printed(monkeypatch, tmp_path):
    hint = "no run; tfrs-dlrm train makes one, tfrs-dlrm input-service as well"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pytest"])
    assert commands.in_this_form(hint) == hint
    assert commands.command("evaluate", "--workdir=my runs/a") == "tfrs-dlrm evaluate '--workdir=my runs/a'"
    assert commands.process("train") == [sys.executable, "-m", "tfrs_dlrm.cli", "train"]

    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.setattr(sys, "argv", ["train/main.py"])
    monkeypatch.chdir(ROOT)
    shown = "no run; python train/main.py makes one, python train/input_service.py as well"
    assert commands.in_this_form(hint) == shown
    assert commands.process("train") == [sys.executable, str(ROOT / "train/main.py")]
    monkeypatch.chdir(ROOT / "train")
    monkeypatch.setattr(sys, "argv", ["main.py"])
    assert commands.command("export", "--workdir=a") == "python ../export/main.py --workdir=a"
    monkeypatch.setenv("PATH", "/nowhere")
    assert commands.command("export") == f"{sys.executable} ../export/main.py"

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tfrs-dlrm").touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "tfrs-dlrm")])
    monkeypatch.chdir(tmp_path)
    assert commands.command("plan") == "bin/tfrs-dlrm plan"
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert commands.command("plan") == "tfrs-dlrm plan"


@pytest.mark.process
def test_sigterm_writes_a_checkpoint_and_says_how_to_resume(tmp_path):
    data = click_log.make(str(tmp_path / "log"))
    command = [
        *(sys.executable, ROOT / "train/main.py", "--config=default", "--workdir=run"),
        *(f"--config.data.path={data}", "--config.model.bottom_mlp=(16,8)", "--config.model.embedding_dim=8"),
        *("--config.train.epochs=100000", "--config.train.patience=0", "--config.train.batch_size=64"),
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        metrics = tmp_path / "run" / "metrics.jsonl"
        wait_for(lambda: metrics.exists() or process.poll() is not None, "an evaluation")
        process.send_signal(signal.SIGTERM)
        shown, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 143
    step = re.search(r"stopped by a signal after step (\d+); the checkpoint is (\S+)\. The same command resumes", shown)
    assert step and (tmp_path / step[2] / "manifest.json").is_file() and step[2].endswith(f"step-{step[1]}")
