"""Checks a bundle before it is served: whether it is whole, loads, and says what the trained model says."""

from absl import flags

from tfrs_dlrm import cli

_DATA = flags.DEFINE_string("data", None, "A prepared directory, whose first rows are compared as well.")
_JSON = flags.DEFINE_string("json", None, "A file to write the report to.")
_LATENCY = flags.DEFINE_bool("latency", True, "Whether to measure it, which takes some seconds.")
_ALLOW = flags.DEFINE_list("allow_ops", [], "Operations beyond the usual that the graph may have.")


def main(argv: list[str]) -> None:
    """Runs what the flags say."""
    from tfrs_dlrm.serving.verification.verify import verify
    from tfrs_dlrm.stores.files import local_path, write_json

    local_path(_JSON.value or "")
    if len(argv) != 2:
        raise ValueError("give one bundle: python export/verify.py BUNDLE, a version or the directory of its versions")
    report = verify(argv[1], _DATA.value, _LATENCY.value, _ALLOW.value or ())
    if _JSON.value:
        write_json(_JSON.value, report.to_json())
    print(report)
    cli.leave(0 if report.passed else 1)


if __name__ == "__main__":
    cli.run(main, tensorflow=False, arguments=True)
