"""An environment of a pixi project: the conda packages of the other sample, a wheel, and the project's files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from haversack.ports.machine import probe
from haversack.testing.contracts import Sample
from tests.contract.samples.conda import spoil
from tests.support.channel import ChannelServer
from tests.support.conda import make_conda, write_channel
from tests.support.stack import SUBDIR, python_package
from tests.support.wheels import make_wheel

_DECLARATION = """\
[site]
name = "sample"
[target.here]
platform = "{platform}"
glibc = "{glibc}"
python = "{python}"
[env.lab]
kind = "pixi"
file = "pixi.lock"
sources = ["src"]
targets = ["here"]
"""


@contextmanager
def sample(folder: Path) -> Iterator[Sample]:
    """The sample, while its channel is up."""
    here = probe()
    channel = folder / "channels" / "main"
    beta = {"site-packages/beta/__init__.py": b""}
    packages = [
        python_package(channel),
        make_conda(channel, "beta", "1.1", noarch="python", files=beta, depends=["python"]),
        make_conda(
            channel, "alpha", "1.0", noarch="python", depends=["beta >=1"],
            files={"site-packages/alpha/__init__.py": b"import beta\n"},
        ),
    ]  # fmt: skip
    forged = make_conda(
        folder / "forged", "beta", "1.1", noarch="python", depends=["python"],
        files={"site-packages/beta/__init__.py": b"forged = True\n"},
    ).path.read_bytes()  # fmt: skip
    wheel = make_wheel(channel / "wheels", "extra", "1.0", modules={"extra/__init__.py": "import beta\n"})
    write_channel(channel, packages)
    (folder / "src").mkdir()
    (folder / "src" / "tool.py").write_text("import alpha\n")
    (folder / "pixi.toml").write_text('[workspace]\nname = "sample"\n')
    with ChannelServer(folder / "channels") as server:
        url = f"{server.url}main"
        records = [
            {
                "conda": f"{url}/{package.subdir}/{package.filename}",
                **{key: package.record[key] for key in ("sha256", "md5", "depends", "license", "size")},
                **({"noarch": package.record["noarch"]} if "noarch" in package.record else {}),
            }
            for package in packages
        ]
        extra = {
            "pypi": f"{url}/wheels/{wheel.name}",
            "name": "extra",
            "version": "1.0",
            "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        }
        mine = [{"conda": record["conda"]} for record in records] + [{"pypi": extra["pypi"]}]
        lock = {
            "version": 6,
            "environments": {
                "default": {"channels": [{"url": f"{url}/"}], "indexes": [url], "packages": {SUBDIR: mine}}
            },
            "packages": [*records, extra],
        }
        (folder / "pixi.lock").write_text(json.dumps(lock))
        told = _DECLARATION.format(platform=here.platform, glibc=here.glibc, python=here.python_short)
        (folder / "haversack.toml").write_text(told)
        yield Sample(folder / "haversack.toml", "beta", forged, spoil)
