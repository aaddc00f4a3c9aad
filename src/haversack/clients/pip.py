"""pip: ``pip.conf``.

The index is named twice.  ``extra-index-url`` of a user's own ``pip.conf`` adds to the index, and asks the
public one too: slow where packets are dropped, and the hole of dependency confusion where they are not.  An
empty value is ignored by pip, the same index once more costs nothing and takes that place.
"""

from __future__ import annotations

from haversack.clients import CA, Client, Served, text


def _files(served: Served) -> dict[str, str]:
    lines = [
        *served.head("For pip: /etc/pip.conf, ~/.config/pip/pip.conf, or PIP_CONFIG_FILE."),
        "[global]",
        f"index-url = {served.index}",
        f"extra-index-url = {served.index}",
        "disable-pip-version-check = true",
    ]
    if served.plain:
        lines.append(f"trusted-host = {served.hostname}")
    if served.ca:
        lines.append(f"cert = {served.at(CA)}")
    return {"pip.conf": text(lines)}


def _variables(served: Served) -> dict[str, str | None]:
    found: dict[str, str | None] = dict.fromkeys(
        ("PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_TRUSTED_HOST", "PIP_CERT")
    )
    found["PIP_CONFIG_FILE"] = served.at("pip.conf")
    found |= dict.fromkeys(("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"), served.index)
    if served.plain:
        found["PIP_TRUSTED_HOST"] = served.hostname
    if served.ca:
        found["PIP_CERT"] = served.at(CA)
    return found


CLIENT = Client(_files, _variables)
