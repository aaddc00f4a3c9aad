"""What an interactive session installs in its container: assets by version, and Python packages.

``interactive_session_task.py`` of clearml-session asks for each asset by an address of its own, unless a variable
names another one.  Nobody publishes check sums of them: they are pinned when they are first locked.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

_EXTENSION = "https://open-vsx.org/api/{0}/{1}/{2}/file/{0}.{1}-{2}.vsix"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file: the key that names another address of it, the variable that sessions read, and its name's end.

    ``variable`` is ``None`` for what a session cannot be pointed at.  ``suffix`` is what its consumer knows it by
    (dpkg by nothing, code-server an extension by ``.vsix``).
    """

    key: str
    says: str
    variable: str | None
    suffix: str = ""


ASSETS = (
    Asset("code_server", "the VS Code server, a Debian package", "CLEARML_SESSION_VSCODE_SERVER_DEB", ".deb"),
    Asset("python_extension", "the Python extension of VS Code", "CLEARML_SESSION_VSCODE_PY_EXT", ".vsix"),
    Asset("jupyter_extension", "the Jupyter extension of VS Code", None, ".vsix"),
    Asset("dropbear", "dropbear, the SSH server where no sshd is", "CLEARML_DROPBEAR_EXEC"),
)

# clearml-session -> code-server, Python extension, Jupyter extension, tag of dropbear.  A session asks for the newest
# Jupyter extension; these are of the time of its code-server.
_VERSIONS = {
    "0.16.0": ("4.14.1", "2023.12.0", "2023.4.1001091014", "DROPBEAR_CLEARML_2023.02"),
    "0.17.0": ("4.96.2", "2024.22.1", "2024.8.1", "DROPBEAR_CLEARML_2024.86"),
}
VERSIONS = tuple(_VERSIONS)
"""The versions of clearml-session whose assets are known."""


def urls(version: str) -> dict[str, str]:
    """Where the assets of a version of clearml-session come from, by their keys; nothing for an unknown one.

    The extensions are asked of Open VSX: the marketplace sends them compressed, under a name without ``.vsix``.
    """
    if version not in _VERSIONS:
        return {}
    server, python, jupyter, dropbear = _VERSIONS[version]
    return {
        "code_server": f"https://github.com/coder/code-server/releases/download/v{server}/code-server_{server}_amd64.deb",
        "python_extension": _EXTENSION.format("ms-python", "python", python),
        "jupyter_extension": _EXTENSION.format("ms-toolsai", "jupyter", jupyter),
        "dropbear": f"https://github.com/allegroai/dropbear/releases/download/{dropbear}/dropbearmulti",
    }


def chosen(settings: Mapping[str, Any]) -> dict[str, str]:
    """The address of each asset: the declared one, or that of the version."""
    return {**urls(settings["session"]), **settings.get("assets", {})}


def name_of(url: str) -> str:
    """What an asset is called inside: the last part of its address."""
    path = url.removeprefix("path:") if url.startswith("path:") else unquote(urlsplit(url).path)
    return posixpath.basename(path)


def faults(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What is wrong with the assets: the key, what, and what to do.

    The session puts a version into its variables with ``str.format``, which fails on any other brace; and the copy
    that it keeps has the name that the address ends in, by which code-server tells a file from a name.
    """
    given = chosen(settings)
    for asset in ASSETS:
        url = given.get(asset.key)
        if url is None:
            known = ", ".join(VERSIONS)
            yield (
                asset.key,
                f"is not known for clearml-session {settings['session']}",
                f"write the address of {asset.says}, or declare a session of {known}",
            )
        elif "{" in url or "}" in url:
            yield (
                asset.key,
                "has a brace, which a session takes for a place to fill in",
                "write the version out",
            )
        elif not name_of(url).endswith(asset.suffix):
            yield (
                asset.key,
                f"{name_of(url)} does not end in {asset.suffix}, by which its consumer knows it",
                f"give an address that ends in {asset.suffix}, or declare a [[file]] with such a `name` and write the"
                " same address with that name here",
            )


def requirements(version: str) -> tuple[str, ...]:
    """The Python packages that applications install in their containers, and the agent in every task's.

    The list of ClearML's guide for sites without internet, and what clearml-session and the agent install beside it
    (jupyterlab_git; pip, setuptools and wheel).  werkzeug below 3 is for Pythons before 3.9.
    """
    return (
        "boto3>=1.9",
        "clearml>=1.9",
        "clearml-agent",
        f"clearml-session=={version}",
        "jupyter",
        "jupyterlab>4,<4.4",
        "jupyterlab-git",
        "pip",
        "pylint",
        "setuptools",
        "tqdm",
        "traitlets",
        'werkzeug>2,<3.0; python_version < "3.9"',
        "wheel",
    )


OPTIONAL = ('mitmproxy>=9,<10.2; python_version >= "3.9" and python_version < "3.12"',)
"""What the guide wants too, and what is left out where it cannot be had: nothing of a session or an agent uses it.

It requires packages that have no wheels.  They can be built up to Python 3.11, and what is built runs on no older
system library than that of the machine that built it.
"""

CHECK = "python -c 'import boto3, clearml, clearml_agent, clearml_session, jupyterlab, jupyterlab_git, pylint, tqdm, traitlets'"
"""What must work of these packages.  Not every module of all that they require can be imported: some want matplotlib."""
