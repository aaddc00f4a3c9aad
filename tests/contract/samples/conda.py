"""An environment of conda packages from a channel on loopback: a real Python, and a package that needs another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from haversack.ports.machine import probe
from haversack.testing.contracts import Sample
from tests.support.channel import ChannelServer
from tests.support.conda import make_conda, write_channel
from tests.support.stack import python_package

_DECLARATION = """\
[site]
name = "sample"
[channel.here]
url = "{url}"
[target.here]
platform = "{platform}"
glibc = "{glibc}"
python = "{python}"
[env.lab]
kind = "conda"
file = "environment.yml"
channels = ["here"]
targets = ["here"]
"""


@contextmanager
def sample(folder: Path) -> Iterator[Sample]:
    """The sample, while its channel is up."""
    here = probe()
    channel = folder / "channels" / "main"
    packages = [
        python_package(channel),
        make_conda(
            channel, "alpha", "1.0", noarch="python", files=_module("alpha", "import beta\n"), depends=["beta >=1"],
            entry_points=["alpha = alpha:main"],
        ),
        make_conda(channel, "beta", "1.1", noarch="python", files=_module("beta", ""), depends=["python"]),
        make_conda(channel, "beta", "1.0", noarch="python", files=_module("beta", ""), depends=["python"]),
    ]  # fmt: skip
    forged = make_conda(
        folder / "forged", "beta", "1.1", noarch="python", files=_module("beta", "forged = True\n"), depends=["python"]
    ).path.read_bytes()  # fmt: skip
    write_channel(channel, packages)
    (folder / "environment.yml").write_text("dependencies:\n- alpha\n")
    with ChannelServer(folder / "channels") as server:
        told = _DECLARATION.format(
            url=f"{server.url}main", platform=here.platform, glibc=here.glibc, python=here.python_short
        )
        (folder / "haversack.toml").write_text(told)
        yield Sample(folder / "haversack.toml", "beta", forged, spoil)


def _module(name: str, text: str) -> dict[str, bytes]:
    return {f"site-packages/{name}/__init__.py": f"{text}def main(): print('{name}')\n".encode()}


def spoil(prefix: Path) -> None:
    """Alter a file of an installed package."""
    (module,) = prefix.glob("lib/python3.*/site-packages/beta/__init__.py")
    module.unlink()
    module.write_text("raise SystemExit('altered')\n")
