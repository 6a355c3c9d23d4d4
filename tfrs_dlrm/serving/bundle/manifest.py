"""The manifest of a bundle: what it holds and what can be asked of it, for whoever has no TensorFlow."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

MANIFEST = os.path.join("assets.extra", "bundle.json")
REFERENCE = os.path.join("assets.extra", "reference.jsonl")
WARMUP = os.path.join("assets.extra", "tf_serving_warmup_requests")
FORMAT = 1


def write_manifest(path: str, content: dict[str, Any]) -> None:
    """Writes assets.extra/bundle.json of the version at `path`, with the size and SHA-256 of every other file."""
    files = {name: described(os.path.join(path, name)) for name in files_of(path) if name != MANIFEST}
    manifest = os.path.join(path, MANIFEST)
    with open(manifest + ".tmp", "w", encoding="utf-8") as f:
        f.write(json.dumps({"format": FORMAT, **content, "files": files}, indent=2) + "\n")
    os.replace(manifest + ".tmp", manifest)


def read_manifest(path: str) -> dict[str, Any]:
    """The manifest of the version at `path`.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is no JSON, or of another format.
    """
    file = os.path.join(path, MANIFEST)
    if not os.path.isfile(file):
        raise FileNotFoundError(f"{file} is missing; tfrs-dlrm export writes bundles that have it")
    with open(file, encoding="utf-8") as f:
        try:
            manifest = json.load(f)
        except json.JSONDecodeError as e:
            raise ValueError(f"{file}: not valid JSON: {e}") from e
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise ValueError(f"{file}: format {found!r}; this program reads format {FORMAT}")
    return manifest


def files_of(path: str) -> list[str]:
    """All files of the version, below `path`."""
    found = []
    for directory, _, names in os.walk(path):
        found += [os.path.relpath(os.path.join(directory, name), path) for name in names]
    return sorted(found)


def described(file: str) -> dict[str, Any]:
    """The size and SHA-256 of a file."""
    with open(file, "rb") as f:
        digest = hashlib.file_digest(f, "sha256") if hasattr(hashlib, "file_digest") else hashlib.sha256(f.read())
    return {"bytes": os.path.getsize(file), "sha256": digest.hexdigest()}
