"""An S3 endpoint on loopback, by moto, that fails a share of its requests on purpose; also as a program:

    python tests/support/loopback_s3.py --failing=0.05 --bucket=trial -- COMMAND [ARGUMENT]...

runs a command whose environment points to it, and says afterwards how many requests there were and how many failed.
"""

import argparse
import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

os.environ.setdefault("MOTO_S3_ALLOW_CROSSACCOUNT_ACCESS", "true")

import moto.server
import werkzeug.serving

_KEYS = {"AWS_ACCESS_KEY_ID": "loopback", "AWS_SECRET_ACCESS_KEY": "loopback", "AWS_REGION": "us-east-1"}
_SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>on purpose</Message></Error>"


class LoopbackS3:
    """The server, in a thread of this process.

    Args:
      failing: the share of requests, at random, that are answered by an error or a closed connection.
      seed: of that choice.
    """

    def __init__(self, failing: float = 0.0, seed: int = 0):
        self.failing, self.refuse = failing, b""
        self.requests, self.failed, self.written = 0, 0, list[str]()
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._moto = moto.server.DomainDispatcherApplication(moto.server.create_backend_app)
        self._server = werkzeug.serving.make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}", **_KEYS}

    def _answer(self, environ, start_response):
        with self._lock:
            self.requests += 1
            fails, kind = self._random.random() < self.failing, self._random.randrange(3)
            self.failed += fails
        if self.refuse:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<?xml version='1.0'?><Error><Code>%s</Code><Message>refused</Message></Error>" % self.refuse]
        if not fails:
            if environ["REQUEST_METHOD"] in ("PUT", "POST"):
                self.written.append(environ["PATH_INFO"])
            return self._moto(environ, start_response)
        if kind == 0:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        start_response("500 Internal" if kind == 1 else "503 Slow Down", [("Content-Type", "application/xml")])
        return [_SLOW_DOWN]

    def make_bucket(self, name: str) -> None:
        """Makes an empty bucket, whatever fails."""
        import boto3

        keys = {"aws_access_key_id": "loopback", "aws_secret_access_key": "loopback", "region_name": "us-east-1"}
        failing, self.failing = self.failing, 0.0
        boto3.client("s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"], **keys).create_bucket(Bucket=name)
        self.failing = failing

    def __enter__(self) -> "LoopbackS3":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Quiet(werkzeug.serving.WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type, message, *args):
        pass

    def log_error(self, *args):
        pass


@contextlib.contextmanager
def loopback_s3(bucket: str, failing: float = 0.0, seed: int = 0) -> Iterator[LoopbackS3]:
    """The server with one empty bucket."""
    with LoopbackS3(failing, seed) as server:
        server.make_bucket(bucket)
        yield server


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--failing", type=float, default=0.05, help="the share of requests that fail")
    parser.add_argument("--bucket", default="trial", help="the bucket to make")
    parser.add_argument("command", nargs="+")
    flags = parser.parse_args()
    with loopback_s3(flags.bucket, flags.failing) as server:
        code = subprocess.run(flags.command, env={**os.environ, **server.environment}).returncode
        print(f"{server.requests} requests, of which {server.failed} failed on purpose", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
