"""An nginx configuration that serves a folder of pages with their media types.

Pages lie at the paths that clients ask for and at no other, so that any web server or bucket can serve the same
folder; nginx learns the types from here.  Within the first part of a path (``pypi``, ``v2``) a suffix mostly
tells the type.  Where it does not, as for the manifests of images, a map from the path does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

DEFAULT = "application/octet-stream"
"""The type of whatever no rule names."""
_FROM_HOSTS = ("upstream/", "conda/", "v2/")
_PORT, _COLON = re.compile(r"_([0-9]+)$"), r":\1"
_WORDS = {"default", "hostnames", "include", "volatile"}
"""What a map of nginx does not take for a value."""
_SUFFIX = re.compile(r"\.([A-Za-z0-9_]+)$")


@dataclass(frozen=True, slots=True)
class Types:
    """The media types of a folder's pages: by path, else by first part and suffix, else :data:`DEFAULT`.

    ``firsts`` are the first parts of all paths, each of which is a folder."""

    firsts: tuple[str, ...]
    suffixes: Mapping[str, Mapping[str, str]]
    paths: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        """The rules for those who upload the folder elsewhere."""
        suffixes = {first: dict(known) for first, known in self.suffixes.items()}
        return {"default": DEFAULT, "suffixes": suffixes, "paths": dict(self.paths)}


def types_of(pages: Iterable[tuple[str, str]]) -> Types:
    """The fewest rules that give each path its media type."""
    pages = sorted(pages)
    found: dict[str, dict[str, str]] = {}
    mixed: set[tuple[str, str]] = set()
    for path, media_type in pages:
        first, suffix = _key(path)
        if found.setdefault(first, {}).setdefault(suffix, media_type) != media_type:
            mixed.add((first, suffix))
    suffixes = {
        first: kept
        for first, known in found.items()
        if (
            kept := {
                suffix: media_type
                for suffix, media_type in known.items()
                if suffix and media_type != DEFAULT and (first, suffix) not in mixed
            }
        )
    }
    paths = {
        path: media_type
        for path, media_type in pages
        if suffixes.get(_key(path)[0], {}).get(_key(path)[1], DEFAULT) != media_type
    }
    return Types(tuple(sorted(found)), suffixes, paths)


def _key(path: str) -> tuple[str, str]:
    """The first part of a path, and its suffix as nginx reads it: in small letters."""
    match = _SUFFIX.search(path)
    return path.partition("/")[0], match[1].lower() if match else ""


def configuration(snapshot: str, types: Types, paths: Iterable[str]) -> dict[str, bytes]:
    """``nginx.conf`` that works as it is, and the parts of it that another configuration can include.

    ``snapshot`` is the name under which the folder is served too, as ``/@NAME/``; ``paths`` are all of them.
    """
    head = f"# Written by haversack serve --export, of snapshot {snapshot}."
    kinds = sorted(set(types.paths.values()))
    paths = list(paths)
    files = {
        "nginx.conf": _MAIN,
        "nginx/http.conf": _sizes(types) + _HTTP + _hosts(paths) + _map(types, kinds, paths),
        "nginx/server.conf": _SERVER.replace("@NAME", f"@{re.escape(snapshot)}") + _locations(types, kinds),
    }
    return {name: f"{head}\n{text}".encode() for name, text in files.items()}


def _map(types: Types, kinds: list[str], paths: Iterable[str]) -> str:
    """Which of the types a path has that no suffix tells.  nginx ignores case in such a map, unless told."""
    alike = Counter(path.lower() for path in paths)
    lines = [
        f'    "~^/{_quoted(re.escape(path))}$" type{kinds.index(media_type)};'
        if alike[path.lower()] > 1
        else f'    "/{_quoted(path)}" type{kinds.index(media_type)};'
        for path, media_type in types.paths.items()
    ]
    return "\n".join(["map $uri $haversack_type {", '    default "";', *lines, "}", ""])


def _hosts(paths: Iterable[str]) -> str:
    """The hosts that files came from, by the names that clients ask for: a port is part of the folder's name."""
    places = (path.split("/", 2) for path in paths if path.startswith(_FROM_HOSTS))
    folders = sorted({place[1] for place in places if len(place) > 2} - _WORDS)
    lines = [f'    "{_quoted(_PORT.sub(_COLON, folder))}" "{_quoted(folder)}";' for folder in folders]
    return "\n".join(["map $http_host $haversack_host {", "    default -;", *lines, "}", ""])


def _sizes(types: Types) -> str:
    """Room for the longest path and for all of them; nginx wants it said before the first map."""
    longest = max((len(path.encode()) for path in types.paths), default=0)
    bucket, most = max(256, 64 * (-(-longest // 64) + 2)), max(4096, 4 * len(types.paths))
    return f"map_hash_bucket_size {bucket};\nmap_hash_max_size {most};\n"


def _locations(types: Types, kinds: list[str]) -> str:
    lines = []
    for first in types.firsts:
        lines += [f"location /{first}/ {{", f"    default_type {DEFAULT};", "    types {"]
        lines += [
            f'        "{kind}" {suffix};' for suffix, kind in sorted(types.suffixes.get(first, {}).items())
        ]
        lines += ["    }", "}"]
    for number, media_type in enumerate(kinds):
        lines += [
            f"location /-/type{number}/ {{",
            "    internal;",
            "    types { }",
            f'    default_type "{media_type}";',
            f"    rewrite ^/-/type{number}(/.*)$ $1 break;",
            "}",
        ]
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


_MAIN = """\
# As it is, for any user, from a folder of his own (on Linux), into which working files go:
#     mkdir run && cd run && nginx -e stderr -p /srv/mirror/ -c nginx.conf
# In a configuration of your own: include nginx/http.conf in `http`, nginx/server.conf in a `server` whose `root`
# is this folder.
daemon off;
worker_processes auto;
pid /proc/self/cwd/nginx.pid;
error_log stderr;

events { }

http {
    access_log off;
    client_body_temp_path /proc/self/cwd/nginx-body;
    proxy_temp_path /proc/self/cwd/nginx-proxy;
    fastcgi_temp_path /proc/self/cwd/nginx-fastcgi;
    uwsgi_temp_path /proc/self/cwd/nginx-uwsgi;
    scgi_temp_path /proc/self/cwd/nginx-scgi;
    include nginx/http.conf;

    server {
        listen 8080;
        # listen 443 ssl;
        # ssl_certificate /etc/haversack/server.pem;
        # ssl_certificate_key /etc/haversack/server.key;
        root .;
        include nginx/server.conf;
    }
}
"""
_HTTP = r"""# Which of the two forms of an index page (PEP 691, "Version + Format Selection"): JSON for who asks for it.
map $http_accept $haversack_form {
    default index.html;
    "~application/vnd\.pypi\.simple\.(v1|latest)\+json\s*;\s*q=0(\.0*)?\s*(,|$)" index.html;
    "~application/vnd\.pypi\.simple\.(v1|latest)\+json" index.v1_json;
}
# Elsewhere a folder is its list, whatever files are there: no name has a colon, but those of digests.
map $uri $haversack_index {
    default ":";
    "~^/pypi/simple/" $haversack_form;
}
map $uri $haversack_vary {
    default "";
    "~^/pypi/simple/" Accept;
}
# The registry that a mirror is asked for (containerd says it); Docker Hub's names come without a host.
map $arg_ns $haversack_registry {
    default docker.io;
    "~^(?<haversack_ns>[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+)$" $haversack_ns;
    "~^(?<haversack_ns_host>[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*)(:|%3A)(?<haversack_ns_port>[0-9]+)$"
        "${haversack_ns_host}_${haversack_ns_port}";
}
"""
_SERVER = r"""index $haversack_index;
autoindex on;
autoindex_exact_size off;
absolute_redirect off;
sendfile on;
gzip on;
gzip_vary off;
gzip_types application/json application/vnd.pypi.simple.v1+json text/plain;
default_type text/plain;
types { application/json json; "text/html; charset=utf-8" html; }
server_tokens off;
add_header Vary $haversack_vary;
add_header X-Content-Type-Options nosniff;

# Who asks by the name of a host that files came from (DNS, /etc/hosts) gets them at that host's own paths.
set $haversack_image "";
if ($uri ~ "^/v2(?<haversack_rest>/.+)$") { set $haversack_image $haversack_rest; }
if ($arg_ns) { set $haversack_image ""; }
if (-f $document_root/v2/$haversack_host$haversack_image) { rewrite ^ /v2/$haversack_host$haversack_image; }
if (-f $document_root/conda/$haversack_host$uri) { rewrite ^ /conda/$haversack_host$uri; }
if (-f $document_root/upstream/$haversack_host$uri) { rewrite ^ /upstream/$haversack_host$uri; }
# The snapshot by its name, and images without a host or by `?ns=HOST`.
rewrite ^/@NAME(/.*)$ $1;
rewrite ^/v2/(?!haversack/)(?<haversack_below>[^/.:_]+/.+)$ /v2/$haversack_registry/$haversack_below;
# Pages whose type their name does not tell.
if ($haversack_type) { rewrite ^ /-/$haversack_type$uri last; }

location = /healthz { default_type text/plain; return 200 "ok\n"; }
# Distribution specification, "Determining Support".
location = /v2/ {
    default_type application/json;
    add_header Docker-Distribution-Api-Version registry/2.0;
    return 200 "{}";
}
"""
