"""Checksums of the files that encode: schema, statistics, samples and vocabularies.

A changed value in one of them changes the rows that values mean, and nothing else would notice. `prepared.json` has the
checksums of a prepared directory, and `checksums.json` those of the copy in a run. Data of earlier versions have none.
"""

from __future__ import annotations

import hashlib
import json
import os

from tfrs_dlrm.data.encoding.statistics import STATISTICS_FILE
from tfrs_dlrm.data.encoding.vocabulary import VOCABULARY_DIR
from tfrs_dlrm.schema import SCHEMA_FILE
from tfrs_dlrm.stores.files import crc32c, read_json, write_json

PREPARED_FILE, SAMPLES_FILE, CHECKSUMS_FILE = "prepared.json", "samples.jsonl", "checksums.json"
# By directory, the state of the files when they were found to be whole.
_WHOLE: dict[str, dict[str, tuple[int, ...]]] = {}


def checksums(directory: str) -> dict[str, str]:
    """Computes the CRC32C, in hexadecimal, of each file in a directory that encodes."""
    names = SCHEMA_FILE, STATISTICS_FILE, SAMPLES_FILE, *files_in(directory, VOCABULARY_DIR, ".txt")
    return {name: crc32c(path) for name in names if os.path.isfile(path := os.path.join(directory, name))}


def files_in(directory: str, part: str, ending: str) -> list[str]:
    """Lists the files of DIRECTORY/PART with an ending, in order, by their paths below the directory."""
    path = os.path.join(directory, part)
    names = sorted(os.listdir(path)) if os.path.isdir(path) else []
    return [f"{part}/{name}" for name in names if name.endswith(ending)]


def recorded_checksums(directory: str) -> dict[str, str]:
    """Reads the checksums of a prepared directory or of its copy in a run; empty if it was written without.

    Raises:
      ValueError: the file that holds them is damaged.
    """
    for name, key in ((CHECKSUMS_FILE, ""), (PREPARED_FILE, "checksums")):
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            content = read_json(path)
            found = content.get(key, {}) if key and isinstance(content, dict) else content
            if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
                raise ValueError(
                    f"{path}: damaged: it has no checksums by file; restore it, or prepare and train again"
                )
            return found
    return {}


def write_checksums(directory: str) -> None:
    """Writes DIRECTORY/checksums.json, for a copy without `prepared.json`."""
    write_json(os.path.join(directory, CHECKSUMS_FILE), checksums(directory))


def check_files(directory: str, advice: str = "remove the directory, and prepare the data again") -> None:
    """Makes sure that the files of a local directory that encode are as they were written.

    The files are read once per process, and again if one has changed since.

    Args:
      directory: a prepared directory, or its copy in a run.
      advice: what to do if a file is not as it was written.

    Raises:
      ValueError: a file is damaged, changed or missing; the message names it.
    """
    recorded = recorded_checksums(directory)
    state = {name: _state(os.path.join(directory, name)) for name in recorded}
    key = os.path.abspath(directory)
    if _WHOLE.get(key) == state:
        return
    for name, expected in recorded.items():
        check_file(os.path.join(directory, name), expected, advice)
    _WHOLE[key] = state


def check_file(path: str, expected: str, advice: str) -> None:
    """Makes sure that a local file is as it was written.

    Args:
      path: the file.
      expected: its CRC32C, in hexadecimal.
      advice: what to do if it is not.

    Raises:
      ValueError: the file is damaged, changed or missing; the message names it.
    """
    if not os.path.isfile(path):
        raise ValueError(f"{path}: the file is missing; {advice}")
    if (found := crc32c(path)) != expected:
        raise ValueError(
            f"{path}: damaged or changed since it was written: its CRC32C is {found}, and was {expected}; {advice}"
        )


def encoder_fingerprint(directory: str) -> str:
    """Returns a digest of vocabularies and statistics: equal ones encode equally under equal schemas.

    The digest is that of the recorded checksums, so call `check_files` first. Data of earlier versions have none, and
    their files are read.
    """
    found = recorded_checksums(directory) or checksums(directory)
    encoding = {n: crc for n, crc in found.items() if n == STATISTICS_FILE or n.startswith(f"{VOCABULARY_DIR}/")}
    return hashlib.sha256(json.dumps(encoding, sort_keys=True).encode()).hexdigest()


def _state(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ino
