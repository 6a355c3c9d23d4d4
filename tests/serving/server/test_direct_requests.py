"""Requests read below the web framework get the answers that it gives: the same bytes, records and closed connections.

The protocol is driven without sockets, so that a request arrives exactly in the parts that a test says.
"""

import asyncio
import gzip
import json
import random
import re
from types import SimpleNamespace

import pytest
import serving_bundles
import uvicorn
from uvicorn.server import ServerState

from tfrs_dlrm.serving import protocol
from tfrs_dlrm.serving.server import inference, rest
from tfrs_dlrm.serving.server.connections import Connections
from tfrs_dlrm.serving.server.direct_requests import DirectRequest, DirectRequests
from tfrs_dlrm.serving.server.http_protocol import BoundedHttpProtocol
from tfrs_dlrm.serving.server.inference import Inference, InferenceOptions
from tfrs_dlrm.serving.server.security import Security

ROW = {"price": 4.0, "site": "abc", "slot": 8}
BODY = json.dumps({"instances": [ROW]}).encode()
TOKEN, TRACE = "s3cret", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MOST = 4000  # bytes of a request


def request(body=BODY, path="/v1/models/clicks:predict", length=None, first=("Host: localhost:8501",), **more):
    """The bytes of a POST with an id; `more` has further headers, with `_` for `-`."""
    headers = [*first, f"Content-Length: {len(body) if length is None else length}", "X-Request-Id: a1"]
    headers += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
    return "\r\n".join([f"POST {path} HTTP/1.1", *headers, "", ""]).encode("latin-1") + body


PLAIN = request(User_Agent="wrk/4", Accept="*/*", Content_Type="application/json", Connection="keep-alive")
GET = b"GET /v1/models/clicks HTTP/1.1\r\nHost: localhost\r\n\r\n"
# What is answered directly.
DIRECT = [
    PLAIN,
    request(traceparent=TRACE, Authorization="Basic eA==", tracestate="a=b"),
    request(traceparent="00-junk"),
    *(request(path=f"/v1/models/clicks{part}:predict") for part in ("/versions/1", "/versions/9", "/labels/beta")),
    request(path="/v1/models/unknown:predict"),
    request(path="/v1/models/clicks:regress", body=json.dumps({"examples": [ROW]}).encode()),
    request(path="/v1/models/clicks:classify", body=json.dumps({"examples": [ROW, {}]}).encode()),
    request(body=b'{"signature_name": "rank", "inputs": {"site": ["a"], "price": [[1, NaN]], "slot": [[1, 2]]}}'),
    *(request(body=body) for body in (b"{", b"[]", b"\xff\0", b'{"instances": [{"price": 1}]}', BODY + b"\r\n")),
    request(X_Request_ID="x" * 300).replace(b"X-Request-Id: a1\r\n", b""),
]
# What is not: it is refused, or needs the framework, or another form is as good.
USUAL = [
    request(first=()),
    request(first=("Host: localhost", "Host: evil.example")),
    *(request(first=(f"Host: {host}",)) for host in ("evil.example", "localhost.evil.example", "[::1", "a b", "")),
    *(
        request(length=length)
        for length in ("+5", "-1", "0x5", "5, 5", "5,6", "5 5", "1e1", "", "05", MOST + 1, 10**12)
    ),
    request(first=("Host: localhost", "Content-Length: 5")),
    request(first=("Host: localhost", f"Content-Length: {len(BODY)}")),
    request(body=b""),
    *(request(Transfer_Encoding=coding) for coding in ("chunked", "identity", "gzip, chunked", "xchunked")),
    request(body=b"0\r\n\r\n", length="5", Transfer_Encoding="chunked"),
    request(body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), Transfer_Encoding="chunked").replace(
        b"Content-Length", b"X-Length"
    ),
    *(request(Connection=value) for value in ("close", "Upgrade", "keep-alive, close")),
    request(Connection="Upgrade", Upgrade="websocket"),
    request(Expect="100-continue"),
    *(request(Origin=origin) for origin in ("https://evil.example", "http://localhost:8501")),
    request(body=gzip.compress(BODY, mtime=0), Content_Encoding="gzip"),
    request(Content_Encoding="br"),
    request(X_Forwarded_For="10.0.0.9"),
    request(X_Note="x" * 20_000),
    b"".join([request()[:-2], *(b"X-%d: 1\r\n" % i for i in range(200)), BODY]),
    *(
        request(path=f"/v1/models/clicks{part}")
        for part in ("", ":PREDICT", ":predict?a=1", ":%70redict", ":x", "/a/b")
    ),
    request(path="http://localhost/v1/models/clicks:predict"),
    request(path="/v1/models/clicks:predict\t"),
    request(path="/v1/models/caf\xe9:predict"),
    *(PLAIN.replace(b"Accept: ", text) for text in (b"Accept :", b"Accept:\t", b"Accept: a\0", b"A\xe9: ", b" A: ")),
    *(PLAIN.replace(b"\r\nAccept", text) for text in (b"\nAccept", b"\r\n\tAccept", b"\rAccept", b"\r\n\r\nAccept")),
    PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    PLAIN.replace(b"HTTP/1.1", b"HTTP/2.0"),
    PLAIN.replace(b"POST", b"post"),
    b"\r\n" + PLAIN,
    b"\x16\x03\x01" + PLAIN,
]


class Transport(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self):
        super().__init__({"socket": self})
        self.written, self.closed = b"", False

    def fileno(self):
        return -1

    def getpeername(self):
        return ("127.0.0.1", 5)

    def getsockname(self):
        return ("127.0.0.1", 8501)

    def write(self, data):
        self.written += data

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


class Served:
    """Connections to a service; `direct` says whether plain requests are answered below the framework."""

    def __init__(self, service, security, direct):
        self.service, self.taken = service, 0
        self._config = uvicorn.Config(rest.application(service, security), lifespan="off", log_config=None)
        self._direct = DirectRequests(service, security)
        read = self._direct.read

        def counted(data):
            found = read(data) if direct else None
            self.taken += isinstance(found, DirectRequest)
            return found

        self._direct.read = counted

    async def answer(self, parts, wait=True, drain_after=None):
        """What a connection that receives some parts is sent, and whether the server closed it.

        Each part comes after the answer to those before it; without `wait`, all come at once. After the part numbered
        `drain_after` the server ends.
        """
        state, transport = ServerState(), Transport()
        state.default_headers = [(b"date", b"now"), (b"server", b"here")]
        connection = BoundedHttpProtocol(
            Connections(10), 100.0, self._direct, config=self._config, server_state=state, app_state={}
        )
        connection.connection_made(transport)
        for number, part in enumerate(parts):
            if not transport.closed:
                connection.data_received(part)
            if number == drain_after:
                self.service.draining = True
                connection.shutdown()
            if part is parts[-1]:
                connection._release()
            while (wait or part is parts[-1]) and not (transport.closed or waits(connection)):
                await asyncio.sleep(0.001)
        written, closed = transport.written, transport.closed
        connection.connection_lost(None)
        while state.tasks:
            await asyncio.sleep(0.001)
        self.service.draining = False
        connection._unset_keepalive_if_required()
        assert self.service.admission.calls == self.service.admission.under_way == self.service.admission.memory == 0
        return written, closed


def waits(connection):
    """Whether the client has to do something."""
    return connection._answered() or connection.cycle.more_body


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("direct") / "clicks"
    serving_bundles.make(root, 1)
    return root


class Both:
    """The same requests to two services, one of which answers plain ones directly."""

    def __init__(self, root, security, monkeypatch):
        self.logged = {}
        monkeypatch.setattr(inference, "log_access", self._log)
        monkeypatch.setattr(protocol.uuid, "uuid4", lambda: SimpleNamespace(hex="new"))
        self._root, self._security = root, security

    def _log(self, call):
        fields = ("api", "method", "code", "identity", "model", "version", "signature", "rows", "traceparent", "peer")
        self.logged[call._admission].append([getattr(call, name) for name in fields])

    async def __aenter__(self):
        self.servers = []
        for direct in (False, True):
            service = Inference(str(self._root), InferenceOptions(max_request_bytes=MOST, access_log=True))
            await service.start()
            self.logged[service.admission] = []
            self.servers.append(Served(service, self._security, direct))
        self.usual, self.direct = self.servers
        return self

    async def __aexit__(self, *exc):
        for server in self.servers:
            await server.service.close()

    async def same(self, parts, **arguments):
        """The answer to some parts, after the check that both ways give it, and log the same."""
        found = [await server.answer(parts, **arguments) for server in self.servers]
        assert found[0] == found[1], parts
        logged = [self.logged[server.service.admission] for server in self.servers]
        assert logged[0] == logged[1], parts
        for calls in logged:
            calls.clear()
        return found[1]

    def counted(self):
        """The counts of requests by label, of each service."""
        lines = [
            re.findall(r"^tfrs_dlrm_requests_total.*$", s.service.metrics.text().decode(), re.M) for s in self.servers
        ]
        return [sorted(found) for found in lines]


@pytest.fixture
def compare(root, monkeypatch):
    """Runs an async function of `Both`."""

    def run(check, security=Security()):  # noqa: B008
        async def checked():
            async with Both(root, security, monkeypatch) as both:
                await check(both)
                usual, direct = both.counted()
                assert usual == direct and usual and both.usual.taken == 0

        asyncio.run(checked())

    return run


def test_plain_requests_are_answered_directly_and_others_are_not(compare):
    async def check(both):
        written, closed = await both.same([PLAIN])
        assert (
            written.startswith(b"HTTP/1.1 200 OK\r\ndate: now\r\nserver: here\r\nx-request-id: a1\r\n") and not closed
        )
        assert json.loads(written.partition(b"\r\n\r\n")[2])["predictions"] == [serving_bundles.by_hand(1, **ROW)]
        for expected, requests in ((1, DIRECT), (0, USUAL)):
            for sent in requests:
                before = both.direct.taken
                await both.same([sent])
                assert both.direct.taken - before == expected, sent

    compare(check)

    async def check_with_cors(both):
        for sent in (PLAIN, *(request(Origin=origin) for origin in ("https://page.example", "https://evil.example"))):
            await both.same([sent])
        assert both.direct.taken == 0  # whose answers say `Vary: Origin`

    compare(check_with_cors, Security(cors_origins=("https://page.example",)))


def test_a_request_in_two_parts_wherever_it_is_cut_and_another_after_it(compare):
    async def check(both):
        end = PLAIN.index(b"\r\n\r\n") + 4
        for cut in range(1, len(PLAIN)):
            before = both.direct.taken
            written, closed = await both.same([PLAIN[:cut], PLAIN[cut:], PLAIN])
            assert written.count(b"HTTP/1.1 200") == 2 and not closed
            assert both.direct.taken - before == (2 if cut >= end else 1), cut

    compare(check)


def test_pipelined_requests_are_answered_in_their_order(compare):
    async def check(both):
        for parts in (
            [PLAIN + GET + PLAIN],
            [GET + PLAIN],
            [PLAIN + PLAIN[:50], PLAIN[50:]],
            [PLAIN + b"junk\r\n\r\n"],
        ):
            await both.same([*parts, PLAIN])
        for second in (PLAIN, GET, b"junk\r\n\r\n", PLAIN[:70]):
            await both.same([PLAIN, second, PLAIN], wait=False)

    compare(check)


def test_refusals_of_tokens_hosts_and_limits(compare, tmp_path):
    (tmp_path / "token").write_text(TOKEN)

    async def check(both):
        for value, taken in ((f"Bearer {TOKEN}", 1), (f"bearer  {TOKEN}", 1), ("Bearer x", 0), (TOKEN, 0), ("", 0)):
            before = both.direct.taken
            await both.same([request(**({"Authorization": value} if value else {}))])
            assert both.direct.taken - before == taken, value

    compare(check, Security(bearer_token_file=str(tmp_path / "token"), allowed_hosts=("models.example",)))

    async def check_overload(both):
        for server in both.servers:
            server.service.admission._most_requests = 0
        assert (await both.same([PLAIN]))[0].startswith(b"HTTP/1.1 429")
        for server in both.servers:
            server.service.admission._most_requests, server.service.admission._most_bytes = 10, 10
        assert (await both.same([PLAIN]))[0].startswith(b"HTTP/1.1 429")
        for server in both.servers:
            server.service.admission.closed = True
        assert (await both.same([PLAIN]))[0].startswith(b"HTTP/1.1 503")

    compare(check_overload)


def test_a_server_that_ends_answers_and_closes(compare):
    async def check(both):
        for parts in ([PLAIN], [PLAIN[:-5], PLAIN[-5:]], [PLAIN, PLAIN]):
            for when in range(len(parts)):
                written, closed = await both.same(parts, drain_after=when)
                assert closed and written.count(b"connection: close") == 1, (parts, when)

    compare(check)


def test_damaged_requests(compare):
    rng = random.Random(1)

    def damaged():
        data, end = bytearray(rng.choice([*DIRECT, PLAIN, PLAIN])), PLAIN.index(b"\r\n\r\n") + 4
        for _ in range(rng.randrange(1, 4)):
            place, action = rng.randrange(min(end, len(data))), rng.random()
            lines = bytes(data).split(b"\r\n")
            if action < 0.3:
                data[place] = rng.choice(b'\x00\xff\r\n\t :;,"0159aZ-/%')
            elif action < 0.5:
                del data[place : place + rng.randrange(1, 6)]
            elif action < 0.7:
                data[place:place] = rng.choice([b" ", b"\r\n", b"\n", b"\0", b"0", b":", b"\t", b"Host: a\r\n"])
            else:  # a line twice, or elsewhere
                lines.insert(rng.randrange(len(lines)), rng.choice(lines))
                data = bytearray(b"\r\n".join(lines))
        return bytes(data)

    async def check(both):
        for _ in range(500):
            data = damaged()
            cut = rng.randrange(1, len(data))
            for parts in ([data], [data[:cut], data[cut:]]):
                await both.same([*parts, PLAIN])
        assert both.direct.taken > 100

    compare(check)
