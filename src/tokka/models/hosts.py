"""The list of hosts to which a project's text may be sent.

URL + the project's `hosts` → nothing, or a refusal before anything leaves. This machine itself
(127.0.0.0/8, ::1, localhost) is always allowed. Whoever sends must not follow redirects, since a
redirect's target was not checked.

>>> check_host("http://127.0.0.1:8000/v1", [])
>>> check_host("https://models.example.jp/v1", ["models.example.jp"])
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from tokka.errors import UsageError

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
# Anything that the C resolver reads as one number or as short or octal/hexadecimal dotted parts
# (2130706433, 0x7f.1, 127.1); two readers may disagree on which machine is meant.
_NUMBERS = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*")


def check_host(url: str, allowed: Sequence[str]) -> None:
    """Raise UsageError unless the URL's host is loopback or listed.

    `allowed` holds hosts (`models.example.jp`: any port) or hosts with a port
    (`models.example.jp:8443`: that port only); there are no wildcards.
    """
    host, port = host_of(url)
    if is_loopback(host):
        return
    if {(host, None), (host, port)} & {_listed(entry) for entry in allowed}:
        return
    raise UsageError(
        f"hosts: {host} is not listed, so nothing was sent to it; if the project's text may go "
        f"there, add {host} under hosts in the project file (listed: "
        f"{', '.join(allowed) or 'none'})"
    )


def host_of(url: str) -> tuple[str, int]:
    """The host in one spelling (lower case, no trailing dot or brackets) and the port of a URL.

    Raises UsageError for what has no host, holds a password, or could be read as two hosts.
    """
    place = _without_secrets(url)
    if re.search(r"[\\\s\x00-\x20\x7f]", url) or not url.isascii():
        raise UsageError(
            f"{place}: a URL may hold neither spaces, backslashes nor letters beyond ASCII; "
            "write a Japanese host name as xn--…"
        )
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError as error:
        raise UsageError(f"{place}: not a URL ({error}); write http://host:port/v1#name") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{place}: not an http or https URL; write http://host:port/v1#name")
    if "@" in parts.netloc:
        raise UsageError(
            f"{place}: a URL may hold no user name or password; put the key into an environment "
            "variable and name that"
        )
    return _one_spelling(parts.hostname, place), port


def is_loopback(host: str) -> bool:
    """Whether a host in `host_of`'s spelling is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _one_spelling(host: str, place: str) -> str:
    host = host.lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if _NUMBERS.fullmatch(host) or not _NAME.fullmatch(host) or ".." in host:
            raise UsageError(
                f"{place}: {host!r} is neither a host name nor a full IP address; write all four "
                "decimal parts, as in 127.0.0.1"
            ) from None
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)


def _listed(entry: str) -> tuple[str, int | None]:
    entry = entry.strip()
    try:
        if entry.count(":") > 1 and "[" not in entry:
            entry = f"[{entry}]"
        host, port = host_of(f"http://{entry}")
    except UsageError as error:
        raise UsageError(f"hosts: {entry!r} is not a host or host:port; {error}") from error
    return host, port if re.search(r":\d+$", entry) else None


def _without_secrets(url: str) -> str:
    return re.sub(r"//[^/]*@", "//***@", url.split("?")[0].split("#")[0])
