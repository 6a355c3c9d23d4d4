"""The files of directories, and comparison of them."""

import filecmp
import os
from pathlib import Path


def tree(directory):
    """Returns the bytes of all files by their paths below the directory."""
    return {str(name): (Path(directory) / name).read_bytes() for name in files_below(directory)}


def files_below(directory: str | os.PathLike) -> list[Path]:
    """Lists the files at all levels, by their paths below the directory, in order."""
    return sorted(p.relative_to(directory) for p in Path(directory).rglob("*") if p.is_file())


def assert_same_bytes(a: Path, b: Path) -> None:
    """Makes sure that two directories have the same files, and each the same bytes."""
    assert files_below(a) == files_below(b)
    different = [str(f) for f in files_below(a) if not filecmp.cmp(a / f, b / f, shallow=False)]
    assert different == []
