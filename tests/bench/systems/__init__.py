"""The systems that are measured, each behind the same few calls: see base.py."""

from systems.base import BenchError, now_ms
from systems.beanstalkd import Beanstalkd
from systems.floors import FileFloor, PipeFloor
from systems.luna import Luna
from systems.message import wire
from systems.nats import Nats, NatsAlways
from systems.redis import Redis

BROKERS = (Luna, Beanstalkd, Redis, Nats, NatsAlways)
FLOORS = (FileFloor, PipeFloor)
BY_KEY = {system.key: system for system in BROKERS + FLOORS}
FAILURES = (BenchError, OSError, wire.WireError)

__all__ = ["BROKERS", "BY_KEY", "BenchError", "FAILURES", "FLOORS", "Luna", "now_ms"]
