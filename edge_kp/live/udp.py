"""Results as UDP datagrams, a JSON message per frame.

A receiver that is late, away or gone never ends or slows a run: what does not get through is counted as lost
and said once. A message is the line of the JSONL file; its coordinates have two decimals, so a face of 68
points takes about 1.7 kB.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from edge_kp.errors import SinkError
from edge_kp.files import reason
from edge_kp.live.address import Address
from edge_kp.live.lines import encode
from edge_kp.live.statistics import Result

log = logging.getLogger(__name__)

# How long a result may wait for the system to take it.
SEND_TIMEOUT_S = 1.0
# A host that cannot be reached may have moved: so often its name is looked up again.
LOOK_UP_S = 10.0


class UdpSink:
    """One datagram per frame to ``udp://host:port``, a broadcast or multicast address too.

    Args:
        url: an IPv6 address stands in brackets: ``udp://[::1]:9000``.

    Attributes:
        written: results that left; whether they arrived UDP does not say.
        lost: results too large for a datagram (64 kB, some 35 faces), or refused by the system or receiver.

    Raises:
        SinkError: not such an address, or a host that is not known.
    """

    def __init__(self, url: str) -> None:
        address = Address.parse(url, ("udp",), "udp://192.168.1.20:9000")
        if address.user is not None or address.path or address.port is None:
            raise SinkError(f"{address.name}: UDP needs a host and a port alone, as in {address.example}")
        self.name = address.name
        self.source: int | None = None
        self.written = 0
        self.lost = 0
        self._address = (address.host, address.port)
        self._asked = time.monotonic()
        try:
            self._targets = self._resolved()
        except OSError as error:
            raise SinkError(f"{self.name}: {reason(error)}: check the host's name and the network") from error
        self._socket: socket.socket | None = None
        self._said: set[int | None] = set()

    def write(self, result: Result) -> None:
        """Send a frame as one datagram; a failure is counted in ``lost``, each reason told once."""
        data = encode(result)
        self._take_back()
        try:
            if self._socket is None:
                self._socket = self._open()
            self._socket.send(data)
        except OSError as error:
            self.lost += 1
            self._say(error, len(data))
            if error.errno != errno.EMSGSIZE:
                self._change()
        else:
            self.written += 1

    def _resolved(self) -> list[tuple[int, Any]]:
        """Family and address of each way to the host."""
        found = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)
        return [(family, target) for family, _, _, _, target in found]

    def _resolve_again(self) -> None:
        with suppress(OSError):  # without a name server the addresses known so far are the best there are
            self._targets = self._resolved()

    def _open(self) -> socket.socket:
        """A connected socket: only such a one hears from the system that nobody listens."""
        family, target = self._targets[0]
        opened = socket.socket(family, socket.SOCK_DGRAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            opened.settimeout(SEND_TIMEOUT_S)
            opened.connect(target)
        except OSError:
            opened.close()
            raise
        return opened

    def _take_back(self) -> None:
        """Count the last datagram as lost where the receiver's system has refused it since."""
        if self._socket is None:
            return
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self.written -= 1
            self.lost += 1
            self._say(OSError(number, os.strerror(number)), 0)
            self._change()

    def _change(self) -> None:
        """Go on with a new socket, which finds its way anew when the network has changed, and the host's next
        address: ``localhost`` has two, and the receiver may listen on either. Once in a while the host's name
        is looked up again, in a thread, since that may take long.
        """
        self._targets = [*self._targets[1:], self._targets[0]]
        if time.monotonic() - self._asked > LOOK_UP_S:
            self._asked = time.monotonic()
            threading.Thread(target=self._resolve_again, name="edge_kp udp look-up", daemon=True).start()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say(self, error: OSError, size: int) -> None:
        if error.errno in self._said:
            return
        self._said.add(error.errno)
        step = {
            errno.ECONNREFUSED: "nobody listens there yet",
            errno.EMSGSIZE: f"{size} bytes are too many for a datagram, follow fewer objects",
        }.get(error.errno or 0, "check the address and the network")
        log.warning("%s: %s: %s; what is lost is counted", self.name, reason(error), step)

    def close(self) -> None:
        """Give the socket back."""
        self._take_back()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
