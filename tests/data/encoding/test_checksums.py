"""A changed file of prepared data is named, wherever it is read."""

import json
import os
import shutil
from pathlib import Path

import click_log
import prepared_files
import pytest

from tfrs_dlrm.config import DataConfig
from tfrs_dlrm.data.encoding import checksums as checksums_module
from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.on_demand import ensure_prepared
from tfrs_dlrm.data.reading.dataset import dataset


@pytest.fixture
def data(tmp_path):
    return Path(click_log.make(str(tmp_path)))


def readers(data):
    yield lambda: PreparedManifest.load(str(data))
    yield lambda: ensure_prepared(DataConfig(path=str(data)))
    yield lambda: dataset(str(data), 64)


def test_the_manifest_has_a_checksum_of_each_file_that_encodes(data):
    assert set(PreparedManifest.load(str(data)).checksums) == set(prepared_files.ENCODING)


def test_the_fingerprint_is_that_of_vocabularies_and_statistics_also_of_data_without_checksums(data, tmp_path):
    earlier = tmp_path / "earlier"
    shutil.copytree(data, earlier)
    (earlier / "prepared.json").unlink()
    fingerprint = checksums_module.encoder_fingerprint(str(data))
    assert checksums_module.encoder_fingerprint(str(earlier)) == fingerprint
    prepared_files.change_a_character(earlier / "samples.jsonl")
    assert checksums_module.encoder_fingerprint(str(earlier)) == fingerprint
    (earlier / "vocabulary").joinpath("site.txt").write_text("a\n")
    checksums_module.write_checksums(str(earlier))
    assert checksums_module.encoder_fingerprint(str(earlier)) != fingerprint


@pytest.mark.parametrize("name", [*prepared_files.ENCODING, "prepared.json"])
def test_a_changed_character_is_named(data, name):
    before = (data / name).read_bytes()
    Encoder.load(str(data))  # whole at first: the process looks again
    prepared_files.change_a_character(data / name)
    for read in (*readers(data), *([lambda: Encoder.load(str(data))] if name != "prepared.json" else [])):
        with pytest.raises(ValueError, match=f"{name}: damaged or changed .* prepare the data again"):
            read()
    (data / name).write_bytes(before)
    PreparedManifest.load(str(data))


def test_half_a_vocabulary_and_a_missing_one_are_named(data):
    path = data / "vocabulary" / "site.txt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"site\.txt: damaged or changed"):
        PreparedManifest.load(str(data))
    path.unlink()
    with pytest.raises(ValueError, match=r"site\.txt: the file is missing; remove the directory"):
        PreparedManifest.load(str(data))


def test_data_of_an_earlier_version_load(data):
    plain = json.loads((data / "prepared.json").read_text())
    del plain["checksums"], plain["crc32c"]
    (data / "prepared.json").write_text(json.dumps(plain))
    prepared_files.change_a_character(data / "statistics.json")
    assert PreparedManifest.load(str(data)).checksums == {}
    Encoder.load(str(data))


def test_files_are_read_once_per_process(data, monkeypatch):
    PreparedManifest.load(str(data))
    monkeypatch.setattr(checksums_module, "crc32c", lambda path: pytest.fail(f"{path} is read again"))
    PreparedManifest.load(str(data))
    Encoder.load(os.path.join(str(data), ""))
