"""Block downloads from private addresses, unless the service itself has one."""

import ipaddress
import socket
from contextlib import suppress
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def is_loopback(host: str) -> bool:
    """Return whether *host* is a loopback name or address."""
    name = host.rstrip(".").lower()
    address = _literal(host)
    return (
        name == "localhost"
        or name.endswith(".localhost")
        or (address is not None and address.is_loopback)
    )


def is_private(host: str) -> bool:
    """Return whether *host* is a literal non-public address; False for names."""
    address = _literal(host)
    return address is not None and (not address.is_global or address.is_multicast)


def _literal(host: str) -> _Address | None:
    """Return the address that *host* denotes, including ``127.1`` and embedded IPv4, or None."""
    try:
        address: _Address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        with suppress(OSError, UnicodeError):
            return ipaddress.IPv4Address(socket.inet_aton(host))
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(address.packed[-4:])
        return address.ipv4_mapped or address.sixtofour or address
    return address


class GuardedResolver(AbstractResolver):
    """A resolver that rejects names with private addresses.

    The service's host and proxies may have any address. If the service's is private, every
    host's may be.
    """

    def __init__(self) -> None:
        self._services: set[str] = set()
        self._proxies: set[str] = set()
        self._resolver: AbstractResolver | None = None

    def add_service(self, host: str) -> None:
        self._services.add(host)

    def add_proxy(self, host: str) -> None:
        self._proxies.add(host)

    async def check(self, host: str) -> None:
        """Reject *host* if it is a private address.

        Raises:
            ValueError: It is private, and the service's is not.
        """
        if is_private(host) and not await self._service_is_private():
            raise _rejection(host)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of *host* that may be connected to.

        Raises:
            OSError: *host* cannot be resolved.
            ValueError: All its addresses are private, and the service's are not.
        """
        found = await self._resolve(host, port, family)
        if host in self._services or host in self._proxies:
            return found
        public = [each for each in found if not is_private(each["host"])]
        if len(public) == len(found) or await self._service_is_private():
            return found
        if not public:
            raise _rejection(host)
        return public

    async def close(self) -> None:
        if self._resolver is not None:
            await self._resolver.close()

    async def _resolve(
        self, host: str, port: int, family: socket.AddressFamily
    ) -> list[ResolveResult]:
        if self._resolver is None:
            self._resolver = aiohttp.DefaultResolver()
        return await self._resolver.resolve(host, port, family)

    async def _service_is_private(self) -> bool:
        for host in self._services:
            if is_private(host):
                return True
            if _literal(host) is None:
                with suppress(OSError, UnicodeError):
                    found = await self._resolve(host, 0, socket.AF_UNSPEC)
                    if any(is_private(each["host"]) for each in found):
                        return True
        return False


def _rejection(host: str) -> ValueError:
    return ValueError(
        f"{host[:100]} is or has a private address, which is not allowed unless base_url has one"
    )
