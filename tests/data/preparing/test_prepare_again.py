"""`prepare` killed and started again, and two of them at once."""

import json
import subprocess
import sys
import threading

import pytest
from file_tree import assert_same_bytes, files_below
from mixed_log import SCHEMA, frame, spoil
from waiting import wait_for

from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores.lock import InUseError

KILLER = """
import os, pathlib, random, signal, sys, time
import tfrs_dlrm
from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.preparing import prepare as module
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.schema import Schema
import pyarrow.parquet as pq

schema, log, plain, killed, seed, base = sys.argv[1:]
sources.BLOCK_BYTES, prepare_job.BLOCKS_PER_SEGMENT = 1500, 2
rng = random.Random(int(seed))


def start(output):  # before anything of TensorFlow has run, so that a fork is safe
    child = os.fork()
    if child == 0:
        on = {"base": base, "half_life": 2} if base else {}
        module.prepare(Schema.load(schema), [log], output, eval_fraction=0.2, bad_rows="quarantine", **on)
        os._exit(0)
    return child


def finished():
    return {p: p.stat().st_mtime_ns for k in ("counted", "encoded") for p in pathlib.Path(killed).glob(f"*/{k}/*.json")}


assert os.waitstatus_to_exitcode(os.waitpid(start(plain), 0)[1]) == 0
segments = len(list(pathlib.Path(plain, "train").iterdir()))
assert segments > 12
moments = sorted(rng.sample(range(2 * segments - 6), 4))
kept, kills = {}, 0
for moment in moments:
    child = start(killed)
    while len(finished()) <= moment and not os.path.exists(os.path.join(killed, "prepared.json")):
        time.sleep(0.001)
    time.sleep(rng.random() * 0.01)
    os.kill(child, signal.SIGKILL)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break  # it was faster than this loop
    kills += 1
    assert not os.path.exists(os.path.join(killed, "prepared.json"))
    now = finished()
    assert {p: now[p] for p in kept} == kept, "finished work was done again"
    kept = now
    for shard in pathlib.Path(killed).glob("*/*.parquet"):
        pq.read_table(shard)
assert kills >= 2, "killed at " + str(moments)
assert os.waitstatus_to_exitcode(os.waitpid(start(killed), 0)[1]) == 0
"""


@pytest.mark.process
@pytest.mark.parametrize("on_a_base", [False, True])
def test_killed_and_started_again_it_ends_with_the_same_bytes(tmp_path, moments, on_a_base):
    frame(600).to_csv(tmp_path / "log.csv", index=False)
    spoil(tmp_path / "log.csv")
    # Without the multi-valued features, which take half the time.
    schema = Schema(SCHEMA.label, SCHEMA.dense, SCHEMA.one_hot, SCHEMA.tables[:2], SCHEMA.weight)
    schema.save(tmp_path / "schema.json")
    base = str(tmp_path / "base") if on_a_base else ""
    if on_a_base:
        prepare(schema, frame(200, seed=1), base)
    seed = moments.randrange(1 << 16)
    paths = [str(tmp_path / n) for n in ("schema.json", "log.csv", "plain", "killed")]
    run = subprocess.run(
        [sys.executable, "-c", KILLER, *paths, str(seed), base],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, f"seed {seed}: {run.stderr[-2000:]}"
    assert_same_bytes(tmp_path / "plain", tmp_path / "killed")
    assert PreparedManifest.load(str(tmp_path / "plain")).bad_rows == 4  # nothing reads the weights


class AnotherMeanwhile:
    """A progress callback: in the second pass it calls something once."""

    def __init__(self, action):
        self._action = action

    def __call__(self, stage, done, total, rows):
        if stage == "encode" and self._action:
            action, self._action = self._action, None
            action()


def test_a_second_preparation_of_other_settings_is_refused_and_harms_nothing(tmp_path):
    frame().to_csv(tmp_path / "log.csv", index=False)
    log, output, errors = [str(tmp_path / "log.csv")], str(tmp_path / "out"), []

    def other():
        for seed in (0, 1):  # before and after the first has marks of finished segments
            with pytest.raises(InUseError) as e:
                prepare(SCHEMA, log, output, eval_fraction=0.5, seed=seed)
            errors.append(str(e.value))

    prepare(SCHEMA, log, str(tmp_path / "alone"), eval_fraction=0.2)
    prepare(SCHEMA, log, output, eval_fraction=0.2, progress=AnotherMeanwhile(other))
    assert len(errors) == 2 and all(f"{output}: in use by this process on" in error for error in errors)
    assert files_below(tmp_path / "out") == files_below(tmp_path / "alone")
    for name in files_below(tmp_path / "out"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


def test_a_second_preparation_of_the_same_settings_waits_and_finds_it_done(tmp_path, caplog):
    frame().to_csv(tmp_path / "log.csv", index=False)
    log, output, results = [str(tmp_path / "log.csv")], str(tmp_path / "out"), []
    passes = []

    def again():
        results.append(prepare(SCHEMA, log, output, progress=lambda *seen: passes.append(seen)))

    threads = [threading.Thread(target=again) for _ in range(3)]

    def progress(stage, done, total, rows):
        if stage == "encode" and not done:
            for thread in threads:
                thread.start()
            wait_for(lambda: caplog.text.count(f"{output}: waiting for this process") == 3, "all wait for the first")

    first = prepare(SCHEMA, log, output, progress=progress)
    for thread in threads:
        thread.join()
    assert results == [first] * 3 and not passes
    assert not list((tmp_path / "out").glob(".*")) and not (tmp_path / "out" / "unfinished").exists()


def stopped(inputs, output):
    """Prepares as far as to the second pass."""

    def stop(stage, done, total, rows):
        if stage == "encode":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        prepare(SCHEMA, inputs, str(output), progress=stop)


def test_what_a_killed_run_left_half_written_goes_away(tmp_path):
    frame().to_csv(tmp_path / "log.csv", index=False)
    log, output = [str(tmp_path / "log.csv")], tmp_path / "out"

    stopped(log, output)
    for name in ("statistics.json.0123abcd.tmp", "train/part-00000-00000.parquet.0123abcd.tmp", ".tfrs-dlrm.lock"):
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_text("half")
    prepare(SCHEMA, log, str(output))
    prepare(SCHEMA, log, str(tmp_path / "alone"))
    assert files_below(output) == files_below(tmp_path / "alone")


def test_what_an_earlier_version_counted_is_refused(tmp_path):
    frame().to_csv(tmp_path / "log.csv", index=False)
    log, output = [str(tmp_path / "log.csv")], tmp_path / "out"
    stopped(log, output)
    (output / "schema.json").unlink()  # which ends the first pass
    for path in (output / "unfinished" / "counted").glob("*.json"):
        mark = json.loads(path.read_text())
        path.write_text(json.dumps(mark | {"moments": [part[:3] for part in mark["moments"]]}))
    with pytest.raises(ValueError, match=r"another version .* began this preparation .* remove the directory"):
        prepare(SCHEMA, log, str(output))
