"""Kills a process before the n-th of its operations on files while it saves, and looks at what another one finds.

python tests/support/killed_save.py DIRECTORY N [N...]    # a line of JSON for each N, and one without a kill
"""

import json
import os
import shutil
import signal
import sys
import types
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrs_dlrm.checkpoint import Checkpoints, directory, run_checkpoints
from tfrs_dlrm.checkpoint import table_rows as rows
from tfrs_dlrm.checkpoint.contents import CheckpointContents
from tfrs_dlrm.checkpoint.restore import restore_contents
from tfrs_dlrm.embeddings.storage import LogicalTable
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema

SCHEMA = Schema(Label("y"), categorical=(CategoricalFeature("a"),))


def make(root: str) -> tuple[Checkpoints, tf.Variable, tf.Variable]:
    rows.PART_BYTES = 200
    table, weight = tf.Variable(tf.zeros([20, 4])), tf.Variable(0.0)
    embeddings = types.SimpleNamespace(fetch=lambda: None, load=lambda: None)
    stored, weights = {"tables/a": LogicalTable.of(table)}, tf.train.Checkpoint(w=weight)
    contents = CheckpointContents(SCHEMA, stored, weights, True, tf.distribute.get_strategy(), embeddings)
    run_checkpoints.CheckpointContents.of = lambda *_: contents
    return Checkpoints(None, f"{root}/checkpoints", f"{root}/best", keep=1), table, weight


def saves(root: str, kill_at: int) -> int:
    """Step 1, which is the best, then, counting operations, 2, and 3, which is the best again."""
    checkpoints, table, weight = make(root)
    os.makedirs(root)
    count = -(10**9)

    def hook(module, name):
        real = getattr(module, name)

        def counted(*args, **kwargs):
            nonlocal count
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return real(*args, **kwargs)

        setattr(module, name, counted)

    for name in ("rename", "link", "fsync", "makedirs", "mkdir", "rmdir", "unlink", "replace", "listdir"):
        hook(os, name)
    for name in ("SaveV2", "MergeV2Checkpoints"):
        hook(tf.raw_ops, name)
    with checkpoints:
        for step, best in ((1, True), (2, False), (3, True)):
            if step == 2:
                count = 0
            table.assign(tf.fill([20, 4], float(step)))
            weight.assign(step)
            Path(root, "begun").write_text(str(step))
            checkpoints.save(step, best)
            checkpoints.wait()
    return count


def found(root: str) -> dict:
    checkpoints, table, weight = make(root)
    path = checkpoints.restore()
    values = {*np.unique(table.numpy()).tolist(), float(weight)}
    names = {name: sorted(os.listdir(f"{root}/{name}")) for name in ("checkpoints", "best")}
    best = next(iter(directory.steps(f"{root}/best").values()))
    restore_contents(checkpoints._contents, best)
    of_best = {*np.unique(table.numpy()).tolist(), float(weight)}
    checkpoints.save(7, best=True)
    checkpoints.wait()
    after = {name: sorted(os.listdir(f"{root}/{name}")) for name in ("checkpoints", "best")}
    return {
        "begun": int(Path(root, "begun").read_text()),
        "restored": int(os.path.basename(path).removeprefix("step-")),
        "values": sorted(values),
        "best": int(os.path.basename(best).removeprefix("step-")),
        "best_values": sorted(of_best),
        "names": names,
        "after": after,
    }


def forked(function, *args):
    """In a child, which TensorFlow begins anew in: this process only imports it. None where it was killed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, json.dumps(function(*args)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as f:
        text = f.read()
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, text
    return json.loads(text) if text else None


if __name__ == "__main__":
    for n in [*map(int, sys.argv[2:]), -1]:
        root = os.path.join(sys.argv[1], str(n))
        operations = forked(saves, root, n)
        print(json.dumps({"n": n, "operations": operations, **forked(found, root)}), flush=True)
        shutil.rmtree(root)
