"""``haversack render clients``: what is written, that it is read as meant, and that nobody's edits are lost."""

from __future__ import annotations

import configparser
import json
import os
import shlex
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rattler.config import Config
from ruamel.yaml import YAML

from haversack.clients import BASE_URL, CA, HOME, Served, address, clients
from haversack.clients.together import render
from haversack.errors import NotFoundError, PrefixError, UsageError
from haversack.formats.canonical import canonical
from haversack.formats.rendered import MARKER
from haversack.model.artifact import Artifact, digest_of
from haversack.model.lock import LockedEnvironment
from haversack.model.snapshot import Snapshot, SnapshotEnvironment
from haversack.model.target import ANY, Target
from haversack.verbs.render import keep
from tests.support.gate import refused, run
from tests.support.tiny import tiny_bundle

EXAMPLES = Path(__file__).parent.parent / "docs" / "spec" / "examples"
BASE = "https://mirror.example.org"
PEM = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
DIGEST = digest_of(b"")


def artifact(kind: str, filename: str, origin: str, **facts: Any) -> Artifact:
    """An artifact of no bytes."""
    return Artifact(kind, filename, "1.0", filename, DIGEST, 0, origin, (), facts)


def snapshot() -> Snapshot:
    """A snapshot with something for every client: a wheel, a conda package, two images and a repository."""
    forge = "https://conda.example.org/conda-forge"
    node = Target("node", "linux-x86_64", "3.11")
    lab = (
        artifact("wheel", "demo-1.0-py3-none-any.whl", "https://files.example.org/packages/demo-1.0.whl"),
        artifact(
            *("conda", "tool-1.0-0.conda", f"{forge}/linux-64/tool-1.0-0.conda"),
            channel=forge,
            subdir="linux-64",
            record={},
        ),
    )
    images = tuple(
        artifact("image", f"{reference[:3]}.json", "docker://x", role="index", refs=[reference])
        for reference in (
            "docker.io/library/python:3.11-slim",
            "registry.example.org:5000/a/b:1",
            "../../etc/passwd:1",
        )
    )
    git = {"git": {"url": "https://git.example.org/team/fraud"}}
    made = (
        SnapshotEnvironment(LockedEnvironment("lab", "node", "conda"), node, lab, DIGEST),
        SnapshotEnvironment(LockedEnvironment("images", ANY.name, "image"), ANY, images, DIGEST),
        SnapshotEnvironment(LockedEnvironment("fraud", ANY.name, "project", settings=git), ANY, (), DIGEST),
    )
    return Snapshot(digest_of(b"snapshot"), DIGEST, made, (), {})


def rendered(base: str = BASE, ca: bytes | None = PEM, **more: Any) -> dict[str, str]:
    """The files of all clients as texts."""
    return {
        name: data.decode() for name, data in render(Served(snapshot(), "2026-11", base, **more), ca).items()
    }


def documented() -> dict[str, str]:
    """The files that docs/spec/clients.md shows, by the names that they have there."""
    files = rendered()
    return {
        name: files[path]
        for name, path in [
            *((name, name) for name in files if "/" not in name and name not in {CA, "configmap.yaml"}),
            ("hosts.toml", "certs.d/docker.io/hosts.toml"),
        ]
    }


@pytest.mark.parametrize("name", documented())
def test_the_specification_shows_real_output(name: str) -> None:
    """The examples of docs/spec/clients.md are what the code writes, byte for byte."""
    assert (EXAMPLES / name).read_text() == documented()[name]


def test_every_file_says_where_it_is_from_and_is_the_same_each_time() -> None:
    """The first line names haversack and the snapshot; JSON, which has no comments, is the exception."""
    files = rendered()
    assert files == rendered()
    assert set(clients()) == {"conda", "containerd", "containers", "docker", "git", "pip", "pixi", "uv"}
    for name, text in files.items():
        if name != "daemon.json":
            assert text.startswith("# Written by haversack render clients, of snapshot 2026-11 (sha256:"), (
                name
            )
        assert text.endswith("\n")
        assert BASE_URL not in text


@pytest.mark.parametrize("name", clients())
def test_a_client_alone_is_told_as_among_all(name: str) -> None:
    """One client has the files that it has among all, its variables and no other's, and who made them is said."""
    among, alone = (
        rendered(),
        {
            path: data.decode()
            for path, data in render(Served(snapshot(), "2026-11", BASE), PEM, name).items()
        },
    )
    own = set(clients()[name].files(Served(snapshot(), "2026-11", BASE)))
    assert own <= set(alone) <= own | {CA, "env.sh", "configmap.yaml"}
    for path in {*own, CA} & set(alone):
        assert alone[path].replace(f"render {name},", "render clients,") == among[path]
    if name == "pip":
        assert "PIP_INDEX_URL" in alone["env.sh"]
        assert not {word for word in ("UV_", "CONDA", "PIXI", "GIT_") if word in alone["env.sh"]}
        assert "pip.conf: |" in alone["configmap.yaml"]
        assert "uv.toml" not in alone["configmap.yaml"]


def test_each_file_is_read_as_meant() -> None:
    """INI, TOML, YAML and JSON readers find the mirror's addresses, and nothing of the public ones as a place to ask."""
    files = rendered()
    pip = configparser.RawConfigParser()
    pip.read_string(files["pip.conf"])
    assert pip["global"]["index-url"] == f"{BASE}/pypi/simple/" == pip["global"]["extra-index-url"]
    assert pip["global"]["cert"] == f"{HOME}/{CA}"
    assert "trusted-host" not in pip["global"]
    uv = tomllib.loads(files["uv.toml"])
    assert uv == {"python-downloads": "never", "index": [{"url": f"{BASE}/pypi/simple/", "default": True}]}
    condarc = YAML(typ="safe").load(files["condarc"])
    assert condarc["channels"] == [f"{BASE}/conda/conda.example.org/conda-forge"]
    assert condarc["custom_channels"] == {"conda-forge": f"{BASE}/conda/conda.example.org"}
    assert condarc["default_channels"] == []
    assert condarc["ssl_verify"] == f"{HOME}/{CA}"
    pixi = tomllib.loads(files["pixi-config.toml"])
    assert pixi["mirrors"]["https://conda.example.org/conda-forge"] == condarc["channels"]
    assert pixi["mirrors"]["https://files.example.org"] == [f"{BASE}/upstream/files.example.org"]
    assert all(place.startswith(f"{BASE}/") for places in pixi["mirrors"].values() for place in places)
    assert {url for url in pixi["mirrors"] if "mapping" in url or "parselmouth" in url}
    assert pixi["pypi-config"]["index-url"] == f"{BASE}/pypi/simple/"
    # pixi's own reader of its configuration takes every key.
    Config.from_toml(files["pixi-config.toml"])
    registries = tomllib.loads(files["registries.conf"])
    assert {r["prefix"]: r["location"] for r in registries["registry"]} == {
        "docker.io": "mirror.example.org/docker.io",
        "registry.example.org:5000": "mirror.example.org/registry.example.org_5000",
    }
    assert json.loads(files["daemon.json"]) == {"registry-mirrors": [BASE]}
    hosts = tomllib.loads(files["certs.d/registry.example.org:5000/hosts.toml"])
    own = {"capabilities": ["pull", "resolve"], "override_path": True, "ca": f"{HOME}/{CA}"}
    place = f"{BASE}/v2/registry.example.org_5000"
    assert hosts == {"server": place, **own, "host": {place: own}}
    assert [name for name in files if ".." in name] == []


def test_plain_http_is_allowed_just_there() -> None:
    """Without TLS pip trusts that host, and container programs take that registry as insecure; no other."""
    files = rendered("http://10.0.0.7:8080", None)
    assert "trusted-host = 10.0.0.7\n" in files["pip.conf"]
    registries = tomllib.loads(files["registries.conf"])["registry"]
    assert {r["location"].partition("/")[0] for r in registries if r["insecure"]} == {"10.0.0.7:8080"}
    assert json.loads(files["daemon.json"])["insecure-registries"] == ["10.0.0.7:8080"]
    assert CA not in files


def test_a_registry_without_images_is_refused_at_once() -> None:
    """Where no image of Docker Hub crossed, asking it is blocked instead of dialled."""
    bare = replace(snapshot(), environments=())
    registries = tomllib.loads(render(Served(bare, "x", BASE))["registries.conf"].decode())["registry"]
    assert registries == [{"prefix": "docker.io", "location": "docker.io", "blocked": True}]


def test_the_shell_file_sets_and_takes_away(tmp_path: Path) -> None:
    """Any POSIX shell reads it; what would lead past the mirror is gone, and odd folders are quoted."""
    home = str(tmp_path / "it's a folder")
    script = tmp_path / "env.sh"
    script.write_text(rendered(home=home)["env.sh"])
    before = {
        "PATH": os.environ["PATH"],
        "PIP_FIND_LINKS": "/old",
        "UV_EXTRA_INDEX_URL": "x",
        "PIP_EXTRA_INDEX_URL": "y",
    }
    done = subprocess.run(
        ["sh", "-euc", f". {shlex.quote(str(script))}; env -0"], env=before, capture_output=True, text=True, check=True
    )  # fmt: skip
    after = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    assert "PIP_FIND_LINKS" not in after
    assert "UV_EXTRA_INDEX_URL" not in after
    assert after["PIP_CONFIG_FILE"] == f"{home}/pip.conf"
    assert after["SSL_CERT_FILE"] == f"{home}/{CA}" == after["REQUESTS_CA_BUNDLE"]
    assert after["PIP_INDEX_URL"] == after["PIP_EXTRA_INDEX_URL"] == after["UV_DEFAULT_INDEX"]
    assert after["GIT_SSL_CAINFO"] == after["CONDA_SSL_VERIFY"] == f"{home}/{CA}"
    assert set(after) >= {"UV_CONFIG_FILE", "CONDARC", "CONTAINERS_REGISTRIES_CONF", "GIT_CONFIG_COUNT"}


def test_without_certificates_of_its_own_no_variable_names_others(tmp_path: Path) -> None:
    """What a person set for pip, git or conda counts before their files, and would be another CA than the mirror's."""
    script = tmp_path / "env.sh"
    script.write_text(rendered(ca=None)["env.sh"])
    names = ("PIP_CERT", "GIT_SSL_CAINFO", "CONDA_SSL_VERIFY")
    before = {"PATH": os.environ["PATH"], **dict.fromkeys(names, "/old.pem")}
    done = subprocess.run(
        ["sh", "-euc", f". {script}; env"], env=before, capture_output=True, text=True, check=True
    )
    assert "/old.pem" not in done.stdout


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_skopeo_reads_the_registries_after_the_shell_file(tmp_path: Path, shell: str) -> None:
    """skopeo reads no variable; in a shell that read ``env.sh`` it goes by the rendered file all the same."""
    home = tmp_path / "it's a folder"
    home.mkdir()
    bare = Served(replace(snapshot(), environments=()), "x", BASE, home=str(home))
    for name, data in render(bare).items():
        if "/" not in name:
            (home / name).write_bytes(data)
    ask = ". ./env.sh; skopeo --insecure-policy inspect docker://docker.io/library/alpine:3"
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([shell, "-uc", ask], cwd=home, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "docker.io is blocked" in done.stderr


def test_config_maps_hold_the_same_for_pods() -> None:
    """Each file that a pod needs stands there as it is for ``/etc/haversack``, the variables in a second map."""
    files = rendered(home="/somewhere/else")
    there = rendered()
    one, two = YAML(typ="safe").load_all(files["configmap.yaml"])
    for part, name in ((one, "haversack-clients"), (two, "haversack-variables")):
        # ConfigMap of the core API, v1: string data, keys of letters, digits, '-', '_' and '.'.
        assert (part["apiVersion"], part["kind"], part["metadata"]["name"]) == ("v1", "ConfigMap", name)
        assert set(part) == {"apiVersion", "kind", "metadata", "data"}
        assert all(isinstance(value, str) for value in part["data"].values())
        assert all(key.replace(".", "").replace("-", "").replace("_", "").isalnum() for key in part["data"])
    assert set(one["data"]) == {
        *(
            "pip.conf",
            "uv.toml",
            "condarc",
            "pixi-config.toml",
            "registries.conf",
            "gitconfig",
            "locks.sed",
            CA,
        )
    }
    assert one["data"] == {name: there[name] for name in one["data"]}
    assert two["data"]["PIP_CONFIG_FILE"] == f"{HOME}/pip.conf"
    assert two["data"]["SSL_CERT_FILE"] == f"{HOME}/{CA}"


def test_git_reads_its_part(tmp_path: Path) -> None:
    """git finds the mirror's place for a project by its declared URL, through the variables that env.sh sets."""
    (tmp_path / "gitconfig").write_text(rendered()["gitconfig"])
    include = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "include.path",
        "GIT_CONFIG_VALUE_0": str(tmp_path / "gitconfig"),
    }
    subprocess.run(["git", "init", "-q", tmp_path / "r"], check=True)
    for url in ("https://git.example.org/team/fraud", "https://git.example.org/team/fraud.git"):
        done = subprocess.run(
            ["git", "ls-remote", "--get-url", url],
            cwd=tmp_path / "r",
            env={"PATH": os.environ["PATH"], "HOME": os.devnull, **include},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{BASE}/projects/fraud.git\n"


def test_the_rule_for_locks_is_a_prefix_and_nothing_else(tmp_path: Path) -> None:
    """``locks.sed`` leads each file to the mirror; hashes and all else stay."""
    rule = tmp_path / "locks.sed"
    rule.write_text(rendered()["locks.sed"])
    lock = 'wheels = [{ url = "https://files.example.org/packages/demo.whl", hash = "sha256:1" }]\n# filesXexample.org/\n'
    done = subprocess.run(["sed", "-f", rule], input=lock, capture_output=True, text=True, check=True)
    assert done.stdout == lock.replace("https://files.example.org/", f"{BASE}/upstream/files.example.org/")


@pytest.mark.parametrize(
    "wrong",
    [
        "https://mirror.example.org/{team}", "https://mir{ror}:99999", "https://mirror.example.org:99999",
        "https://mirror.example.org/a$HOME", "https://mirror.example.org/it's", 'https://mirror.example.org/"',
        "https://mirror.example.org/a/../b", "https://mirror.example.org//a", "https://mirror.example.org/%7",
        "file:///srv/{team}",
    ],
)  # fmt: skip
def test_an_address_holds_nothing_that_would_be_replaced(wrong: str) -> None:
    """What a shell, a template or a client would read as something else, or that there cannot be, is refused."""
    with pytest.raises(UsageError):
        address(wrong)
    assert address("https://mirror.example.org:8443/~a/%7Bteam%7D/@2026-11/").endswith(
        "/~a/%7Bteam%7D/@2026-11"
    )


def test_addresses_hold_no_secret_and_certificates_no_key() -> None:
    """A login or query in the address, a key beside certificates, certificates without TLS: refused."""
    for wrong in (
        "https://u:p@mirror.example.org",
        "https://mirror.example.org/?t=1",
        "ftp://mirror.example.org",
        "x",
    ):
        with pytest.raises(UsageError) as problem:
            address(wrong)
        assert "u:p" not in str(problem.value)
    assert address("https://mirror.example.org/a/") == "https://mirror.example.org/a"
    for pem in (b"nothing", PEM + b"-----BEGIN PRIVATE KEY-----\n", b"\xff"):
        with pytest.raises(UsageError):
            rendered(ca=pem)
    with pytest.raises(UsageError):
        rendered("http://mirror.example.org")


def test_what_somebody_edited_is_shown_and_stays(tmp_path: Path) -> None:
    """Nothing at all is written beside an edited file; logins in it are not shown; ``force`` replaces it."""
    keep(tmp_path, {"x": {"a.conf": b"one\n", "d/b.conf": b"two\n"}})
    assert keep(tmp_path, {"x": {"a.conf": b"one\n", "d/b.conf": b"two\n"}}) == ((), ())
    (tmp_path / "a.conf").write_bytes(b"mine = https://me:secret@host.example\n")
    with pytest.raises(PrefixError) as problem:
        keep(tmp_path, {"x": {"a.conf": b"new\n", "d/b.conf": b"newer\n"}})
    (finding,) = problem.value.findings
    assert finding.code == "rendered-edited"
    assert "-mine = https://***host.example" in finding.message
    assert "+new" in finding.message
    assert "secret" not in finding.message
    assert (tmp_path / "d/b.conf").read_bytes() == b"two\n"
    assert keep(tmp_path, {"x": {"a.conf": b"new\n"}}, force=True, dry_run=True) == (
        ("a.conf",),
        ("d/b.conf",),
    )
    assert keep(tmp_path, {"x": {"a.conf": b"new\n"}}, force=True) == (("a.conf",), ("d/b.conf",))
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["a.conf", MARKER]


def test_what_nobody_rendered_is_not_ours(tmp_path: Path) -> None:
    """A file that was there before counts as edited, unless it says the same; others are left alone."""
    (tmp_path / "a.conf").write_bytes(b"same\n")
    (tmp_path / "other").write_bytes(b"x")
    assert keep(tmp_path, {"x": {"a.conf": b"same\n"}}) == ((), ())
    (tmp_path / "b.conf").write_bytes(b"theirs\n")
    with pytest.raises(PrefixError):
        keep(tmp_path, {"x": {"a.conf": b"same\n", "b.conf": b"ours\n"}})
    (tmp_path / MARKER).write_bytes(b'{"haversack-rendered":"1.0","files":{"../../x":"sha256:1","other":7}}')
    assert keep(tmp_path, {"x": {"a.conf": b"same\n"}}) == ((), ())
    assert (tmp_path / "other").read_bytes() == b"x"


def test_what_another_renderer_wrote_stays(tmp_path: Path) -> None:
    """Each takes away only what it rendered itself; a file that two want is an error that names both."""
    keep(tmp_path, {"x": {"a.conf": b"a\n", "b.conf": b"b\n"}})
    assert keep(tmp_path, {"y": {"c.conf": b"c\n"}}) == (("c.conf",), ())
    assert keep(tmp_path, {"y": {}, "z": {"d.conf": b"d\n"}}) == (("d.conf",), ("c.conf",))
    for force in (False, True):
        with pytest.raises(PrefixError) as problem:
            keep(tmp_path, {"y": {"a.conf": b"a\n"}}, force=force)
        assert "rendered by x, and y would" in problem.value.message
    assert keep(tmp_path, {"x": {"b.conf": b"b\n"}}) == ((), ("a.conf",))
    assert keep(tmp_path, {"y": {"a.conf": b"a\n"}}) == (("a.conf",), ())
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != MARKER) == ["a.conf", "b.conf", "d.conf"]


def test_a_write_that_fails_makes_no_edits(tmp_path: Path) -> None:
    """What was written before it is known as rendered: the same again goes on, and the way back is open too."""
    one, two = (
        {"a.conf": b"one\n", "c.conf": b"c\n"},
        {"a.conf": b"two\n", "b.conf": b"b\n", "d/e.conf": b"e\n"},
    )
    keep(tmp_path, {"x": one})
    (tmp_path / "d").symlink_to("nowhere")
    for back in (False, True):
        with pytest.raises(PrefixError, match="cannot be rendered: ") as problem:
            keep(tmp_path, {"x": two})
        assert problem.value.where == str(tmp_path / "d")
        assert (tmp_path / "a.conf").read_bytes() == b"two\n"
        assert (tmp_path / "c.conf").read_bytes() == b"c\n"
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
        if back:
            assert keep(tmp_path, {"x": one}) == (("a.conf",), ("b.conf",))
    with pytest.raises(PrefixError, match="cannot be rendered: "):
        keep(tmp_path, {"x": two})
    (tmp_path / "a.conf").write_bytes(b"mine\n")
    with pytest.raises(PrefixError, match="edited"):
        keep(tmp_path, {"x": one})


def test_what_is_removed_can_wait(tmp_path: Path) -> None:
    """New files first, then whoever uses the old ones is told, then these go, and the list with the last of them."""
    keep(tmp_path, {"x": {"a.conf": b"a\n"}})
    for _ in range(2):
        keep(tmp_path, {"x": {"b.conf": b"b\n"}}, removing=False)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.conf", "b.conf", MARKER]
    assert keep(tmp_path, {"x": {"b.conf": b"b\n"}}) == ((), ("a.conf",))
    assert keep(tmp_path, {"x": {}}) == ((), ("b.conf",))
    assert list(tmp_path.iterdir()) == []


def test_a_list_that_does_not_say_who_rendered_is_read(tmp_path: Path) -> None:
    """What older versions rendered is replaced where it was not edited, and taken away by nobody else."""
    for name in ("a.conf", "b.conf"):
        (tmp_path / name).write_bytes(b"old\n")
    digest = digest_of(b"old\n")
    told = canonical({"haversack-rendered": "1.0", "files": {"a.conf": digest, "b.conf": digest}})
    (tmp_path / MARKER).write_bytes(told)
    assert keep(tmp_path, {"x": {"a.conf": b"new\n"}}) == (("a.conf",), ())
    assert keep(tmp_path, {"x": {"b.conf": b"new\n"}}) == (("b.conf",), ("a.conf",))


def test_the_command_writes_tells_and_keeps(tmp_path: Path) -> None:
    """From a received bundle to files: once written, once left as they are, and an edit is shown with its remedy."""
    tiny = tiny_bundle(tmp_path / "tiny")
    store, out = tmp_path / "store", tmp_path / "clients"
    assert run("receive", tiny.bundle, store=store).code == 0
    words = ("render", "clients", "-o", out, "--base-url", "https://mirror.example.org", "--dated")
    first = run(*words, "--json", store=store).value
    assert "pip.conf" in first["written"]
    assert f"https://mirror.example.org/@{first['snapshot']}/pypi/simple/" in (out / "pip.conf").read_text()
    # podman and docker know no path before a name.
    assert not (out / "registries.conf").exists()
    assert "already" in run(*words, store=store).out
    (out / "pip.conf").write_text("[global]\n")
    refused(run(*words, store=store), PrefixError, "pip.conf", "--force")
    assert run(*words, "--force", store=store).code == 0
    refused(run(*words[:-2], "https://u:p@x.example", store=store), UsageError)


def test_a_client_can_be_rendered_alone(tmp_path: Path) -> None:
    """Each into a folder of its own; of what the snapshot does not hold nothing is told."""
    tiny = tiny_bundle(tmp_path / "tiny")
    store = tmp_path / "store"
    assert run("receive", tiny.bundle, store=store).code == 0
    base = ("--base-url", "https://mirror.example.org")
    done = run("render", "pip", "-o", tmp_path / "pip", *base, "--json", store=store).value
    assert done["written"] == ["configmap.yaml", "env.sh", "pip.conf"]
    assert "render pip," in (tmp_path / "pip" / "pip.conf").read_text()
    refused(run("render", "uv", "-o", tmp_path / "pip", *base, store=store), PrefixError, "rendered by pip")
    refused(
        run("render", "containerd", "-o", tmp_path / "c", *base, store=store), NotFoundError, "containerd"
    )
    assert not (tmp_path / "c").exists()
