"""Peers that notice at once when the broker is dead, and a decoder that acts as told."""

import time

import wire
import zmq

SLICE_S = 0.02


class Dead(Exception):
    """The broker's process has ended."""


class Silent(Exception):
    """It lives and does not answer in time."""


def wait(process, look, patience_s):
    """The first true value of look(seconds it may take); Dead, Silent."""
    end = time.monotonic() + patience_s
    while True:
        ended = process.popen.poll() is not None
        value = look(SLICE_S)
        if value:
            return value
        if ended:
            raise Dead
        if time.monotonic() > end and process.popen.poll() is None:
            raise Silent


def hear(process, peer, kind, patience_s, **wanted):
    def look(slice_s):
        try:
            return peer.receive(kind, slice_s, **wanted)
        except wire.WireError:
            return None
    return wait(process, look, patience_s)


class Hand(wire.Decoder):
    """A decoder of one job at a time; `running` is what it says it holds."""

    def __init__(self, endpoint, name, running=()):
        wire.Peer.__init__(self, endpoint, "decoder", 0.3, name=name, device="cpu",
                           vaes=[{"name": "v"}], running=list(running) or None)
        self.slot = self.connect(zmq.PULL, self.welcome["slot"])
        self.send("ready", credit_jobs=1, credit_bytes=64 << 20, maps_payload=False)

    def look(self, slice_s):
        """A work message, or None."""
        if not self.slot.poll(int(slice_s * 1000)):
            return None
        return wire.unpack(self.slot.recv())
