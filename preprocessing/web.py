"""Reading over http(s) from hosts that were allowed by name: no other host, no private address, no way around."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from urllib.parse import SplitResult, urljoin, urlsplit

from contracts.errors import Reject, Transient
from contracts.reasons import Reason

TIMEOUT_S = 30.0  # of silence
DEADLINE_S = 3600.0  # of one file, however steadily it drips
MOST_REDIRECTS = 5
CHUNK = 1 << 20
TRY_AGAIN = frozenset({408, 425, 429})


@contextmanager
def answer(url: str, hosts: Collection[str], method: str = "GET") -> Iterator[http.client.HTTPResponse]:
    """The answer to a request for ``url``, its redirects followed on the same host.

    ``hosts`` are the allowed ones, as ``media.example.org`` or ``media.example.org:8443``. Raises ``Reject``:
    URL_REFUSED for any other host, for user names in the address, for a name that leads to a private address, for a
    redirect to another host or from https to http; MISSING_FILE for 404 and 410; UNREADABLE for other refusals.
    Raises ``Transient`` where the host does not answer, or says that it may later.
    """
    parts = allowed(url, hosts)
    for _ in range(MOST_REDIRECTS + 1):
        connection = _connect(parts)
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(method, target, headers={"Accept-Encoding": "identity", "User-Agent": "voxface"})
            response = connection.getresponse()
            if response.status not in (301, 302, 303, 307, 308):
                _judge(response.status, parts)
                yield response
                return
            parts = _redirected(parts, response.getheader("Location") or "", hosts)
        except (http.client.HTTPException, OSError) as error:
            raise Transient(f"{parts.hostname} broke off: {type(error).__name__}") from error
        finally:
            connection.close()
    raise Reject(Reason.UNREADABLE, f"{parts.hostname} redirects more than {MOST_REDIRECTS} times")


def body(response: http.client.HTTPResponse, most_bytes: int) -> Iterator[bytes]:
    """The bytes of an answer, in chunks.

    Raises ``Reject(UNREADABLE)`` beyond ``most_bytes``, ``Transient`` where it ends before its declared length, falls
    silent, or is not through after an hour.
    """
    declared = response.getheader("Content-Length")
    total, until = 0, time.monotonic() + DEADLINE_S
    if declared and declared.isdigit() and int(declared) > most_bytes:
        raise Reject(Reason.UNREADABLE, f"has {declared} bytes, {most_bytes} are allowed")
    # read1: what has come; read would wait until a chunk is full, however slowly
    while chunk := response.read1(CHUNK):
        total += len(chunk)
        if total > most_bytes:
            raise Reject(Reason.UNREADABLE, f"has more than {most_bytes} bytes")
        if time.monotonic() > until:
            raise Transient(f"not through after {DEADLINE_S:.0f} s")
        yield chunk
    if declared and declared.isdigit() and total != int(declared):
        raise Transient(f"ended after {total} of {declared} bytes")


def allowed(url: str, hosts: Collection[str]) -> SplitResult:
    """The parts of ``url``. Raises ``Reject(URL_REFUSED)`` unless it is http(s) on one of ``hosts``."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Reject(Reason.URL_REFUSED, "not a proper address") from None
    given = {name.lower() for name in hosts}
    default = {"http": 80, "https": 443}.get(parts.scheme)
    if default is None or not ({host, f"{host}:{port or default}"} & given):
        raise Reject(Reason.URL_REFUSED, f"{url!r} is an address, and its host is not allowed by --allow-host")
    if "@" in parts.netloc:
        raise Reject(Reason.URL_REFUSED, f"an address on {host} holds a user name")
    return parts


def _redirected(parts: SplitResult, location: str, hosts: Collection[str]) -> SplitResult:
    target = allowed(urljoin(parts.geturl(), location), hosts)
    if target.hostname != parts.hostname or (parts.scheme == "https" and target.scheme != "https"):
        raise Reject(Reason.URL_REFUSED, f"{parts.hostname} redirects to {target.scheme}://{target.hostname}")
    return target


def _judge(status: int, parts: SplitResult) -> None:
    if status == 200:
        return
    if status in (404, 410):
        raise Reject(Reason.MISSING_FILE, f"{parts.path!r} is not on {parts.hostname}")
    if status in TRY_AGAIN or status >= 500:
        raise Transient(f"{parts.hostname} answers {status}")
    raise Reject(Reason.UNREADABLE, f"{parts.hostname} answers {status}")


def _connect(parts: SplitResult) -> http.client.HTTPConnection:
    """A connection to the address that was judged, so that no second look-up can name another."""
    host = parts.hostname or ""
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=TIMEOUT_S)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise Transient(f"{host} is not found: {error.strerror}") from error
    except (OSError, UnicodeError) as error:
        raise Reject(Reason.URL_REFUSED, f"{host!r} is no name of a host") from error
    if not _is_literal(host):
        for *_, place in found:
            if not public(str(place[0])):
                raise Reject(Reason.URL_REFUSED, f"{host} leads to a private address: allow that address itself")
    plain = _dial(host, [(str(place[0]), port) for *_, place in found])
    if parts.scheme == "https":
        try:
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            plain.close()
            raise Reject(Reason.UNREADABLE, f"{host}: {error.verify_message}") from error
        except OSError as error:
            plain.close()
            raise Transient(f"{host} broke off: {type(error).__name__}") from error
    else:
        connection.sock = plain
    return connection


def _dial(host: str, places: list[tuple[str, int]]) -> socket.socket:
    """A connection to the first of ``places`` that answers."""
    fault = ""
    for place in places:
        try:
            return socket.create_connection(place, TIMEOUT_S)
        except OSError as error:
            fault = error.strerror or type(error).__name__
    raise Transient(f"{host} does not answer: {fault}")


def _is_literal(host: str) -> bool:
    """Whether the host that was allowed is an address itself; localhost always is one."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def public(address: str) -> bool:
    """Whether ``address`` is one of the open internet: not private, link-local, loopback, multicast or reserved.

    >>> public("93.184.216.34"), public("169.254.169.254"), public("::ffff:10.0.0.1")
    (True, False, False)
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found in ipaddress.IPv6Network("64:ff9b::/96"):  # a translated IPv4 address
            found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        else:
            found = found.ipv4_mapped or found.sixtofour or found
    return found.is_global and not found.is_multicast
