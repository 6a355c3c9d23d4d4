"""Judges which strategies can run here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfrs_dlrm.distribute.placement import STRATEGIES
from tfrs_dlrm.distribute.tf_config import JOBS, tf_config_problems
from tfrs_dlrm.messages import install_command
from tfrs_dlrm.tools.doctor.machine import Machine
from tfrs_dlrm.tools.doctor.packages import Packages
from tfrs_dlrm.tools.doctor.tpu_check import Problem, libtpu_problems, tpu_problems


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A strategy, which can run here if it has no problems.

    Attributes:
      strategy: the name of the strategy.
      problems: the problems that keep it from running.
      on: where it would compute.
    """

    strategy: str
    problems: tuple[Problem, ...]
    on: str


def verdicts(
    machine: Machine, packages: Packages, tpu: str = "local", crash: str = "", devices: Sequence[str] = ()
) -> list[Verdict]:
    """Returns a verdict per strategy.

    Args:
      machine: see `examine_machine`.
      packages: see `examine_packages`.
      tpu: the TPU to look for; see `check_tpu`.
      crash: how loading TensorFlow failed; empty if it did not.
      devices: TensorFlow's names of the devices, if it was loaded; they are surer than device files.
    """
    gpus = sum("GPU:" in name for name in devices) if devices else len(machine.gpus)
    common = common_problems(packages)
    if crash and not common:
        common = [Problem(crash, "see the whole error: python -c 'import tfrs_dlrm, tensorflow'")]
    out = []
    for strategy in STRATEGIES:
        of_strategy = _cluster_problems(strategy, machine)
        if strategy == "tpu":
            of_strategy = tpu_problems(tpu, machine, packages)
        problems = tuple(dict.fromkeys([*common, *of_strategy]))
        out.append(Verdict(strategy, problems, _where(strategy, gpus, tpu)))
    return out


def common_problems(packages: Packages) -> list[Problem]:
    """Returns the problems that keep every strategy from running: packages that are missing or do not fit."""
    problems = []
    if not packages.python_demand.contains(packages.python, prereleases=True):
        what = f"Python {packages.python} does not fit; {packages.python_demand} is needed"
        problems.append(Problem(what, "make an environment with such a Python"))
    for name, demand in packages.demands[""].items():
        if name != "tensorflow" and (misfit := packages.misfit(name)):
            problems.append(Problem(misfit, f"pip install '{name}{demand}'"))
    problems += _tensorflow_problems(packages)
    if packages.owner == "tensorflow-tpu" and "libtpu" in packages.versions:
        problems += libtpu_problems(packages)
    return problems


def _tensorflow_problems(packages: Packages) -> list[Problem]:
    """Returns the problems of TensorFlow: one of its distributions must be complete."""
    demand, found = packages.demand("tensorflow"), packages.tensorflow
    if not packages.tensorflows:
        return [Problem("TensorFlow is not installed", f"pip install 'tensorflow{demand}'")]
    if not found:
        what = f"the files of {' and '.join(packages.tensorflows)} are damaged or mixed"
        return [Problem(what, f"pip install --force-reinstall --no-deps 'tensorflow{demand}'")]
    if not demand.contains(found, prereleases=True):
        return [Problem(f"TensorFlow {found} does not fit; {demand} is needed", f"pip install 'tensorflow{demand}'")]
    misfit, minor = packages.keras_misfit(found), ".".join(found.split(".")[:2])
    return [Problem(misfit, f"pip install 'tf-keras=={minor}.*'")] if misfit else []


def warnings(machine: Machine, packages: Packages, devices: Sequence[str] = ()) -> list[str]:
    """Returns warnings of problems that keep no strategy from running; `devices` as in `verdicts`."""
    out = []
    if machine.gpus and devices and not any("GPU:" in name for name in devices):
        out.append(
            f"this machine has {len(machine.gpus)} GPU{'s' * (len(machine.gpus) > 1)}, and TensorFlow sees none:"
            f" {install_command('gpu')} brings the CUDA libraries, and CUDA_VISIBLE_DEVICES must not hide them"
        )
    if "tfrs-dlrm" not in packages.versions:
        out.append(f"this package is not installed, so the versions it needs are unknown: {install_command()}")
    skips = "TPU_SKIP_MDS_QUERY" in machine.environment
    if packages.owner == "tensorflow-tpu" and "libtpu" in packages.versions and not machine.tpus and not skips:
        out.append(
            "without a TPU, `import tensorflow` of tensorflow-tpu asks the metadata server of Google Cloud, and waits 8"
            " minutes if none answers: set TPU_SKIP_MDS_QUERY=1"
        )
    return out


def _cluster_problems(strategy: str, machine: Machine) -> list[Problem]:
    if strategy not in JOBS:
        return []
    trial = f"for a trial here, tfrs-dlrm cluster --strategy={strategy}"
    text = machine.environment.get("TF_CONFIG")
    if not text:
        return [Problem("TF_CONFIG is not set", f"set it in each process of the cluster; {trial}")]
    return [Problem(p, f"correct TF_CONFIG; {trial}") for p in tf_config_problems(text, strategy)]


def _where(strategy: str, gpus: int, tpu: str) -> str:
    """Says where a strategy would compute."""
    if strategy == "one_device":
        return "the first GPU" if gpus else "the CPU"
    if strategy == "mirrored":
        return f"{gpus} GPU{'s' * (gpus > 1)}" if gpus else "logical CPUs, which share the cores: for trials"
    return f"TPU {tpu}" if strategy == "tpu" else "the cluster of TF_CONFIG"
