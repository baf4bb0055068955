"""Who may ask what of the page: it belongs to this machine, and no other site may press its buttons."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
import socket
import threading
from collections.abc import Collection, Mapping

# Scripts of other sites cannot send this header without asking first, and are then told no.
OWN_HEADER = "X-Edge-KP"

_HOST = re.compile(r"(?P<name>[a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]+)?", re.IGNORECASE)
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def own_names() -> set[str]:
    """Names of this machine by which its page may be asked for, in lower case.

    The full one is asked of the name server, which may be slow or away: a thread adds it once it is known.
    """
    host = socket.gethostname().lower()
    short = host.split(".")[0]
    names = {host, short, f"{short}.local"}
    threading.Thread(
        target=lambda: names.add(socket.getfqdn().lower()), name="edge_kp page name", daemon=True
    ).start()
    return names


def refused_host(headers: Mapping[str, str], names: Collection[str] | None) -> str | None:
    """Why a request is refused for the name by which it asks; None where it is not.

    A foreign site can make its own name point here, and its scripts then count as the page's own (DNS
    rebinding). It cannot do so with addresses, nor with the names of this machine; with one that only begins
    like them it can.

    Args:
        names: of this machine; None where the page can be reached from this machine alone.
    """
    host = headers.get("Host", "")
    match = _HOST.fullmatch(host)
    name = match["name"].lower() if match else ""
    if name in _LOOPBACK:
        return None
    if names is None:
        return f"unknown host {host[:80]!r}: open the page as localhost or 127.0.0.1"
    if name and (_is_address(name) or name in names):
        return None
    return f"unknown host {host[:80]!r}: open the page by this machine's address or its own name"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def refused_change(headers: Mapping[str, str], scheme: str) -> str | None:
    """Why a request that changes something is refused; None where it comes from the page itself."""
    origin = headers.get("Origin")
    own = f"{scheme}://{headers.get('Host', '')}"
    if origin is not None and origin.lower() != own.lower():
        return "another site may not do this"
    if headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        return "another site may not do this"
    if headers.get(OWN_HEADER) != "1":
        return f"the header {OWN_HEADER}: 1 is missing"
    return None


def security_headers(html: str) -> dict[str, str]:
    """Headers of every answer; the page's own style and script are allowed by their hashes, nothing else."""
    style, script = (_hashes(html, tag) for tag in ("style", "script"))
    policy = (
        f"default-src 'none'; style-src {style}; script-src {script}; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
        "Server": "edge_kp",
    }


def _hashes(html: str, tag: str) -> str:
    digests = (
        hashlib.sha256(body.encode()).digest() for body in re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
    )
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
