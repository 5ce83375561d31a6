"""libluna and a broker without room: jobs wait at the producer, in order, and it is told."""

import re

import pytest
from files import batch
from luna import LIBRARY, wait_for
from outbox_producer import luna_client, new_job

JOBS = 8


@pytest.fixture
def producer(home, monkeypatch):
    """A client of a broker that takes two jobs of one client, and has no decoder yet."""
    home.start_broker(LUNA_LIMITS_MAX_CLIENT_JOBS="2")
    monkeypatch.setenv("LUNA_HOME", str(home.home))
    monkeypatch.setenv("LUNA_LIBRARY", str(LIBRARY))
    client = luna_client.Client(name="producer")
    yield client
    client.close(0)


def metric(luna, name):
    text = luna.client.query("metrics")["text"]
    return int(re.search(rf"^{name} (\d+)", text, re.MULTILINE).group(1))


def test_a_full_broker_is_asked_before_the_bytes_move(home, producer):
    told = []
    producer.notices(lambda kind, reason, _job: told.append((kind, reason)))
    array = batch(1, 16)
    jobs = [home.expect(producer.submit(new_job(producer, array, home.output)))
            for _ in range(JOBS)]
    wait_for(lambda: any(kind == "busy" for kind, _ in told), "the caller is told")
    assert "max_client_jobs" in dict(told)["busy"]
    wait_for(lambda: metric(home, "luna_offers_total") >= 2, "the client asks again")
    assert producer.unsettled()[0] == JOBS - 2
    home.start_decoder()
    for job in jobs:
        producer.wait_receipt(job, 20_000)
    accepted = [home.wait_job(job)["accepted_ms"] for job in jobs]
    assert accepted == sorted(accepted)
    wait_for(lambda: told[-1][0] == "clear", "the caller is told that it is over")
    kinds = [kind for kind, _ in told]
    assert kinds == [kind for _ in range(len(kinds) // 2) for kind in ("busy", "clear")], told
