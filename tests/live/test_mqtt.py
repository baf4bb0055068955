"""MQTT: what arrives, and that a broker who is away, deaf or hung harms nothing and is counted."""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from receivers import PATIENCE_S, linux, nothing_left_open, result, threads, wait_until

from edge_kp.errors import SinkError
from edge_kp.live import mqtt
from edge_kp.live.lines import record
from edge_kp.live.mqtt import WAITING, MqttSink


@pytest.fixture(autouse=True)
def _nothing_is_left_open():
    with nothing_left_open():
        yield


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mqtt://host", "no topic"),
        ("mqtt://host/", "no topic"),
        ("mqtt://host/a/+/b", "no topic"),
        ("mqtt://host/a/%23", "no topic"),
        ("mqtt://host/a%00", "no topic"),
        ("mqtt://:pw@host/a", "no password without a user name"),
        ("udp://host/a", "write the address as mqtt://"),
    ],
)
def test_a_wrong_mqtt_address_is_said_in_one_line(url, said):
    with pytest.raises(SinkError, match=said) as caught:
        MqttSink(url)
    assert "\n" not in str(caught.value)


def test_a_missing_library_is_said_with_the_step_that_helps(monkeypatch):
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(SinkError, match=r"pip install 'edge-kp\[mqtt\]'"):
        MqttSink("mqtt://host/topic")


# Against a real broker

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class Broker:
    """mosquitto on a port of its own, to be started, frozen and killed."""

    def __init__(self, folder, settings="allow_anonymous true"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        user = "user root\n" if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
        self.config = folder / "mosquitto.conf"
        self.config.write_text(f"{user}persistence false\nlistener {self.port} 127.0.0.1\n{settings}\n")
        self.log = folder / "mosquitto.log"
        self.process = None

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([MOSQUITTO, "-c", str(self.config)], stdout=log, stderr=log)
        wait_until(self.answers, f"mosquitto starts: {self.log.read_text()}")
        return self

    def answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def make_broker(tmp_path):
    pytest.importorskip("paho.mqtt.enums", reason="needs paho-mqtt: pip install '.[mqtt]'")
    if MOSQUITTO is None:
        pytest.skip("needs a broker: apt-get install mosquitto")
    brokers = []

    def make(settings="allow_anonymous true"):
        brokers.append(Broker(tmp_path, settings))
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.kill()


@pytest.fixture
def paho():
    return pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt: pip install '.[mqtt]'")


class Subscriber:
    """Somebody who listens to everything, and goes on when the broker is back."""

    def __init__(self, port, user=None, password=None):
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.messages = []
        self.subscribed = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2)
        if user:
            self.client.username_pw_set(user, password)
        self.client.on_connect = lambda client, *_: client.subscribe("#")
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_disconnect = lambda *_: self.subscribed.clear()
        self.client.on_message = lambda _client, _data, message: self.messages.append(message)
        self.client.connect_async("127.0.0.1", port)
        self.client.loop_start()

    def __enter__(self):
        assert self.subscribed.wait(PATIENCE_S)
        return self

    def __exit__(self, *_):
        self.client.disconnect()
        self.client.loop_stop()
        self.client.on_connect = self.client.on_message = None
        self.client = None

    def status(self, topic="cam/status"):
        return [m.payload.decode() for m in list(self.messages) if m.topic == topic]

    def frames(self, topic="cam"):
        return [json.loads(m.payload)["frame"] for m in list(self.messages) if m.topic == topic]


def write_until(sink, condition, what, first=0):
    """Write results as a camera gives them; returns the number of the next."""
    index = first

    def step():
        nonlocal index
        sink.write(result(index))
        index += 1
        return condition()

    wait_until(step, what)
    return index


def online(sink, first=0):
    """Write until results go out."""
    before = sink.written
    return write_until(sink, lambda: sink.written > before, "results are published", first)


def test_results_and_status_arrive(make_broker):
    broker = make_broker().start()
    with Subscriber(broker.port) as subscriber:
        sink = MqttSink(f"mqtt://127.0.0.1:{broker.port}/cam")
        wait_until(lambda: subscriber.status() == ["online"], "the status")
        wait_until(lambda: sink.connected, "the connection")
        for i in range(20):
            sink.write(result(i, objects=i % 3, source=i % 2))
        sink.close()
        sink.close()
        wait_until(lambda: len(subscriber.frames()) == 20, "the results")
        messages = [m for m in subscriber.messages if m.topic == "cam"]
        assert [json.loads(m.payload) for m in messages] == [
            record(result(i, objects=i % 3, source=i % 2)) for i in range(20)
        ]
        assert not any(m.retain for m in messages)
        wait_until(lambda: subscriber.status() == ["online", "offline"], "the end")
    assert (sink.written, sink.lost, sink.connected) == (20, 0, False)
    sink.write(result(20))  # after the end nothing is left to do but to count
    assert sink.lost == 1
    with Subscriber(broker.port) as late:
        wait_until(lambda: late.status() == ["offline"], "the retained status")
        assert not late.frames()


def test_a_check_of_the_broker_leaves_nothing_behind(make_broker):
    broker = make_broker().start()
    with Subscriber(broker.port) as subscriber:
        sink = MqttSink(f"mqtt://127.0.0.1:{broker.port}/cam", below="check")
        wait_until(lambda: sink.connected, "the connection")
        wait_until(lambda: "online" in [m.payload.decode() for m in list(subscriber.messages)], "the status")
        sink.close()
        wait_until(lambda: "offline" in [m.payload.decode() for m in list(subscriber.messages)], "the end")
        assert {m.topic for m in subscriber.messages} == {"cam/check/status"}
    with Subscriber(broker.port) as late:
        kept = MqttSink(f"mqtt://127.0.0.1:{broker.port}/other")
        wait_until(lambda: late.messages, "what is published now")
        kept.close()
        assert {m.topic for m in late.messages} == {"other/status"}


def test_a_clip_that_is_read_faster_than_it_is_sent_waits(make_broker):
    broker = make_broker().start()
    sink = MqttSink(f"mqtt://127.0.0.1:{broker.port}/cam")
    count = online(sink)
    before = sink.lost
    for i in range(count, count + 10 * WAITING):
        sink.write(result(i, objects=20))
    sink.close()
    assert sink.lost - before < WAITING  # a busy machine may stop everything for a second


def test_a_broker_that_is_not_there_yet_is_said_once_and_used_when_it_comes(make_broker, caplog):
    broker = make_broker()
    sink = MqttSink(f"mqtt://127.0.0.1:{broker.port}/cam")
    count = write_until(sink, lambda: caplog.messages, "the warning")
    assert (sink.written, sink.lost) == (0, count)
    broker.start()
    with Subscriber(broker.port) as subscriber:
        count = online(sink, count)
        sink.close()
        wait_until(lambda: sink.written == 0 or count - 1 in subscriber.frames(), "the newest result")
    assert sink.written + sink.lost == count
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{sink.name}: no connection (connection refused)")


def test_a_broker_that_dies_and_comes_back_gets_results_again_and_all_are_counted(make_broker, caplog):
    broker = make_broker().start()
    sink = MqttSink(f"mqtt://127.0.0.1:{broker.port}/cam")
    count = online(sink)
    for _ in range(2):
        broker.kill()
        lost = sink.lost
        count = write_until(sink, lambda lost=lost: sink.lost > lost + 5, "losses", count)
        broker.start()
        with Subscriber(broker.port) as subscriber:
            first = count
            count = write_until(
                sink, lambda f=first, s=subscriber: any(i >= f for i in s.frames()), "new results", count
            )
            wait_until(lambda s=subscriber: s.status() and s.status()[-1] == "online", "the status")
    sink.close()
    assert sink.written + sink.lost == count
    assert sum("connection lost" in message for message in caplog.messages) == 1


DYING = """
import sys, time
sys.path[:0] = [sys.argv[1]]
from test_mqtt import MqttSink, online

sink = MqttSink(sys.argv[2])
online(sink)
print("ready", flush=True)
time.sleep(600)
"""


def test_the_broker_says_offline_when_the_program_is_killed(make_broker):
    broker = make_broker().start()
    with Subscriber(broker.port) as subscriber:
        command = [sys.executable, "-c", DYING, str(Path(__file__).parent)]
        command.append(f"mqtt://127.0.0.1:{broker.port}/cam")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            try:
                assert program.stdout.readline() == "ready\n"
                wait_until(lambda: subscriber.status() == ["online"], "the status")
            finally:
                program.kill()
        wait_until(lambda: subscriber.status() == ["online", "offline"], "the last will")
    with Subscriber(broker.port) as late:
        wait_until(lambda: late.status() == ["offline"], "the retained last will")


@pytest.fixture
def guarded(make_broker, tmp_path):
    """A broker that knows "me:se cret/@" alone."""
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("needs mosquitto_passwd")
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run([tool, "-b", str(passwords), "me", "se cret/@"], check=True, timeout=60)
    return make_broker(f"allow_anonymous false\npassword_file {passwords}").start()


def test_the_right_password_lets_results_through(guarded, caplog):
    with Subscriber(guarded.port, "me", "se cret/@") as subscriber:
        sink = MqttSink(f"mqtt://me:se%20cret%2F%40@127.0.0.1:{guarded.port}/cam")
        count = online(sink)
        sink.close()
        wait_until(subscriber.frames, "results")
    assert sink.written + sink.lost == count
    assert sink.name == f"mqtt://127.0.0.1:{guarded.port}/cam"
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("user", ["", "me:wr0ng@", "me@", "them:se%20cret%2F%40@"])
def test_a_wrong_password_is_said_once_and_never_shown(guarded, caplog, user):
    caplog.set_level(logging.DEBUG)
    sink = MqttSink(f"mqtt://{user}127.0.0.1:{guarded.port}/cam")
    refusals = lambda: guarded.log.read_text().count("not authorised")  # noqa: E731
    count = write_until(sink, lambda: caplog.messages and refusals() >= 2, "two refusals")
    sink.close()
    assert (sink.written, sink.lost) == (0, count)
    (said,) = caplog.messages
    assert said.startswith(f"{sink.name}: the broker refuses the connection (")
    assert said.endswith("check user name and password in the address")
    assert "wr0ng" not in caplog.text


def certificates(folder):
    """A certificate authority and its certificate of localhost, 127.0.0.1."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca",
        "req -newkey rsa:2048 -nodes -keyout key.pem -out ask.pem -subj /CN=localhost",
        "x509 -req -in ask.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out it.pem",
    ):
        subprocess.run([openssl, *command.split()], cwd=folder, check=True, capture_output=True, timeout=60)
    return f"cafile {folder}/ca.pem\ncertfile {folder}/it.pem\nkeyfile {folder}/key.pem\nallow_anonymous true"


@linux
def test_tls_needs_a_certificate_the_system_trusts(make_broker, tmp_path, monkeypatch, caplog):
    broker = make_broker(certificates(tmp_path)).start()
    url = f"mqtts://127.0.0.1:{broker.port}/cam"
    sink = MqttSink(url)
    count = write_until(sink, lambda: caplog.messages, "the warning")
    sink.close()
    assert (sink.written, sink.lost) == (0, count)
    (said,) = caplog.messages
    assert "no connection (" in said
    assert "certificate" in said
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    sink = MqttSink(url)
    count = online(sink)
    sink.close()
    assert sink.written + sink.lost == count


def test_a_broker_that_hangs_costs_results_but_neither_memory_nor_the_end(make_broker, monkeypatch):
    monkeypatch.setattr(mqtt, "KEEPALIVE_S", 600)  # else it would end all this by itself
    broker = make_broker().start()
    sink = MqttSink(f"mqtt://127.0.0.1:{broker.port}/cam")
    count = online(sink)
    broker.signal(signal.SIGSTOP)
    lost = sink.lost

    def flood():
        nonlocal count
        for _ in range(20):
            sink.write(result(count, objects=60))
            count += 1
        assert count - sink.written - sink.lost <= WAITING
        return sink.lost > lost + 100

    wait_until(flood, "the connection is full")
    sink.close()
    assert sink.written + sink.lost == count
    wait_until(lambda: not threads(), "the end, though the broker takes nothing")
    broker.signal(signal.SIGCONT)


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts"])
def test_a_port_that_takes_the_connection_but_never_answers_harms_nothing(paho, scheme):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.settimeout(PATIENCE_S)
        sink = MqttSink(f"{scheme}://127.0.0.1:{deaf.getsockname()[1]}/cam")
        connection, _ = deaf.accept()
        with connection:
            for i in range(100):
                sink.write(result(i))
            sink.close()
    assert (sink.written, sink.lost) == (0, 100)


def test_something_else_than_a_broker_is_said(paho, caplog):
    with socket.create_server(("127.0.0.1", 0)) as web:
        web.settimeout(PATIENCE_S)
        sink = MqttSink(f"mqtt://127.0.0.1:{web.getsockname()[1]}/cam")
        connection, _ = web.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            count = write_until(sink, lambda: caplog.messages, "the warning")
        sink.close()
    assert (sink.written, sink.lost) == (0, count)
    assert "does not answer as a broker" in caplog.messages[0]


def test_a_host_that_is_not_known_yet_does_not_keep_the_run_from_starting(paho, caplog):
    sink = MqttSink("mqtt://nobody.invalid/cam")
    count = write_until(sink, lambda: caplog.messages, "the warning")
    sink.close()
    assert (sink.written, sink.lost) == (0, count)
    assert caplog.messages[0].startswith("mqtt://nobody.invalid/cam: no connection (")
