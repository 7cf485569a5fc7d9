"""From which network address a key is used, and whether it may be used from there.

Behind a reverse proxy the peer is the proxy. `TRUSTED_PROXIES` names those whose `x-forwarded-for`
is believed: of its addresses the last one that is no trusted proxy's is the caller's. What anybody
else sends under that name is not looked at.
"""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from meterplane.gateway import errors

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def peer_of(transport: asyncio.BaseTransport | None) -> str:
    """The other end's network address; empty where it has none."""
    peer = transport.get_extra_info("peername") if transport is not None else None
    return peer[0] if isinstance(peer, tuple) else ""


def caller_address(peer: str, forwarded_for: bytes | None, proxies: Sequence[Network]) -> str:
    """The caller's address as text; `peer` where no trusted proxy says otherwise."""
    if not proxies or forwarded_for is None:
        return peer
    found = peer
    hops = [each.strip() for each in forwarded_for.decode("latin-1").split(",")]
    for hop in reversed(hops):
        if not _in(found, proxies):
            break
        found = hop
    return found


def check_address(ip_ranges: list[str], address: str) -> None:
    """Raises `CallerError` 403 for an address that is in none of the ranges, or not known."""
    if not _in(address, _networks(tuple(ip_ranges))):
        raise errors.address_not_allowed()


def _in(address: str, networks: Sequence[Network]) -> bool:
    try:
        known: Address = ip_address(address)
    except ValueError:
        return False
    if isinstance(known, IPv6Address) and known.ipv4_mapped is not None:
        known = known.ipv4_mapped
    return any(known in network for network in networks)


@lru_cache(maxsize=1024)
def _networks(ip_ranges: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ip_network(each) for each in ip_ranges)
