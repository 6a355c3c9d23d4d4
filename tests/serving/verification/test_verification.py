"""A good bundle passes, each damaged one fails with a message about that; and what was measured is there."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import prepared_files
import pytest
import verification_bundles
from cases import matrix

from tfrs_dlrm.serving.bundle.manifest import BundleFeature
from tfrs_dlrm.serving.bundle.versions import newest_version
from tfrs_dlrm.serving.verification.subject import to_array
from tfrs_dlrm.serving.verification.verification_report import Check, VerificationReport
from tfrs_dlrm.serving.verification.verify import verify

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return verification_bundles.export(tmp_path_factory.mktemp("verified"))


@pytest.fixture
def bundle(exported, tmp_path):
    return Path(shutil.copytree(exported[0], tmp_path / "clicks/1"))


def failures(report):
    return {check.name: check.message for check in report.checks if check.status == "failed"}


@pytest.mark.process
def test_a_good_bundle_passes_in_a_process_without_pythons_tensorflow(exported, tmp_path):
    path, data = exported
    json_file = tmp_path / "report.json"
    program = (
        "import runpy, sys, os; leave = os._exit\n"
        "def check(code): assert 'tensorflow' not in sys.modules; leave(code)\n"
        "os._exit = check; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, "export/verify.py", path.parent, f"--data={data}", f"--json={json_file}"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads(json_file.read_text())
    assert report["passed"] and report["path"] == str(path)
    assert {check["status"] for check in report["checks"]} == {"ok"}
    assert [(row["signature"], row["size"]) for row in report["latency"]] == [
        *(("serving_default", n) for n in (1, 16, 256)), *(("rank", n) for n in (1, 100, 500))
    ]  # fmt: skip
    assert all(0 < row["p50"] <= row["p95"] <= row["p99"] for row in report["latency"])
    assert report["load_seconds"] > 0 and report["memory"][0] < report["memory"][1] <= report["peak_memory"]
    assert ran.stdout.rstrip().endswith("Passed.")
    table = ran.stdout.split("\n\n")[1].splitlines()
    assert len({line.index(" ok ") for line in table if " ok " in line}) == 1 and max(map(len, table)) <= 120


FAST = ("flipped_byte", "changed_score", "calls_python")


def test_a_good_bundle_passes(bundle):
    report = verify(str(bundle), latency=False)
    assert report.passed and not failures(report)


@pytest.mark.parametrize("damage", matrix(verification_bundles.DAMAGES, [vars(verification_bundles)[n] for n in FAST]))
def test_a_damaged_bundle_fails_with_a_message_about_that(bundle, damage):
    expected = damage(bundle)
    report = verify(str(bundle), latency=False)
    found = failures(report)
    assert not report.passed
    everything = " ".join(found.values())
    for name, text in expected.items():
        assert text in (found.get(name, "") if name else everything), found
    ended = {check.name: check.status for check in report.checks}
    assert not any(ended[name] == "ok" for name in expected if name)


@pytest.mark.slow
def test_a_warmup_record_that_is_broken_is_the_only_finding(bundle):
    verification_bundles.broken_warmup(bundle)
    assert list(failures(verify(str(bundle), latency=False))) == ["warmup"]


def test_a_graph_that_reads_files_is_not_loaded(bundle):
    verification_bundles.reads_files(bundle)
    report = verify(str(bundle), latency=False)
    (load,) = [check for check in report.checks if check.name == "load"]
    assert load == Check("load", "skipped", "needs operations") and report.load_seconds is None
    allowed = verify(str(bundle), latency=False, allowed=["ReadFile"])
    assert "operations" not in failures(allowed) and allowed.load_seconds


@pytest.mark.slow
def test_other_data_than_the_bundles_is_named(exported, bundle, tmp_path):
    data = shutil.copytree(exported[1], tmp_path / "data")
    lines = (data / "samples.jsonl").read_text().splitlines()
    (data / "samples.jsonl").write_text("\n".join(reversed(lines)))
    prepared_files.record(data)
    found = failures(verify(str(bundle), str(data), latency=False))
    assert list(found) == ["data"] and "those of the encoded rows" in found["data"]
    (data / "samples.jsonl").write_text(lines[0].replace('"price"', '"cost"'))
    prepared_files.record(data)
    found = failures(verify(str(bundle), str(data), latency=False))
    assert "other features than the bundle: cost, price" in found["data"]


@pytest.mark.process
def test_the_program_ends_with_1_where_a_check_failed_or_nothing_is_there(bundle, tmp_path):
    verification_bundles.stranger(bundle)
    command = [sys.executable, "export/verify.py", "--nolatency"]
    ran = subprocess.run([*command, bundle], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 1 and "FAILED: files. Do not serve it." in ran.stdout
    ran = subprocess.run([*command, tmp_path / "no"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 1 and "no is no directory" in ran.stderr


def test_the_newest_version_is_the_one_with_the_largest_number(tmp_path):
    for name in ("9", "10", "unfinished-11", "deploy"):
        (tmp_path / name).mkdir()
    assert newest_version(str(tmp_path)) == str(tmp_path / "10")
    with pytest.raises(ValueError, match="has no version"):
        newest_version(str(tmp_path / "deploy"))


def test_json_values_become_arrays_by_hand():
    number = BundleFeature("x", dtype="float32")
    np.testing.assert_array_equal(to_array([1.5, None], number), np.float32([1.5, np.nan]))
    ids = BundleFeature("x", dtype="int64", rank=2, missing=-1)
    np.testing.assert_array_equal(to_array([[3], None, [4, 5]], ids), np.int64([[3, -1], [-1, -1], [4, 5]]))
    text = BundleFeature("x", dtype="string", missing="")
    assert to_array(["ä", None], text).tolist() == ["ä".encode(), b""]
    assert to_array([], ids).shape == (0, 0)


def test_a_report_wraps_long_messages_under_their_column():
    report = VerificationReport("/b", [Check("files", "failed", "word " * 60), Check("a longer name", "ok", "fine")])
    lines = str(report).splitlines()
    assert lines[2].startswith("files          failed   word") and lines[3].startswith(" " * 24 + "word")
    assert lines[-1] == "FAILED: files. Do not serve it." and max(map(len, lines)) <= 120
