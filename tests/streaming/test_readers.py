"""Both readers give exactly the messages that they are asked for, and say why where they cannot."""

import confluent_kafka
import pytest
import tensorflow as tf

from tfrs_dlrm.streaming import confluent
from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.client import TopicClient
from tfrs_dlrm.streaming.confluent import ConfluentReader
from tfrs_dlrm.streaming.reader import BrokerUnavailable, Retries, Stopped, StreamError
from tfrs_dlrm.streaming.readers import open_reader

try:
    from tfrs_dlrm.streaming import tensorflow_io

    READERS = {"confluent": ConfluentReader, "tensorflow_io": tensorflow_io.TensorFlowIOReader}
except ImportError:
    tensorflow_io, READERS = None, {"confluent": ConfluentReader}


def address(kafka, parameters=""):
    return StreamAddress.parse(f"kafka://{kafka.servers}/clicks?{parameters}")


@pytest.fixture(params=READERS)
def reader(request, kafka):
    found = open_reader(address(kafka, f"reader={request.param}"))
    assert type(found) is READERS[request.param]
    yield found
    found.close()


def values(messages):
    return [(m.partition, m.offset, m.value) for m in messages]


def expected(ranges, partitions=3):
    """Message n is `n`, sent to partition n % 3."""
    return [
        (p, o, b"%d" % (o * partitions + p)) for p, (begin, end) in sorted(ranges.items()) for o in range(begin, end)
    ]


def test_readers_give_what_is_asked_for(kafka, reader):
    kafka.send("clicks", [b"%d" % i for i in range(9000)])
    assert reader.bounds() == {p: (0, 3000) for p in range(3)}
    steps = [
        {0: (0, 1000), 1: (0, 1), 2: (0, 30)},
        {0: (1000, 1001), 2: (30, 2000)},  # goes on; 1 rests
        {1: (1, 1025), 0: (1001, 3000)},
        {0: (10, 20), 1: (0, 5)},  # back, as after a restart
        {2: (2999, 3000)},
    ]
    for ranges in steps:
        assert values(reader.read(ranges)) == expected(ranges)
    kafka.send("clicks", [b"%d" % i for i in range(9000, 9003)])
    assert reader.bounds()[2] == (0, 3001)
    assert values(reader.read({2: (3000, 3001)})) == [(2, 3000, b"9002")]
    assert reader.read({}) == [] == reader.read({1: (5, 5)})


def test_offsets_that_are_gone_are_an_error(kafka, reader):
    kafka.send("clicks", [b"%d" % i for i in range(30)])
    kafka.forget("clicks", 1, 4)
    assert reader.bounds()[1] == (4, 10)
    with pytest.raises((StreamError, BrokerUnavailable), match=r"(?i)offset"):
        reader.read({1: (2, 6)})
    assert values(reader.read({1: (4, 6)})) == expected({1: (4, 6)})


def test_a_broker_that_goes_away_is_waited_for(kafka, reader, monkeypatch):
    for module in filter(None, (confluent, tensorflow_io)):
        monkeypatch.setattr(module, "_STALL", 1.0)
    kafka.send("clicks", [b"%d" % i for i in range(300)])
    assert reader.bounds()[0] == (0, 100)
    assert values(reader.read({0: (0, 10)})) == expected({0: (0, 10)})
    kafka.down()
    said = []

    def say(line):
        said.append(line)
        kafka.up()

    retries = Retries(60, say)
    ranges = {0: (10, 20), 1: (0, 100)}
    found = retries(lambda: reader.bounds() and reader.read(ranges))
    assert values(found) == expected(ranges)
    assert retries.count == len(said) >= 1
    assert f"kafka://{kafka.servers}/clicks: no" in said[0] and "; retry 1 in 0.5 s" in said[0]


def test_retries_end(kafka):
    """In the end with what was wrong; at once where the run is to end."""

    def fails():
        raise BrokerUnavailable("nobody there")

    with pytest.raises(StreamError, match=r"nobody there; gave up after \d s and 1 retries"):
        Retries(0.3, lambda line: None)(fails)
    with pytest.raises(Stopped):
        Retries(100, lambda line: None, lambda: True)(fails)


def test_what_cannot_be_read_is_named(kafka, tmp_path):
    missing = TopicClient(StreamAddress.parse(f"kafka://{kafka.servers}/nothing"))
    with pytest.raises(StreamError, match="the topic 'nothing' does not exist"):
        missing.bounds()
    kafka.refuse("clicks", 29)  # TOPIC_AUTHORIZATION_FAILED
    with pytest.raises(StreamError, match=r"no permission to read topic 'clicks' .* Describe and Read"):
        TopicClient(address(kafka)).bounds()
    with pytest.raises(StreamError, match="No such configuration property"):
        TopicClient(address(kafka, "no.such.setting=1"))
    with pytest.raises(StreamError, match=r"client_config=.*none in the address of the stream cannot be read"):
        TopicClient(address(kafka, f"client_config={tmp_path}/none"))
    (tmp_path / "settings").write_text("# ours\nsecurity.protocol=PLAINTEXT\nsecret\n")
    with pytest.raises(StreamError, match="line 3 is not of the form NAME=VALUE") as e:
        TopicClient(address(kafka, f"client_config={tmp_path}/settings"))
    assert "secret" not in str(e.value)


def test_offsets_without_messages(kafka):
    """Those of transactions: the first reader leaves them out, the second cannot and says so."""
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": kafka.servers, "transactional.id": "t", "log_level": 0, "transaction.timeout.ms": 5000}
    )
    producer.init_transactions(10)
    for text in "ab":
        producer.begin_transaction()
        producer.produce("clicks", text, partition=0)
        producer.commit_transaction(10)
    reader = ConfluentReader(address(kafka))
    (begin, end), found = reader.bounds()[0], []
    found = reader.read({0: (begin, end)})
    assert [m.value for m in found] == [b"a", b"b"] and found[-1].offset < end
    reader.close()
    if tensorflow_io and end > 2:
        other = tensorflow_io.TensorFlowIOReader(address(kafka))
        with pytest.raises(StreamError, match=r"fewer messages than offsets .* reader=confluent"):
            other.read({0: (begin, end)})
        other.close()


def test_the_reader_for_this_tensorflow(kafka):
    found = open_reader(address(kafka))
    assert isinstance(found, tuple(READERS.values())[-1])
    found.close()
    if tensorflow_io is None:
        with pytest.raises(StreamError, match=rf"reader=tensorflow_io: .* this is TensorFlow {tf.__version__}"):
            open_reader(address(kafka, "reader=tensorflow_io"))
