"""git: ``gitconfig`` that takes the repositories of projects from the mirror (``url.<base>.insteadOf``).

The URLs in clones and submodules stay upstream's.  git compares beginnings, and the longest wins: a URL that
was declared without ``.git`` stands for whatever begins like it.
"""

from __future__ import annotations

import json

from haversack.clients import CA, Client, Served, text


def _files(served: Served) -> dict[str, str]:
    lines = served.head("For git: `git config --global include.path FILE`, or /etc/gitconfig.")
    for url, place in served.repositories().items():
        told = url.rstrip("/")
        lines.append(f"[url {json.dumps(place, ensure_ascii=False)}]")
        for name in dict.fromkeys((f"{told.removesuffix('.git')}.git", told)):
            lines.append(f"\tinsteadOf = {json.dumps(name, ensure_ascii=False)}")
    if served.ca:
        lines += [
            f"[http {json.dumps(served.base)}]",
            f"\tsslCAInfo = {json.dumps(served.at(CA), ensure_ascii=False)}",
        ]
    return {"gitconfig": text(lines)}


def _variables(served: Served) -> dict[str, str | None]:
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "include.path",
        "GIT_CONFIG_VALUE_0": served.at("gitconfig"),
        # It counts before any file.
        "GIT_SSL_CAINFO": served.at(CA) if served.ca else None,
    }


CLIENT = Client(_files, _variables)
