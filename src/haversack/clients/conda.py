"""conda and mamba: ``condarc``."""

from __future__ import annotations

import json

from haversack.clients import CA, Client, Served, text
from haversack.views.channel import PREFIX


def _files(served: Served) -> dict[str, str]:
    urls = served.channels()
    named: dict[str, str] = {}
    for url in urls.values():
        _, _, rest = url.removeprefix(f"{served.base}/{PREFIX}/").partition("/")
        if rest:
            named.setdefault(rest, url.removesuffix(f"/{rest}"))
    lines = [
        *served.head("For conda and mamba: ~/.condarc, or condarc in the folder of an installation."),
        f"channels: {json.dumps(list(urls.values()))}",
        "default_channels: []",
        "# What `-c NAME` and the channels of an environment.yml mean.",
        f"custom_channels: {json.dumps(named)}",
        "# Nothing else is asked: no notices, no news of conda itself, no reports.",
        "number_channel_notices: 0",
        "notify_outdated_conda: false",
        "report_errors: false",
        "anaconda_anon_usage: false",
    ]
    if served.ca:
        lines.append(f"ssl_verify: {json.dumps(served.at(CA))}")
    return {"condarc": text(lines)}


def _variables(served: Served) -> dict[str, str | None]:
    # The second counts before any file.
    return {"CONDARC": served.at("condarc"), "CONDA_SSL_VERIFY": served.at(CA) if served.ca else None}


CLIENT = Client(_files, _variables)
