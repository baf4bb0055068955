"""Addresses that results are sent to: what a URL says, and how it may be shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from edge_kp.errors import SinkError


@dataclass(frozen=True)
class Address:
    """A URL of a receiver, taken apart.

    Attributes:
        name: the URL without user and password.
        example: a good one, for messages.
        path: what follows the host, without its first slash; not decoded.
    """

    name: str
    example: str
    scheme: str
    user: str | None
    password: str | None = field(repr=False)
    host: str
    port: int | None
    path: str

    @classmethod
    def parse(cls, url: str, schemes: tuple[str, ...], example: str) -> Address:
        """Raises: SinkError: not such an address; a password in it is not repeated."""
        scheme, mark, rest = url.partition("://")
        if scheme.lower() not in schemes:
            scheme, mark, rest = "", "", url
        # Up to the last @, so that nothing of a password with @ or / in it is taken for a host or shown.
        credentials, at, rest = rest.rpartition("@")
        name = f"{scheme}{mark}{rest}"
        if not url.isprintable() or len(url) > 8000:
            raise SinkError(f"{name[:60]!a}: no such address: write it as {example}")
        place, _, path = rest.partition("/")
        if not mark:
            raise SinkError(f"{name}: write the address as {example}")
        try:
            parts = urlsplit(f"//{place}")
            host, port = parts.hostname or "", parts.port
            host.encode("idna")
        except ValueError:
            raise SinkError(f"{name}: no host and port can be read: write them as in {example}") from None
        if not host or port == 0 or parts.netloc != place or " " in place:
            raise SinkError(f"{name}: no host and port can be read: write them as in {example}")
        user, colon, password = credentials.partition(":")
        return cls(
            name=name,
            example=example,
            scheme=scheme.lower(),
            user=unquote(user) if at else None,
            password=unquote(password) if colon else None,
            host=host,
            port=port,
            path=path,
        )
