"""What the path of a rule means: as requests have it, or an error, since a rule that meets nothing guards nothing."""

from __future__ import annotations

import re

from packaging.utils import canonicalize_name

from haversack.formats.strict import Place, near
from haversack.views import views

PAGES = ("healthz", "metrics")
"""The server's own pages."""
_HOSTS = ("conda", "upstream", "v2")
"""The views whose folders are hosts, with a port after ``_``."""
_NOBODY = ("haversack", "_catalog")
"""What of the registry lies under no host."""
_INDEX = ("simple", "files")


def path_of(path: str, place: Place) -> str:
    """The path of a rule as paths of requests are: hosts and projects in the one spelling that views have.

    Raises ``DeclarationError`` for one that no request's path begins with.
    """
    if not path.startswith("/"):
        raise place.error("is no path", "begin it with a slash")
    first, *rest = path[1:].split("/")
    if first.startswith("@"):
        remedy = f"write /{'/'.join(rest)}: a rule holds in every snapshot"
        raise place.error("names a snapshot", remedy)
    parts = [first, *rest]
    if (
        re.search(r"[\x00-\x1f\x7f\\?#]|%[0-9A-Fa-f]{2}", path)
        or {".", ".."} & set(parts)
        or "" in parts[:-1]
    ):
        raise place.error(
            "holds what no path of a request holds once it is decoded",
            "write characters as they are, with single slashes, and nothing that is percent-encoded",
        )
    known = sorted({*views(), *PAGES})
    if first not in known and path != "/":
        told = ", ".join(f"/{name}" for name in known)
        remedy = near(first.lower(), known) or f"begin it with one of {told}"
        raise place.error("is not below anything that is served", remedy)
    if first in PAGES and any(rest):
        raise place.error(f"/{first} is a page with nothing below it", f"write /{first}")
    if rest and rest[0]:
        parts[1:] = _inner(first, rest, place)
    return "/" + "/".join(parts)


def _inner(first: str, rest: list[str], place: Place) -> list[str]:
    """What follows the first part of a path, as the view has it."""
    if first in _HOSTS:
        host = rest[0].lower().replace(":", "_")
        if first == "v2" and not re.search(r"[._]", host) and host not in {"localhost", *_NOBODY}:
            raise place.error(
                "names an image without its host", f"write /v2/docker.io/{'/'.join(rest)}, or another host"
            )
        return [host, *rest[1:]]
    if first == "pypi":
        if rest[0] not in _INDEX:
            raise place.error("is nothing that an index has", f"write /pypi/simple/{rest[0]}/")
        if rest[0] == "simple" and len(rest) > 1:
            return [rest[0], canonicalize_name(rest[1]), *rest[2:]]
    return rest
