"""The parts of `make bench-paths` that need no other library: the files, the judge, and what a phase took."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import paths
    import process_tree

    return paths, process_tree


def test_the_csv_has_the_rows_of_the_raw_log_and_a_header(benchmarks, tmp_path):
    paths, _ = benchmarks
    (tmp_path / "log.tsv").write_text("1\t" + "\t" * 12 + "7\t" * 26 + "\n" + "0" + "\t3" * 39 + "\n")
    paths.write_csv(str(tmp_path / "log.tsv"), str(tmp_path / "log.csv"))
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert header.split(",")[:2] == ["label", "I1"] and header.split(",")[-1] == "C26"
    assert rows[1] == "0" + ",3" * 39 and rows[0].startswith("1,,,") and rows[0].count(",") == 39


def test_predictions_are_judged_and_must_be_of_all_rows(benchmarks, tmp_path):
    paths, _ = benchmarks
    test = tmp_path / "test.csv"
    test.write_text("label,I1\n1,2\n0,\n1,3\n")
    found = paths.judged(np.array([1, 0, 1]), np.array([0.5, 0.25, 0.2]), str(test))
    assert found["auc"] == pytest.approx(0.5)  # one of the two pairs is in order
    assert found["log_loss"] == pytest.approx(-np.log(0.5 * 0.75 * 0.2) / 3)
    with pytest.raises(ValueError, match=r"2 predictions of rows with 1 clicks; .* has 3 rows with 2 clicks"):
        paths.judged(np.array([1, 0]), np.array([0.5, 0.25]), str(test))


def test_a_phase_has_the_seconds_and_the_peak_between_two_ends(benchmarks):
    _, process_tree = benchmarks
    held = [(0.0, 1, 0.0), (1.0, 5, 1.0), (2.0, 3, 3.0), (3.0, 2, 5.0)]
    uses = process_tree.by_phase([process_tree.Sample(*s) for s in held], {"read": 1.5, "train": 2.5, "save": 2.6})
    assert [tuple(use) for use in uses.values()] == [
        (1.5, pytest.approx(2.0), 5),
        (1.0, pytest.approx(2.0), 5),  # what was held when it began counts too
        (pytest.approx(0.1), pytest.approx(0.2), 3),
    ]


def test_medians_are_of_whole_paths_and_prediction_is_not_counted(benchmarks):
    paths, _ = benchmarks

    def run(seconds, auc):
        use = {"seconds": seconds, "cpu": 2 * seconds, "peak": 100 * seconds}
        phases = {name: use for name in paths.COUNTED} | {"predict": {"seconds": 99.0, "cpu": 99.0, "peak": 99_000}}
        sizes = {"saved_bytes": 3, "table_rows": 4}
        return {"library": "fuxictr", "phases": phases, "auc": auc, "log_loss": 0.5} | sizes

    found = paths.by_library([run(1.0, 0.7), run(2.0, 0.8), run(6.0, 0.75)])
    assert list(found) == ["fuxictr"]
    one = found["fuxictr"]
    assert (one["seconds"], one["cpu"], one["peak"], one["auc"]) == (8.0, 16.0, 200.0, 0.75)
    assert one["spread"] == [4.0, 24.0] and one["phases"]["predict"]["seconds"] == 99.0


def test_the_memory_of_a_tree_is_that_of_its_processes(benchmarks):
    _, process_tree = benchmarks
    child = "data = b'x' * 200_000_000; print('ready', flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        watch = process_tree.TreeWatch(process.pid, interval=0.01)
        while not watch.samples:
            time.sleep(0.01)
        process.communicate(b"\n")
        watch.stop()
    finally:
        process.kill()
    assert 200e6 < max(sample.held for sample in watch.samples) < 300e6
