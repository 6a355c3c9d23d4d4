"""Examines this machine: what is installed and attached, and which strategies can run here."""

import sys

from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__, tensorflow=False)
_TPU = FLAGS.string("tpu", "local", "The TPU to look for: local, the NAME of a Cloud TPU, or grpc://HOST:PORT.")
_QUICK = FLAGS.switch("quick", False, "Does not load TensorFlow, which takes seconds.")
_JSON = FLAGS.switch("json", False, "Prints JSON.")


def main() -> None:
    """Prints the findings; the exit code is 0 if at least one_device can run."""
    import json

    from tfrs_dlrm.programs.commands import in_this_form
    from tfrs_dlrm.tools.doctor.machine_report import examine

    report = examine(_TPU.value, load=not _QUICK.value)
    print(json.dumps(report.to_dict(), indent=2) if _JSON.value else in_this_form(report.text()))
    sys.exit(0 if report.healthy else 1)
