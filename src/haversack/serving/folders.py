"""Pages for people: what lies in a folder, and where to begin.  Pure; they need no script."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from haversack.console import human_size
from haversack.model.artifact import hex_of
from haversack.verbs.holdings import Holdings
from haversack.views import View, listing

_STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.2rem .8rem .2rem 0}"
    "td.n{text-align:right}code{word-break:break-all}tr+tr td{border-top:1px solid #8884}"
)
_TOLD = {
    "conda": "conda channels, for conda, mamba and pixi",
    "files": "files that the site declares, with their digests",
    "projects": "working folders and git repositories",
    "pypi": "a package index, for pip and uv",
    "upstream": "files where they lay on the servers they came from, for unmodified locks",
    "v2": "container images, for every OCI client",
}


def folder(view: View, paths: Sequence[str], path: str, base: str) -> bytes | None:
    """The page of a folder (``""``, or a path that ends in ``/``), or ``None`` if there is none.

    ``base`` is the address of the snapshot, ``/`` or ``/@NAME/``.
    """
    names = listing(paths, path)
    if not names:
        return None
    rows = ['<tr><td><a href="../">../</a></td><td></td><td></td></tr>'] if path else []
    for name in names:
        page = None if name.endswith("/") else view.get(path + name)
        size = human_size(page.size) if page and page.size is not None else ""
        digest = hex_of(page.blob) if page and page.blob and not page.start and not page.metadata else ""
        told = f"<br>{html.escape(page.told)}" if page and page.told else ""
        rows.append(
            f'<tr><td><a href="{_link(name)}">{html.escape(name)}</a>{told}</td>'
            f'<td class="n">{size}</td><td><code>{digest}</code></td></tr>'
        )
    title = html.escape(base + path)
    head = "<tr><th>name</th><th>size</th><th>sha256</th></tr>"
    return _document(title, f"<h1>{title}</h1>\n<table>{head}\n" + "\n".join(rows) + "\n</table>")


def home(view: View, paths: Sequence[str], known: Holdings, name: str, digest: str, base: str) -> bytes:
    """The page at the root of a snapshot: what it is, what is shown of it, which others there are."""
    parts = [part for part in listing(paths, "") if part.endswith("/")]
    rows = [
        f'<li><a href="{_link(part)}">{part}</a> {_TOLD.get(part.rstrip("/"), "")}</li>' for part in parts
    ]
    others = [
        f'<li><a href="/@{quote(held.name)}/">{html.escape(held.name)}</a>{" (current)" * held.current}</li>'
        for held in known.held
    ]
    site = html.escape(known.site) or "this site"
    return _document(
        site,
        f"<h1>{site}</h1>\n<p>Snapshot <strong>{html.escape(name)}</strong>, <code>{digest}</code></p>\n"
        + _list("What it holds", rows)
        + _list("Snapshots", others)
        + "<h2>Clients</h2>\n<p>Their configuration is written by <code>haversack render clients -o DIR</code>; for a"
        f" first try: <code>pip install --index-url …{base}pypi/simple/ NAME</code></p>",
    )


def _list(title: str, rows: Iterable[str]) -> str:
    return f"<h2>{title}</h2>\n<ul>\n" + "\n".join(rows) + "\n</ul>\n"


def _link(name: str) -> str:
    """A relative link; a colon in its first part would make a scheme of it (RFC 3986 §4.2)."""
    return ("./" if ":" in name else "") + quote(name, safe="/:")


def _document(title: str, body: str) -> bytes:
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    ).encode(errors="replace")
