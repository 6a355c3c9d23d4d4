"""TF_CONFIG: everything that can be wrong with it is named before anything waits, with advice that works."""

import json
import re

import pytest

from tfrs_dlrm.distribute import cluster as cluster_module
from tfrs_dlrm.distribute.tf_config import JOBS, tf_config_problems, unused_cluster
from tfrs_dlrm.programs import launch

CLUSTER = {"chief": ["a:1"], "worker": ["b:1", "c:65535"], "ps": ["10.0.0.2:2222"]}
WORKERS = {"worker": ["a:1", "b:1"]}
PS, MULTI = "parameter_server", "multi_worker"


def config(cluster=CLUSTER, job="worker", index=1, **more):
    return json.dumps({"cluster": cluster, "task": {"type": job, "index": index}, **more})


@pytest.mark.parametrize(
    ("text", "strategies"),
    [
        *((config(CLUSTER, *task), [PS]) for task in (("chief", 0), ("worker", 1), ("worker", "1"), ("ps", 0))),
        (config(WORKERS), [MULTI]),
        (config({"worker": ["a:1"]}, index=0), [MULTI]),
        (config(WORKERS, environment="cloud", rpc_layer="grpc", trial="7"), [MULTI]),
        (config(CLUSTER, "evaluator", 0), []),
    ],
)
def test_nothing_is_wrong_with_these(text, strategies):
    for strategy in ("", *strategies):
        assert tf_config_problems(text, strategy) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "TF_CONFIG is not valid JSON: Expecting property name"),
        ("[" * 100_000, "TF_CONFIG is not valid JSON: maximum recursion depth"),
        ("[]", "TF_CONFIG has no cluster; it looks like {"),
        ("{}", "TF_CONFIG has no cluster"),
        ('{"cluster": ["a:1"]}', "TF_CONFIG has no cluster"),
        (config({"worker": "a:1"}), "cluster has worker='a:1'; a list of HOST:PORT is needed"),
        (config({"worker": []}), "cluster has worker=[]; a list of HOST:PORT is needed"),
        (config({"worker": {"0": "a:1"}}), "cluster has worker={'0': 'a:1'}; a list of HOST:PORT is needed"),
        (config({"worker": ["a"]}, index=0), "worker 'a'; HOST:PORT is needed"),
        (config({"worker": ["a:0"]}, index=0), "worker 'a:0'; HOST:PORT is needed, with a port of 1 to 65535"),
        (config({"worker": ["a:65536"]}, index=0), "worker 'a:65536'; HOST:PORT"),
        (config({"worker": ["a:٣"]}, index=0), "worker 'a:٣'; HOST:PORT"),
        (config({"worker": ["grpc://a:1"]}, index=0), "worker 'grpc://a:1'; HOST:PORT"),
        (config({"worker": [1]}, index=0), "worker 1; HOST:PORT"),
        (config({"worker": ["a:1", "b:1"], "ps": ["a:1"]}), "TF_CONFIG names a:1 more than once; give each process"),
        (config(job="trainer"), "task is of type 'trainer'; the cluster has chief, worker, ps, so give one of these"),
        (config(job=["worker"]), "task is of type ['worker']"),
        *(
            (config(index=index), f"task has index {index!r}; TF_CONFIG lists 2 of type worker, counted from 0")
            for index in (2, -1, "two", "", "²", 1.0, True, None, [1])
        ),
        (json.dumps({"cluster": CLUSTER}), "TF_CONFIG has task=None; this process' type and index are needed"),
        (json.dumps({"cluster": CLUSTER, "task": {"type": "ps"}}), "TF_CONFIG has task={'type': 'ps'}"),
        (config(rpc_layer="grpc+verbs"), "rpc_layer='grpc+verbs'; TensorFlow has grpc only, so leave it out"),
    ],
)
def test_says_what_is_wrong_with_the_form(text, problem):
    (found,) = tf_config_problems(text)
    assert problem in found
    assert any(problem.split("; it looks like")[0] in p for p in tf_config_problems(text, PS))


# Jobs that do not fit a strategy, and what is said of them.
UNFIT = [
    (PS, config(WORKERS), "has no chief and no ps, which parameter_server needs; it has worker. Add"),
    (PS, config({"chief": ["a:1"], "worker": ["b:1"]}, index=0), "has no ps, which parameter_server needs"),
    (PS, config({"chief": ["a:1"], "ps": ["b:1"]}, "ps", 0), "has no worker, which parameter_server needs"),
    (PS, config({"ps": ["a:1"], "worker": ["b:1"]}, "ps", 0), 'has no chief, which parameter_server needs; it has ps'),
    (PS, config({**CLUSTER, "evaluator": ["e:1"]}), "has an evaluator, and parameter_server has only chief and worker"),
    (PS, config({**CLUSTER, "evaluator": ["e:1"]}, "evaluator", 0), "this process is an evaluator in TF_CONFIG"),
    (PS, config(CLUSTER, "evaluator", 0), "the chief evaluates while it trains. Start no process for it"),
    (PS, config({"master" if k == "chief" else k: v for k, v in CLUSTER.items()}), "has a master"),
    (PS, config({"master" if k == "chief" else k: v for k, v in CLUSTER.items()}, "master", 0), "has a master"),
    (PS, config({**CLUSTER, "master": ["m:1"]}), "take it out in every process, since there is a chief"),
    (PS, config({**CLUSTER, "chief": ["a:1", "z:1"]}), "has 2 of type chief; leave one, and make the others workers"),
    (PS, config({**CLUSTER, "trainer": ["t:1"]}), "has a trainer, and parameter_server has only"),
    (MULTI, config({"chief": ["a:1"], "worker": ["b:1"]}, index=0), "has a chief, and multi_worker has only worker"),
    (MULTI, config({"chief": ["a:1"], "worker": ["b:1"]}, "chief", 0), "has a chief"),
    (MULTI, config({"chief": ["a:1"]}, "chief", 0), "has a chief"),
    (MULTI, config({"master": ["a:1"], "worker": ["b:1"]}, "master", 0), "has a master"),
    (MULTI, config({"chief": ["c:1"], "master": ["m:1"], "worker": ["b:1"]}, "chief", "0"), "has a master"),
    (MULTI, config({**WORKERS, "evaluator": ["e:1"]}), "has an evaluator"),
    (MULTI, config(WORKERS, "evaluator", 0), "the first worker evaluates while it trains"),
    (MULTI, config(CLUSTER), "has chief, worker, ps, which parameter_server needs; give --strategy"),
    (MULTI, config({**WORKERS, "ps": ["p:1"]}), "has a ps, and multi_worker has only worker: take it out"),
]  # fmt: skip


@pytest.mark.parametrize(("strategy", "text", "problem"), UNFIT)
def test_jobs_that_do_not_fit_and_that_the_advice_works(strategy, text, problem):
    problems = tf_config_problems(text, strategy)
    assert any(problem in p for p in problems), problems
    for found in problems:
        assert tf_config_problems(*follow(found, strategy, text)) == [], found


def follow(advice, strategy, text):
    """TF_CONFIG and strategy as a reader makes them who follows a piece of advice."""
    found = json.loads(text)
    if corrected := re.search(r"TF_CONFIG of this process, give (\{.*\})$", advice):
        fixed = json.loads(corrected[1])
        # The same process as before: its address did not move.
        assert address(fixed) == address(found)
        return corrected[1], strategy
    if other := re.search(r"give --strategy=(\w+)", advice):
        return text, other[1]
    for job in re.findall(r'"(\w+)": \["HOST:PORT"\]', advice):
        found["cluster"][job] = [f"{job}.example:2222"]
    if taken := re.search(r"cluster has an? (\w+), .*take it out", advice):
        del found["cluster"][taken[1]]
    if "Start no process for it, and name no evaluator" in advice:
        found["cluster"].pop("evaluator", None)
        found["task"] = {"type": "worker", "index": 0}  # any of the others
    if "leave one, and make the others workers" in advice:
        first, *others = found["cluster"]["chief"]
        found["cluster"].update(chief=[first], worker=[*found["cluster"]["worker"], *others])
    return json.dumps(found), strategy


def address(found):
    return found["cluster"][found["task"]["type"]][int(found["task"]["index"])]


def test_all_problems_come_at_once():
    assert len(tf_config_problems(config({"worker": ["a", "b"]}, job="ps"), PS)) == 4


def test_a_cluster_that_a_strategy_of_one_process_would_not_use():
    message = unused_cluster(config(), "mirrored")
    assert message.startswith(
        "TF_CONFIG names 4 processes (1 chief, 2 worker, 1 ps), and --strategy=mirrored is of one"
    )
    assert message.endswith("give --strategy=parameter_server, or start one process only, with TF_CONFIG unset")
    assert "give --strategy=multi_worker, or start" in unused_cluster(config(WORKERS), "one_device")
    neither = unused_cluster(config({"chief": ["a:1"], "worker": ["b:1"]}, "chief", 0), "one_device")
    assert "alone; start one process only" in neither
    # One process; the strategy's own cluster; nothing that names a cluster.
    for text, strategy in ((config({"chief": ["a:1"]}, "chief", 0), "one_device"), (config(), PS), ("", "one_device")):
        assert unused_cluster(text, strategy) == ""


@pytest.mark.parametrize(
    ("strategy", "text", "problem"),
    [*UNFIT, (PS, "", "TF_CONFIG is not set"), (MULTI, "", "TF_CONFIG is not set"), (MULTI, "{", "is not valid JSON"),
     ("one_device", config(), "TF_CONFIG names 4 processes"), ("mirrored", config(WORKERS), "TF_CONFIG names 2")],
)  # fmt: skip
def test_the_program_refuses_before_anything_waits(strategy, text, problem, monkeypatch, capsys):
    def waits(*args, **kwargs):
        raise AssertionError("something waits, serves or loads TensorFlow")

    for module, name in ((cluster_module, "unreachable"), (cluster_module, "serve"), (launch, "_load_tensorflow")):
        monkeypatch.setattr(module, name, waits)
    monkeypatch.setenv("TF_CONFIG", text)
    assert launch.call("train", [f"--strategy={strategy}", "--workdir=/nowhere"]) == 1
    said = capsys.readouterr().err
    assert problem in said and said.count("\n") == 1


def test_library_functions_refuse_too(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config({"chief": ["a:1"], "worker": ["b:1"]}, index=0))
    for function in (cluster_module.serve, lambda: cluster_module.wait_for_others(print)):
        with pytest.raises(ValueError, match="has no ps, which parameter_server needs"):
            function()
    monkeypatch.setenv("TF_CONFIG", config(CLUSTER, "chief", 0))
    with pytest.raises(ValueError, match="names the chief, and only a worker or a ps serves"):
        cluster_module.serve()
    assert cluster_module.task(PS) == ("chief", 0) and set(JOBS) == {PS, MULTI}
