"""Compiles a StableHLO text for TPUs that are not there, in an environment with JAX and libtpu and no TensorFlow.

python benchmarks/tpu_compile/compiler.py MODULE.mlir v4 v5e

Writes a line of JSON for each chip: bytes and FLOPs as libtpu counts them, or its error.
"""

import json
import re
import sys
import time

import jax
import libtpu

# There is no public way from a text to an executable; hence the pinned version of JAX.
from jax._src import compiler
from jax._src.interpreters import mlir
from jax._src.lib import xla_client
from jax._src.lib.mlir import ir
from jax.experimental import topologies

# The smallest slice of one host, of which one chip is compiled for. The two cores of v4 are one device in TensorFlow
# and JAX alike ("megacore"), but not by default here.
CHIPS = {
    "v4": {"topology_name": "v4:2x2x1", "chip_config_name": "megacore"},
    "v5e": {"topology_name": "v5e:2x2"},
    "v5p": {"topology_name": "v5p:2x2x1"},
    "v6e": {"topology_name": "v6e:2x2"},
}


def compile_for(text: str, chip: str) -> dict:
    device = topologies.get_topology_desc(platform="tpu", **CHIPS[chip]).devices[0]
    options = compiler.get_compile_options(num_replicas=1, num_partitions=1)
    begin = time.perf_counter()
    with mlir.make_ir_context():
        executable = device.client.compile(
            ir.Module.parse(text), executable_devices=xla_client.DeviceList((device,)), compile_options=options
        )
    memory, costs = executable.get_compiled_memory_stats(), executable.cost_analysis()
    costs = costs[0] if isinstance(costs, list) else costs
    return {
        "kind": device.device_kind,
        "seconds": time.perf_counter() - begin,
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "aliased_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        "flops": costs["flops"],
        "accessed_bytes": costs["bytes accessed"],
    }


def main() -> None:
    path, *chips = sys.argv[1:]
    with open(path, encoding="utf-8") as f:
        text = f.read()
    for chip in chips:
        try:
            result = compile_for(text, chip)
        except jax.errors.JaxRuntimeError as e:
            message = " ".join(str(e).split())[:600]
            # "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory ..."
            name = re.search(r": E\d+: (\w+): ", message)
            result = {"error": message, "error_name": name[1] if name else type(e).__name__}
        versions = {"jax": jax.__version__, "libtpu": libtpu.__version__}
        print(json.dumps({"chip": chip, **versions, **result}), flush=True)


if __name__ == "__main__":
    main()
