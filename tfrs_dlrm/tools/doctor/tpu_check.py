"""Checks that a TPU can be used, before TensorFlow is loaded.

If it cannot, TensorFlow's initialization raises NotFoundError, waits for minutes or ends the process; with a wrong
libtpu, its import does.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from typing import NamedTuple

from tfrs_dlrm.distribute.cluster import unreachable
from tfrs_dlrm.distribute.tf_config import is_host_port
from tfrs_dlrm.messages import install_command
from tfrs_dlrm.tools.doctor.machine import TPU_FILES, Machine, examine_machine
from tfrs_dlrm.tools.doctor.packages import TENSORFLOWS, Packages, examine_packages

_SCHEME = "grpc://"


class Problem(NamedTuple):
    """A problem that keeps a strategy from running here, and its remedy: sentences without a full stop."""

    what: str
    remedy: str


def remedies(problems: Iterable[Problem]) -> list[str]:
    """Returns the remedies of all problems, each once, in order."""
    return list(dict.fromkeys(p.remedy for p in problems))


def check_tpu(tpu: str) -> None:
    """Raises unless TensorFlow can be expected to find a TPU. Takes 3 seconds at most; does not load TensorFlow.

    Args:
      tpu: `local` for a TPU of this machine, the name of a Cloud TPU, or `grpc://HOST:PORT`; for several hosts
        `grpc://HOST:PORT,HOST:PORT`.

    Raises:
      ValueError: TensorFlow would find no TPU. The message says why, and what to do.
    """
    problems = tpu_problems(tpu, examine_machine(), examine_packages())
    if problems:
        wrong = [f"--tpu={tpu}: TensorFlow would find no TPU", *(p.what for p in problems)]
        advice = ["What to do:", *remedies(problems), "see the whole report: tfrs-dlrm doctor"]
        raise ValueError("\n  - ".join(wrong) + "\n" + "\n  - ".join(advice))


def tpu_problems(tpu: str, machine: Machine, packages: Packages) -> list[Problem]:
    """Returns all problems that keep TensorFlow from using a TPU; see `check_tpu`."""
    if tpu == "local":
        return _local_problems(machine, packages)
    if tpu.startswith(_SCHEME):
        problems = _address_problems(tpu.removeprefix(_SCHEME).split(","))
    elif tpu and not set(tpu) & set(":/, "):
        problems = _name_problems(tpu)
    else:
        remedy = "give --tpu=local, the name of a Cloud TPU, or --tpu=grpc://HOST:PORT"
        problems = [Problem(f"{tpu!r} is no TPU", remedy)]
    return problems + _version_problems(packages, "protobuf")


def libtpu_problems(packages: Packages) -> list[Problem]:
    """Returns the problems of libtpu, each version of which works with few versions of TensorFlow."""
    why = ", or `import tensorflow` of tensorflow-tpu aborts" if "libtpu" in packages.versions else ""
    return [p._replace(what=p.what + why) for p in _version_problems(packages, "libtpu")]


def _version_problems(packages: Packages, name: str) -> list[Problem]:
    misfit = packages.misfit(name, "tpu")
    return [Problem(misfit, f"pip install '{name}{packages.demand(name, 'tpu')}'")] if misfit else []


def _local_problems(machine: Machine, packages: Packages) -> list[Problem]:
    versions = [*libtpu_problems(packages), *_version_problems(packages, "protobuf")]
    wheel = _wheel_problems(packages)
    if any("[tpu]" in p.remedy for p in wheel):  # which installs the others too
        versions = [p._replace(remedy=wheel[0].remedy) for p in versions]
    return [*_device_problems(machine), *wheel, *versions]


def _device_problems(machine: Machine) -> list[Problem]:
    if not machine.tpus:
        what = f"this machine has no TPU: looked for {' and '.join('/' + f for f in TPU_FILES)}, and found neither"
        return [Problem(what, "run this on a TPU VM; here, --strategy=one_device works")]
    if machine.locked_tpus:
        what = f"this user may not read and write {', '.join(machine.locked_tpus)}"
        return [Problem(what, "run as a user who may, or as root")]
    return []


def _wheel_problems(packages: Packages) -> list[Problem]:
    """Returns the problems of tensorflow-tpu, which pip overwrites with tensorflow for tf-keras and TFRS."""
    last = f"pip install --force-reinstall --no-deps 'tensorflow-tpu{packages.demand('tensorflow-tpu', 'tpu')}'"
    both = f"{install_command('tpu')}, and after it {last}"
    found = " and ".join(packages.tensorflows)
    if misfit := packages.misfit("tensorflow-tpu", "tpu"):
        return [Problem(f"{misfit}; found {found or 'no TensorFlow at all'}", both)]
    version = packages.versions["tensorflow-tpu"]
    if any(packages.versions.get(name, version) != version for name in TENSORFLOWS):
        return [Problem(f"{found} are both installed, into one directory, and not of one version", both)]
    if packages.owner != "tensorflow-tpu":
        return [Problem(f"{found} are both installed, and the files in place are not those for TPUs", last)]
    misfit = packages.keras_misfit(version)
    return [Problem(misfit, both)] if misfit else []


def _address_problems(addresses: list[str]) -> list[Problem]:
    if wrong := [a for a in addresses if not is_host_port(a)]:
        remedy = "give --tpu=grpc://HOST:PORT, as in grpc://10.0.0.2:8470"
        return [Problem(f"{a!r} is not HOST:PORT", remedy) for a in wrong]
    remedy = "start the TPU, or correct its address or the firewall"
    return [Problem(f"{a} does not answer: {why}", remedy) for a, why in unreachable(addresses).items()]


def _name_problems(tpu: str) -> list[Problem]:
    """Returns the problems of a name: TensorFlow asks Google Cloud for its address, project and zone."""
    problems = []
    if not _importable("cloud_tpu_client") and not (_importable("googleapiclient") and _importable("oauth2client")):
        what = f"cloud-tpu-client is not installed, which finds the address of {tpu!r}"
        problems.append(Problem(what, "pip install cloud-tpu-client"))
    server = os.environ.get("GCE_METADATA_HOST") or os.environ.get("GCE_METADATA_IP") or "metadata.google.internal"
    for address, why in unreachable([server if ":" in server else f"{server}:80"]).items():
        what = f"the project and zone of {tpu!r} cannot be found out, since {address} does not answer: {why}"
        problems.append(Problem(what, "run this on Google Cloud, or give the address, --tpu=grpc://HOST:PORT"))
    return problems


def _importable(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
