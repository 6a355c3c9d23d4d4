"""The files of prepared data of `click_log` that encode, how to change them, and how to change them on purpose."""

import dataclasses
import json
from pathlib import Path

from tfrs_dlrm.data.encoding.checksums import checksums
from tfrs_dlrm.data.preparing.manifest import PreparedManifest

ENCODING = ("schema.json", "statistics.json", "samples.jsonl", "vocabulary/site.txt", "vocabulary/tags.txt")


def change_a_character(path) -> None:
    """Replaces the last digit by another one, which leaves the file well-formed."""
    content = bytearray(Path(path).read_bytes())
    at = max(i for i, byte in enumerate(content) if chr(byte).isdigit())
    content[at] = ord("1") + (content[at] - ord("0") + 1) % 9
    Path(path).write_bytes(content)


def record(directory) -> None:
    """Takes the files of a prepared directory for those that were prepared, whatever they are."""
    plain = json.loads(Path(directory, "prepared.json").read_text())
    manifest = PreparedManifest.of(plain, "prepared.json")
    dataclasses.replace(manifest, checksums=checksums(str(directory))).save(str(directory))
