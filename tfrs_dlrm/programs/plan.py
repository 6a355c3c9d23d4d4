"""Shows what a run would need and take on devices that need not be here: memory, step time, bottleneck."""

import os

from tfrs_dlrm.distribute.placement import STRATEGIES
from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__, tensorflow=False)
_CONFIG = FLAGS.config("quickstart")
_STRATEGY = FLAGS.enum(
    "strategy", "one_device", STRATEGIES, "Where the run would train; see docs/guides/strategies.md."
)
_TOPOLOGY = FLAGS.string(
    "topology", "", "The devices: v4-32 for tpu, 8x80GB for mirrored, 4x64GB for parameter_server, and so on."
)
_OUTPUT = FLAGS.string("output", "", "A JSON file to write.")


def main() -> None:
    """Prints the plan."""
    from tfrs_dlrm.stores.files import check_writable_place
    from tfrs_dlrm.tools import planner

    if _OUTPUT.value:
        check_writable_place(os.path.dirname(_OUTPUT.value))
    plan = planner.plan_run(_CONFIG.value, _STRATEGY.value, _TOPOLOGY.value)
    print("\n".join(planner.lines(plan)))
    if _OUTPUT.value:
        plan.save(_OUTPUT.value)
