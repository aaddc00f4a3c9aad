"""Environments of every kind in one bundle, from the declaration to what runs inside, through the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from uv import find_uv_bin

from haversack.errors import HaversackError
from tests.support.channel import ChannelServer
from tests.support.conda import make_conda, write_channel
from tests.support.linked import packages
from tests.support.site import Lab, here
from tests.support.stack import SUBDIR, real_stack
from tests.support.wheels import make_wheel

EXIT = {kind.code: kind.exit_code for kind in HaversackError.__subclasses__() if hasattr(kind, "code")}


class Journey(Lab):
    """A site with a channel of real packages, an index, an existing folder, and two stores."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.channel = real_stack(folder / "conda" / "channel")
        self.server = ChannelServer(folder / "conda")
        self.url = f"{self.server.url}channel"
        self.inner = folder / "inner"
        make_wheel(
            self.wheels,
            "extra",
            "1.0",
            modules={"extra/__init__.py": "import packaging\n"},
            requires=["packaging"],
        )
        self.legacy = folder / "legacy"
        (self.legacy / "bin").mkdir(parents=True)
        script = self.legacy / "bin" / "tell"
        script.write_text(f"#!/bin/sh\necho {self.legacy}\n")
        script.chmod(0o755)
        self.write("environment.yml", "dependencies:\n- everything\n- pip:\n  - extra\n")
        self.write_pixi()
        self.write(
            "haversack.toml",
            f'[site]\nname = "lab"\n[index.main]\nurl = "{self.index.url}"\ndefault = true\n'
            f'[channel.stack]\nurl = "{self.url}"\n{here()}\n'
            '[env.geo]\nkind = "conda"\nfile = "environment.yml"\nchannels = ["stack"]\ntargets = ["here"]\n'
            "check = \"python -c 'import extra, tqdm' && where\"\n"
            '[env.train]\nkind = "pixi"\nfile = "pixi.lock"\ntargets = ["here"]\n'
            f'[env.old]\nkind = "prefix"\npath = "{self.legacy}"\ncheck = "tell"\n'
            '[env.plain]\nkind = "pip"\nrequirements = ["requirements.txt"]\ntargets = ["here"]\n',
        )
        self.write("requirements.txt", "extra\n")

    def write_pixi(self) -> None:
        """A pixi project of some packages of the channel."""
        chosen = packages(self.channel, "python", "packaging")
        records = [
            {
                "conda": f"{self.url}/{p.subdir}/{p.filename}",
                **{
                    key: p.record[key] for key in ("sha256", "md5", "depends", "license", "size", "timestamp")
                },
            }
            for p in chosen
        ]
        mine = {SUBDIR: [{"conda": record["conda"]} for record in records]}
        environments = {"default": {"channels": [{"url": f"{self.url}/"}], "packages": mine}}
        self.write("pixi.lock", json.dumps({"version": 6, "environments": environments, "packages": records}))
        self.write("pixi.toml", '[workspace]\nname = "lab"\n')

    def inside(self, *words: str | Path, code: int = 0) -> str:
        """Run haversack over the inner store; what it printed, when it ends as expected."""
        done = self(*words, env={"HAVERSACK_STORE": str(self.inner)})
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    """A site that has been locked, packed, verified and received."""
    with Journey(tmp_path_factory.mktemp("journey")) as lab, lab.server:
        lab.told("lock")
        packed = lab.told("pack", "-o", lab.folder / "bundle", "--name", "first")
        assert {r["result"] for r in packed["rehearsals"] if not r["ref"].startswith("haversack/")} == {
            "passed"
        }
        lab.inside("verify", lab.folder / "bundle")
        lab.inside("receive", lab.folder / "bundle")
        yield lab


def ran(*words: str | Path) -> str:
    """What a program says that ends well, in an environment of nobody's."""
    return subprocess.run(
        words, env={"PATH": "/usr/bin:/bin"}, check=True, capture_output=True, text=True
    ).stdout


def test_one_bundle_holds_any_mix_each_file_once(journey: Journey) -> None:
    """Python is in the conda and in the pixi environment, a wheel in the conda and the pip one, and each is one blob."""
    lock = json.loads((journey.root / "haversack.lock").read_text())
    shared = {a["name"]: a["in"] for a in lock["artifacts"] if len(a["in"]) > 1}
    assert shared["python"] == ["geo/here", "train/here"]
    assert shared["extra"] == ["geo/here", "plain/here"]
    blobs = [p.name for p in (journey.folder / "bundle").rglob("blobs/sha256/*")]
    assert len(blobs) == len(set(blobs))


def test_every_kind_is_installed_and_works(journey: Journey, tmp_path: Path) -> None:
    """Programs of each run at their place, the check passes there, and doctor finds nothing."""
    for name in ("geo", "train", "old", "plain"):
        journey.inside("install", name, "--to", tmp_path / name, "--check")
        journey.inside("doctor", "--env", tmp_path / name)
    assert ran(tmp_path / "geo" / "bin" / "where") == f"{tmp_path}/geo\n"
    assert "4." in ran(tmp_path / "geo" / "bin" / "tqdm", "--version")
    assert ran(tmp_path / "old" / "bin" / "tell") == f"{tmp_path}/old\n"
    assert (
        ran(tmp_path / "train" / "bin" / "python", "-c", "import packaging, sys; print(sys.prefix)")
        == f"{tmp_path}/train\n"
    )
    listed = ran(sys.executable, "-I", "-m", "pip", "--python", tmp_path / "geo" / "bin" / "python", "list")
    assert "extra" in listed
    assert "tqdm" in listed


_CONDA_LIST = """\
import sys
from conda_lock._vendor.conda.cli import main_list
sys.exit(main_list.print_packages(sys.argv[1], format="human"))
"""


def test_conda_lists_what_is_installed(journey: Journey, tmp_path: Path) -> None:
    """The ``conda list`` of conda's own code (the copy in conda-lock) names packages, channels and the wheel."""
    journey.inside("install", "geo", "--to", tmp_path / "geo")
    # No report of an error goes anywhere.
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "CONDA_REPORT_ERRORS": "false",
        "CONDA_NO_PLUGINS": "true",
    }
    words: list[str | Path] = [sys.executable, "-I", "-W", "ignore", "-c", _CONDA_LIST, tmp_path / "geo"]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    rows = {
        line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line[:1] not in {"#", ""}
    }
    assert rows["where"] == ["1.0", "h1_0", journey.url], done.stderr
    assert rows["extra"] == ["1.0", "pypi_0", "pypi"]
    assert len(rows) == 12


def test_replacing_and_sharing(journey: Journey, tmp_path: Path) -> None:
    """A second install replaces the first in one step; a clone shares its files and is an environment of its own."""
    home, clone = tmp_path / "home", tmp_path / "clone"
    journey.inside("install", "geo", "--to", home)
    assert "replaced" in journey.inside("install", "geo", "--to", home)
    assert "shared with" in journey.inside("install", "geo", "--to", clone, "--clone-of", home)
    assert (clone / "share" / "yanked").stat().st_ino == (home / "share" / "yanked").stat().st_ino
    assert ran(clone / "bin" / "where") == f"{clone}\n"
    journey.inside("doctor", "--env", clone)
    assert "was not made by haversack" in journey.inside(
        "install", "geo", "--to", tmp_path / "x", "--clone-of", journey.legacy, code=15
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clone", "home"]


def test_a_check_that_fails_at_home_changes_nothing(journey: Journey, tmp_path: Path) -> None:
    """Where an environment can only be checked at its place, the one that was there comes back."""
    root = tmp_path / "site"
    shutil.copytree(journey.root, root)
    text = (root / "haversack.toml").read_text()
    (root / "haversack.toml").write_text(text.replace(" && where", " && test -e $CONDA_PREFIX/never"))
    env = {"HAVERSACK_STORE": str(tmp_path / "store")}
    assert journey("lock", env=env, cwd=root).returncode == 0
    done = journey("pack", "-o", tmp_path / "bundle", "--no-rehearse", "--name", "x", env=env, cwd=root)
    assert done.returncode == 0, done.stderr
    home = tmp_path / "home"
    journey.inside("install", "geo", "--to", home)
    before = (home / "haversack-environment.json").read_bytes()
    for place in (home, tmp_path / "new"):
        done = journey("install", "geo", "--to", place, "--check", env=env, cwd=root)
        assert done.returncode == EXIT.get("proof", done.returncode) != 0
        assert "nothing was changed" in done.stderr
    assert (home / "haversack-environment.json").read_bytes() == before
    assert ran(home / "bin" / "where") == f"{home}\n"
    assert not (tmp_path / "new").exists()
    assert not [path for path in tmp_path.iterdir() if ".haversack-" in path.name]


def test_an_increment_of_a_conda_environment(journey: Journey, tmp_path: Path) -> None:
    """One new package is one new file; diff names it, and prune lets go of what only the old one needed."""
    root = tmp_path / "site"
    shutil.copytree(journey.root, root)
    env = {"HAVERSACK_STORE": str(tmp_path / "store")}
    inner = tmp_path / "inner"
    shutil.copytree(journey.inner, inner)
    shutil.copytree(journey.store, tmp_path / "store")
    newer = make_conda(journey.channel, "yanked", "3.0", noarch="generic", files={"share/yanked": b"3.0\n"})
    old = (journey.channel / "noarch" / "repodata.json").read_text()
    told = json.loads(old)
    told["packages.conda"][newer.filename] = newer.record
    (journey.channel / "noarch" / "repodata.json").write_text(json.dumps(told))
    try:
        assert journey("lock", "--upgrade", env=env, cwd=root).returncode == 0
    finally:
        (journey.channel / "noarch" / "repodata.json").write_text(old)
    done = journey("pack", "-o", tmp_path / "more", "--base", "first", "--name", "second", env=env, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "yanked 1.0 -> 3.0" in done.stdout
    inside = {"HAVERSACK_STORE": str(inner)}
    assert journey("receive", tmp_path / "more", env=inside).returncode == 0
    assert "yanked 1.0 -> 3.0" in journey("diff", "first", env=inside).stdout
    home = tmp_path / "home"
    assert journey("install", "geo", "--to", home, env=inside).returncode == 0
    assert (home / "share" / "yanked").read_text() == "3.0\n"
    assert (inner / "haversack" / "cache" / "conda" / "pkgs" / "yanked-3.0-0").is_dir()
    pruned = journey("prune", "--keep", "1", env=inside)
    assert pruned.returncode == 0, pruned.stderr
    assert journey("use", "first", env=inside).returncode != 0
    assert journey("doctor", "--env", home, env=inside).returncode == 0
    shutil.rmtree(home)
    assert journey("install", "geo", "--to", home, env=inside).returncode == 0


def test_an_environment_outlives_its_snapshot(journey: Journey, tmp_path: Path) -> None:
    """Once its snapshot is gone, doctor says that a conda environment cannot be compared, and finds no fault."""
    home = tmp_path / "home"
    journey.inside("install", "geo", "--to", home)
    marker = home / "haversack-environment.json"
    data = json.loads(marker.read_text())
    marker.write_text(json.dumps({**data, "snapshot": "sha256:" + "0" * 64}))
    assert "not compared" in journey.inside("doctor", "--env", home)


def test_doctor_knows_an_environment_by_any_name_and_one_that_was_moved(
    journey: Journey, tmp_path: Path
) -> None:
    """The marker says where it was installed: links and relative paths lead there, and a move is one finding."""
    home = tmp_path / "homes" / "geo"
    env = {"HAVERSACK_STORE": str(journey.inner)}
    (tmp_path / "homes").mkdir()
    (tmp_path / "link").symlink_to("homes")
    assert journey("install", "geo", "--to", "homes/geo", env=env, cwd=tmp_path).returncode == 0
    assert json.loads((home / "haversack-environment.json").read_text())["home"] == str(home)
    for name in ("homes/geo", "link/geo", str(tmp_path / "link" / "geo")):
        done = journey("doctor", "--env", name, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    home.rename(tmp_path / "moved")
    done = journey("doctor", "--env", "moved", "--json", env=env, cwd=tmp_path)
    assert done.returncode == 19
    (finding,) = [f for f in json.loads(done.stdout)["findings"] if f["blocking"]]
    assert finding["subject"] == str(tmp_path / "moved")
    assert f"was installed at {home}" in finding["message"]


def test_a_tampered_package_in_a_folder_channel_is_refused(journey: Journey, tmp_path: Path) -> None:
    """Rattler takes a file:// package unseen; we do not: pack fails, names it, and writes nothing."""
    root, channel = tmp_path / "site", tmp_path / "channel"
    shutil.copytree(journey.root, root)
    write_channel(
        channel, [make_conda(channel, "lone", "1.0", subdir=SUBDIR, files={"share/lone": b"lone\n"})]
    )
    (root / "environment.yml").write_text("dependencies:\n- lone\n")
    text = (root / "haversack.toml").read_text()
    head, _, rest = text.partition("check =")
    del rest
    (root / "haversack.toml").write_text(head.replace(journey.url, channel.as_uri()))
    env = {"HAVERSACK_STORE": str(tmp_path / "store")}
    assert journey("lock", env=env, cwd=root).returncode == 0
    forged = make_conda(tmp_path / "forged", "lone", "1.0", subdir=SUBDIR, files={"share/lone": b"forged\n"})
    shutil.copyfile(forged.path, channel / SUBDIR / forged.filename)
    done = journey("pack", "-o", tmp_path / "bundle", env=env, cwd=root)
    assert done.returncode == 7
    assert "lone-1.0-0.conda" in done.stderr
    assert not [path for path in (tmp_path / "bundle").rglob("*") if path.is_file()]


def test_the_inside_is_a_channel_and_leaves_through_every_door(journey: Journey, tmp_path: Path) -> None:
    """The commands write what they say, and refuse with the ways that are open."""
    assert "exported" in journey.inside(
        "serve", "--export", tmp_path / "mirror", "--base-url", "http://mirror.example"
    )
    assert "was exported already" in journey.inside(
        "serve", "--export", tmp_path / "mirror", "--base-url", "http://mirror.example"
    )
    assert (
        tmp_path
        / "mirror"
        / "conda"
        / journey.server.url[7:-1].replace(":", "_")
        / "channel"
        / "noarch"
        / "repodata.json.zst"
    ).is_file()
    assert "mirror.example" in (tmp_path / "mirror" / "clients" / "condarc").read_text()
    journey.inside("export", "train", "--as", "project", "--to", tmp_path / "project")
    assert (tmp_path / "project" / "pixi.lock").read_bytes() == (journey.root / "pixi.lock").read_bytes()
    journey.inside("export", "geo", "--as", "pixi-pack", "--to", tmp_path / "geo.tar")
    journey.inside("export", "plain", "--as", "wheelhouse", "--to", tmp_path / "wheels")
    assert "pixi-pack" in journey.inside(
        "export", "geo", "--as", "wheelhouse", "--to", tmp_path / "w", code=2
    )
    done = journey("import", tmp_path / "geo.tar", tmp_path / "taken", "--name", "geo")
    assert done.returncode == 0, done.stderr
    env = {"HAVERSACK_STORE": str(tmp_path / "store")}
    text = (tmp_path / "taken" / "haversack.toml").read_text()
    (tmp_path / "taken" / "haversack.toml").write_text(
        f'{text}[index.main]\nurl = "{journey.index.url}"\ndefault = true\n'
    )
    done = journey("lock", env=env, cwd=tmp_path / "taken")
    assert done.returncode == 0, done.stderr
    assert journey("pack", "-o", tmp_path / "b", env=env, cwd=tmp_path / "taken").returncode == 0


_OTHER = """\
import asyncio, sys
from rattler import Channel, Gateway, VirtualPackage, install, solve
async def main():
    records = await solve([Channel(sys.argv[1])], ["everything"], gateway=Gateway(),
                          platforms=[sys.argv[4], "noarch"], virtual_packages=VirtualPackage.detect())
    await install(records, sys.argv[2], cache_dir=sys.argv[3], show_progress=False)
    print(len(records), flush=True)
asyncio.run(main())
"""


@pytest.mark.network
def test_an_older_rattler_reads_the_channel(journey: Journey, tmp_path: Path) -> None:
    """A rattler of two years ago solves and installs from the exported channel, and what it installs runs."""
    journey.inside("serve", "--export", tmp_path / "mirror")
    (channel,) = (tmp_path / "mirror" / "conda").glob("*/channel")
    python = tmp_path / "venv" / "bin" / "python"
    steps: list[list[str | Path]] = [
        ["venv", "--quiet", "--no-config", "--python", sys.executable, tmp_path / "venv"],
        ["pip", "install", "--quiet", "--no-config", "--python", python, "py-rattler==0.12.0"],
    ]
    for argv in steps:
        subprocess.run([find_uv_bin(), *argv], check=True, env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"})
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    words: list[str | Path] = [
        python,
        "-c",
        _OTHER,
        channel.as_uri(),
        tmp_path / "env",
        tmp_path / "cache",
        SUBDIR,
    ]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    # What it printed counts: it may fall over when Python ends, as its successors do.
    assert int(done.stdout) == 11, done.stderr
    assert ran(tmp_path / "env" / "bin" / "where") == f"{tmp_path}/env\n"
