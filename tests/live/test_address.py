"""Addresses of receivers: what they say, and that a password in one is never repeated."""

from hypothesis import given
from hypothesis import strategies as st

from edge_kp.errors import SinkError
from edge_kp.live.address import Address


def parsed(url):
    """The address, or None and why not."""
    try:
        return Address.parse(url, ("mqtt", "mqtts"), "mqtt://host/topic"), ""
    except SinkError as error:
        return None, str(error)


@given(url=st.text() | st.text().map("mqtt://".__add__) | st.from_regex(r"mqtts?://[^/]*(:\d+)?/.*"))
def test_any_text_is_an_address_or_refused_in_one_line(url):
    address, said = parsed(url)
    if address is None:
        assert said
        assert "\n" not in said
        return
    assert address.host
    assert address.port is None or 0 < address.port < 65536
    assert "@" not in address.name


@given(
    secret=st.builds("S3CR3T{}{}".format, st.sampled_from(["", "://", "@", "@/"]), st.text("Zß:@/%?#[]\n ")),
    rest=st.sampled_from(["host/topic", "host:1/topic", "", "/", ":x/t", "[::1/t", "ho st/t", "a..b/t", "h"]),
    scheme=st.sampled_from(["mqtt://", "mqtts://", "udp://", "", "://"]),
)
def test_a_password_is_never_repeated(secret, rest, scheme):
    address, said = parsed(f"{scheme}user:{secret}@{rest}")
    assert "S3CR3T" not in said
    if address is not None:
        assert "S3CR3T" not in address.name + repr(address)
        assert address.password
        assert address.password.startswith("S3CR3T")


def test_an_address_is_taken_apart():
    address = Address.parse("MQTTS://a%40b:p%2F:w@[fe80::1]:1/x/%40y", ("mqtts",), "")
    assert (address.scheme, address.user, address.password) == ("mqtts", "a@b", "p/:w")
    assert (address.host, address.port, address.path) == ("fe80::1", 1, "x/%40y")
    assert address.name == "MQTTS://[fe80::1]:1/x/%40y"
    address = Address.parse("mqtt://host/t", ("mqtt",), "")
    assert (address.user, address.password, address.port) == (None, None, None)
