"""Locks as they are: a mirror that upstream's names lead to, and clients that were told nothing but its CA.

Outside is one network with loopback alone, where nginx plays an index, a place for files and a channel; inside is
another one, with a mirror.  In both, the names of upstream lead to 127.0.0.1, and everything is https at 443.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from uv import find_uv_bin

from haversack.model.artifact import digest_of
from haversack.model.lock import LockedEnvironment
from haversack.serving.requests import RefusedError, parse
from tests.support import tiny
from tests.support.conda import make_conda, write_channel
from tests.support.live import Live
from tests.support.mirror import Airgap
from tests.support.registry import Layout
from tests.support.site import here, serve_tool
from tests.support.viewing import stocked, wheel_of
from tests.support.wheels import make_wheel

PYPI, FILES, CONDA, REGISTRY = (f"{name}.example.org" for name in ("pypi", "files", "conda", "registry"))
IMAGE = f"{REGISTRY}/team/tool:2"
UV = find_uv_bin()


class Named(Airgap):
    """An air gap in which names lead to loopback."""

    def __init__(self, hosts: Path) -> None:
        super().__init__()
        hosts.write_text(f"127.0.0.1 localhost {PYPI} {FILES} {CONDA} {REGISTRY}\n")
        self._hosts = hosts

    def argv(self, *words: str | Path) -> list[str]:
        """The argv that runs a program in there."""
        mount = ("unshare", "-m", "sh", "-euc", 'mount --bind "$0" /etc/hosts; exec "$@"', self._hosts)
        return super().argv(*mount, *words)

    @contextmanager
    def running(self, *words: str | Path, store: Path, ca: Path, log: Path) -> Iterator[None]:
        """A server in there, once it answers."""
        with log.open("wb") as file:
            env = tiny.environ(store)
            # nginx writes to where it is started.
            process = subprocess.Popen(
                self.argv(*words), env=env, cwd=log.parent, stdout=file, stderr=subprocess.STDOUT
            )
        try:
            for _ in range(200):
                if self("curl", "-s", "--cacert", ca, f"https://{FILES}/").returncode == 0:
                    break
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            else:
                raise AssertionError(log.read_text()[-2000:])
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def authority(folder: Path, name: str, store: Path) -> tuple[Path, Path, Path]:
    """A CA, and a certificate of it, with its key, for every name of upstream."""
    for words in (
        ("create", folder, "--name", name),
        ("issue", folder, PYPI, FILES, CONDA, REGISTRY, "-o", folder / "server"),
    ):
        done = tiny.haversack("ca", *words, store=store)
        assert done.returncode == 0, done.stderr
    chain, key = sorted((folder / "server").glob("*.pem")), sorted((folder / "server").glob("*.key"))
    return folder / "ca.pem", chain[0], key[0]


def nginx(home: Path, text: str) -> Sequence[str | Path]:
    """The argv for nginx with a configuration, which is written to its folder."""
    (home / "nginx.conf").write_text(text)
    return ["nginx", "-e", "stderr", "-p", f"{home}/", "-c", "nginx.conf", "-g", "user root;"]


_OUTSIDE = """
daemon off; pid nginx.pid; error_log stderr;
events {{ }}
http {{
    access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4;
    scgi_temp_path t5;
    types {{ text/html html; application/json json; }}
    server {{ listen 443 ssl; ssl_certificate {chain}; ssl_certificate_key {key}; root $host; }}
}}
"""


def upstream(home: Path) -> None:
    """The folders of the hosts: an index whose pages name files of another host, and a channel."""
    files = home / FILES / "packages" / "a b+c"
    files.mkdir(parents=True)
    serve_tool(files)
    make_wheel(files, "demo", "1.0", modules={"demo/__init__.py": "NAME = 'demo'\n"}, requires=["base"])
    make_wheel(files, "base", "2.0", modules={"base/__init__.py": ""})
    pages: dict[str, str] = {}
    for wheel in sorted(files.iterdir()):
        name = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        link = f"https://{FILES}/packages/{quote('a b+c')}/{quote(wheel.name)}"
        digest = digest_of(wheel.read_bytes()).replace(":", "=")
        pages[name] = pages.get(name, "") + f'<a href="{link}#{digest}">{wheel.name}</a>\n'
    for name, page in pages.items():
        folder = home / PYPI / "simple" / name
        folder.mkdir(parents=True)
        (folder / "index.html").write_text(f"<!DOCTYPE html>\n{page}")
    channel = home / CONDA / "forge"
    made = make_conda(channel, "data", "1.0", noarch="generic", files={"share/data": b"data\n"})
    write_channel(channel, [made])


@dataclass(frozen=True)
class Site:
    """A store inside, what locks say that were made outside, and a folder that stays."""

    store: Path
    project: Path
    origins: frozenset[str]
    digest: str
    folder: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """haversack and uv lock the same things outside, by the same URLs; the former's bundle is received."""
    folder = tmp_path_factory.mktemp("hosts")
    home, work, project = folder / "upstream", folder / "work", folder / "project"
    upstream(home)
    work.mkdir()
    project.mkdir()
    layout = Layout(work / "layout")
    digest = layout.image("tool", {"tool": b"tool"})
    (work / "environment.yml").write_text("dependencies:\n- data\n")
    (work / "requirements.txt").write_text("demo\n")
    (work / "haversack.toml").write_text(
        f'[site]\nname = "lab"\n[index.main]\nurl = "https://{PYPI}/simple/"\ndefault = true\nauth = "none"\n'
        f'[channel.forge]\nurl = "https://{CONDA}/forge"\n{here()}\n'
        '[env.lab]\nkind = "pip"\nrequirements = ["requirements.txt"]\ntargets = ["here"]\n'
        '[env.geo]\nkind = "conda"\nfile = "environment.yml"\nchannels = ["forge"]\ntargets = ["here"]\n'
        f'[[image]]\nref = "oci:layout:tool"\nas = "{IMAGE}"\n'
    )
    (project / "pyproject.toml").write_text(
        '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["demo"]\n'
    )
    ca, chain, key = authority(folder / "ca", "Upstream", folder / "none")
    env = {
        **tiny.environ(folder / "outside"),
        "SSL_CERT_FILE": str(ca),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "UV_CACHE_DIR": str(folder / "cache" / "uv"),
    }
    words = nginx(home, _OUTSIDE.format(chain=chain, key=key))
    with Named(folder / "etc-hosts") as gap, gap.running(*words, store=folder, ca=ca, log=folder / "log"):
        for cwd, argv in (
            (work, tiny.command("lock")),
            (work, tiny.command("pack", "--no-rehearse", "-o", folder / "bundle")),
            (
                project,
                [UV, "lock", "-q", "--python", sys.executable, "--default-index", f"https://{PYPI}/simple/"],
            ),
            (project, [UV, "export", "-q", "--frozen", "--no-emit-project", "-o", "pylock.toml"]),
        ):
            done = gap(*argv, env=env, cwd=cwd)
            assert done.returncode == 0, done.stdout + done.stderr
    done = tiny.haversack("receive", folder / "bundle", store=folder / "store")
    assert done.returncode == 0, done.stderr
    lock = json.loads((work / "haversack.lock").read_bytes())
    origins = frozenset(artifact["origin"] for artifact in lock["artifacts"])
    return Site(folder / "store", project, origins, digest, folder)


@dataclass(frozen=True)
class Inside:
    """A mirror that has upstream's names, and what clients are told: whom to trust."""

    site: Site
    gap: Named
    env: Mapping[str, str]

    def told(self, *words: str | Path, cwd: Path | None = None) -> str:
        """What a program says that must succeed."""
        done = self.gap(*words, env=self.env, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module", params=["live", "nginx"])
def inside(request: pytest.FixtureRequest, site: Site) -> Iterator[Inside]:
    """The live server, and nginx over an export, with a certificate of the site's own CA."""
    folder = site.folder / request.param
    folder.mkdir()
    ca, chain, key = authority(folder / "ca", "Site CA", site.store)
    words: Sequence[str | Path] = tiny.command(
        "serve", "--listen", "127.0.0.1:443", "--tls-cert", chain, "--tls-key", key
    )
    if request.param == "nginx":
        www = folder / "www"
        done = tiny.haversack("serve", "--export", www, store=site.store)
        assert done.returncode == 0, done.stderr
        tls = f"listen 443 ssl; ssl_certificate {chain}; ssl_certificate_key {key};"
        words = nginx(www, (www / "nginx.conf").read_text().replace("listen 8080;", tls))
    env = {"SSL_CERT_FILE": str(ca), "CURL_CA_BUNDLE": str(ca), "PIP_CERT": str(ca), "HOME": str(folder)}
    env |= {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(folder / "cache")}
    with (
        Named(folder / "etc-hosts") as gap,
        gap.running(*words, store=site.store, ca=ca, log=folder / "log"),
    ):
        yield Inside(site, gap, env)


@pytest.fixture
def project(inside: Inside, tmp_path: Path) -> Path:
    """A copy of the project that was locked outside."""
    return shutil.copytree(inside.site.project, tmp_path / "app")


def test_both_locks_name_the_same_files(site: Site) -> None:
    """What uv wrote into its lock is what haversack took across, URL by URL."""
    named = set(re.findall(r'url = "(https://[^"]*\.whl)"', (site.project / "uv.lock").read_text()))
    assert len(named) == 2
    assert named <= site.origins


def test_uv_syncs_from_its_lock_as_it_is(inside: Inside, project: Path) -> None:
    """`uv sync --frozen` asks the hosts in the lock, and the mirror is them."""
    before = (project / "uv.lock").read_bytes()
    inside.told(UV, "sync", "-q", "--frozen", "--python", sys.executable, cwd=project)
    ran = inside.told(".venv/bin/python", "-c", "import demo, base; print(demo.NAME)", cwd=project)
    assert ran == "demo\n"
    assert (project / "uv.lock").read_bytes() == before


def test_pip_and_uv_install_from_a_pylock_as_it_is(inside: Inside, project: Path) -> None:
    """Both read the standard lock (PEP 751), ask for its URLs, and hold its hashes against what comes."""
    uv = (UV, "pip", "install", "-q", "--python", sys.executable, "--preview-features", "pylock")
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--disable-pip-version-check")
    for number, words in enumerate((uv, pip)):
        target = project / f"target{number}"
        inside.told(*words, "--target", target, "-r", "pylock.toml", cwd=project)
        assert (target / "demo" / "__init__.py").exists()


_RATTLER = """
import asyncio, json, sys
from rattler import Channel, Gateway, solve
from rattler.install import install
async def main(channel, prefix):
    records = await solve([Channel(channel)], ["data"], gateway=Gateway(), platforms=["linux-64", "noarch"])
    await install(records, target_prefix=prefix, cache_dir=prefix + "-cache", show_progress=False)
    print(json.dumps([record.url for record in records]))
asyncio.run(main(*sys.argv[1:]))
"""


def test_rattler_installs_from_the_channel_itself(inside: Inside, tmp_path: Path) -> None:
    """pixi's library, without any mirror, solves and installs from the URLs that the lock names."""
    words = (sys.executable, "-W", "ignore", "-c", _RATTLER, f"https://{CONDA}/forge", tmp_path / "p")
    assert set(json.loads(inside.told(*words))) <= inside.site.origins
    assert (tmp_path / "p" / "share" / "data").read_bytes() == b"data\n"


def test_skopeo_copies_from_the_registry_itself(inside: Inside, tmp_path: Path) -> None:
    """An image by its name, where no mirror is configured; its tags too."""
    (tmp_path / "empty.conf").write_text("")
    skopeo = ("skopeo", "--registries-conf", tmp_path / "empty.conf")
    inside.told(*skopeo, "--insecure-policy", "copy", "-q", f"docker://{IMAGE}", f"oci:{tmp_path}/layout:2")
    index = json.loads((tmp_path / "layout" / "index.json").read_text())
    assert [entry["digest"] for entry in index["manifests"]] == [inside.site.digest]
    assert json.loads(inside.told(*skopeo, "list-tags", f"docker://{REGISTRY}/team/tool"))["Tags"] == ["2"]


def test_everything_else_stays(inside: Inside) -> None:
    """By upstream's names, too, the mirror has its own paths, and no more of upstream than has crossed."""
    ask = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}")
    for host, path, code in (
        (FILES, "healthz", "200"),
        (FILES, "pypi/simple/demo/", "200"),
        (CONDA, "forge/noarch/repodata.json", "200"),
        (FILES, "packages/a%20b+c/demo-9.0-py3-none-any.whl", "404"),
        (PYPI, "packages/a%20b+c/demo-1.0-py3-none-any.whl", "404"),
        (FILES, f"{CONDA}/forge/noarch/repodata.json", "404"),
    ):
        assert inside.told(*ask, f"https://{host}/{path}") == code, (host, path)


# What a host is


def test_the_host_of_a_whole_address_counts(tmp_path: Path) -> None:
    """A proxy is asked by whole addresses; the field beside is not looked at then (RFC 9112, section 3.2.2)."""
    head = b"GET %s HTTP/1.1\r\nHost: Mirror.example:8080\r\n\r\n"
    assert parse(head % b"/x").host == "mirror.example:8080"
    whole = parse(head % b"http://files.example.org/x?y=1")
    assert (whole.host, whole.path, whole.query) == ("files.example.org", "/x", {"y": "1"})
    for wrong in (b"http:///x", b"http://a@b/x", b"ftp://files.example.org/x"):
        with pytest.raises(RefusedError):
            parse(head % wrong)


def test_rules_are_those_of_the_page_that_is_found(tmp_path: Path) -> None:
    """By whatever name a file is asked for, the rule for its path in the view decides; ports and case are told."""
    wheel = make_wheel(tmp_path, "demo", "1.0")
    origin = f"https://{FILES}:8443/deep/{wheel.name}"
    environment = LockedEnvironment("lab", "node", "pip")
    stocked(tmp_path / "store", [environment], [wheel_of(wheel, origin=origin)], [wheel.read_bytes()])
    users = tmp_path / "users.toml"
    users.touch(mode=0o600)
    path = f"deep/{wheel.name}"
    with Live(tmp_path / "store", tmp_path / "open") as live:
        assert live.get(path).status == 404
        assert live.get(path, host=f"{FILES.upper()}:8443").body == wheel.read_bytes()
        # The same words again, but of another host: the memory of answers tells them apart.
        assert live.get("@2026-11/pypi/simple/", host=f"{FILES}:8443").status == 200
        for other in (FILES, "a_b", "[::1]:8443", f"{FILES}_8443/..", ".", ""):
            assert live.get(path, host=other).status in {400, 404}, other
        assert live.get(f"{path}/", host=f"{FILES}:8443").status == 404
    users.write_text('[[rule]]\npath = "/upstream/"\nallow = []\n')
    with Live(tmp_path / "store", tmp_path / "closed", "--auth", users) as live:
        assert live.get(path).status == 404
        assert live.get(path, host=f"{FILES}:8443").status == 401
    users.write_text('[[rule]]\npath = "/"\nallow = []\n[[rule]]\npath = "/upstream/"\nallow = ["*"]\n')
    with Live(tmp_path / "store", tmp_path / "partly", "--auth", users) as live:
        assert live.get(path).status == 401
        assert live.get(path, host=f"{FILES}:8443").status == 200
