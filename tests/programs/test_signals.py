"""Ctrl-C and SIGTERM end each program in one line, with what is saved and what to do next."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
from waiting import wait_for

from tfrs_dlrm.programs import launch, signals
from tfrs_dlrm.training.callbacks import StepCounter, StopOnSignal

ROOT = Path(__file__).parents[2]
PROGRAMS = [
    (
        "prepare",
        [f"--schema={__file__}", "--input=log.csv", "--output=my out"],
        "tfrs_dlrm.data.preparing.prepare.prepare",
        "What is finished is kept in my out: the same command resumes.",
    ),
    (
        "export",
        ["--workdir=run", "--output=out"],
        "tfrs_dlrm.serving.exporting.export.export",
        "out has no new version: the same command exports again.",
    ),
    (
        "evaluate",
        ["--workdir=run"],
        "tfrs_dlrm.training.evaluation.evaluate_run",
        "Nothing was written: the same command scores again.",
    ),
    (
        "train",
        [],
        "tfrs_dlrm.training.loop.train_and_evaluate",
        "The same command resumes the run from its last checkpoint, or begins it.",
    ),
    ("compare", [], "tfrs_dlrm.tools.comparison.compare", "Finished runs are kept: the same command resumes"),
    ("explain", ["--workdir=run"], "tfrs_dlrm.tools.explain.explain_run.explain_run", "Nothing was written"),
    ("report", ["--workdir=run"], "tfrs_dlrm.tools.report.findings.examine", "Nothing was written"),
    ("profile", ["--data=day"], "tfrs_dlrm.tools.profile.examine.examine", "Nothing was written"),
    ("infer", ["--input=log.csv", "--output=s.json"], "tfrs_dlrm.data.raw.infer.infer_schema", "No schema was written"),
    ("synthesize", ["--output=out"], "tfrs_dlrm.data.synthetic.synthetic.generate", "The log in out is not complete"),
    ("plan", [], "tfrs_dlrm.tools.planner.plan_run", ""),
]


@pytest.mark.parametrize("number, name, code", [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)])
@pytest.mark.parametrize(("program", "arguments", "work", "text"), PROGRAMS, ids=[p[0] for p in PROGRAMS])
def test_one_line(monkeypatch, tmp_path, capsys, program, arguments, work, text, number, name, code):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tfrs_dlrm.training.groups.Grouping", lambda *_: None)
    monkeypatch.setattr("tfrs_dlrm.schema.Schema.load", lambda _: None)
    monkeypatch.setattr(work, lambda *_, **__: os.kill(os.getpid(), number))
    before = signal.getsignal(signal.SIGINT)
    assert launch.call(program, arguments) == code
    assert capsys.readouterr().err.startswith(f"Stopped by {name}. {text}".rstrip())
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_that_a_library_made_of_the_signal_is_no_error(monkeypatch, tmp_path, capsys):
    def work(*_, **__):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise ValueError("something else") from None

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tfrs_dlrm.data.raw.infer.infer_schema", work)
    assert launch.call("infer", ["--input=log.csv", "--output=s.json"]) == 143
    assert capsys.readouterr().err == "Stopped by SIGTERM. No schema was written: the same command looks again.\n"


def test_a_second_signal_while_training_is_the_one_that_ended_it(monkeypatch, tmp_path, capsys):
    """The first asks for a checkpoint; the second, of whichever kind, ends the program as that signal does."""

    def work(*_, **__):
        with StopOnSignal(StepCounter(0), lambda: False, lambda: "checkpoint") as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.received
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tfrs_dlrm.training.loop.train_and_evaluate", work)
    assert launch.call("train", []) == 143
    assert capsys.readouterr().err.startswith("Stopped by SIGTERM. ")


def test_a_second_signal_inside_a_call_of_a_library_is_seen_as_well(monkeypatch):
    """The first was noticed; what it ends is inside such a call when the second comes."""
    monkeypatch.setattr(signals, "SECONDS_IN_A_CALL", 0.5)
    barrier, c, inside = ctypes.create_string_buffer(64), ctypes.CDLL(None), threading.Event()
    c.pthread_barrier_init(barrier, None, 2)
    with signals.ends_by_signal(lambda _: inside.is_set() and c.pthread_barrier_wait(barrier)) as found:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: not found.noticed.is_set(), "the next signal has to be noticed by itself")
        inside.set()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(KeyboardInterrupt):
            c.pthread_barrier_wait(barrier)  # until `stuck` is called


@pytest.mark.process
@pytest.mark.parametrize("folder", ["d\u00e4ten \u6f22"])
def test_an_ascii_locale_with_other_names_and_values(tmp_path, folder):
    """And what is printed to go on with works in a shell."""
    home = tmp_path / folder
    home.mkdir()
    rows = "".join(f"{i % 2},{i}.5,s\u00e4ite{i % 5}\n" for i in range(200))
    (home / "l\u00f6g.csv").write_text("clicked,preis,s\u00efte\n" + rows, encoding="utf-8")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONIOENCODING", None)

    def shell(command):
        ran = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, timeout=300)
        assert ran.returncode == 0, ran.stderr.decode()
        return ran.stdout.decode("utf-8").splitlines()

    start = f"{sys.executable} -m tfrs_dlrm.cli"
    shown = shell(f"{start} infer --input='{folder}/l\u00f6g.csv' --output='{folder}/schema.json' --label=clicked")
    (next_command,) = [line.strip() for line in shown if "tfrs-dlrm prepare" in line]
    shown = shell(next_command.replace("tfrs-dlrm", start) + f" '--output={folder}/prepared data'")
    (next_command,) = [line.strip() for line in shown if "tfrs-dlrm train" in line]
    assert f"'--config.data.path={folder}/prepared data'" in next_command
    values = "".join(p.read_text(encoding="utf-8") for p in (home / "prepared data/vocabulary").iterdir())
    assert "s\u00e4ite1\n" in values


@pytest.mark.parametrize(
    ("program", "arguments", "work"),
    [
        ("evaluate", ["--workdir=run", "--output=file/out"], "tfrs_dlrm.training.groups.Grouping"),
        ("evaluate", ["--workdir=run", "--json=file/a.json"], "tfrs_dlrm.training.groups.Grouping"),
        ("explain", ["--workdir=run", "--output=file/out"], "tfrs_dlrm.tools.explain.explain_run.explain_run"),
        ("report", ["--workdir=run", "--output=file/a.html"], "tfrs_dlrm.tools.report.findings.examine"),
        ("profile", ["--data=day", "--output=file/a.html"], "tfrs_dlrm.tools.profile.examine.examine"),
        ("export", ["--workdir=run", "--output=file/out"], "tfrs_dlrm.serving.exporting.export.load_run"),
        ("compare", ["--output=file/out"], "tfrs_dlrm.tools.comparison.fitted_contestants.ensure_prepared"),
        ("synthesize", ["--output=file/out"], "tfrs_dlrm.data.synthetic.synthetic.PlantedModel"),
        ("infer", ["--input=log.csv", "--output=file/s.json"], "tfrs_dlrm.data.raw.infer.infer_schema"),
        ("plan", ["--output=file/plan.json"], "tfrs_dlrm.tools.planner.plan_run"),
        ("verify", ["bundle", "--json=file/a.json"], "tfrs_dlrm.serving.verification.verify.verify"),
    ],
    ids=str,
)
def test_an_output_that_cannot_be_written_is_found_before_the_work(
    monkeypatch, tmp_path, capsys, program, arguments, work
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(work, lambda *_, **__: pytest.fail("the work comes first"))
    assert launch.call(program, arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: file") and "cannot be written: " in error and "choose another place" in error


# A barrier that waits for a second thread: no signal interrupts it, as with a call that waits for other processes.
STUCK = """
import ctypes
import tfrs_dlrm.data.raw.infer
from tfrs_dlrm.programs import launch

def wait(*_, **__):
    barrier, c = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    c.pthread_barrier_init(barrier, None, 2)
    print("inside", flush=True)
    c.pthread_barrier_wait(barrier)

tfrs_dlrm.data.raw.infer.infer_schema = wait
launch.run("infer", ["--input=log.csv", "--output=s.json"])
"""


@pytest.mark.process
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_inside_a_call_of_a_library_ends_as_well(tmp_path, number, code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", STUCK], cwd=tmp_path, env=environment, **pipes)
    try:
        assert process.stdout.readline() == "inside\n"
        process.send_signal(number)
        assert process.wait(300) == code
        assert "No schema was written: the same command looks again." in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_a_signal_while_an_object_is_destroyed_is_not_lost():
    """Python drops what a handler raises then."""

    class Thing:
        pass

    before = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), signals.ends_by_signal(lambda _: os._exit(1)) as found:
        thing = Thing()
        watched = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
        del thing
        assert watched() is None
        wait_for(lambda: False, "the signal")
    assert found.exit_code == 143 and sys.unraisablehook is before
