import json

import doctor_site
import pytest

from tfrs_dlrm.messages import install_command
from tfrs_dlrm.tools.doctor.machine import Machine
from tfrs_dlrm.tools.doctor.packages import examine_packages
from tfrs_dlrm.tools.doctor.verdicts import verdicts, warnings

CPUS = {"tensorflow_tpu": "", "libtpu": ""}


@pytest.fixture
def judge(tmp_path):
    def judge(machine, crash="", **versions):
        packages = examine_packages(doctor_site.tpu_site(tmp_path, **versions))
        return {v.strategy: v for v in verdicts(machine, packages, crash=crash)}

    return judge


def running(found):
    return [strategy for strategy, verdict in found.items() if not verdict.problems]


def tf_config(*jobs):
    cluster = {job: [f"{job}:1"] for job in jobs}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": jobs[0], "index": 0}})}


def test_a_machine_without_anything_special(judge):
    found = judge(Machine(), **CPUS)
    assert running(found) == ["one_device", "mirrored"]
    assert found["one_device"].on == "the CPU" and "for trials" in found["mirrored"].on
    (problem,) = found["multi_worker"].problems
    assert problem.what == "TF_CONFIG is not set"
    assert problem.remedy.endswith("tfrs-dlrm cluster --strategy=multi_worker")


@pytest.mark.parametrize(
    "machine, strategies",
    [
        (Machine(gpus=("/dev/nvidia0", "/dev/nvidia1")), ["one_device", "mirrored"]),
        (Machine(environment=tf_config("worker")), ["one_device", "mirrored", "multi_worker"]),
        (
            Machine(environment=tf_config("chief", "worker", "ps")),
            ["one_device", "mirrored", "parameter_server"],  # there is no chief among workers that step together
        ),
        (Machine(environment={"TF_CONFIG": "{}"}), ["one_device", "mirrored"]),
    ],
)
def test_what_gpus_and_tf_config_make_possible(judge, machine, strategies):
    found = judge(machine, **CPUS)
    assert running(found) == strategies
    assert found["mirrored"].on.startswith("2 GPUs" if machine.gpus else "logical CPUs")


def test_gpus_that_tensorflow_does_not_see(tmp_path):
    machine = Machine(gpus=("/dev/nvidia0", "/dev/nvidia1"))
    packages = examine_packages(doctor_site.tpu_site(tmp_path, **CPUS))
    for devices, on, told in (
        (["/device:CPU:0"], "the CPU", 1),
        (["/device:CPU:0", "/device:GPU:0"], "the first GPU", 0),
    ):
        assert verdicts(machine, packages, devices=devices)[0].on == on
        assert len([w for w in warnings(machine, packages, devices) if "TensorFlow sees none" in w]) == told


def test_a_tpu_vm(judge):
    assert running(judge(Machine(tpus=("/dev/accel0",)))) == ["one_device", "mirrored", "tpu"]


@pytest.mark.parametrize(
    "versions, problem, remedy",
    [
        ({"tf_keras": ""}, "tf-keras is not installed; <2.22,>=2.16 is needed", "pip install 'tf-keras<2.22,>=2.16'"),
        (
            {"tf_keras": "2.19.0"},
            "tf-keras 2.19.0 does not go with TensorFlow 2.20.0",
            "pip install 'tf-keras==2.20.*'",
        ),
        ({"tensorflow": ""}, "TensorFlow is not installed", "pip install 'tensorflow<2.22,>=2.16'"),
        ({"tensorflow": "2.15.0"}, "TensorFlow 2.15.0 does not fit", "pip install 'tensorflow<2.22,>=2.16'"),
        ({"numpy": "1.0"}, "numpy 1.0 does not fit; >=1.26 is needed", "pip install 'numpy>=1.26'"),
    ],
)
def test_what_stops_everything(judge, versions, problem, remedy):
    found = judge(Machine(), **CPUS | versions)
    assert running(found) == []
    (first, *_) = found["one_device"].problems
    assert problem in first.what and remedy in first.remedy


def test_a_libtpu_with_which_the_import_aborts_stops_everything(judge):
    found = judge(Machine(), libtpu="0.0.42.1")
    assert running(found) == []
    assert "or `import tensorflow` of tensorflow-tpu aborts" in found["one_device"].problems[0].what


def test_so_does_a_crash(judge):
    found = judge(Machine(), crash="loading TensorFlow ends in SIGSEGV", **CPUS)
    assert running(found) == [] and found["mirrored"].problems[0].what == "loading TensorFlow ends in SIGSEGV"


def test_warns_of_the_wheel_for_tpus_without_one(tmp_path):
    packages = examine_packages(doctor_site.tpu_site(tmp_path))
    (warning,) = warnings(Machine(), packages)
    assert "set TPU_SKIP_MDS_QUERY=1" in warning
    assert not warnings(Machine(tpus=("/dev/accel0",)), packages)
    assert not warnings(Machine(environment={"TPU_SKIP_MDS_QUERY": "1"}), packages)


def test_warns_where_nothing_says_which_versions_are_needed(tmp_path):
    doctor_site.install(tmp_path, "tensorflow", "2.20.0", size=1)
    (warning,) = warnings(Machine(), examine_packages([str(tmp_path)]))
    assert warning.startswith("this package is not installed") and warning.endswith(install_command())


def test_a_mixture_of_two_tensorflows_stops_everything(tmp_path):
    path = doctor_site.tpu_site(tmp_path)
    (tmp_path / "tensorflow" / "libtensorflow_cc.so.2").write_bytes(b"x")
    (problem,) = verdicts(Machine(), examine_packages(path))[0].problems
    assert problem.what == "the files of tensorflow 2.20.0 and tensorflow-tpu 2.20.0 are damaged or mixed"
    assert problem.remedy == "pip install --force-reinstall --no-deps 'tensorflow<2.22,>=2.16'"
