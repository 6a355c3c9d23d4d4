"""C++ kernels for embedding tables on CPUs, which are optional: without them TensorFlow's operations do the same work.

`build` compiles `tables.cc` against the headers of the installed TensorFlow, and `find` loads what was built. Only
train steps on one device use them; no exported bundle does.
"""

from tfrs_dlrm.embeddings.kernels.library import SWITCH, build, find, path

__all__ = ["SWITCH", "build", "find", "path"]
