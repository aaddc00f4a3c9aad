"""What a path means: a page of a view, another path, or nothing.  Pure, and slow enough for a thread.

The paths are those of the views, with three liberties that clients expect: a path that ends in ``/`` is the
list of what lies there, but an index page of the simple index, in one of its two forms by ``Accept`` (PEP 691),
and who asks by the name of a host that files came from gets them at the paths of that host.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from packaging.utils import canonicalize_name

from haversack.model.artifact import digest_of, is_digest
from haversack.serving.answers import preferred
from haversack.serving.requests import Request
from haversack.views import JSON, Page, View, place_of

SIMPLE = "pypi/simple/"
_FORMS = {
    "text/html": "index.html",
    "application/vnd.pypi.simple.v1+html": "index.html",
    "application/vnd.pypi.simple.v1+json": "index.v1_json",
    "application/vnd.pypi.simple.latest+html": "index.html",
    "application/vnd.pypi.simple.latest+json": "index.v1_json",
}
_INDEX = "index.html"
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")
_DEFAULT_HOST = "docker.io"
REGISTRY = "v2/"
HOSTS = ("upstream", "conda")
"""The views whose folders are the hosts that files came from."""
NO_REFERRERS = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at a path: ``page``, at ``path`` of the view, or ``moved``, another path below the snapshot.

    ``code`` is the error of a registry that a client is told where nothing is found.
    """

    path: str
    page: Page | None = None
    moved: str = ""
    folder: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str = ""


def names_of(host: str) -> tuple[str, ...]:
    """What a host may be called in the views: with the port that a request names, and without."""
    if _HOST.fullmatch(host) is None:
        return ()
    return tuple(dict.fromkeys((host.replace(":", "_"), host.partition(":")[0])))


def as_host(view: View, names: Iterable[str], request: Request) -> Found | None:
    """What lies at the path of a request on the host that it names, by what the views call that host.

    A lock that names files by upstream's URLs is served as it is, where upstream's names lead here.
    """
    for name in names:
        below = "/".join((name, *place_of(f"https://{name}{request.raw}")[1:]))
        for prefix in HOSTS:
            if page := view.get(f"{prefix}/{below}"):
                return Found(f"{prefix}/{below}", page)
    return None


def find(view: View, path: str, request: Request) -> Found:
    """What lies at a path below the snapshot, which begins without a slash."""
    if path.startswith(REGISTRY):
        return _registry(view, path, request)
    if path.startswith(SIMPLE):
        found = _simple(view, path, request)
        if found:
            return found
    # Somebody's file that is called index.html is a file, and hides no list.
    if not path or path.endswith("/"):
        return Found(path, folder=True)
    return Found(path, view.get(path))


def _simple(view: View, path: str, request: Request) -> Found | None:
    """An index page in the form that the client likes best; names as PEP 503 spells them."""
    name, slash, rest = path.removeprefix(SIMPLE).partition("/")
    if rest:
        return None
    right = canonicalize_name(name)
    if name and (name != right or not slash) and view.get(f"{SIMPLE}{right}/{_INDEX}"):
        return Found(path, moved=f"{SIMPLE}{right}/")
    form = preferred(request.header("accept"), tuple(_FORMS))
    page = view.get(path + _FORMS[form])
    if page is None:
        return None
    # The content type names the version that it is (PEP 691, "Version + Format Selection").
    media = page.media_type if form == "text/html" else form.replace("latest", "v1")
    headers = {"Content-Type": media, "Vary": "Accept, Accept-Encoding"}
    return Found(path + _FORMS[form], page, headers=headers)


# The registry (OCI distribution specification 1.1)


def _registry(view: View, path: str, request: Request) -> Found:
    rest = path.removeprefix(REGISTRY)
    if not rest:
        return Found(REGISTRY, Page(JSON, 2, b"{}"))
    if rest == "_catalog":
        page = view.get(path)
        cut = _portion(page, "repositories", rest, request.query) if page else None
        return _cut(path, page, *cut) if page and cut else Found(path, page)
    match = re.fullmatch(r"(.+)/(manifests|blobs|referrers)/([^/]+)", rest) or re.fullmatch(
        r"(.+)/(tags)/(list)", rest
    )
    if match is None:
        return Found(path, code="UNSUPPORTED")
    name, what, reference = match.groups()
    host, _, below = name.partition("/")
    if _NAME.fullmatch(below if below and _HOST.fullmatch(host) else name) is None:
        return Found(path, code="NAME_INVALID")
    if what in {"blobs", "referrers"} and not is_digest(reference):
        return Found(path, code="DIGEST_INVALID")
    known = ""
    for repository in repositories(name, request.query.get("ns", ""), *names_of(request.host)):
        place = f"{REGISTRY}{repository}/{what}/{reference}"
        page = view.get(place)
        if page is not None:
            return _registered(Found(place, page), name, what, request)
        if view.get(f"{REGISTRY}{repository}/tags/list"):
            known = known or place
    if not known:
        return Found(path, code="NAME_UNKNOWN")
    if what == "referrers":
        page = Page("application/vnd.oci.image.index.v1+json", len(NO_REFERRERS), NO_REFERRERS)
        return Found(known, page)
    return Found(known, code="BLOB_UNKNOWN" if what == "blobs" else "MANIFEST_UNKNOWN")


def repositories(name: str, *hosts: str) -> Iterator[str]:
    """The repositories of the view that a client may mean by a name, likeliest first.

    ``hosts`` are what containerd says of the registry that it asks a mirror for (``?ns=``), and the host that
    the mirror was asked as.  Other clients ask a mirror by the bare name, and mean the registry that Docker
    asks where no host is named.
    """
    for where in (*hosts, "", _DEFAULT_HOST):
        if where and not _HOST.fullmatch(where):
            continue
        # A port is part of the folder's name, as the view has it.
        full = f"{where.replace(':', '_')}/{name}" if where else name
        yield full
        if where == _DEFAULT_HOST and "/" not in name:
            yield f"{where}/library/{name}"
        if not where and name.partition("/")[0] == _DEFAULT_HOST and name.count("/") == 1:
            yield name.replace("/", "/library/")


def _registered(found: Found, name: str, what: str, request: Request) -> Found:
    """A page of a registry with what its clients want to know in the head, cut to what they asked for."""
    page = found.page
    assert page is not None
    if what in {"manifests", "blobs"}:
        digest = page.blob if page.blob and not page.start else digest_of(page.data or b"")
        return Found(found.path, page, headers={"Docker-Content-Digest": digest})
    if what == "tags":
        cut = _portion(page, "tags", f"{quote(name)}/tags/list", request.query)
    else:
        cut = _of_type(page, request.query)
    return _cut(found.path, page, *cut) if cut else found


def _cut(path: str, page: Page, value: Any, headers: Mapping[str, str]) -> Found:
    """A part of a page, as a page."""
    data = json.dumps(value, separators=(",", ":")).encode()
    return Found(path, Page(page.media_type, len(data), data), headers=headers)


def _portion(page: Page, key: str, place: str, query: Mapping[str, str]) -> tuple[Any, dict[str, str]] | None:
    """The names of a page's list that a client asks for in portions, and where the next ones are."""
    count, last = query.get("n", ""), query.get("last", "")
    if not last and not count:
        return None
    value = json.loads(page.data or b"{}")
    names = [name for name in sorted(value.get(key) or []) if name > last]
    value[key] = names[: int(count)] if count.isascii() and count.isdigit() and len(count) < 9 else names
    if len(value[key]) == len(names) or not value[key]:
        return value, {}
    more = urlencode({"n": count, "last": value[key][-1]})
    return value, {"Link": f'</{REGISTRY}{place}?{more}>; rel="next"'}


def _of_type(page: Page, query: Mapping[str, str]) -> tuple[Any, dict[str, str]] | None:
    """The referrers of a page that are of the type a client asks for."""
    wanted = query.get("artifactType")
    if not wanted:
        return None
    value = json.loads(page.data or b"{}")
    value["manifests"] = [one for one in value.get("manifests", []) if one.get("artifactType") == wanted]
    return value, {"OCI-Filters-Applied": "artifactType"}
