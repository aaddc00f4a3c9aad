"""Real clients with the rendered configuration, in a network that has nothing but a mirror.

Each runs against nginx over an export and against haversack's own server, under upstream's names, with the
variables that ``env.sh`` gives to a shell that knew other mirrors before.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.support.mirror import BASE, HOST, IMAGE, OTHER, SERVERS, Airgap, Crossed, Guarded, crossed

UV = find_uv_bin()


@dataclass(frozen=True)
class Inside:
    """A mirror that runs, the network around it, and what a shell knows after ``env.sh``."""

    site: Crossed
    gap: Airgap
    clients: Path
    env: dict[str, str]

    def told(self, *words: str | Path, **more: object) -> str:
        """What a program says that must succeed."""
        done = self.gap(*words, **{"env": self.env, **more})  # type: ignore[arg-type]
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Crossed:
    """Everything that crosses, received."""
    return crossed(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module", params=SERVERS)
def inside(request: pytest.FixtureRequest, site: Crossed) -> Iterator[Inside]:
    """Each server in turn."""
    with Airgap() as gap, SERVERS[request.param](site, gap):
        clients = site.folder / f"clients-{request.param}"
        yield Inside(site, gap, clients, site.rendered(clients))


def test_there_is_nothing_else(inside: Inside) -> None:
    """No address beyond loopback can be dialled, and no name be resolved; the mirror answers."""
    dial = "import socket; socket.create_connection(('192.0.2.1', 80), 2)"
    done = inside.gap(sys.executable, "-c", dial)
    assert "unreachable" in done.stderr
    assert inside.gap("curl", "-s", "https://pypi.example.org/").returncode == 6
    assert inside.told("curl", "-s", f"{BASE}/healthz") == "ok\n"


def test_pip_installs(inside: Inside, tmp_path: Path) -> None:
    """pip takes a package and what it needs from the mirror, and asks no other index."""
    told = inside.told(
        *(sys.executable, "-m", "pip", "install", "-v", "--no-cache-dir", "--target", tmp_path, "demo"),
    )
    assert (tmp_path / "base" / "__init__.py").exists()
    assert "192.0.2.1" not in told
    # The metadata alone was asked for before the wheel (PEP 658).
    assert ".whl.metadata" in told


def test_uv_installs(inside: Inside, tmp_path: Path) -> None:
    """uv does the same, by name and by hash."""
    inside.told(UV, "pip", "install", "--python", sys.executable, "--target", tmp_path, "demo==1.0")
    assert (tmp_path / "demo" / "__init__.py").exists()


@pytest.fixture
def project(inside: Inside, tmp_path: Path) -> Path:
    """A copy of the project that was locked outside, whose own caches stayed there."""
    shutil.copytree(inside.site.folder / "project", tmp_path / "app", ignore=shutil.ignore_patterns("cache"))
    return tmp_path / "app"


def test_a_lock_of_uv_as_it_is_names_files_that_are_not_here(inside: Inside, project: Path) -> None:
    """`uv sync --frozen` asks the hosts in the lock, whatever is configured: that is why the ways below are told."""
    env = {**inside.env, "UV_HTTP_RETRIES": "0"}
    done = inside.gap(UV, "sync", "--frozen", "--python", sys.executable, env=env, cwd=project)
    assert done.returncode != 0
    assert "-py3-none-any.whl" in done.stderr


def test_an_unmodified_lock_of_uv_installs_by_its_hashes(inside: Inside, project: Path) -> None:
    """Exported by name and hash, the lock installs through the index, and stays as it was."""
    before = (project / "uv.lock").read_bytes()
    inside.told(UV, "venv", "-q", "--python", sys.executable, cwd=project)
    listed = inside.told(UV, "export", "-q", "--frozen", "--no-emit-project", cwd=project)
    assert "--hash=sha256:" in listed
    words = ("pip", "sync", "--require-hashes", "--python", ".venv/bin/python", "-")
    inside.told(UV, *words, cwd=project, stdin=listed)
    assert (
        inside.told(".venv/bin/python", "-c", "import demo, base; print(demo.NAME)", cwd=project) == "demo\n"
    )
    assert (project / "uv.lock").read_bytes() == before
    # The hash is held against what comes.
    forged = re.sub("sha256:[0-9a-f]", lambda found: "sha256:" + "10"[found[0][-1] == "1"], listed)
    done = inside.gap(
        *(UV, *words[:2], "--reinstall", "--no-cache", *words[2:]), env=inside.env, cwd=project, stdin=forged
    )
    assert "hash" in done.stderr.lower()
    assert done.returncode != 0


def test_a_lock_of_uv_syncs_with_another_beginning_of_its_urls(inside: Inside, project: Path) -> None:
    """After ``locks.sed`` `uv sync --frozen` takes the same files from the mirror."""
    subprocess.run(["sed", "-i", "-f", inside.clients / "locks.sed", project / "uv.lock"], check=True)
    inside.told(UV, "sync", "-q", "--frozen", "--python", sys.executable, cwd=project)
    assert inside.told(".venv/bin/python", "-c", "import demo; print(demo.NAME)", cwd=project) == "demo\n"


_RATTLER = """
import asyncio, json, sys
from rattler import Channel, Gateway, solve
from rattler.networking import Client, MirrorMiddleware
from rattler.install import install
async def main(channel, mirrors, prefix, subdir):
    client = Client([MirrorMiddleware(mirrors)])
    records = await solve([Channel(channel)], ["data"], gateway=Gateway(client=client), platforms=[subdir, "noarch"])
    await install(records, target_prefix=prefix, client=client, cache_dir=prefix + "-cache", show_progress=False)
    print(json.dumps([record.url for record in records]))
asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], sys.argv[4]))
"""


def test_rattler_installs_through_the_mirrors_of_pixi(inside: Inside, tmp_path: Path) -> None:
    """pixi's library solves and installs by the channel's own name; the records keep it."""
    config = tomllib.loads((inside.clients / "pixi-config.toml").read_text())
    mirrors = json.dumps(config["mirrors"])
    channel = inside.site.channel
    words = (sys.executable, "-W", "ignore", "-c", _RATTLER, channel, mirrors, tmp_path / "p", "linux-64")
    assert json.loads(inside.told(*words)) == [f"{channel}/noarch/data-1.0-0.conda"]
    assert (tmp_path / "p" / "share" / "data").read_bytes() == b"data\n"


def test_rattler_installs_from_all_channels_as_one(inside: Inside, tmp_path: Path) -> None:
    """A client that is given the one address of all channels, and no mirrors, solves and installs from there."""
    channel = f"{BASE}/conda/_merged"
    words = (sys.executable, "-W", "ignore", "-c", _RATTLER, channel, "{}", tmp_path / "p", "linux-64")
    assert json.loads(inside.told(*words)) == [f"{channel}/noarch/data-1.0-0.conda"]
    assert (tmp_path / "p" / "share" / "data").read_bytes() == b"data\n"


def test_skopeo_copies_under_the_image_s_own_name(inside: Inside, tmp_path: Path) -> None:
    """All platforms, digests unchanged, of Docker Hub and of a registry with a port."""
    skopeo = ("skopeo", "--registries-conf", inside.clients / "registries.conf")
    for name in (IMAGE, OTHER):
        copy = (*skopeo, "--insecure-policy", "copy", "--all", "--preserve-digests", "-q")
        inside.told(*copy, f"docker://{name}", f"oci:{tmp_path}/layout:{name}")
        index = json.loads((tmp_path / "layout" / "index.json").read_text())
        assert inside.site.digests[name] in [entry["digest"] for entry in index["manifests"]]
    # This one command knows no other location of a name.
    tags = json.loads(inside.told(*skopeo, "list-tags", f"docker://{HOST}/docker.io/library/tiny"))
    assert tags["Tags"] == ["1"]


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[list[str]]:
    """podman with storage of its own, and the runtime and cgroups that work in a plain container as well."""
    config = tmp_path / "containers.conf"
    config.write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nruntime = "runc"\nevents_logger = "file"\n'
    )
    # It wants a short path there.
    with tempfile.TemporaryDirectory() as run:
        folders = ["--root", str(tmp_path / "root"), "--runroot", run, "--storage-driver", "vfs"]
        yield ["env", f"CONTAINERS_CONF={config}", "podman", *folders]


def test_podman_pulls_and_runs(inside: Inside, podman: list[str]) -> None:
    """By its upstream name, and by the short one; what it runs prints."""
    inside.told(*podman, "pull", "-q", IMAGE)
    run = ("run", "--rm", "--network=none")
    assert inside.told(*podman, *run, IMAGE, "/tiny") == "hello from inside\n"
    inside.told(*podman, "pull", "-q", "tiny:1")
    digest = inside.told(*podman, "image", "inspect", "--format", "{{.Digest}}", IMAGE)
    assert digest.strip() == inside.site.digests[IMAGE]


@contextlib.contextmanager
def containerd(gap: Airgap, folder: Path) -> Iterator[tuple[str, ...]]:
    """containerd in the gap; the words that its client begins with."""
    config, socket = folder / "config.toml", folder / "s.sock"
    config.write_text(
        f'version = 2\nroot = "{folder}/data"\nstate = "{folder}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{socket}"\n'
    )
    with (folder / "log").open("wb") as log:
        env = {"PATH": os.environ["PATH"]}
        daemon = subprocess.Popen(gap.argv("containerd", "-c", config), stdout=log, stderr=log, env=env)
        try:
            for _ in range(200):
                if gap("ctr", "-a", socket, "version").returncode == 0:
                    break
                time.sleep(0.05)
            yield "ctr", "-a", str(socket)
        finally:
            daemon.terminate()
            daemon.wait(20)


def test_containerd_pulls(inside: Inside, tmp_path: Path) -> None:
    """With ``hosts.toml``, as a Kubernetes node does, by the image's own name; what is not there is not sought."""
    with containerd(inside.gap, tmp_path) as ctr:
        pull: tuple[str | Path, ...] = (*ctr, "images", "pull", "--hosts-dir", inside.clients / "certs.d")
        inside.told(*pull, IMAGE)
        listed = inside.told(*ctr, "images", "ls")
        assert IMAGE in listed
        assert inside.site.digests[IMAGE] in listed
        done = inside.gap(*pull, IMAGE.replace("tiny", "absent"))
        assert "not found" in done.stderr
        # Nobody else was dialled.
        assert "dial tcp" not in done.stderr


def test_docker_s_way_of_asking_a_mirror(inside: Inside) -> None:
    """Names without a host mean Docker Hub, and ``?ns=`` names another registry."""
    for path in ("library/tiny/manifests/1", "library/tiny/manifests/1?ns=docker.io"):
        told = inside.told("curl", "-sf", "-D", "-", "-H", "Accept: */*", f"{BASE}/v2/{path}")
        assert "application/vnd.oci.image.index.v1+json" in told
    inside.told("curl", "-sf", f"{BASE}/v2/team/tool/manifests/2?ns=registry.example.org:5000")
    assert inside.gap("curl", "-sf", f"{BASE}/v2/library/tiny/manifests/1?ns=../../..").returncode in {0, 22}


def test_git_clones_by_the_declared_url(inside: Inside, tmp_path: Path) -> None:
    """The whole history, and the remote keeps upstream's name."""
    # The repository outside is out of sight here, as its host is.
    moved = inside.site.folder / "out" / "site" / "fraud"
    moved.rename(moved.with_name("away"))
    try:
        inside.told("git", "clone", "-q", inside.site.git, tmp_path / "fraud")
    finally:
        moved.with_name("away").rename(moved)
    log = inside.told("git", "-C", tmp_path / "fraud", "log", "--format=%s")
    assert log == "two\none\n"
    assert (
        inside.told("git", "-C", tmp_path / "fraud", "config", "remote.origin.url").strip() == inside.site.git
    )


def test_curl_takes_ranges_and_check_sums(inside: Inside, tmp_path: Path) -> None:
    """A part of a file, the rest of one, and nothing beyond its end; the sum beside it agrees."""
    url = f"{BASE}/files/code.txt"
    assert inside.told("curl", "-sf", "-r", "10-14", url) == "01234"
    (tmp_path / "code.txt").write_text("0123456789" * 50)
    inside.told("curl", "-sf", "-C", "-", "-O", url, cwd=tmp_path)
    assert inside.gap("curl", "-sf", "-r", "5000-6000", url).returncode == 22
    (tmp_path / "sums").write_text(inside.told("curl", "-sf", f"{BASE}/files/SHA256SUMS"))
    subprocess.run(["sha256sum", "--strict", "-c", "sums"], cwd=tmp_path, check=True, capture_output=True)


def test_a_browser_reads_the_pages(inside: Inside, tmp_path: Path) -> None:
    """chromium shows the folders and the index of packages, with links that lead on, and asks nobody else."""
    flags = [
        *(
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-sync",
        ),
        *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
        "--dump-dom",
    ]
    for path, link in (
        ("/", "pypi/"),
        ("/pypi/simple/", "demo/"),
        ("/files/", "code.txt"),
        ("/pypi/simple/demo/", "demo-1.0"),
    ):
        dom = inside.told(
            *("chromium", *flags, f"--user-data-dir={tmp_path}", f"{BASE}{path}"),
            env={**inside.env, "HOME": str(tmp_path)},
        )
        assert link in dom, path


def test_the_conda_of_conda_lock_reads_its_configuration(inside: Inside) -> None:
    """conda's own code finds just the mirror's channel, by its short name too, and no notices or reports."""
    code = (
        "import json, os; from conda_lock._vendor.conda.base.context import context as c, reset_context;"
        "reset_context([os.environ['CONDARC']]);"
        "from conda_lock._vendor.conda.models.channel import Channel;"
        "print(json.dumps([list(map(str, c.channels)), list(map(str, c.default_channels)), c.report_errors, Channel('channel').base_url]))"
    )
    place = f"{BASE}/conda/{inside.site.channel.removeprefix('http://').replace(':', '_')}"
    told = json.loads(inside.told(sys.executable, "-W", "ignore", "-c", code).splitlines()[-1])
    assert told == [[place], [], False, place]


def test_a_named_snapshot_is_served_by_its_name(inside: Inside, tmp_path: Path) -> None:
    """With ``--dated`` the same comes from ``/@NAME/``, and stays there."""
    env = inside.site.rendered(tmp_path / "dated", "--dated")
    name = env["PIP_INDEX_URL"].removeprefix(f"{BASE}/@").partition("/")[0]
    assert HOST in env["PIP_INDEX_URL"]
    inside.told(
        *(sys.executable, "-m", "pip", "install", "--no-cache-dir", "--target", tmp_path / "t", "base"),
        env=env,
    )
    assert (tmp_path / "t" / "base").is_dir()
    assert inside.gap("curl", "-sf", f"{BASE}/@{name}x/pypi/simple/").returncode == 22


@pytest.fixture(scope="module")
def guarded(site: Crossed) -> Iterator[Inside]:
    """A server with TLS and a login, and clients that were told of its CA; the login stands where env.sh says."""
    with Airgap() as gap, Guarded(site, gap) as server:
        clients = site.folder / "clients-guarded"
        env = site.rendered(clients, "--ca", server.ca, base=server.base)
        name, password = server.login
        netrc = clients / ".netrc"
        netrc.write_text(f"machine 127.0.0.1 login {name} password {password}\n")
        netrc.chmod(0o600)
        inside = Inside(site, gap, clients, {**env, "REGISTRY_AUTH_FILE": str(clients / "auth.json")})
        inside.told("skopeo", "login", "-u", name, "--password-stdin", HOST, stdin=password)
        yield inside


def test_clients_trust_the_site_s_ca_and_log_in(guarded: Inside, tmp_path: Path) -> None:
    """With ``--ca`` and a netrc, pip, uv, curl, git and skopeo read from a server with TLS and a login."""
    guarded.told(sys.executable, "-m", "pip", "install", "--no-cache-dir", "--target", tmp_path / "a", "demo")
    guarded.told(
        UV, "pip", "install", "--no-cache", "--python", sys.executable, "--target", tmp_path / "b", "demo"
    )
    assert guarded.told("curl", "-nsf", "-r", "0-3", f"{Guarded.base}/files/code.txt") == "0123"
    guarded.told("git", "clone", "-q", guarded.site.git, tmp_path / "c")
    skopeo = (
        "skopeo",
        "--registries-conf",
        guarded.clients / "registries.conf",
        "--insecure-policy",
        "copy",
        "-q",
    )
    guarded.told(*skopeo, f"docker://{IMAGE}", f"oci:{tmp_path}/layout")
    with containerd(guarded.gap, tmp_path) as ctr:
        pull: tuple[str | Path, ...] = (*ctr, "images", "pull", "--hosts-dir", guarded.clients / "certs.d")
        guarded.told(*pull, "--user", ":".join(Guarded.login), IMAGE)
        assert "401" in guarded.gap(*pull, OTHER).stderr


def test_clients_refuse_a_server_that_nobody_vouches_for(guarded: Inside, tmp_path: Path) -> None:
    """Without the CA, or without the login, nothing is taken."""
    pip = (
        sys.executable,
        "-m",
        "pip",
        "install",
        "--retries",
        "0",
        "--no-cache-dir",
        "--target",
        tmp_path,
        "demo",
    )
    config = tmp_path / "pip.conf"
    config.write_text((guarded.clients / "pip.conf").read_text().replace("cert = ", "# "))
    unknown = {k: v for k, v in guarded.env.items() if "CERT" not in k and "CA_BUNDLE" not in k}
    done = guarded.gap(*pip, env={**unknown, "PIP_CONFIG_FILE": str(config)})
    assert "certificate" in (done.stdout + done.stderr).lower()
    assert done.returncode != 0
    done = guarded.gap(*pip, "--no-input", env={**guarded.env, "HOME": str(tmp_path)})
    assert done.returncode != 0
    assert "No matching distribution" in done.stdout + done.stderr
    git = ("git", "clone", "-q", guarded.site.git, tmp_path / "c")
    done = guarded.gap(*git, env={**guarded.env, "HOME": str(tmp_path), "GIT_TERMINAL_PROMPT": "0"})
    assert done.returncode != 0
