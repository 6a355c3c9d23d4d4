"""The names of checkpoints on disk, which they have only while they are whole.

step-40                      a checkpoint
unfinished-step-60-0a1b2c3d  one that is being written or removed; nobody reads it, and the next run removes it
replaced-step-40             the former step-40, for the moment in which another one takes its place
"""

from __future__ import annotations

import os
import re
import secrets
import shutil

from tfrs_dlrm.stores.files import to_disk

_STEP = re.compile(r"step-(\d+)$")
_UNFINISHED, _REPLACED = "unfinished-", "replaced-"


def steps(directory: str) -> dict[int, str]:
    """The paths of the checkpoints in a directory by their steps, the newest first.

    Raises:
      ValueError: they are of a version of this package that wrote other ones.
    """
    names = os.listdir(directory) if os.path.isdir(directory) else []
    if "checkpoint" in names:
        raise ValueError(
            f"{directory}: holds checkpoints of an older version of tfrs_dlrm, which this one cannot read; choose"
            " another --workdir, or remove this one"
        )
    found = {int(m.group(1)): os.path.join(directory, m.group(0)) for m in map(_STEP.match, names) if m}
    return dict(sorted(found.items(), reverse=True))


def step_path(directory: str, step: int) -> str:
    """Returns the path of the checkpoint of a step."""
    return os.path.join(directory, f"step-{step}")


def begin(path: str) -> str:
    """Makes an empty directory, to which `publish` gives its name once it is written."""
    unfinished = _unfinished(path)
    os.makedirs(unfinished)
    return unfinished


def publish(unfinished: str, path: str) -> None:
    """Gives a whole checkpoint its name, and takes it from the one that has it, if any; on disk when this returns."""
    to_disk(unfinished)
    replaced = _prefixed(path, _REPLACED)
    if os.path.isdir(path):
        os.rename(path, replaced)
    os.rename(unfinished, path)
    to_disk(os.path.dirname(os.path.abspath(path)), alone=True)
    if os.path.isdir(replaced):
        remove(replaced)


def publish_copy(whole: str, path: str) -> None:
    """Gives a copy of a checkpoint a name; the two share their bytes where the file system can do that."""
    unfinished = begin(path)
    try:
        shutil.copytree(whole, unfinished, copy_function=link, dirs_exist_ok=True)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    publish(unfinished, path)


def files_below(path: str) -> dict[str, int]:
    """Returns the size in bytes of each file of a checkpoint, by its path in it, in order."""
    found = {}
    for place, _, names in os.walk(path):
        for name in names:
            file = os.path.join(place, name)
            found[os.path.relpath(file, path)] = os.path.getsize(file)
    return dict(sorted(found.items()))


def link(source: str, target: str) -> None:
    """Gives a file that never changes another name, or copies it where the file system has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def remove(path: str) -> None:
    """Removes a checkpoint, which has lost its name before its first file is gone."""
    unfinished = _unfinished(path)
    os.rename(path, unfinished)
    shutil.rmtree(unfinished)


def tidy(directory: str) -> None:
    """Removes files that interrupted runs left."""
    for name in os.listdir(directory) if os.path.isdir(directory) else []:
        path = os.path.join(directory, name)
        if name.startswith(_REPLACED) and not os.path.exists(former := os.path.join(directory, name[len(_REPLACED) :])):
            os.rename(path, former)
        elif name.startswith((_UNFINISHED, _REPLACED)):
            shutil.rmtree(path, ignore_errors=True)  # servers of a cluster may still write what a killed run asked for


def _unfinished(path: str) -> str:
    # Each time another name: see the comment in `tidy`.
    return f"{_prefixed(path, _UNFINISHED)}-{secrets.token_hex(4)}"


def _prefixed(path: str, prefix: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, prefix + name)
