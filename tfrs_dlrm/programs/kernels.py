"""Builds C++ kernels for this machine's CPU, with which train steps on tables take less time; optional.

    tfrs-dlrm kernels            # compiles them, which takes ten seconds and a C++ compiler, and tries them
    tfrs-dlrm kernels --remove   # trains with TensorFlow's operations again; TFRS_DLRM_KERNELS=0 does so once

Models that train on one CPU use them from then on. What is exported never needs them.
See docs/guides/embeddings.md#kernels-for-cpus.
"""

from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__)
_REMOVE = FLAGS.switch("remove", False, "Removes what was built for this machine.")


def main() -> None:
    """Builds the kernels and compares a step with TensorFlow's, or removes them."""
    from tfrs_dlrm.embeddings.kernels import build, path
    from tfrs_dlrm.embeddings.kernels.trial import try_kernels

    if _REMOVE.value:
        present = path().is_file()
        path().unlink(missing_ok=True)
        print(f"Removed {path()}." if present else f"Nothing to remove: {path()} does not exist.")
        return
    print("Compiling, which takes about ten seconds ...", flush=True)
    file = build()
    difference = try_kernels()
    print(f"Built {file}.")
    print(f"A step on small tables differs from that of TensorFlow's operations by at most {difference:.1e}.")
    print("Train as before; the kernels are used on one CPU with sgd, adagrad or rowwise_adagrad: tfrs-dlrm train")
