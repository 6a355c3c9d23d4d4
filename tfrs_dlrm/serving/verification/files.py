"""The files of a bundle: all there, whole, and no others."""

from __future__ import annotations

import os

from tfrs_dlrm.serving.bundle.manifest import MANIFEST, described, files_of, read_manifest
from tfrs_dlrm.serving.verification.subject import Subject
from tfrs_dlrm.serving.verification.verification_report import Failed

_NEEDED = {"features": list, "signatures": dict, "files": dict, "tolerance": (int, float)}
_AGAIN = "copy the bundle again or export the model again"


def find_version(path: str) -> str:
    """The directory of a version: `path`, or the newest version in it.

    Raises:
      ValueError: there is none.
    """
    if not os.path.isdir(path):
        raise ValueError(f"{path} is no directory; give a bundle's version, or the directory of its versions")
    if any(os.path.exists(os.path.join(path, name)) for name in ("saved_model.pb", "assets.extra", "variables")):
        return os.path.abspath(path)
    versions = [name for name in os.listdir(path) if name.isdecimal() and os.path.isdir(os.path.join(path, name))]
    if not versions:
        raise ValueError(
            f"{path} is no bundle and has no version (a directory called 1, 2, ...), as tfrs-dlrm export makes"
        )
    return os.path.abspath(os.path.join(path, max(versions, key=int)))


def check_manifest(subject: Subject) -> str:
    """Reads bundle.json."""
    manifest = read_manifest(subject.path)
    for key, kind in _NEEDED.items():
        if not isinstance(manifest.get(key), kind):  # type: ignore[arg-type]
            raise Failed(f"{MANIFEST}: {key!r} is missing or of the wrong kind: {_AGAIN}")
    subject.manifest = manifest
    return f"{manifest.get('model')} {manifest.get('name')!r}, {len(manifest['features'])} features"


def check_files(subject: Subject) -> str:
    """Compares the files with those that bundle.json lists."""
    listed = subject.manifest["files"]
    there = set(files_of(subject.path)) - {MANIFEST}
    problems, size = [], 0
    for name, wanted in sorted(listed.items()):
        if name not in there:
            problems.append(f"{name} is missing")
            continue
        found = described(os.path.join(subject.path, name))
        size += found["bytes"]
        if found["bytes"] != wanted["bytes"]:
            problems.append(f"{name} has {found['bytes']} bytes instead of {wanted['bytes']}")
        elif found["sha256"] != wanted["sha256"]:
            problems.append(f"{name} was changed: its SHA-256 is another")
    problems += [f"{name} is there but not listed in {MANIFEST}" for name in sorted(there - listed.keys())]
    if problems:
        raise Failed(f"{'; '.join(problems)}: {_AGAIN}")
    return f"{len(listed)} files, {size:,} bytes, every SHA-256 as listed"
