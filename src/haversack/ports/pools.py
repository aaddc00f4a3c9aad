"""Pools of connections: straight out, and through the proxies that the environment names."""

from __future__ import annotations

import functools
import os
import ssl
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

import urllib3

from haversack.errors import FetchError
from haversack.model.site import Credentials
from haversack.ports.credentials import basic, origin


def direct(connections: int) -> urllib3.PoolManager:
    """A pool that asks hosts themselves."""
    return urllib3.PoolManager(num_pools=connections, maxsize=connections, ssl_context=_trust())


def proxied(connections: int) -> dict[str, urllib3.ProxyManager]:
    """A pool for each scheme that the environment gives a proxy for.  Raises ``FetchError`` for what is none."""
    declared = getproxies()
    found: dict[str, urllib3.ProxyManager] = {}
    for scheme in ("http", "https"):
        address = declared.get(scheme) or declared.get("all")
        if not address:
            continue
        if "://" not in address:
            address = f"http://{address}"
        if origin(address) is None:
            raise FetchError(
                f"the {scheme} proxy of the environment is not an http proxy",
                remedy=f"set {scheme}_proxy to http://HOST:PORT",
            )
        parts = urlsplit(address)
        login = Credentials(unquote(parts.username or ""), unquote(parts.password or ""))
        found[scheme] = urllib3.ProxyManager(
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
            num_pools=connections,
            maxsize=connections,
            proxy_headers={"Proxy-Authorization": basic(login)} if parts.username else None,
            proxy_ssl_context=_trust(),
            ssl_context=_trust(),
        )
    return found


def _trust() -> ssl.SSLContext:
    """What certificates are held against: OpenSSL's roots, so that SSL_CERT_FILE brings in a company's own."""
    return _read(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.cache
def _read(file: str | None, folder: str | None) -> ssl.SSLContext:
    """The roots as these variables name them; to read them takes 20 ms, and one command has several clients."""
    return ssl.create_default_context()
