"""Where a request comes from: the client's address, with proxies believed only as far as they are trusted.

Each proxy appends the address that it was called from, so what stands right-most was written last. From the right,
every entry was written by the one to its right; the first that is no trusted proxy is the client, and whatever is
left of it is the client's own invention. Who is not trusted is not listened to at all.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Ip = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# More proxies in a row than this are a loop, or an attack on our patience.
ENTRIES_MAX: Final = 32
# Hosts within it are one subscriber's, who may take another one at will.
IPV6_BUCKET_BITS: Final = 64
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_ADDRESS_CHARS_MAX: Final = 45
_PORT: Final = r"(?::(?:[0-9]{1,5}|_[0-9A-Za-z._-]+))?"
# RFC 7239, 6, and IPv6 without its brackets, as many write it where no port follows.
_NODE: Final = re.compile(
    rf"(?:(?P<v4>[0-9.]+){_PORT}|\[(?P<v6>[0-9A-Fa-f:.]+)\]{_PORT}|(?P<bare>[0-9A-Fa-f:.]+))"
)
_PAIR: Final = re.compile(r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"([^"\\]*)"|([^"\\\s=]+))""")


class Addresses:
    """Tells the client's address. `trusted` are the addresses and networks of the proxies that are believed."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = tuple(_network(text) for text in trusted)

    def of(self, scope: Mapping[str, Any]) -> str:
        """The address of who sent a request; empty if all that is known is that it came through a Unix socket."""
        client = scope.get("client")
        peer: str = client[0] if client else ""
        if peer and not self._trusted:
            return peer
        address = _ip(peer.partition("%")[0])
        own = peer if address is None else str(address)
        # On a Unix socket there is a proxy: nobody else was let in, and it has no address to be known by.
        if peer and not (address is not None and self._trusts(address)):
            return own
        return self._claimed(scope["headers"]) or own

    def _claimed(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """What the proxies say, empty if that is nothing to go by.

        Most proxies write one of the two headers and hand on the other as the client sent it. So where both are there
        and do not say the same, one is a lie, and neither is believed.
        """
        forwarded = _entries(headers, b"forwarded")
        nodes = [_forwarded_for(entry) for entry in forwarded]
        others = _entries(headers, b"x-forwarded-for")
        if not any(nodes):
            nodes = others
        elif others and self._first_stranger(nodes) != self._first_stranger(others):
            return ""
        found = self._first_stranger(nodes)
        return "" if found is None else str(found)

    def _first_stranger(self, nodes: Iterable[str]) -> Ip | None:
        """From the right, the first address that is not trusted, or as far as good addresses go."""
        found = None
        for node in nodes:
            address = _ip_of_node(node)
            if address is None:
                break
            found = address
            if not self._trusts(address):
                break
        return found

    def _trusts(self, address: Ip) -> bool:
        return any(address in network for network in self._trusted)


def bucket(address: str) -> str:
    """What failures from `address` are counted under: an IPv4 address is its own, IPv6 goes by its /64 network."""
    ip = _ip(address.partition("%")[0])
    if ip is None:
        return address
    return str(ip) if isinstance(ip, IPv4Address) else str(IPv6Network((ip, IPV6_BUCKET_BITS), strict=False))


def _entries(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> list[str]:
    """The last entries of all header lines of that name together, the last one first."""
    lines = [value for name, value in headers if name == wanted]
    if not lines:
        return []
    # Not even within quotes does an address have a comma: to look for one there would let a stray quote of the
    # client's swallow what a proxy wrote behind it.
    last = b",".join(lines).decode("latin-1").rsplit(",", ENTRIES_MAX)[-ENTRIES_MAX:]
    return [entry for text in reversed(last) if (entry := text.strip(" \t"))]


def _forwarded_for(element: str) -> str:
    """The `for` of one element of a Forwarded header; empty if there is none, or the element is malformed."""
    found = ""
    for text in element.split(";"):
        if not (stripped := text.strip(" \t")):
            continue
        pair = _PAIR.fullmatch(stripped)
        if pair is None:
            return ""
        if pair[1].lower() == "for":
            if found:
                return ""
            found = pair[2] or pair[3] or ""
    return found


def _ip_of_node(node: str) -> Ip | None:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80` and the like; None for whatever has none."""
    if node[:1] == node[-1:] == '"':
        node = node[1:-1]
    match = _NODE.fullmatch(node)
    return _ip(match["v4"] or match["v6"] or match["bare"]) if match is not None else None


def _ip(text: str) -> Ip | None:
    if len(text) > _ADDRESS_CHARS_MAX:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # IPv4 in IPv6's clothes.
    return getattr(address, "ipv4_mapped", None) or address


def _network(text: str) -> Network:
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        assert mapped is not None
        return IPv4Network((mapped, network.prefixlen - _MAPPED.prefixlen))
    return network
