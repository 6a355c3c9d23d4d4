import pytest

from tfrs_dlrm.streaming.address import StreamAddress


def test_an_address_by_hand():
    found = StreamAddress.parse(
        "kafka://a:9092,b:9093/click.log_1?format=csv&columns=label,site&start=latest&dead_letter=bad"
        "&security.protocol=SSL&client_config=/etc/kafka.properties"
    )
    assert (found.servers, found.topic, found.format) == ("a:9092,b:9093", "click.log_1", "csv")
    assert found.columns == ("label", "site") and found.start == "latest" and found.dead_letter == "bad"
    assert found.settings == {"security.protocol": "SSL"} and found.client_config == "/etc/kafka.properties"
    assert str(found) == "kafka://a:9092,b:9093/click.log_1"
    plain = StreamAddress.parse("kafka://a/t")
    assert (plain.format, plain.start, plain.absent, plain.reader) == ("json", "earliest", "malformed", "")


@pytest.mark.parametrize(
    "address, message",
    [
        ("http://a/t", "is not a stream address; kafka://HOST:PORT/TOPIC is needed"),
        ("kafka:///t", "is not a stream address"),
        ("kafka://a", "'' is no name of a topic; up to 249 letters"),
        ("kafka://a/t/u", "'t/u' is no name of a topic"),
        ("kafka://me:pw@a/t", r"kafka://...@a: credentials must not be in an address, .* client_config=FILE"),
        ("kafka://a/t?sasl.password=x", "sasl.password must not be in an address"),
        ("kafka://a/t?formt=csv", r"has no parameter 'formt'; did you mean 'format'"),
        ("kafka://a/t?format=xml", "format='xml' .* choose one of json, tsv, csv"),
        ("kafka://a/t?start=1&start=2", "start='1' .* choose one of earliest, latest"),
        ("kafka://a/t?format=csv&format=tsv", "format is given twice"),
        ("kafka://a/t?dead_letter=a b", "dead_letter='a b' .* is no name of a topic"),
    ],
)
def test_wrong_addresses_are_refused(address, message):
    with pytest.raises(ValueError, match=message) as e:
        StreamAddress.parse(address)
    assert "pw" not in str(e.value)
