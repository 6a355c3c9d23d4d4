import json

import pytest

from tfrs_dlrm.distribute.cluster import tf_config_problems

CLUSTER = {"chief": ["a:1"], "worker": ["b:1", "c:65535"], "ps": ["10.0.0.2:2222"]}


def config(cluster=CLUSTER, job="worker", index=1):
    return json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})


@pytest.mark.parametrize("strategy", ["", "parameter_server"])
@pytest.mark.parametrize("task", [("chief", 0), ("worker", 1), ("worker", "1"), ("evaluator", 0)])
def test_nothing_is_wrong_with_these(strategy, task):
    assert tf_config_problems(config(CLUSTER, *task), strategy) == []


@pytest.mark.parametrize(
    "text, problem",
    [
        ("{", "TF_CONFIG is not valid JSON: Expecting property name"),
        ("[]", "TF_CONFIG has no cluster; it looks like {"),
        ("{}", "TF_CONFIG has no cluster"),
        (config({"worker": "a:1"}), "cluster has worker='a:1'; a list of HOST:PORT is needed"),
        (config({"worker": []}), "cluster has worker=[]; a list of HOST:PORT is needed"),
        (config({"worker": ["a"]}, index=0), "worker 'a'; HOST:PORT is needed"),
        (config({"worker": ["a:0"]}, index=0), "worker 'a:0'; HOST:PORT is needed, with a port of 1 to 65535"),
        (config({"worker": ["a:65536"]}, index=0), "worker 'a:65536'; HOST:PORT"),
        (config({"worker": ["grpc://a:1"]}, index=0), "worker 'grpc://a:1'; HOST:PORT"),
        (config({"worker": [1]}, index=0), "worker 1; HOST:PORT"),
        (config({"worker": ["a:1", "b:1"], "ps": ["a:1"]}), "TF_CONFIG names a:1 more than once"),
        (config(job="trainer"), "task is of type 'trainer'; the cluster has chief, worker, ps"),
        (config(job=["worker"]), "task is of type ['worker']"),
        (config(index=2), "task has index 2; TF_CONFIG lists 2 of type worker, counted from 0"),
        (config(index=-1), "task has index -1; TF_CONFIG lists 2 of type worker"),
        (json.dumps({"cluster": CLUSTER}), "TF_CONFIG has task=None; this process' type and index are needed"),
        (json.dumps({"cluster": CLUSTER, "task": {"type": "ps"}}), "TF_CONFIG has task={'type': 'ps'}"),
    ],
)
def test_says_what_is_wrong(text, problem):
    (found,) = tf_config_problems(text)
    assert problem in found


def test_the_jobs_that_a_strategy_needs():
    workers = config({"worker": ["a:1", "b:1"]})
    assert tf_config_problems(workers, "multi_worker") == []
    (problem,) = tf_config_problems(config(), "multi_worker")
    assert problem == "TF_CONFIG's cluster has a chief; make it the first worker, which does what a chief does"
    needs = "TF_CONFIG's cluster has no {}, which parameter_server needs; it has worker"
    assert tf_config_problems(workers, "parameter_server") == [needs.format("chief"), needs.format("ps")]


def test_all_problems_come_at_once():
    assert len(tf_config_problems(config({"worker": ["a", "b"]}, job="ps"), "parameter_server")) == 5
