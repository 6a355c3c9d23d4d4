import mock_kafka
import pytest


@pytest.fixture
def kafka():
    """A broker with the topic `clicks` of three partitions."""
    broker = mock_kafka.MockKafka()
    broker.topic("clicks")
    yield broker
    broker.close()
