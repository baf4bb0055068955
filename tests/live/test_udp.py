"""Datagrams: what arrives, and that a receiver who is away harms nothing and is counted."""

import contextlib
import json
import socket
import sys

import pytest
from receivers import PATIENCE_S, linux, nothing_left_open, result

from edge_kp.errors import SinkError
from edge_kp.live import udp
from edge_kp.live.lines import encode, record
from edge_kp.live.udp import UdpSink


@pytest.fixture(autouse=True)
def _nothing_is_left_open():
    with nothing_left_open():
        yield


def test_a_message_is_the_result_in_compact_json():
    message = json.loads(encode(result(5, source=2)))
    assert message == record(result(5, source=2))
    assert (message["frame"], message["time_s"], message["source"]) == (5, 0.2, 2)
    assert message["detections"][0]["keypoints"][0] == [123.46, 123.46]
    assert b" " not in encode(result(5))
    assert b"\n" not in encode(result(5))
    assert len(encode(result(5))) < 2000


@contextlib.contextmanager
def receiver(host="127.0.0.1", family=socket.AF_INET, port=0):
    with socket.socket(family, socket.SOCK_DGRAM) as listener:
        listener.settimeout(PATIENCE_S)
        listener.bind((host, port))
        yield listener, listener.getsockname()[1]


def heard(listener):
    return json.loads(listener.recv(2**16))


@pytest.mark.parametrize(
    ("family", "host", "url"),
    [(socket.AF_INET, "127.0.0.1", "127.0.0.1"), (socket.AF_INET6, "::1", "[::1]")],
)
def test_a_datagram_per_frame_arrives(family, host, url):
    try:
        socket.create_server((host, 0), family=family).close()
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with receiver(host, family) as (listener, port):
        sink = UdpSink(f"udp://{url}:{port}")
        sink.write(result(0, objects=2))
        sink.write(result(1, objects=0))
        sink.close()
        sink.close()
        assert heard(listener) == record(result(0, objects=2))
        assert heard(listener) == record(result(1, objects=0))
        assert (sink.written, sink.lost) == (2, 0)


@linux
@pytest.mark.parametrize("other", ["127.0.0.2", "fe80::1"])  # nobody listens; no link named
def test_of_several_addresses_the_one_that_takes_datagrams_is_found(monkeypatch, other):
    with receiver() as (listener, port):
        kind = socket.SOCK_DGRAM
        found = [socket.getaddrinfo(host, port, type=kind)[0] for host in (other, "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        sink = UdpSink(f"udp://two.example:{port}")
        for i in range(6):
            sink.write(result(i, objects=200 if i == 3 else 1))
        sink.close()
        assert [heard(listener)["frame"] for _ in range(4)] == [1, 2, 4, 5]
    assert (sink.written, sink.lost) == (4, 2)


@linux
def test_a_receiver_that_comes_and_goes_is_said_once_and_every_result_is_counted(caplog):
    with receiver() as (_, port):
        pass
    sink = UdpSink(f"udp://127.0.0.1:{port}")
    for i in range(10):
        sink.write(result(i))
    with receiver(port=port) as (listener, _):
        for i in range(10, 20):
            sink.write(result(i))
        assert [heard(listener)["frame"] for _ in range(10)] == list(range(10, 20))
    for i in range(20, 30):
        sink.write(result(i))
    sink.close()
    assert (sink.written, sink.lost) == (10, 20)
    (said,) = caplog.messages
    assert said.startswith(f"udp://127.0.0.1:{port}: connection refused: ")


@linux
def test_what_is_too_large_for_a_datagram_is_lost_and_the_next_arrives(caplog):
    with receiver() as (listener, port):
        sink = UdpSink(f"udp://127.0.0.1:{port}")
        for i in range(6):
            sink.write(result(i, objects=200 if i % 2 else 1))
        assert [heard(listener)["frame"] for _ in range(3)] == [0, 2, 4]
        sink.close()
    assert (sink.written, sink.lost) == (3, 3)
    (said,) = caplog.messages
    assert "message too long" in said
    assert "fewer objects" in said


@linux
def test_a_network_that_cannot_be_reached_is_no_error(caplog):
    sink = UdpSink("udp://[fe80::1]:9000")  # link-local, and no link named
    for i in range(5):
        sink.write(result(i))
    sink.close()
    assert (sink.written, sink.lost) == (0, 5)
    (said,) = caplog.messages
    assert said.startswith("udp://[fe80::1]:9000: ")
    assert "check the address and the network" in said


@linux
def test_a_receiver_whose_address_has_changed_is_found_again(monkeypatch):
    with receiver() as (listener, port):
        gone = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", 9))]
        here = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", port))]
        answers = iter([gone, OSError("no name server"), here])

        def look_up(*_, **__):
            answer = next(answers)
            if isinstance(answer, OSError):
                raise answer
            return answer

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(udp, "LOOK_UP_S", 0.02)
        sink = UdpSink("udp://two.example:9000")
        listener.settimeout(0.05)
        for i in range(200):
            sink.write(result(i))
            with contextlib.suppress(TimeoutError):
                heard(listener)
                break
        else:
            pytest.fail("nothing arrived")
        sink.close()


def test_a_broadcast_is_permitted():
    sink = UdpSink("udp://127.255.255.255:9")
    sink.write(result(0))
    sink.close()
    assert sink.written + sink.lost == 1
    assert sink.written == 1 or not sys.platform.startswith("linux")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("udp://127.0.0.1", "needs a host and a port alone"),
        ("udp://127.0.0.1:9000/path", "needs a host and a port alone"),
        ("udp://user@127.0.0.1:9000", "needs a host and a port alone"),
        ("udp://127.0.0.1:0", "no host and port can be read"),
        ("udp://127.0.0.1:70000", "no host and port can be read"),
        ("udp://127.0.0.1:http", "no host and port can be read"),
        ("udp://:9000", "no host and port can be read"),
        ("udp://::1:9000", "no host and port can be read"),
        ("udp://[::1:9000", "no host and port can be read"),
        ("udp://a..b:9000", "no host and port can be read"),
        ("udp://a b:9000", "no host and port can be read"),
        ("udp://host?x:9000", "no host and port can be read"),
        ("127.0.0.1:9000", "write the address as udp://"),
        ("tcp://127.0.0.1:9000", "write the address as udp://"),
        ("udp://127.0.0.1\n:9000", "no such address"),
        ("udp://nobody.invalid:9000", "check the host's name"),
    ],
)
def test_a_wrong_udp_address_is_said_in_one_line(url, said):
    with pytest.raises(SinkError, match=said) as caught:
        UdpSink(url)
    assert "\n" not in str(caught.value)
