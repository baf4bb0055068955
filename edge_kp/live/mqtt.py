"""Results through an MQTT broker, a JSON message per frame.

A broker that is late, away or gone never ends or slows a run: what does not get through is counted as lost
and said once. A message is the line of the JSONL file; its coordinates have two decimals, so a face of 68
points takes about 1.7 kB.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from edge_kp.errors import SinkError
from edge_kp.extras import install
from edge_kp.live.address import Address
from edge_kp.live.lines import encode
from edge_kp.live.statistics import Result

if TYPE_CHECKING:
    from paho.mqtt.client import Client

log = logging.getLogger(__name__)

# How long a result may wait for the connection to take it.
SEND_TIMEOUT_S = 1.0
# Results waiting for a slow connection: two seconds of video bridge a hiccup, what is older helps nobody.
WAITING = 64
# A broker that is silent for longer is asked, and after as long again the connection counts as lost.
KEEPALIVE_S = 15
RECONNECT_S = (1, 30)
# Reasons that paho gives: bad user name or password, not authorized.
REFUSED_USER = (134, 135)
# When closing: so long may the last messages take, then so long the thread after its connection was cut.
FLUSH_S = 0.7
CUT_S = 0.3


class MqttSink:
    """One message per frame to the topic of ``mqtt://[user[:password]@]host[:port]/topic``, QoS 0.

    ``topic/status`` holds "online" while connected and "offline" after; the broker itself says so (last will)
    when the program dies. ``mqtts://`` is TLS, checked against the system's certificates. The connection is
    made, and made again, by a thread of paho's, whether or not there is a broker yet.

    Args:
        url: parts are percent-decoded; write ``@`` in a topic as ``%40``, ``:`` in a user name as ``%3A``.
        below: publish to ``topic/below`` and keep nothing there: what the topic itself holds stays as it is.

    Attributes:
        name: the URL without user and password.
        written: results handed to the network. A few more are on their way while it is open; once it is
            closed ``written + lost`` is the number of results.
        lost: results that came while there was no connection, or that it was too slow for.

    Raises:
        SinkError: not such an address, or paho-mqtt is missing.
    """

    def __init__(self, url: str, *, below: str = "") -> None:
        address = Address.parse(url, ("mqtt", "mqtts"), "mqtt://192.168.1.20/door/keypoints")
        self.name = address.name
        self.source: int | None = None
        self.topic = unquote(address.path)
        if not self.topic or not self.topic.isprintable() or any(sign in self.topic for sign in "+#"):
            raise SinkError(
                f"{self.name}: no topic to publish to: name one without + and #, as in {address.example}"
                " (@ is written %40)"
            )
        if address.password is not None and not address.user:
            raise SinkError(f"{self.name}: MQTT knows no password without a user name: write user:password@")
        self.written = 0
        self.lost = 0
        if below:
            self.topic += f"/{below}"
        self._status = f"{self.topic}/status"
        self._keeps = not below  # does the broker keep the status for whoever comes later?
        self._lock = threading.RLock()  # between the writing thread and paho's
        self._progress = threading.Condition(self._lock)
        self._connected = self._answered = self._stuck = self._closing = False
        self._waiting: set[int] = set()
        self._said: set[str] = set()
        self._client: Client | None = self._start(address)

    def _start(self, address: Address) -> Client:
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion  # since paho-mqtt 2
        except ImportError as error:
            raise SinkError(f"mqtt needs paho-mqtt 2 or newer: {install('mqtt')}") from error
        # Brokers must take up to 23 letters and digits.
        client = Client(CallbackAPIVersion.VERSION2, client_id=f"edgekp{uuid.uuid4().hex[:16]}")
        if address.user:
            client.username_pw_set(address.user, address.password)
        if address.scheme == "mqtts":
            client.tls_set_context(ssl.create_default_context())
        client.will_set(self._status, "offline", retain=self._keeps)
        client.reconnect_delay_set(*RECONNECT_S)
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.connect_async(
            address.host, address.port or (8883 if address.scheme == "mqtts" else 1883), KEEPALIVE_S
        )
        client.loop_start()
        return client

    def write(self, result: Result) -> None:
        """Publish a frame; without a connection, or behind too many that wait, it is counted in ``lost``."""
        data = encode(result)
        with self._lock:
            # paho bounds its queue for QoS 1 and 2 only, so what waits is counted here. A clip on disk may be
            # faster than the network and waits for it, but for a connection that hangs only once.
            if self._full() and not self._stuck:
                self._stuck = not self._progress.wait_for(lambda: not self._full(), SEND_TIMEOUT_S)
            if self._client is None or not self._connected or self._full():
                self.lost += 1
                return
            sent = self._client.publish(self.topic, data)
            if sent.rc:
                self.lost += 1
            else:
                self._waiting.add(sent.mid)

    @property
    def connected(self) -> bool:
        """There is a broker, and it lets us in."""
        return self._connected

    def _full(self) -> bool:
        return len(self._waiting) >= WAITING

    def close(self) -> None:
        """Say "offline" and end the connection, within a second whatever the broker does.

        paho's thread has ended then, unless it is just connecting, which takes it up to 5 s to give up.
        """
        with self._lock:
            client, self._client = self._client, None
            if client is None:
                return
            self._closing = True
            if self._connected:
                client.publish(self._status, "offline", retain=self._keeps)
                self._connected = False
        client.disconnect()
        stop = threading.Thread(target=client.loop_stop, name="edge_kp mqtt stop", daemon=True)
        stop.start()  # it waits for paho's thread without a limit
        stop.join(FLUSH_S)
        if stop.is_alive() and (connection := client.socket()) is not None:
            with suppress(OSError):  # past a TLS socket's own shutdown, which would go on in plain text
                socket.socket.shutdown(cast(socket.socket, connection), socket.SHUT_RDWR)
        stop.join(CUT_S)
        self._lose_waiting()

    def _on_socket_open(self, _client: Client, _data: Any, connection: Any) -> None:
        self._answered = False
        # A result goes out at once, not when the broker has acknowledged the one before.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._answered = True
        if reason.is_failure:
            step = "user name and password in the address" if reason.value in REFUSED_USER else "its log"
            self._say(f"the broker refuses the connection ({str(reason).lower()}): check {step}")
            return
        with self._lock:
            if not self._closing:
                client.publish(self._status, "online", retain=self._keeps)
                self._connected = True
        log.info("%s: connected", self.name)

    def _on_connect_fail(self, _client: Client, _data: Any) -> None:
        error = sys.exc_info()[1]  # paho calls this while it handles what went wrong
        self._say(f"no connection ({_reason(error)}): trying again; what is lost meanwhile is counted")

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: Any, _reason: Any, _properties: Any
    ) -> None:
        with self._lock:
            was_connected, self._connected = self._connected, False
        self._lose_waiting()
        if was_connected:
            self._say("connection lost: trying again; what is lost meanwhile is counted")
        elif not self._answered and not self._closing:
            self._say("something takes the connection but does not answer as a broker: check host and port")

    def _on_publish(self, _client: Client, _data: Any, mid: int, _reason: Any, _properties: Any) -> None:
        with self._lock:
            if mid in self._waiting:
                self._waiting.remove(mid)
                self.written += 1
                self._stuck = False
                self._progress.notify()

    def _lose_waiting(self) -> None:
        """paho forgets what it has not sent when a connection ends."""
        with self._lock:
            self.lost += len(self._waiting)
            self._waiting.clear()
            self._stuck = False
            self._progress.notify()

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            log.warning("%s: %s", self.name, text)


def _reason(error: BaseException | None) -> str:
    """What the system says, in a few words."""
    said = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
    return said.lower()
