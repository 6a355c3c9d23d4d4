"""Which strategies can run here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfrs_dlrm.distribute.cluster import tf_config_problems
from tfrs_dlrm.distribute.placement import STRATEGIES
from tfrs_dlrm.installation import install_command
from tfrs_dlrm.tools.doctor.machine import Machine
from tfrs_dlrm.tools.doctor.packages import Packages
from tfrs_dlrm.tools.doctor.tpu_check import Problem, libtpu_problems, tpu_problems


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a strategy can run here: it can where there are no problems.

    Attributes:
      strategy: one of `tfrs_dlrm.distribute.placement.STRATEGIES`.
      problems: that keep it from running.
      on: where it would compute.
    """

    strategy: str
    problems: tuple[Problem, ...]
    on: str


def verdicts(
    machine: Machine, packages: Packages, tpu: str = "local", crash: str = "", devices: Sequence[str] = ()
) -> list[Verdict]:
    """One on each strategy.

    Args:
      machine: see `examine_machine`.
      packages: see `examine_packages`.
      tpu: which one; see `check_tpu`.
      crash: how the loading of TensorFlow failed, if it was tried and did.
      devices: TensorFlow's names of what it sees, where it was loaded; it knows better than the files of the machine.
    """
    gpus = sum("GPU:" in name for name in devices) if devices else len(machine.gpus)
    common = common_problems(packages)
    if crash and not common:
        common = [Problem(crash, "look at all of it: python -c 'import tfrs_dlrm, tensorflow'")]
    out = []
    for strategy in STRATEGIES:
        own = _cluster_problems(strategy, machine)
        if strategy == "tpu":
            own = tpu_problems(tpu, machine, packages)
        problems = tuple(dict.fromkeys([*common, *own]))
        out.append(Verdict(strategy, problems, _where(strategy, gpus, tpu)))
    return out


def common_problems(packages: Packages) -> list[Problem]:
    """What keeps every strategy from running: packages that are missing or do not fit, or not together."""
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
    """Any of the distributions that bring TensorFlow will do, but one has to be whole."""
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
    """What does not keep anything from running, but is a trap; `devices` as in `verdicts`."""
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
            " minutes where there is none: set TPU_SKIP_MDS_QUERY=1"
        )
    return out


def _cluster_problems(strategy: str, machine: Machine) -> list[Problem]:
    if strategy not in ("multi_worker", "parameter_server"):
        return []
    trial = f"for a trial here, tfrs-dlrm cluster --strategy={strategy}"
    text = machine.environment.get("TF_CONFIG")
    if not text:
        return [Problem("TF_CONFIG is not set", f"set it in each process of the cluster; {trial}")]
    return [Problem(p, f"mend TF_CONFIG; {trial}") for p in tf_config_problems(text, strategy)]


def _where(strategy: str, gpus: int, tpu: str) -> str:
    """Where a strategy would compute."""
    if strategy == "one_device":
        return "the first GPU" if gpus else "the CPU"
    if strategy == "mirrored":
        return f"{gpus} GPU{'s' * (gpus > 1)}" if gpus else "logical CPUs, which share the cores: for trials"
    return f"TPU {tpu}" if strategy == "tpu" else "the cluster of TF_CONFIG"
