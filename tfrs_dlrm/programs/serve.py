"""Serves exported models with TF Serving's gRPC and REST: for development, tests and small deployments."""

import functools
from typing import Any

from absl import flags, logging

from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__, tensorflow=False, arguments="BUNDLE_ROOT")
_HOST = FLAGS.string("host", "127.0.0.1", "The address to listen on; any but loopback needs TLS or a token.")
_REST_PORT = FLAGS.integer("rest_port", 8501, "The port for REST; 0 for a free one.", least=0, most=65535)
_GRPC_PORT = FLAGS.integer("grpc_port", 8500, "The port for gRPC; 0 for a free one.", least=0, most=65535)
_TLS_CERT = FLAGS.string("tls_cert", "", "A PEM file with the chain of certificates.")
_TLS_KEY = FLAGS.string("tls_key", "", "A PEM file with the private key.")
_TOKEN = FLAGS.string("bearer_token_file", "", "A file with the token that each request must carry.")
_INSECURE = FLAGS.switch("insecure", False, "Lets other machines ask without TLS and token.")
_KEEP = FLAGS.integer("keep", 1, "How many of the newest versions to serve.", least=1)
_CONFIG = FLAGS.string(
    "model_config_file", "", "TF Serving's list of models, versions and labels; HandleReloadConfigRequest replaces it."
)
_PROCESSES = FLAGS.integer(
    "processes", 1, "How many processes share the ports, each with the models and limits for itself.", least=1
)
_BATCH = FLAGS.integer("max_batch_size", 256, "How many rows of different requests are merged.", least=1)
_THREADS = FLAGS.integer("threads", 0, "How many batches run at once; 0: one per core.", least=0)
_CONCURRENT = FLAGS.integer("max_concurrent", 1000, "How many requests at once; further ones get 429.", least=1)
_BYTES = FLAGS.integer("max_request_bytes", 16 * 1024 * 1024, "The largest request.", least=1)
_CANDIDATES = FLAGS.integer(
    "max_candidates", 5000, "The most candidates of a rank request, and rows of a batch.", least=1
)
_STRING = FLAGS.integer("max_string_bytes", 64 * 1024, "The longest string.", least=1)
_MEMORY = FLAGS.integer(
    "max_memory_bytes", 1024 * 1024 * 1024, "The memory of all requests at once; further ones are refused.", least=1
)
_RECEIVE = FLAGS.number("receive_seconds", 30, "How long the headers of a request may take, and then its body.")
_CONNECTIONS = FLAGS.integer(
    "max_connections", 0, "How many connections to REST, and to gRPC; 0: as the limit of files allows.", least=0
)
_LAME = FLAGS.number("lame_duck_seconds", 5, "How long to answer further requests after SIGTERM, but not as healthy.")
_DRAIN = FLAGS.number("drain_seconds", 30, "How long requests may then take before they are cut.")
_HOSTS = FLAGS.texts("allowed_hosts", [], "Further host names to answer to, by commas; on loopback, others get 403.")
_ORIGINS = FLAGS.texts("cors_origins", [], "Origins of other pages that may ask, by commas: https://example.com or *.")
_ACCESS_LOG = FLAGS.switch("access_log", False, "Logs each request: model, version, signature, code, time, ids.")
_JSON_LOGS = FLAGS.switch("json_logs", False, "Logs as one JSON object a line.")
_LOG = FLAGS.string("request_log", "", "The directory for logs of scored rows; by default none are written.")
_FRACTION = FLAGS.number("request_log_fraction", 0.01, "The share of the rows to log, drawn at random.")


def main(arguments: list[str]) -> None:
    """Serves until a signal ends it."""
    import os

    from tfrs_dlrm.serving.server.inference import InferenceOptions
    from tfrs_dlrm.serving.server.model_server import ServerOptions, serve
    from tfrs_dlrm.serving.server.processes import serve_in_processes
    from tfrs_dlrm.serving.server.request_checks import Limits
    from tfrs_dlrm.serving.server.security import Security

    _set_up_log(_JSON_LOGS.value)
    if len(arguments) != 1:
        raise ValueError("give one directory: tfrs-dlrm serve BUNDLE_ROOT")
    security = Security(
        _HOST.value, _TLS_CERT.value, _TLS_KEY.value, _TOKEN.value, _INSECURE.value, _HOSTS.value, _ORIGINS.value
    )
    service = InferenceOptions(
        keep=_KEEP.value,
        model_config_file=_CONFIG.value,
        threads=_THREADS.value or max(2, os.cpu_count() or 2),
        max_batch_size=_BATCH.value,
        max_concurrent=_CONCURRENT.value,
        max_request_bytes=_BYTES.value,
        max_memory_bytes=_MEMORY.value,
        receive_seconds=_RECEIVE.value,
        limits=Limits(_CANDIDATES.value, _CANDIDATES.value, _STRING.value),
        access_log=_ACCESS_LOG.value,
        request_log=_LOG.value,
        request_log_fraction=_FRACTION.value,
        processes=_PROCESSES.value,
    )
    options = ServerOptions(
        arguments[0],
        _REST_PORT.value,
        _GRPC_PORT.value,
        lame_duck_seconds=_LAME.value,
        drain_seconds=_DRAIN.value,
        max_connections=_CONNECTIONS.value,
        security=security,
        service=service,
    )
    if _PROCESSES.value > 1:
        serve_in_processes(options, functools.partial(_begin_process, _JSON_LOGS.value), _show)
    else:
        serve(options, lambda server: _show(server.served()))


def _set_up_log(as_json: bool) -> None:
    from tfrs_dlrm.serving.server.access_log import JsonFormatter

    if as_json:
        logging.get_absl_handler().setFormatter(JsonFormatter())


def _begin_process(logs_as_json: bool) -> None:
    """Sets up the log of one of several processes, as `launch` and `main` do for one."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    _set_up_log(logs_as_json)


def _show(served: Any) -> None:
    """Prints the models and addresses of a `tfrs_dlrm.serving.server.model_server.Served`."""
    from tfrs_dlrm.serving.server.model_server import bracketed

    logging.set_verbosity(logging.INFO)
    scheme, host = "https" if _TLS_CERT.value else "http", bracketed(_HOST.value)
    print("A server for development, tests and small deployments, which answers as TF Serving does:", flush=True)
    for name, numbers in served.models.items():
        print(f"  model {name}, version {', '.join(map(str, numbers)) or 'none that can be served'}")
    if _PROCESSES.value > 1:
        print(f"  {_PROCESSES.value} processes")
    print(f"  REST {scheme}://{host}:{served.rest_port}/v1/models/NAME:predict")
    print(f"  gRPC {host}:{served.grpc_port}")
    print(f"  page {scheme}://{host}:{served.rest_port}/", flush=True)
