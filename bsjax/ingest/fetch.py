"""A careful client: bounded in time, bytes, redirects and connections, on public networks alone.

Every connection, those of redirects too, goes to an address that was looked at: the name is
resolved here, each address it has must be public, and the connection is made to one of these, not
to the name once more.
"""

import asyncio
import collections
import email.utils
import ipaddress
import random
import socket
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from bsjax import __version__
from bsjax.core.foreign import printable

AGENT = "bsjax"
NO_AI = frozenset(("noai", "noimageai"))
REDIRECTS = (301, 302, 303, 307, 308)
RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))
LONGEST_WAIT = 30.0  # seconds that a Retry-After may ask for
# What servers say of an image whose type they do not know.
UNTOLD_TYPES = ("", "application/octet-stream", "binary/octet-stream")
SCHEMES = ("http", "https")
LONGEST = 200  # characters of what a server or the network says

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class Limits(NamedTuple):
    """Bounds of what is asked of the network."""

    timeout: float = 10.0  # seconds without a byte
    total: float = 30.0  # seconds of one try, from first byte to last
    retries: int = 2  # more tries, where another may go better
    backoff: float = 0.5  # seconds before the first of them; doubles
    redirects: int = 5
    most_bytes: int = 20_000_000
    per_host: int = 8  # connections
    connections: int = 256


class Fetched(NamedTuple):
    """The answer's body, or the reason (`results.ingested.REASONS`) why there is none."""

    body: bytes | None
    reason: str = ""
    detail: str = ""


class RefusedAddress(Exception):
    """A name leads to a network that is not public."""


class Lost(Exception):
    """An answer that no other try makes better: reason and detail."""


class Fetcher:
    """Asks for addresses; an async context manager.

    Args:
      limits: bounds.
      allow_private: whether loopback and private networks may be asked, too.
      resolve: name and port -> addresses, a coroutine; None: the system's.
    """

    def __init__(self, limits: Limits, allow_private: bool = False, resolve: Resolve | None = None):
        self._limits, self._allow_private = limits, allow_private
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=limits.connections,
                resolver=_PublicNames(allow_private, resolve or resolve_name),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"{AGENT}/{__version__}", "Accept": "image/*"},
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=limits.timeout, sock_read=limits.timeout
            ),
        )
        self._hosts: dict[str, asyncio.Semaphore] = collections.defaultdict(
            lambda: asyncio.Semaphore(limits.per_host)
        )

    async def __aenter__(self) -> "Fetcher":
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self._session.close()

    async def fetch(self, url: str) -> Fetched:
        """The image's bytes, or why there are none; never raises what the network brings about."""
        limits, reason = self._limits, Fetched(None, "dead", "not asked")
        for tried in range(limits.retries + 1):
            wait = limits.backoff * 2 ** (tried - 1) * random.uniform(0.5, 1.5) if tried else 0.0
            try:
                return await self._try(url)
            except Lost as lost:
                return Fetched(None, *lost.args)
            except RefusedAddress as error:
                return Fetched(None, "refused_address", str(error))
            except _Again as error:
                reason = Fetched(None, "dead", error.args[0])
                wait = max(wait, error.args[1])
            except aiohttp.ServerTimeoutError:
                reason = Fetched(None, "dead", f"silent for {limits.timeout:g} s")
            except TimeoutError:  # of the whole try, which another would take as well
                return Fetched(None, "dead", f"not done within {limits.total:g} s")
            except (aiohttp.ClientError, OSError) as error:
                name = type(error).__name__
                text = printable(" ".join(str(error).split()))[:LONGEST]
                reason = Fetched(None, "dead", f"{name}: {text}" if text else name)
                if isinstance(error, aiohttp.ClientConnectorDNSError):
                    return reason  # a name that is none is none a second later, too
            if tried < limits.retries:
                await asyncio.sleep(wait or limits.backoff)
        return reason

    async def _try(self, url: str) -> Fetched:
        for hop in range(self._limits.redirects + 1):
            try:
                place = _parse(url)
            except Lost as lost:
                raise (Lost("dead", f"redirect: {lost.args[1]}") if hop else lost) from lost
            host = place.host or ""
            if not self._allow_private and _is_literal(host):
                _refuse_private(host, [host])  # which no resolver is asked for
            async with (
                self._hosts[host],  # whose turn may take long, which is not the server's fault
                asyncio.timeout(self._limits.total),
                self._session.get(place, allow_redirects=False) as response,
            ):
                _refuse_opted_out(response.headers.getall("X-Robots-Tag", []))
                leads_to = response.headers.get("Location")
                if response.status in REDIRECTS and leads_to is not None:
                    url = urllib.parse.urljoin(url, leads_to)
                    continue
                return Fetched(await self._read(response))
        raise Lost("dead", f"more than {self._limits.redirects} redirects")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        status, headers = response.status, response.headers
        if status in RETRIED:
            raise _Again(f"status {status}", _retry_after(headers.get("Retry-After", "")))
        if status != 200:
            raise Lost("dead", f"status {status}")
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if not kind.startswith("image/") and kind not in UNTOLD_TYPES:
            raise Lost("not_an_image", printable(kind)[:LONGEST])
        most, length = self._limits.most_bytes, headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > most:
            raise Lost("too_large", f"{length} bytes")
        parts, n = [], 0
        async for part in response.content.iter_chunked(1 << 16):
            n += len(part)
            if n > most:
                raise Lost("too_large", f"more than {most} bytes")
            parts.append(part)
        return b"".join(parts)


class _Again(Exception):
    """An answer that another try may make better: what it was, and seconds to wait at least."""


def _parse(url: str) -> yarl.URL:
    """An address.

    Raises:
      Lost: it is none of the web.
    """
    try:
        found = yarl.URL(url)
        is_web = found.scheme in SCHEMES and found.host and found.port
    except ValueError as error:
        raise Lost("malformed", printable(str(error))[:LONGEST]) from error
    if not is_web:
        raise Lost("malformed", f"expected http:// or https://, got {printable(url)[:LONGEST]!r}")
    return found


def _is_literal(host: str) -> bool:
    """Whether a host is an address and no name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _refuse_private(host: str, addresses: Iterable[str]) -> None:
    private = [each for each in addresses if not is_public(each)]
    if private:
        raise RefusedAddress(f"{host} is {private[0]}")


def _refuse_opted_out(tags: Iterable[str]) -> None:
    """X-Robots-Tag: directives for all, or behind the name of an agent for that one."""
    for value in tags:
        agent = ""
        for part in value.lower().split(","):
            name, has_name, rest = part.partition(":")
            if has_name:
                agent, part = name.strip(), rest
            if part.strip() in NO_AI and agent in ("", AGENT):
                raise Lost("opted_out", printable(value)[:LONGEST])


def _retry_after(text: str) -> float:
    """Seconds, from a number or a date; no more than `LONGEST_WAIT`."""
    if text.strip().isdecimal():
        return min(float(text), LONGEST_WAIT)
    try:
        seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT)


async def resolve_name(host: str, port: int) -> Sequence[str]:
    """Addresses of a name, as the system knows them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet; an embedded IPv4 address counts, too."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if inner is None and found in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


class _PublicNames(AbstractResolver):
    """Resolves names, and refuses those that have an address which is not public."""

    def __init__(self, allow_private: bool, resolve: Resolve):
        self._allow_private, self._resolve = allow_private, resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            addresses = await self._resolve(host, port)
        except UnicodeError as error:  # a name that IDNA cannot write
            raise OSError(f"{host!r} is no name") from error
        if not self._allow_private:
            _refuse_private(host, addresses)
        return [
            ResolveResult(
                hostname=host, host=each, port=port, proto=0,
                family=socket.AF_INET6 if ":" in each else socket.AF_INET,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for each in addresses
        ]  # fmt: skip

    async def close(self) -> None:
        """Holds nothing."""
