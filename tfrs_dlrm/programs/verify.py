"""Verifies a bundle before it is served: whether it is complete, loads, and answers as the trained model does."""

import os

from tfrs_dlrm.programs.launch import Leave
from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__, tensorflow=False, arguments="BUNDLE")
_DATA = FLAGS.string("data", None, "A prepared directory, whose first rows are compared as well.")
_JSON = FLAGS.string("json", None, "A file for the report.")
_LATENCY = FLAGS.switch("latency", True, "Measures the latency, which takes some seconds.")
_ALLOW = FLAGS.texts("allow_ops", [], "Operations that the graph may have in addition to the usual ones.")


def main(arguments: list[str]) -> None:
    """Prints the report; the exit code is 1 if a check failed."""
    from tfrs_dlrm.serving.verification.verify import verify
    from tfrs_dlrm.stores.files import check_writable_place, local_path, write_json

    if _JSON.value:
        check_writable_place(os.path.dirname(local_path(_JSON.value)))
    if len(arguments) != 1:
        raise ValueError("give one bundle: tfrs-dlrm verify BUNDLE, a version or the directory of its versions")
    report = verify(arguments[0], _DATA.value, _LATENCY.value, _ALLOW.value or ())
    if _JSON.value:
        write_json(_JSON.value, report.to_json())
    print(report)
    raise Leave(0 if report.passed else 1)
