"""Serves exported models as TF Serving does, over gRPC and REST: for development, tests and small deployments."""

from absl import flags, logging

from tfrs_dlrm import cli

_HOST = flags.DEFINE_string("host", "127.0.0.1", "Where to listen; others than loopback want TLS or a token.")
_REST_PORT = flags.DEFINE_integer("rest_port", 8501, "0: any that is free.", lower_bound=0, upper_bound=65535)
_GRPC_PORT = flags.DEFINE_integer("grpc_port", 8500, "0: any that is free.", lower_bound=0, upper_bound=65535)
_TLS_CERT = flags.DEFINE_string("tls_cert", "", "A PEM file with the chain of certificates.")
_TLS_KEY = flags.DEFINE_string("tls_key", "", "A PEM file with its key.")
_TOKEN = flags.DEFINE_string("bearer_token_file", "", "A file with the token that requests have to bear.")
_INSECURE = flags.DEFINE_bool("insecure", False, "Others may ask without TLS and token.")
_KEEP = flags.DEFINE_integer("keep", 1, "How many of the newest versions to serve.", lower_bound=1)
_BATCH = flags.DEFINE_integer("max_batch_size", 256, "Rows of requests that are merged.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", 0, "Runs at once; 0: one for each core.", lower_bound=0)
_CONCURRENT = flags.DEFINE_integer("max_concurrent", 1000, "Requests at once; more get 503.", lower_bound=1)
_BYTES = flags.DEFINE_integer("max_request_bytes", 16 * 1024 * 1024, "Of one request.", lower_bound=1)
_CANDIDATES = flags.DEFINE_integer("max_candidates", 5000, "Of one rank request, and rows of one batch.", lower_bound=1)
_STRING = flags.DEFINE_integer("max_string_bytes", 64 * 1024, "Of one string.", lower_bound=1)
_LOG = flags.DEFINE_string("request_log", "", "A directory for logs of the rows that are scored; none if empty.")
_FRACTION = flags.DEFINE_float("request_log_fraction", 0.01, "Of the rows to log, each chosen at random.")


def main(argv: list[str]) -> None:
    """Runs what the flags say."""
    import os

    from tfrs_dlrm.serving.server.request_checks import Limits
    from tfrs_dlrm.serving.server.security import Security
    from tfrs_dlrm.serving.server.server import Server, ServerOptions, bracketed, serve
    from tfrs_dlrm.serving.server.service import ServiceOptions

    if len(argv) != 2:
        raise ValueError("give one directory: python export/serve.py BUNDLE_ROOT")
    security = Security(_HOST.value, _TLS_CERT.value, _TLS_KEY.value, _TOKEN.value, _INSECURE.value)
    service = ServiceOptions(
        keep=_KEEP.value,
        threads=_THREADS.value or max(2, os.cpu_count() or 2),
        max_batch_size=_BATCH.value,
        max_concurrent=_CONCURRENT.value,
        max_request_bytes=_BYTES.value,
        limits=Limits(_CANDIDATES.value, _CANDIDATES.value, _STRING.value),
        request_log=_LOG.value,
        request_log_fraction=_FRACTION.value,
    )
    options = ServerOptions(argv[1], _REST_PORT.value, _GRPC_PORT.value, security=security, service=service)

    def started(server: Server) -> None:
        logging.set_verbosity(logging.INFO)
        scheme, host = "https" if security.tls_cert else "http", bracketed(security.host)
        print("A server for development, tests and small deployments, as TF Serving answers:", flush=True)
        for name, model in server.service.models.items():
            versions = ", ".join(str(version.number) for version in model.available()) or "none that can be served"
            print(f"  model {name}, version {versions}")
        print(f"  REST {scheme}://{host}:{server.rest_port}/v1/models/NAME:predict")
        print(f"  gRPC {host}:{server.grpc_port}")
        print(f"  page {scheme}://{host}:{server.rest_port}/", flush=True)

    serve(options, started)


if __name__ == "__main__":
    cli.run(main, tensorflow=False, arguments=True)
