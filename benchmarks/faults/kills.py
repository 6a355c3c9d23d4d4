"""Programs killed at random moments and started again, and two at once: is the result what it should be?

make bench-kills                                             # ten tries of each stage
PYTHONPATH=benchmarks python -m faults.kills --tries=50 --stages=two_prepares,two_trains --seed=1
PYTHONPATH=benchmarks python -m faults.kills --stages=prepare,prepare_next --engine=spark

A try kills `prepare` (`prepare_next` on the data of a day before), `train`, `export`, `compare` or `update` one to
three times at random moments, with SIGKILL or SIGTERM, and starts the same command again each time. In the end prepared
data have to be equal byte for byte to those of an undisturbed run, a trained run in its metrics, its result and every
weight and slot, and a comparison in its summary. After each kill of an update, a whole version has to be served.
Exported versions have to match their manifests and give the same answers. Nothing unfinished may be left. After SIGTERM
the exit code has to be 143, or 0 if the work was done; a program that has not begun may end by the signal itself.

A try of two at once starts the program a second time, with the same or other settings, after a random delay: then the
directory has to hold the work of one of them, whole, and the other must have waited or must have been refused.

Each program is a process of its own, forked from one that has loaded TensorFlow and not used it yet, which saves the
seconds that loading takes.
"""

import collections
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NoReturn

import numpy as np
from absl import app, flags
from machine import describe, machine

from faults.kill_checks import check_bundles, check_comparison, check_prepared, check_run, check_served, check_update

STAGES = ["prepare", "prepare_next", "train", "export", "compare", "update"]
STAGES += ["two_prepares", "two_trains", "two_exports"]
_STAGES = flags.DEFINE_list("stages", STAGES, "What to try.")
_TRIES = flags.DEFINE_integer("tries", 10, "Tries of each stage.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments, delays and signals.")
_ENGINE = flags.DEFINE_enum("engine", "duckdb", ["duckdb", "spark"], "What prepares, where a preparation is killed.")
_KEEP = flags.DEFINE_bool("keep", False, "Whether to keep the directories of tries that failed.")
_OUTPUT = flags.DEFINE_string("output", "", "Where to write the results as JSON.")

_PROGRAMS = {"two_prepares": "prepare", "two_trains": "train", "two_exports": "export"}
_MODULES = {
    "prepare": "tfrs_dlrm.data.preparing.prepare",
    "prepare_next": "tfrs_dlrm.data.preparing.prepare",
    "train": "tfrs_dlrm.training.loop",
    "export": "tfrs_dlrm.serving.exporting.export",
    "compare": "tfrs_dlrm.tools.comparison",
    "update": "tfrs_dlrm.tools.update",
}
_FILES, _ROWS = 6, 1000
_KINDS = ("SIGKILL", "SIGTERM", "another", "the same")
_PATIENCE = 600.0  # in seconds, for a program that is not disturbed
_MODEL = ["--config=default", "--config.train.eval_every_steps=10", "--config.train.tensorboard=False"]
_MODEL += ["--config.train.batch_size=256", "--config.train.epochs=2"]


class Ended:
    """A program that has ended: its exit code, negative for a signal, what it printed, and the seconds it took."""

    def __init__(self, code: int, text: str, seconds: float):
        self.code, self.text, self.seconds = code, text, seconds


class Program:
    """A program in a process of its own.

    Args:
      arguments: its command line, without `tfrs-dlrm`.
      log: the file for what it prints.
    """

    def __init__(self, arguments: list[str], log: str):
        self._log, self._begun = log, time.monotonic()
        with open(log, "w"):
            pass
        self._pid = os.fork()
        if not self._pid:
            _become(arguments, log)

    def end(self, after: float = _PATIENCE, number: int = signal.SIGKILL) -> Ended:
        """Waits until the program has ended, and sends it a signal if that takes longer than `after` seconds."""
        code = self._wait(after)
        if code is None:
            os.kill(self._pid, number)
            code = self._wait(_PATIENCE)
        if code is None:
            os.kill(self._pid, signal.SIGKILL)
            raise RuntimeError(f"it did not end within {_PATIENCE:.0f} s after a signal")
        with open(self._log, encoding="utf-8") as f:
            return Ended(code, f.read(), time.monotonic() - self._begun)

    def _wait(self, seconds: float) -> int | None:
        deadline = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.005)


def _become(arguments: list[str], log: str) -> NoReturn:
    """Runs a program in this forked process, and ends it."""
    from tfrs_dlrm.programs import launch

    code = 99
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        launch.run(arguments[0], arguments[1:])
    except SystemExit as e:
        code = int(e.code or 0)
    except BaseException as e:
        print(f"Traceback: {type(e).__name__}: {e}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Stage:
    """A program to disturb.

    Args:
      name: one of `STAGES`.
      command: its command line, given the directory to write.
      other: one with other settings, for two at once.
      check: compares the directory with that of an undisturbed run; returns what is wrong, or nothing.
      begin: writes what is in the directory before the first start.
      always: looks at the directory after each kill; returns what is wrong, or nothing.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[str], list[str]],
        other: Callable[[str], list[str]],
        check: Callable[[str, str], str],
        begin: Callable[[str], None] = lambda path: None,
        always: Callable[[str], str] = lambda path: "",
    ):
        self.name, self.command, self.other, self.check = name, command, other, check
        self.begin, self.always = begin, always
        self.seconds, self.whole, self.whole_other = 0.0, "", ""

    def undisturbed(self, home: str) -> None:
        """Runs both command lines alone."""
        for other in (False, True):
            path = os.path.join(home, f"{self.name}{'-other' if other else ''}")
            self.begin(path)
            ended = Program((self.other if other else self.command)(path), f"{path}.log").end()
            if ended.code:
                raise RuntimeError(f"{self.name} failed without being disturbed:\n{ended.text[-3000:]}")
            if other:
                self.whole_other = path
            else:
                self.whole, self.seconds = path, ended.seconds


def kill_and_restart(stage: Stage, path: str, rng: random.Random) -> tuple[str, str]:
    """Kills a program one to three times, and lets it end; returns what happened, and what is wrong or nothing."""
    story = []
    stage.begin(path)
    for _ in range(rng.randint(1, 3)):
        number = rng.choice([signal.SIGKILL, signal.SIGTERM])
        ended = Program(stage.command(path), f"{path}.log").end(rng.random() * stage.seconds, number)
        story.append(f"{signal.Signals(number).name} at {ended.seconds:.1f} s")
        # Before it listens to signals, it ends as any process does, and has written nothing.
        early = ended.code == -number and not ended.text
        if number == signal.SIGTERM and ended.code not in (0, 143) and not early:
            return ", ".join(story), f"exit code {ended.code} after SIGTERM: {ended.text[-500:]}"
        if "Traceback" in ended.text:
            return ", ".join(story), f"a traceback after {signal.Signals(number).name}: {ended.text[-500:]}"
        if wrong := stage.always(path):
            return ", ".join(story), wrong
    ended = Program(stage.command(path), f"{path}.log").end()
    if ended.code:
        return ", ".join(story), f"exit code {ended.code} when started again: {ended.text[-500:]}"
    return ", ".join(story), stage.check(path, stage.whole) or leftovers(path)


def two_at_once(stage: Stage, path: str, rng: random.Random) -> tuple[str, str]:
    """Starts a program twice; returns what happened, and what is wrong or nothing."""
    same, delay = rng.random() < 0.5, rng.random() * stage.seconds * 1.1
    first = Program(stage.command(path), f"{path}.log")
    time.sleep(delay)
    second = Program((stage.command if same else stage.other)(path), f"{path}-second.log")
    a, b = first.end(), second.end()
    story = f"{'the same' if same else 'another'} {delay:.1f} s later: exit codes {a.code} and {b.code}"
    for ended in (a, b):
        if ended.code not in (0, 1) or "Traceback" in ended.text:
            return story, ended.text[-500:]
        if ended.code and not any(w in ended.text for w in ("in use by", "prepared differently", "holds a run with")):
            return story, f"refused for another reason: {ended.text[-500:]}"
    if a.code and b.code:
        return story, "both were refused"
    if stage.name == "export":
        if a.code or b.code or sorted(v for v in os.listdir(path) if v.isdecimal()) != ["1", "2"]:
            return story, f"not two versions: {sorted(os.listdir(path))}"
        return story, stage.check(path, stage.whole) or leftovers(path)
    whole = stage.whole if same or not a.code else stage.whole_other
    if not same and not a.code and not b.code:
        return story, "two programs with different settings both ended well"
    return story, stage.check(path, whole) or leftovers(path)


def leftovers(path: str) -> str:
    """Names what should be gone."""
    names = [os.path.join(root, name) for root, folders, files in os.walk(path) for name in (*folders, *files)]
    found = [n for n in names if "unfinished" in n or n.endswith((".lock", ".tmp")) or "/replaced-" in n]
    return f"left behind: {', '.join(found)}" if found else ""


def write_logs(home: str) -> tuple[str, str]:
    """Writes a schema and a log of several files; returns the schema's path, and the pattern of the files."""
    from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

    rng = np.random.default_rng(0)
    for i in range(2 * _FILES):
        name = f"log-{i}.csv" if i < _FILES else f"next-{i}.csv"
        with open(os.path.join(home, name), "w", encoding="utf-8") as f:
            f.write("clicked,price,site,user,tags\n")
            for _ in range(_ROWS):
                site, user, price = (
                    int(rng.zipf(1.3)) % 5000 + 100 * (i // _FILES),
                    rng.integers(0, 2000),
                    rng.exponential(5),
                )
                click = int(rng.random() < 1 / (1 + np.exp(1 - site % 3 - 0.1 * price)))
                f.write(f"{click},{price:.2f},s{site},u{user},t{user % 7} t{site % 11}\n")
    features = (
        CategoricalFeature("site"),
        CategoricalFeature("user", encoding="hash"),
        CategoricalFeature("tags", separator=" "),
    )
    dense = (DenseFeature("price", transform="standardize"),)
    path = os.path.join(home, "schema.json")
    Schema(Label("clicked"), dense, features, (Table("user", vocabulary_size=1000),)).save(path)
    return path, os.path.join(home, "log-*.csv")


def make_stages(home: str) -> dict[str, Stage]:
    """Writes a log, prepares it, and trains a run to export, as far as the stages need them."""
    schema, logs = write_logs(home)

    def prepare(share: float) -> Callable[[str], list[str]]:
        inputs = [f"--schema={schema}", f"--input={logs}", f"--eval_fraction={share}", f"--engine={_ENGINE.value}"]
        return lambda path: ["prepare", *inputs, f"--output={path}"]

    data, run = os.path.join(home, "data"), os.path.join(home, "run")

    def prepare_next(half_life: str) -> Callable[[str], list[str]]:
        inputs = [f"--base={data}", f"--input={os.path.join(home, 'next-*.csv')}", f"--half_life={half_life}"]
        inputs += [f"--engine={_ENGINE.value}"]
        return lambda path: ["prepare", *inputs, f"--output={path}"]

    model = [*_MODEL, f"--config.data.path={data}"]

    def train(seed: int) -> Callable[[str], list[str]]:
        return lambda path: ["train", *model, f"--config.train.seed={seed}", f"--workdir={path}"]

    def compare(path: str) -> list[str]:
        few = ["--models=dlrm,logistic_regression", "--seeds=2", "--budget=2", "--nomeasure"]
        return ["compare", *_MODEL, f"--data={data}", *few, f"--output={path}"]

    def export(path: str) -> list[str]:
        return ["export", f"--workdir={run}", f"--output={path}"]

    def begin_update(path: str) -> None:
        shutil.copytree(run, os.path.join(path, "run"))
        shutil.copytree(os.path.join(home, "served"), os.path.join(path, "served"))

    def update(epochs: int) -> Callable[[str], list[str]]:
        inputs = [f"--input={os.path.join(home, 'next-*.csv')}", f"--epochs={epochs}", "--tolerance=10", "--replay=0.2"]
        return lambda path: ["update", *inputs, f"--workdir={path}/run", f"--export={path}/served"]

    programs = {_PROGRAMS.get(name, name) for name in _STAGES.value}
    needed = [prepare(0.2)(data)] if programs - {"prepare"} else []
    needed += [train(0)(run)] if programs & {"export", "update"} else []
    needed += [export(os.path.join(home, "served"))] if "update" in programs else []
    for command in needed:
        ended = Program(command, f"{home}/log").end()
        if ended.code:
            raise RuntimeError(f"{command[0]} failed:\n{ended.text[-3000:]}")
    return {
        "prepare": Stage("prepare", prepare(0.2), prepare(0.3), check_prepared),
        "prepare_next": Stage("prepare_next", prepare_next("1"), prepare_next("2"), check_prepared),
        "train": Stage("train", train(0), train(1), check_run),
        "export": Stage("export", export, export, check_bundles),
        "compare": Stage("compare", compare, compare, check_comparison),
        "update": Stage("update", update(1), update(2), check_update, begin_update, check_served),
    }


def main(_) -> None:
    """Tries all stages, and prints a table."""
    if unknown := set(_STAGES.value) - set(STAGES):
        raise app.UsageError(f"--stages={','.join(unknown)}: choose from {','.join(STAGES)}")
    for name in {_PROGRAMS.get(name, name) for name in _STAGES.value} | {"prepare"}:
        importlib.import_module(_MODULES[name])
    home = tempfile.mkdtemp(prefix="kills-")
    print(describe(machine()), flush=True)
    stages, results, failed = make_stages(home), {}, collections.Counter()
    for name in _STAGES.value:
        stage = stages[_PROGRAMS.get(name, name)]
        if not stage.whole:
            stage.undisturbed(home)
            print(f"{stage.name}: {stage.seconds:.1f} s without being disturbed", flush=True)
        kinds: collections.Counter[str] = collections.Counter()
        for i in range(_TRIES.value):
            digest = hashlib.sha256(f"{_SEED.value} {name} {i}".encode()).digest()
            path = os.path.join(home, f"{name}-{i}")
            story, wrong = (two_at_once if "two_" in name else kill_and_restart)(
                stage, path, random.Random(int.from_bytes(digest[:8], "big"))
            )
            print(f"{name} {i + 1}/{_TRIES.value}: {story}: {wrong or 'as it should be'}", flush=True)
            kinds.update({kind: story.count(kind) for kind in _KINDS})
            failed[name] += bool(wrong)
            if not (wrong and _KEEP.value):
                shutil.rmtree(path, ignore_errors=True)
        results[name] = {"tries": _TRIES.value, "failed": failed[name], "seconds": stage.seconds, **kinds}
    print(f"\n{'stage':14} {'tries':>6} {'failed':>6}")
    for name, result in results.items():
        rest = ", ".join(f"{result[k]} {k}" for k in _KINDS if result[k])
        print(f"{name:14} {result['tries']:>6} {result['failed']:>6}   {rest}")
    if _OUTPUT.value:
        with open(_OUTPUT.value, "w", encoding="utf-8") as f:
            json.dump({"seed": _SEED.value, "machine": machine(), "stages": results}, f, indent=2)
    if not (_KEEP.value and sum(failed.values())):
        shutil.rmtree(home, ignore_errors=True)
    else:
        print(f"kept in {home}")
    sys.exit(1 if sum(failed.values()) else 0)


if __name__ == "__main__":
    app.run(main)
