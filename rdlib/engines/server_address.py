"""Where a server is and how it is reached: address, key, headers, proxies and certificates, each with its sentence."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Mapping

import httpx

from rdlib.errors import UserError
from rdlib.settings import Model

PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
KEYS = re.compile(r"auth|key|token|secret|cookie|password", re.I)


def key_of(model: Model) -> str | None:
    """The key from the environment variable that the model names; None where it is not set, as for a local server."""
    return os.environ.get(model.api_key_env)


def checked_key(key: str | None, name: str) -> str | None:
    """The key without surrounding white space; UserError, which does not show it, when a header can't hold it."""
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"The environment variable {name} holds no valid key: it has characters that no key has.")
    return key or None


def checked_url(url: str | None) -> httpx.URL:
    """The server's address, no slash at its path's end; UserError for none, a foreign one or one with a password."""
    try:
        parsed = httpx.URL((url or "").strip())
    except (httpx.InvalidURL, TypeError):
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UserError(f"base_url is {url!r}: give the server's address, such as http://localhost:8000/v1.")
    if parsed.userinfo:
        raise UserError("base_url holds a user name or password: give the key by the variable that api_key_env names.")
    path = parsed.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    return parsed.copy_with(path=path, fragment=None)


def under(address: httpx.URL, path: str) -> str:
    """An address below the server's; a query such as Azure's `?api-version=` stays at the end."""
    return str(address.copy_with(path=address.path.rstrip("/") + path))


def shown(address: httpx.URL) -> str:
    """An address as messages have it: without its query, which may hold a key."""
    return str(address.copy_with(query=None)).rstrip("/")


def location(address: httpx.URL, target: str) -> str:
    """The base_url that a redirect points to, "" where it names none; without a name, a password or a query."""
    try:
        url = httpx.URL(under(address, "/")).join(target)
        path = url.path.rstrip("/").removesuffix("/chat/completions").removesuffix("/models")
        return shown(url.copy_with(path=path, fragment=None, username=None, password=None)) if url.host else ""
    except (httpx.InvalidURL, TypeError, ValueError):
        return ""


def headers_of(model: Model, key: str | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """The headers of all requests, and what of them no message may show; UserError for a variable that is not set."""
    headers = {name: _filled(name, value) for name, value in model.request.headers.items()}
    for name, value in headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not (value.isascii() and value.isprintable()):
            raise UserError(f"request.headers has {name[:40]!r}, whose name or value no header can hold: correct it.")
    secret = [value for name, value in headers.items() if KEYS.search(name) or "$" in model.request.headers[name]]
    lowered = {name.lower() for name in headers}
    if key and "authorization" not in lowered:
        headers["Authorization"] = f"Bearer {key}"
    secrets = {part for value in secret for part in (value, *value.split()) if len(part) > 5} | (
        {key} if key else set()
    )
    return headers, tuple(sorted(secrets, key=len, reverse=True))


def _filled(name: str, value: str) -> str:
    def variable(match: re.Match) -> str:
        """The value of an environment variable; UserError where it is not set."""
        found = os.environ.get(match[1] or match[2])
        if found is None:
            raise UserError(
                f"The header {name} in request.headers needs the environment variable {match[1] or match[2]}, which is "
                f"not set: set it, or take the header out of the profile."
            )
        return found.strip()

    return VARIABLE.sub(variable, value)


def is_local(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def client_of(model: Model, address: httpx.URL, headers: Mapping[str, str]) -> httpx.Client:
    """The connections to a server; this machine is never asked through a proxy. UserError naming a bad variable."""
    local = is_local(address.host)
    limits = httpx.Limits(max_connections=model.concurrency + 1, max_keepalive_connections=model.concurrency)
    try:
        verify = False if local and address.scheme == "http" else httpx.create_ssl_context()
    except (OSError, ssl.SSLError):
        named = next((name for name in CERTIFICATES if os.environ.get(name)), CERTIFICATES[0])
        raise UserError(
            f"The environment variable {named} names no readable certificates: give it a file or folder that is "
            f"there, or unset it."
        ) from None
    timeout = httpx.Timeout(model.timeout, connect=10.0)
    try:
        return httpx.Client(timeout=timeout, limits=limits, headers=dict(headers), verify=verify, trust_env=not local)
    except (ImportError, ValueError, TypeError, httpx.InvalidURL):  # a proxy's address in the environment
        raise UserError(_bad_proxy()) from None


def _bad_proxy() -> str:
    """The sentence for a proxy of the environment that cannot be used; it does not show the address."""
    found = {n: v for name in PROXIES for n in (name, name.lower()) if (v := os.environ.get(n))}
    named = [name for name, value in found.items() if not value.startswith(("http://", "https://"))]
    socks = [name for name in named if found[name].startswith("socks")]
    which = (socks or named or list(found) or ["ALL_PROXY"])[0]
    kind = "a SOCKS proxy" if socks else "a proxy with an address"
    return (
        f"The environment variable {which} names {kind} that cannot be used here: unset it, or name a proxy that "
        f"begins with http://."
    )


def unreachable(error: httpx.HTTPError) -> str:
    """Why a server could not be reached, as a part of a sentence."""
    text = str(error)
    if isinstance(error, httpx.ConnectTimeout):
        return "it did not accept a connection in time"
    if isinstance(error, httpx.ProxyError):
        return f"the proxy that the environment variable {_proxy_variable()} names refused ({text[:100]})"
    if re.search(r"not known|resolution|getaddrinfo|nodename", text):
        return "no host of that name was found"
    if "refused" in text.lower():
        return "the connection was refused"
    return f"the connection failed ({text[:100] or type(error).__name__})"


def _proxy_variable() -> str:
    return next((n for name in PROXIES for n in (name, name.lower()) if os.environ.get(n)), "HTTPS_PROXY")


def insecure(error: httpx.HTTPError, address: str) -> str | None:
    """The sentence for a certificate that is not trusted, or a server that speaks no TLS; None for other errors."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
        reason = re.search(r"certificate verify failed: ([^(\[]*)", text)
        return (
            f"The certificate of {address} is not trusted ({(reason[1] if reason else 'unknown authority').strip()}): "
            f"name its authority's file in the environment variable SSL_CERT_FILE."
        )
    if re.search(r"WRONG_VERSION_NUMBER|RECORD_LAYER|UNKNOWN_PROTOCOL|\[SSL", text):
        return f"The server {address} speaks no TLS ({text[:80]}): let base_url begin with http:// in the profile."
    return None
