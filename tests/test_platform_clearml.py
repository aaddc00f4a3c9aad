"""ClearML: what is locked for it and rendered for it, held to golden files and to ClearML's own readers."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from uv import find_uv_bin

from haversack.clearml import helm, images, linting, pulls, session, variables
from haversack.clearml.charts import CHARTS, COMMUNITY, ENTERPRISE, below
from haversack.errors import DeclarationError, UsageError
from haversack.formats import declaration, hocon, oci, pullsecret, yaml
from haversack.images.inside import carried
from haversack.images.reference import Reference
from haversack.kinds import keys, kinds
from haversack.model.artifact import Artifact, digest_of
from haversack.model.finding import Finding
from haversack.model.lock import Lock, LockedEnvironment
from haversack.model.site import Environment, Site
from haversack.model.snapshot import Snapshot
from haversack.model.target import ANY
from haversack.platforms import Order
from haversack.platforms.clearml import APPS, PLATFORM
from haversack.ports import Inside
from haversack.ports.machine import probe
from haversack.verbs.needs import completed
from tests.support import tiny
from tests.support.live import Live
from tests.support.packages import make_deb, make_vsix
from tests.support.site import Lab, plain_environ
from tests.support.wheels import make_wheel

GOLDEN = Path(__file__).parent / "golden" / "clearml"
SERVER, PYTHON, JUPYTER = (
    "code-server_4.96.2_amd64.deb",
    "ms-python.python-2024.22.1.vsix",
    "ms-toolsai.jupyter-2024.8.1.vsix",
)
DROPBEAR = "dropbearmulti"
NAMES = (SERVER, PYTHON, JUPYTER, DROPBEAR)
SETTINGS: dict[str, Any] = {
    "flavor": "enterprise",
    "session": "0.17.0",
    "registry_secret": "site-registry",
    "queues": ["gpu", "cpu"],
    "image": "docker.io/library/python:3.11",
}


# What is locked


def declared(folder: Path, platform: str, more: str = "") -> Site:
    """A declaration with one target and a platform."""
    (folder / "haversack.toml").write_text(
        '[site]\nname = "lab"\n[target.node]\nname = "linux-x86_64-glibc2.28-py311"\n'
        f'[platform.clearml]\nflavor = "community"\nsession = "0.17.0"\n{platform}\n{more}'
    )
    return declaration.parse(folder / "haversack.toml", keys())


def problems(site: Site) -> list[Finding]:
    """What the platform says of its declaration."""
    (platform,) = (e for e in site.environments if e.kind == "platform")
    return PLATFORM.validate(platform.settings, site)


def test_what_it_needs_is_added(tmp_path: Path) -> None:
    """Assets of the session's version become files, packages an environment of every target, the image an image."""
    site, added, findings = completed(declared(tmp_path, 'image = "docker.io/library/python:3.11"'))
    wanted = {e.name: e for e in site.environments}
    items = {item["name"]: item["url"] for item in wanted["files"].settings["items"]}
    assert set(items) == {SERVER, PYTHON, JUPYTER, DROPBEAR}
    assert items[SERVER].endswith(f"/v4.96.2/{SERVER}")
    assert "DROPBEAR_CLEARML_2024.86" in items[DROPBEAR]
    assert (wanted[APPS].kind, wanted[APPS].targets) == ("pip", ("node",))
    lines = wanted[APPS].settings["lines"]
    assert {"clearml-session==0.17.0", "jupyterlab>4,<4.4", "jupyterlab-git", "clearml-agent"} <= set(lines)
    assert wanted["images"].settings["items"] == ({"ref": "docker.io/library/python:3.11"},)
    assert (len(added), findings) == (6, [])


def test_an_image_is_the_same_however_it_is_spelt(tmp_path: Path) -> None:
    """What people declared and what the platform wants are one image where their full names are one."""
    mine = '[[image]]\nref = "docker.io/python:3.11"\n'
    site, _, findings = completed(declared(tmp_path, 'image = "docker.io/library/python:3.11"', mine))
    (images,) = (environment for environment in site.environments if environment.kind == "image")
    assert [item["ref"] for item in images.settings["items"]] == ["docker.io/python:3.11"]
    assert [finding.subject for finding in findings if finding.subject.startswith("image")] == []


def test_what_people_declared_is_taken(tmp_path: Path) -> None:
    """A file or an environment of the same name stays theirs, and a finding says so; targets may be long names."""
    mine = f'[[file]]\nurl = "https://files.example.org/{SERVER}"\n[env.{APPS}]\nkind = "pip"\n'
    mine += 'requirements = ["r.txt"]\ntargets = ["node"]\n'
    (tmp_path / "r.txt").write_text("clearml\n")
    site, added, findings = completed(declared(tmp_path, 'targets = ["linux-x86_64-py312"]', mine))
    items = {item.get("name", SERVER): item for item in site.environments[-1].settings.get("items", ())}
    files = next(e for e in site.environments if e.name == "files").settings["items"]
    assert files[0] == {"url": f"https://files.example.org/{SERVER}"}
    assert len(files) == 4, items
    assert next(e for e in site.environments if e.name == APPS).targets == ("node",)
    assert sorted((f.code, f.blocking, f.subject) for f in findings) == [
        ("platform-setting", False, f"env.{APPS}"),
        ("platform-setting", False, f"file {SERVER}"),
    ]
    assert "linux-x86_64-py312" in {target.name for target in site.targets}
    assert len(added) == 3


@pytest.mark.parametrize(
    ("python", "wanted"),
    [("3.8", {"werkzeug"}), ("3.9", {"mitmproxy"}), ("3.11", {"mitmproxy"}), ("3.12", set())],
)
def test_packages_that_old_pythons_alone_want(python: str, wanted: set[str]) -> None:
    """werkzeug below 3 is for Python before 3.9; mitmproxy for those on which what it requires can be built."""
    lines = [Requirement(line) for line in (*session.requirements("0.17.0"), *session.OPTIONAL)]
    asked = {r.name for r in lines if r.marker is None or r.marker.evaluate({"python_version": python})}
    assert asked & {"werkzeug", "mitmproxy"} == wanted
    assert {"clearml", "jupyter", "jupyterlab", "traitlets", "tqdm", "boto3", "pylint"} <= asked


def test_without_a_target_packages_are_for_the_machine_that_locks(tmp_path: Path) -> None:
    """As every environment that names no target."""
    site = declared(tmp_path, "")
    site, added, findings = completed(replace(site, targets=()))
    assert f"platform.clearml adds {APPS} for this machine" in added
    assert findings == []
    here = probe()
    apps = next(e for e in site.on(here).environments if e.name == APPS)
    assert apps.targets == (here.long_name,)


def test_requirements_without_a_file_are_for_platforms_alone(tmp_path: Path) -> None:
    """No declaration can write the setting by which a platform asks for packages."""
    (tmp_path / "r.txt").write_text("clearml\n")
    mine = '[env.mine]\nkind = "pip"\nrequirements = ["r.txt"]\ntargets = ["node"]\nlines = ["clearml"]\n'
    with pytest.raises(DeclarationError, match="lines"):
        declared(tmp_path, "", mine)


def test_what_cannot_be_had_is_left_out_with_a_note(tmp_path: Path) -> None:
    """Optional requirements are locked with the others where that works; where not, a note says why."""
    with Lab(tmp_path / "lab") as lab:
        make_wheel(lab.wheels, "demo", "1.0")
        make_wheel(lab.wheels, "more", "1.0")
        lab.declare("demo")
        site = lab.site()
        for optional, wheels in (("more", ["demo", "more"]), ("nowhere<2", ["demo"])):
            settings = {"lines": ("demo",), "optional": (optional,), "build": True}
            apps = Environment(APPS, "pip", ("here",), None, settings)
            locked = kinds()["pip"].lock(site, apps, site.target("here"), None, lab.outside(site))
            assert sorted(artifact.name for artifact in locked.artifacts) == wheels
            assert locked.environment.roots == tuple(wheels)
            told = [(f.code, f.blocking, f.subject) for f in locked.findings]
            note = ("no-solution", False, f"nowhere in {APPS}/here")
            assert told == ([] if "more" in wheels else [note])


def test_an_unknown_target_is_found(tmp_path: Path) -> None:
    """A target that is neither declared nor a name that says all blocks."""
    _, _, findings = completed(declared(tmp_path, 'targets = ["nodes"]'))
    assert [(f.code, f.blocking) for f in findings] == [("platform-setting", True)]


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://u:hunter2@i.example/simple/",
        "-r hunter2.txt",
        "demo --extra-index-url=https://hunter2",
        "demo @ https://u:hunter2@i.example/demo-1-py3-none-any.whl",
        "git+https://u:hunter2@i.example/demo",
        "demo\n--index-url hunter2",
        "demo \\",
        "./hunter2.whl",
        "${HUNTER2}",
        "demo # hunter2",
    ],
)
def test_packages_are_names_and_nothing_that_holds_a_password(tmp_path: Path, line: str) -> None:
    """Options and addresses belong to [[index]]; the lock, which holds every setting, never sees them."""
    with pytest.raises(DeclarationError) as caught:
        declared(tmp_path, f"packages = [{json.dumps(line)}]")
    assert "packages" in str(caught.value)
    if "hunter2@" in line:
        assert "hunter2" not in str(caught.value) + str(caught.value.remedy)


def test_packages_may_say_versions_extras_and_markers(tmp_path: Path) -> None:
    """Every package of ClearML's own list, and one with extras, can be declared."""
    lines = [*session.requirements("0.17.0"), *session.OPTIONAL, "demo[x,y]~=1.0,!=1.2"]
    site = declared(tmp_path, f"packages = {json.dumps(lines)}")
    apps = next(e for e in completed(site)[0].environments if e.name == APPS)
    assert list(apps.settings["lines"]) == lines


@pytest.mark.parametrize(
    ("platform", "subject", "word"),
    [
        ('deliver = ["vault"]', "deliver", "enterprise"),
        ('[platform.clearml.assets]\ncode_server = "https://x.example/c_{version}.deb"', "code_server", "brace"),
        ('[platform.clearml.assets]\npython_extension = "https://x.example/vspackage"', "python_ext", ".vsix"),
        ('[platform.clearml.assets]\ncode_server = "https://x.example/code-server"', "code_server", ".deb"),
    ],
)  # fmt: skip
def test_bad_settings_are_found(tmp_path: Path, platform: str, subject: str, word: str) -> None:
    """A vault on a community server, braces that a session would fill in, and names that consumers do not know."""
    site = declared(tmp_path, platform)
    (finding,) = problems(site)
    assert (finding.code, finding.blocking) == ("platform-setting", True)
    assert subject in finding.subject
    assert word in finding.message
    assert finding.remedy
    # What is wrong is not fetched.
    files = next((e for e in completed(site)[0].environments if e.name == "files"), None)
    assert files is not None
    assert "{" not in json.dumps([item["url"] for item in files.settings["items"]])


def test_a_session_that_nobody_knows_wants_its_assets_named(tmp_path: Path) -> None:
    """Each asset that is not named is a finding with the versions that are known; named ones are enough."""

    def of(more: str) -> Site:
        text = declared(tmp_path, more).root / "haversack.toml"
        text.write_text(text.read_text().replace("0.17.0", "0.18.0"))
        return declaration.parse(text, keys())

    found = problems(of(""))
    assert len(found) == len(session.ASSETS)
    assert all("0.17.0" in finding.remedy for finding in found)
    named = "".join(
        f'{key} = "https://x.example/{name}"\n'
        for key, name in zip(
            (asset.key for asset in session.ASSETS), (SERVER, PYTHON, JUPYTER, DROPBEAR), strict=True
        )
    )
    assert problems(of(f"[platform.clearml.assets]\n{named}")) == []


# What is rendered


ORIGIN = (
    "Written by haversack render clearml, of snapshot 2026-11 (sha256:222222222222…), "
    "declaration sha256:333333333333…."
)
"""As the command writes it, which a test with a store holds true."""


def order(settings: Mapping[str, Any], *refs: str, **asked: Any) -> Order:
    """An order for a snapshot that holds all that ClearML needs, and images with these names beside."""
    settings = json.loads(json.dumps(settings))
    told = {
        "files": [Artifact("file", n, "1", n, digest_of(n.encode()), 1, f"https://x.example/{n}", ("files/any",))
                  for n in (SERVER, PYTHON, JUPYTER, DROPBEAR)],
        APPS: [],
        "images": [Artifact("image", "i", "1", "i.json", digest_of(b"i"), 1, "docker://x", ("images/any",),
                            {"refs": ["docker.io/library/python:3.11", *refs]})],
    }  # fmt: skip
    kinds = {"files": "file", APPS: "pip", "images": "image"}
    environments = tuple(LockedEnvironment(name, ANY.name, kinds[name]) for name in sorted(told))
    artifacts = tuple(artifact for name in sorted(told) for artifact in told[name])
    lock = Lock("lab", digest_of(b""), (ANY,), environments, artifacts)
    snapshot, _ = oci.build(lock, {a.digest: (1, a.facts) for a in artifacts})
    asked = {"base_url": "https://mirror.example.org", **asked}
    return Order(settings, snapshot, "2026-11", {}, ORIGIN, asked)


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    """An empty store, and the ports around it."""
    return tiny.inside(tmp_path / "store")


@pytest.mark.parametrize(
    ("name", "settings", "asked"),
    [
        ("enterprise", SETTINGS, {}),
        ("community", {**SETTINGS, "flavor": "community", "agent_in_image": True}, {"dated": True}),
        ("plain", {"flavor": "community", "session": "0.16.0", "deliver": ["helm"]},
         {"base_url": "http://10.1.2.3:8080", "registry": "registry.example.org/mirror"}),
    ],
)  # fmt: skip
def test_files_are_the_golden_ones(
    inside: Inside, name: str, settings: dict[str, Any], asked: dict[str, Any]
) -> None:
    """Every file of both flavours, by each road.  A missing one is written, for a person to look at, and fails."""
    made = PLATFORM.render(order(settings, **asked), inside)
    assert name == "plain" or not any(finding.blocking for finding in made.findings)
    missing = [path for path in made.files if not (GOLDEN / name / path).exists()]
    for path in missing:
        (GOLDEN / name / path).parent.mkdir(parents=True, exist_ok=True)
        (GOLDEN / name / path).write_bytes(made.files[path])
    assert missing == []
    there = {p.relative_to(GOLDEN / name).as_posix(): p for p in (GOLDEN / name).rglob("*") if p.is_file()}
    assert {path: file.read_bytes() for path, file in there.items()} == dict(made.files)


THEIRS = {
    "clearml-agent": f"""\
agentk8sglue:
  image: {{repository: allegroai/clearml-agent-k8s-base, tag: 1.24-21}}
  defaultContainerImage: python:3.11@{digest_of(b"i")}
""",
    "clearml": f"""\
global: {{imageRegistry: docker.io}}
webserver: {{image: {{registry: quay.io:443, repository: team/web}}}}
redis: {{image: {{repository: bitnami/redis, tag: 7.0.9, digest: "{digest_of(b"i")}"}}}}
elasticsearch: {{image: docker.elastic.co/elasticsearch/elasticsearch, imageTag: 7.17.3}}
""",
    "clearml-serving": f"""\
grafana: {{image: {{repository: grafana/grafana, tag: 9.4.3, sha: {digest_of(b"i").removeprefix("sha256:")}}}}}
prometheus: {{server: {{image: {{repository: "quay.io/prometheus/prometheus", tag: v2.41.0}}}}}}
""",
    "clearml-enterprise": "apiserver: {image: {repository: clearml/server, tag: 3}}\n",
}
"""Values files as people write them, by their charts."""


@pytest.mark.parametrize("chart", THEIRS)
def test_overrides_of_images_are_the_golden_ones(inside: Inside, tmp_path: Path, chart: str) -> None:
    """A registry in every place where charts read it, tags, and what pins.  A missing file is written, and fails."""
    (tmp_path / "theirs.yaml").write_text(THEIRS[chart])
    asked = order(SETTINGS, values=str(tmp_path / "theirs.yaml"), chart=chart)
    made = PLATFORM.render(asked, inside).files[f"helm/{chart}-images.yaml"]
    golden = GOLDEN / "images" / "helm" / f"{chart}-images.yaml"
    if not golden.exists():
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_bytes(made)
        pytest.fail(f"{golden} is new: look at it")
    assert golden.read_bytes() == made


@pytest.mark.parametrize("name", ["enterprise", "community", "plain"])
def test_our_overrides_hold_keys_that_their_charts_know(name: str) -> None:
    """The linter finds nothing in what is rendered, and each file is for a chart that it knows."""
    files = list((GOLDEN / name / "helm").iterdir())
    assert files
    for file in files:
        chart = CHARTS[file.name.removesuffix("-values.yaml")]
        assert linting.keys(yaml.load(file.read_bytes(), file.name), chart, file.name) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8080",
        "http://127.0.0.1",
        "https://[::1]/m",
        "http://0.0.0.0:1",
        "http://m.localhost",
    ],
)
def test_a_mirror_that_pods_cannot_reach_is_found(inside: Inside, url: str) -> None:
    """An address that means the pod itself blocks, with what to say instead."""
    found = [f for f in PLATFORM.render(order(SETTINGS, base_url=url), inside).findings if f.blocking]
    assert [f.code for f in found] == ["client-address"]
    assert "other machines" in found[0].remedy


@pytest.mark.parametrize("registry", ["localhost:5000", "127.0.0.1", "m.localhost/a", "169.254.0.1:5000"])
def test_a_registry_that_nodes_cannot_reach_is_found(inside: Inside, tmp_path: Path, registry: str) -> None:
    """Of what is rendered and of a values file: an address that means each node itself blocks."""
    (tmp_path / "v.yaml").write_text("agentk8sglue: {queue: gpu}\n")
    values = str(tmp_path / "v.yaml")
    looked = PLATFORM.preflight(order(PLAIN, values=values, registry=registry), inside)
    for found in (PLATFORM.render(order(SETTINGS, registry=registry), inside).findings, looked):
        blocking = [f for f in found if f.blocking]
        assert [(f.code, f.subject) for f in blocking] == [("client-address", "--registry")]
        assert "other machines" in blocking[0].remedy


def test_a_registry_is_a_host(inside: Inside) -> None:
    """A path of the base URL is no part of an image's name, which is said; a registry that is named is taken."""
    url = "https://mirror.example.org/haversack"
    made = PLATFORM.render(order(SETTINGS, base_url=url), inside)
    assert ("client-address", False) in [(f.code, f.blocking) for f in made.findings]
    assert (
        b"imageRegistry: mirror.example.org/docker.io\n" in made.files["helm/clearml-enterprise-values.yaml"]
    )
    assert b'"PIP_INDEX_URL=https://mirror.example.org/haversack/pypi/simple/"' in made.files["vault.conf"]
    made = PLATFORM.render(order(SETTINGS, base_url=url, registry="r.example.org/a"), inside)
    assert "client-address" not in [f.code for f in made.findings]
    assert b"imageRegistry: r.example.org/a/docker.io\n" in made.files["helm/clearml-enterprise-values.yaml"]


def test_a_snapshot_without_the_assets_is_found(inside: Inside) -> None:
    """What is rendered points at nothing that is not there."""
    lacking = order({**SETTINGS, "session": "0.16.0"})
    subjects = {f.subject for f in PLATFORM.render(lacking, inside).findings if f.blocking}
    assert "code-server_4.14.1_amd64.deb" in subjects
    assert DROPBEAR not in subjects


@pytest.mark.parametrize(
    ("image", "asked"),
    [
        ("docker.io/python:3.11", "docker.io/library/python:3.11"),
        ("docker.io/library/python", "docker.io/library/python:latest"),
        (f"docker.io/library/python:3.11@{digest_of(b'i')}", f"docker.io/library/python:3.11@{digest_of(b'i')}"),
        (f"docker.io/library/python@{digest_of(b'i')}", f"docker.io/library/python@{digest_of(b'i')}"),
    ],
)  # fmt: skip
def test_an_image_is_had_by_the_name_that_the_lock_gives_it(inside: Inside, image: str, asked: str) -> None:
    """However it is declared, what was locked for it is what is rendered; another digest was not locked."""
    refs = [Reference.parse(image).name]
    made = PLATFORM.render(order({**SETTINGS, "image": image}, *refs), inside)
    assert [f for f in made.findings if f.blocking] == []
    assert f'image: "mirror.example.org/{asked}"'.encode() in made.files["vault.conf"]
    if "@" in image:
        other = f"{image.partition('@')[0]}@{digest_of(b'another')}"
        made = PLATFORM.render(order({**SETTINGS, "image": other}, *refs), inside)
        assert [f.subject for f in made.findings if f.blocking] == [other]


def test_a_declaration_is_rendered_before_anything_crossed(inside: Inside) -> None:
    """What is not in a snapshot yet is a note then, and all files are made."""
    bare = replace(order({**SETTINGS, "session": "0.16.0"}), crossed=False)
    made = PLATFORM.render(bare, inside)
    assert not any(finding.blocking for finding in made.findings)
    assert "code-server_4.14.1_amd64.deb" in {finding.subject for finding in made.findings}
    assert made.files.keys() == PLATFORM.render(order(SETTINGS), inside).files.keys()


def test_an_address_is_asked_for_and_secrets_are_refused(inside: Inside) -> None:
    """Without a base URL nothing is rendered; one with a password goes into no file."""
    for url in ("", "https://me:hunter2@mirror.example.org", "mirror.example.org"):
        with pytest.raises(UsageError) as caught:
            PLATFORM.render(replace(order(SETTINGS), asked={"base_url": url} if url else {}), inside)
        assert "hunter2" not in str(caught.value)


def notes(inside: Inside, settings: Mapping[str, Any], *refs: str) -> dict[str, Finding]:
    """What `render` notes beside the files, by its subject; `doctor` says the same of images."""
    asked = order(settings, *refs)
    found = {f.subject: f for f in PLATFORM.render(asked, inside).findings}
    assert not any(f.blocking for f in found.values())
    looked = {f.subject for f in PLATFORM.preflight(asked, inside)}
    assert {f.subject for f in found.values() if f.subject != "vault.conf"} <= looked
    return found


PLAIN = {"flavor": "community", "session": "0.17.0"}


def test_what_charts_pull_and_did_not_cross_is_noted(inside: Inside) -> None:
    """Each chart is named with the images that it runs unasked; one whose images crossed is not."""
    found = notes(inside, PLAIN, *(p.image for p in pulls.PULLS["clearml"]))
    assert "clearml" not in found
    assert "docker.io/allegroai/clearml-agent-k8s-base:1.24-21" in found["clearml-agent"].message
    said = found["clearml-serving"].message
    assert all(name in said for name in ("bitnami/zookeeper", "quay.io/prometheus/alertmanager", "grafana"))
    assert "busybox" not in said
    assert "enterprise" in " ".join(notes(inside, SETTINGS))
    assert set(notes(inside, {**PLAIN, "deliver": ["agent-conf"], "image": SETTINGS["image"]})) == set()


def test_what_tasks_run_that_name_no_image_is_at_the_site(inside: Inside) -> None:
    """A default that crossed is asked of the site, in pods and by agents with docker; one that did not is noted."""
    note = notes(inside, {**PLAIN, "deliver": ["helm"]})["platform.clearml.image"]
    assert "docker.io/library/ubuntu:18.04" in note.message
    note = notes(inside, {**PLAIN, "deliver": ["agent-conf"]})["platform.clearml.image"]
    assert "nvidia/cuda:12.6.3" in note.message
    assert "platform.clearml.image" not in notes(inside, PLAIN, pulls.OF_PODS, pulls.OF_AGENTS)
    files = PLATFORM.render(order(PLAIN, pulls.OF_PODS, pulls.OF_AGENTS), inside).files
    values = yaml.load(files["helm/clearml-agent-values.yaml"], "v")
    site = "mirror.example.org"
    assert values["agentk8sglue"]["defaultContainerImage"] == f"{site}/{pulls.OF_PODS}"
    assert f'image: "{site}/{pulls.OF_AGENTS}"'.encode() in files["clearml.conf"]
    # Nothing of a person's own is overridden by an image that is not there.
    files = PLATFORM.render(order(PLAIN), inside).files
    assert b"default_docker" not in files["clearml.conf"]
    assert b"defaultContainerImage" not in files["helm/clearml-agent-values.yaml"]


def test_every_image_of_a_public_chart_is_asked_of_the_site() -> None:
    """Merged over the values of the charts, ours leave no image that another registry would be asked for."""
    registry = "r.example.org"
    made = helm.overrides(COMMUNITY, helm.Wanted(("a",), {}, registry, "site"))
    for chart, pulled_by in pulls.PULLS.items():
        values: dict[str, Any] = {}
        for pull in pulled_by:
            table, known = values, CHARTS[chart].keys
            for part in pull.path:
                table, known = table.setdefault(part, {}), below(known, part) or {}
            name, _, tag = pull.image.rpartition(":")
            if "registry" in known:
                name = name.partition("/")[2]
                table["registry"] = "docker.io" if pull.path[0] in {"redis", "mongodb", "kafka"} else ""
            table |= {"repository": name.removeprefix("docker.io/"), "tag": tag}
        for path in (("elasticsearch",), ("grafana", "testFramework")):
            if table := values.get(path[0], {}):
                for part in path[1:]:
                    table = table[part]
                table["image"] = table["image"]["repository"]
        found = images.images(merged(values, made[chart]), CHARTS[chart])
        assert len(found) == len(pulled_by)
        assert {name for name in found.values() if not name.startswith(f"{registry}/")} == set()
    # Kafka's, zookeeper's, grafana's, redis' and mongodb's pods read the global secrets, the others their own.
    assert made["clearml-serving"]["global"]["imagePullSecrets"] == ["site"]
    assert made["clearml"]["global"]["imagePullSecrets"] == ["site"]
    prometheus = made["clearml-serving"]["prometheus"]
    for table in (made["clearml"]["elasticsearch"], prometheus, prometheus["alertmanager"]):
        assert table["imagePullSecrets"] == [{"name": "site"}]


# Values files


def lint(chart: str, text: str) -> list[Finding]:
    """What the linter says of a values file."""
    return linting.keys(yaml.load(text.encode(), "v.yaml"), CHARTS[chart], "v.yaml")


@pytest.mark.parametrize(
    ("chart", "text", "subject", "word"),
    [
        ("clearml-agent", "agentk8sglue:\n  queues: {gpu: {}}\n", "agentk8sglue.queues", "enterprise"),
        ("clearml-agent", "agentk8sglue:\n  airGappedSupport: true\n", "airGappedSupport", "enterprise"),
        ("clearml-agent", "imageCredentials:\n  extraImagePullSecrets: []\n", "extraImagePull", "enterprise"),
        ("clearml-enterprise-agent", "agentk8sglue:\n  queue: gpu\n", "agentk8sglue.queue", "community"),
        ("clearml-enterprise-agent", "imageCredentials:\n  existingSecret: a\n", "existingSecret", "community"),
        ("clearml-enterprise", "imageCredentials:\n  existingImagePullSecrets: [a]\n", "PullSecrets", "table"),
        ("clearml-agent", "agentk8sglue:\n  basePodTemplates: {}\n", "basePodTemplates", "no key"),
        ("clearml-agent", "agentk8sglue:\n  queue: [gpu, cpu]\n", "agentk8sglue.queue", "one value"),
        ("clearml-agent", "agentk8sglue: 1\n", "agentk8sglue", "table"),
        ("clearml-serving", "clearml_serving_triton:\n  image: {registry: a}\n", "image.registry", "no key"),
        ("clearml", "[]\n", "v.yaml", "table"),
        ("clearml", "global: {imageRegistri: x}\n", "global.imageRegistri", "no key"),
        ("clearml-serving", "global: {imageRegistries: x}\n", "global.imageRegistries", "no key"),
        ("clearml", "elasticsearch: {imagePullSecretz: []}\n", "elasticsearch.imagePullSecretz", "no key"),
        ("clearml", "redis: {image: {repositry: a}}\n", "redis.image.repositry", "no key"),
        ("clearml", "mongodb: {anything: {at: all}}\n", "mongodb.anything", "no key"),
        ("clearml-serving", "kafka: {zookeeper: {image: {registri: a}}}\n", "zookeeper.image.registri", "no key"),
        ("clearml-serving", "prometheus: {server: {image: {registry: a}}}\n", "server.image.registry", "no key"),
        ("clearml-enterprise-agent", "agentk8sglue: {queues: {gpu: {templateOverride: {}}}}\n",
         "queues.gpu.templateOverride", "not among"),
        ("clearml-enterprise-agent", "agentk8sglue: {basePodTemplates: {}}\n", "basePodTemplates", "not among"),
        ("clearml-agent", "agentk8sglue: {queues: {gpu: {templateOverrides: {env: []}}}}\n",
         "agentk8sglue.queues", "enterprise"),
        ("clearml-agent", "imageCredentials: {existingSecret: a}\n", "imageCredentials.existingSecret", "enabled"),
        ("clearml-agent", "agentk8sglue: {basePodTemplate: {env: {A: b}}}\n", "basePodTemplate.env", "a table here"),
        ("clearml-agent", "agentk8sglue: {volumes: a}\n", "agentk8sglue.volumes", "one value here"),
        ("clearml", "apiserver: {nodeSelector: [{a: b}]}\n", "apiserver.nodeSelector", "a list here"),
        ("clearml-enterprise-agent", "agentk8sglue: {queues: {gpu: {templateOverrides: {env: {A: b}}}}}\n",
         "templateOverrides.env", "a table here"),
    ],
)  # fmt: skip
def test_a_key_that_helm_would_ignore_is_found(chart: str, text: str, subject: str, word: str) -> None:
    """A key of the other flavour is named as such; misspelt keys and values of another form are found."""
    (finding,) = lint(chart, text)
    assert (finding.code, finding.blocking) == ("values-key", True)
    assert subject in finding.subject
    assert word in finding.message
    assert finding.remedy


@pytest.mark.parametrize(
    ("name", "text", "chart"),
    [
        (
            "v.yaml",
            "# by haversack\n# helm upgrade --install NAME clearml-serving -f v.yaml\na: 1\n",
            "clearml-serving",
        ),
        ("v.yaml", "# helm install clearml clearml/clearml-agent -n clearml\n", "clearml-agent"),
        ("v.yaml", "# helm upgrade -i clearml-agent ./clearml -n clearml-agent\n", "clearml"),
        ("clearml.yaml", "# helm install a far/other\n", "clearml"),
        ("clearml-enterprise-agent-values.yaml", "", "clearml-enterprise-agent"),
        ("clearml-serving-images.yml", "a: 1\n", "clearml-serving"),
        ("my-values.yaml", "# of our clearml, see helm show values\na: 1\n# helm install a clearml\n", None),
    ],
)
def test_a_values_file_tells_its_chart(name: str, text: str, chart: str | None) -> None:
    """By the command at its head, then by its name; prose, and what stands below values, tell nothing."""
    assert linting.chart_of(name, text.encode()) == chart


@pytest.mark.parametrize("place", ["basePodTemplate", "queues: {gpu: {templateOverrides"])
@pytest.mark.parametrize(
    ("key", "meant"),
    [("nodeSelectr", "nodeSelector?"), ("envs", "env?"), ("imagePullSecret", "imageCredentials.")],
)
def test_a_key_of_pods_that_is_nearly_one_is_told(place: str, key: str, meant: str) -> None:
    """In both flavours, with what was meant, and never as a key of the other flavour."""
    text = f"agentk8sglue: {{{place}: {{{key}: []}}{'}}' if 'queues' in place else ''}}}\n"
    for chart in ("clearml-agent", "clearml-enterprise-agent"):
        (finding,) = lint(chart, text)
        if "queues" in place and chart == "clearml-agent":
            assert "enterprise" in finding.message
            continue
        assert meant in finding.remedy
        assert "flavor" not in finding.remedy
        assert finding.blocking or key == "imagePullSecret"


def test_a_near_name_is_said() -> None:
    """What was probably meant is the remedy."""
    (finding,) = lint("clearml-agent", "agentk8sglue: {basePodTemplates: {env: []}}\n")
    assert finding.remedy == "basePodTemplate?"


def test_keys_of_a_chart_below_are_listed_from_its_archive(tmp_path: Path) -> None:
    """What stands in its values or is read by a template, of its own or of the chart that brings it; lists are free."""
    chart = tmp_path / "charts" / "above"
    below = tmp_path / "demo"
    for folder in (chart / "charts", chart / "templates", below / "templates", below / "charts" / "deep"):
        folder.mkdir(parents=True)
    (chart / "values.yaml").write_text("demo: {ours: 1}\n")
    (chart / "templates" / "a.yaml").write_text("{{ .Values.demo.read.deep }}")
    (below / "values.yaml").write_text("one: {two: 3, list: []}\nwhole: {a: 1}\nfiles: {a.conf: x}\n")
    (below / "templates" / "_a.tpl").write_text("{{ toYaml $.Values.whole }} {{ .Values.one.unsaid }}")
    (below / "charts" / "deep" / "values.yaml").write_text("image: {repository: a}\n")
    with tarfile.open(chart / "charts" / "demo-1.0.tgz", "w:gz") as tar:
        tar.add(below, "demo")
    script = Path(__file__).parent.parent / "scripts" / "chart_keys.py"
    subprocess.run([sys.executable, script, tmp_path / "charts", tmp_path], check=True)
    assert (tmp_path / "demo.txt").read_text().splitlines() == [
        ": files* ours read* whole*",
        "deep: enabled",
        "deep.image: repository",
        "one: list* two unsaid*",
    ]


def test_what_is_free_is_not_looked_into() -> None:
    """Tables that go to Kubernetes or to another chart as they are hold anything; an undocumented key is a note."""
    text = "agentk8sglue: {basePodTemplate: {resources: {limits: {any: 1}}, env: [{name: A, value: b}]}}\n"
    assert lint("clearml-agent", text) == []
    assert lint("clearml", "mongodb: {tolerations: [{any: 1}]}\nelasticsearch: {image: x}\n") == []
    assert lint("clearml-serving", "grafana: {grafana.ini: {any: {thing: 1}}}\n") == []
    assert lint("clearml", "redis: {global: {imageRegistry: a}, master: {count: 1}}\n") == []
    assert lint("clearml", "") == []
    # An empty one of either form is put nowhere, and so are those of charts that are brought along.
    assert lint("clearml", "apiserver: {additionalVolumes: {}, tolerations: {}, nodeSelector: []}\n") == []
    assert lint("clearml-serving", "grafana: {env: {A: b}}\n") == []
    assert lint("clearml-agent", "imageCredentials: {enabled: true, existingSecret: a}\n") == []
    (finding,) = lint("clearml-agent", "imageCredentials: {enabled: false, existingSecret: a}\n")
    assert not finding.blocking
    for text in ("agentk8sglue: {somethingNew: 1}\n", "redis: {image: {registry: a}}\n"):
        (finding,) = lint("clearml-enterprise-agent", text)
        assert not finding.blocking
        assert "what is below is not checked" in finding.message


@pytest.mark.parametrize(
    "labels",
    [
        "{1: a, 1.5: b, true: c, 2.0: d, 0x10: e, 1e3: f}",
        "*one",
        "{<<: *one, zone: b}",
        "{zone: b, own: c, <<: *one}",
        "{<<: [*one, {kind: cpu, more: x}], more: z}",
        "{010: a, 09: b, 0_7: c, -017: d, 0o12: e}",
        "{yes: a, off: b}",
        "{Y: a, n: b}",
        "{'on': a, \"no\": b, nO: c, tRUE: d}",
        "{a: !!str no, b: '010'}",
    ],
)
def test_values_are_read_as_helm_reads_them(tmp_path: Path, labels: str) -> None:
    """Anchors, tables merged by ``<<``, and keys that are no texts: as the library has them that kubectl has too."""
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  annotations: &one {kind: gpu, zone: a}\n"
    (tmp_path / "v.yaml").write_text(f"{text}  labels: {labels}\n")
    words = ("kubectl", "annotate", "--local", "-f", tmp_path / "v.yaml", "b=c", "-o", "json")
    env = {**plain_environ(), "HOME": str(tmp_path), "KUBECONFIG": os.devnull}
    done = subprocess.run(words, check=True, capture_output=True, env=env)
    ours = yaml.load((tmp_path / "v.yaml").read_bytes(), "v", as_helm=True)
    assert ours["metadata"]["labels"] == json.loads(done.stdout)["metadata"]["labels"]
    with pytest.raises(DeclarationError):
        yaml.load((tmp_path / "v.yaml").read_bytes(), "v")


def test_anchors_stand_for_no_more_than_is_sane() -> None:
    """What a few lines could make of any memory is refused, and what is no table is merged into none."""
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    for bad, said in (
        (bomb, "more than"),
        ("a: &a [*a]\n", "nested"),
        ("a: &a 1\nb: {<<: *a}\n", "no table"),
    ):
        with pytest.raises(DeclarationError, match=said):
            yaml.load(bad.encode(), "v", as_helm=True)
    with pytest.raises(DeclarationError, match="not a text"):
        yaml.load(b"1: a\n", "v")


VALUES = """\
global: {imageRegistry: docker.io}
agentk8sglue:
  image: {registry: "", repository: allegroai/clearml-agent-k8s-base, tag: 1.24-21}
  defaultContainerImage: ubuntu:18.04
  basePodTemplate:
    initContainers: [{name: a, image: "busybox:1.35"}]
"""
ELASTIC = "elasticsearch: {image: docker.elastic.co/elasticsearch/elasticsearch, imageTag: 7.17.3}\n"


def test_images_are_rewritten_for_the_registry() -> None:
    """Merged over the file, the overrides ask the site for every image; what stands in a list is said."""
    values = yaml.load(VALUES.encode(), "v")
    registry = "registry.example.org"
    made, findings = images.overrides(values, registry, CHARTS["clearml-agent"], "v")
    assert made["agentk8sglue"] == {
        "image": {
            "registry": f"{registry}/docker.io",
            "repository": "allegroai/clearml-agent-k8s-base",
            "tag": "1.24-21",
        },
        "defaultContainerImage": f"{registry}/docker.io/library/ubuntu:18.04",
    }
    assert [("initContainers" in f.subject, f.blocking) for f in findings] == [(True, False)]
    assert linting.keys(made, CHARTS["clearml-agent"], "v") == []
    # What was rewritten needs no rewriting.
    assert images.overrides(made, registry, CHARTS["clearml-agent"], "v") == (made, [])
    server, _ = images.overrides(yaml.load(ELASTIC.encode(), "v"), registry, CHARTS["clearml"], "v")
    assert server == {"elasticsearch": {"image": f"{registry}/docker.elastic.co/elasticsearch/elasticsearch"}}


def merged(one: Any, other: Any) -> Any:
    """Two values files as helm merges them: tables key by key, and of all else the later one."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return other
    return {**one, **{key: merged(one[key], other[key]) if key in one else other[key] for key in other}}


def pulled(values: Any, name: str, *, told: str = "") -> str:
    """The image of one of Bitnami's charts (``common.images.image``): the global registry wins."""
    image = values[name]["image"]
    registry = values.get("global", {}).get("imageRegistry", told) or image["registry"]
    return f"{registry}/{image['repository']}:{image['tag']}"


@pytest.mark.parametrize(
    "text", ["", "global: {imageRegistry: docker.io}\n", 'global: {imageRegistry: ""}\n']
)
@pytest.mark.parametrize(("chart", "told", "name"), [
    ("clearml", "docker.io", "redis"), ("clearml", "docker.io", "mongodb"), ("clearml-serving", "", "kafka"),
])  # fmt: skip
def test_a_registry_beside_a_repository_is_written_beside_it(
    chart: str, told: str, name: str, text: str
) -> None:
    """Bitnami's charts put the registry before the repository: what is merged names the site once, and has it first."""
    text += f"{name}: {{image: {{registry: docker.io, repository: bitnami/{name}, tag: 7.0.15}}}}\n"
    values = yaml.load(text.encode(), "v")
    made, findings = images.overrides(values, "r.example.org", CHARTS[chart], "v")
    assert findings == []
    whole = merged(values, made)
    assert pulled(whole, name, told=told) == f"r.example.org/docker.io/bitnami/{name}:7.0.15"
    assert (
        images.absent(whole, "r.example.org", {f"docker.io/bitnami/{name}:7.0.15": ()}, CHARTS[chart], "v")
        == []
    )
    # The same with the overrides of our own for that chart.
    wanted = helm.Wanted(("a",), {}, "r.example.org")
    whole = merged(whole, helm.overrides(COMMUNITY, wanted)[chart])
    assert pulled(whole, name) == f"r.example.org/docker.io/bitnami/{name}:7.0.15"


def test_charts_that_take_no_registry_have_it_in_the_name() -> None:
    """Neither grafana nor ClearML's own serving hears of a registry: it is in the repository, and none beside it."""
    text = "global: {imageRegistry: docker.io}\ngrafana: {image: {repository: grafana/grafana}}\n"
    text += "clearml_serving_triton: {image: {repository: allegroai/x, tag: 1}}\n"
    made, _ = images.overrides(yaml.load(text.encode(), "v"), "r.example.org", CHARTS["clearml-serving"], "v")
    assert made == {
        "grafana": {"image": {"repository": "r.example.org/docker.io/grafana/grafana"}},
        "clearml_serving_triton": {
            "image": {"repository": "r.example.org/docker.io/allegroai/x", "tag": "1"}
        },
    }


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("repository: foo/bar\ntag: 1\n", {"repository": "r.example.org/docker.io/foo/bar", "tag": "1"}),
        (
            "registry: quay.io:443\nrepository: foo/bar\n",
            {
                "registry": "r.example.org/quay.io_443",
                "repository": "foo/bar",
            },
        ),
        ("image: foo/bar:1\n", {"image": "r.example.org/docker.io/foo/bar:1"}),
    ],
)
def test_an_image_may_stand_at_the_top_of_a_file(text: str, made: dict[str, Any]) -> None:
    """As in the values of a chart that another one brings along; it is named by the file alone."""
    values = yaml.load(text.encode(), "v")
    chart = CHARTS["clearml-agent"]
    told, findings = images.overrides(values, "r.example.org", chart, "v")
    assert findings == []
    assert {key: value for key, value in told.items() if key != "global"} == made
    found = images.absent(values, "r.example.org", {}, chart, "v.yaml")
    assert {f.subject for f in found} == {"v.yaml"} if "image" not in values else {"v.yaml: image"}


def test_an_enterprise_chart_hears_of_the_global_registry() -> None:
    """Its tables are not known: what names no registry stands behind the global one, which both are rewritten."""
    text = "global: {imageRegistry: docker.io}\napiserver: {image: {repository: clearml/server, tag: 3}}\n"
    values, chart = yaml.load(text.encode(), "v"), CHARTS["clearml-enterprise"]
    made, _ = images.overrides(values, "r.example.org", chart, "v")
    assert (
        made["apiserver"]["image"]["registry"] == made["global"]["imageRegistry"] == "r.example.org/docker.io"
    )
    assert set(images.images(merged(values, made), chart).values()) == {
        "r.example.org/docker.io/clearml/server:3"
    }


def test_images_that_did_not_cross_are_found() -> None:
    """An image of another registry, and one that the snapshot does not hold, are findings each."""
    values, chart = yaml.load(VALUES.encode(), "v"), CHARTS["clearml-agent"]
    held = dict.fromkeys(
        ("docker.io/library/ubuntu:18.04", "docker.io/allegroai/clearml-agent-k8s-base:1.24-21"), ()
    )
    found = images.absent(values, "r.example.org", held, chart, "v")
    assert sorted(f.message.split(" ", 1)[1] for f in found) == ["is not asked of r.example.org"] * 3 + [
        "is not in the snapshot"
    ]
    made, _ = images.overrides(values, "r.example.org", chart, "v")
    assert images.absent(made, "r.example.org", held, chart, "v") == []
    assert len(images.absent(made, "r.example.org", {}, chart, "v")) == 2
    untagged = {"a": {"image": {"repository": "r.example.org/docker.io/library/ubuntu"}}}
    assert images.absent(untagged, "r.example.org", held, chart, "v") == []


PIN, OTHER = digest_of(b"i"), digest_of(b"another")


@pytest.mark.parametrize(
    ("chart", "text", "said"),
    [
        ("clearml", "redis: {image: {repository: library/python, tag: '3.11', digest: D}}", "library/python@D"),
        ("clearml-serving", "prometheus: {server: {image: {repository: library/python, tag: 1, digest: D}}}",
         "library/python@D"),
        ("clearml-serving", "grafana: {image: {repository: library/python, tag: '3.11', sha: HEX}}",
         "library/python:3.11@D"),
        ("clearml-serving",
         "prometheus: {prometheus-node-exporter: {image: {repository: library/python, tag: '1', sha: D}}}",
         "library/python:1@D"),
        ("clearml-agent", "agentk8sglue: {defaultContainerImage: 'python:3.11@D'}", "library/python:3.11@D"),
        ("clearml-agent", "agentk8sglue: {defaultContainerImage: 'python@D'}", "library/python@D"),
        ("clearml-agent", "agentk8sglue: {image: {repository: 'library/python@D'}}", "library/python@D"),
        ("clearml-enterprise", "redis: {image: {repository: library/python, digest: D}}", "library/python@D"),
    ],
)  # fmt: skip
def test_what_pins_an_image_is_read_compared_and_kept(chart: str, text: str, said: str) -> None:
    """A digest goes where its chart puts it, is held to the snapshot's, and crosses the rewriting."""
    held = {"docker.io/library/python:3.11": {PIN}}
    for digest, there in ((PIN, True), (OTHER, False)):
        told = text.replace("HEX", digest.removeprefix("sha256:")).replace("D}", f"'{digest}'}}")
        values = yaml.load(told.replace("@D", f"@{digest}").encode(), "v")
        made, findings = images.overrides(values, "r.example.org", CHARTS[chart], "v")
        assert findings == []
        whole = merged(values, made)
        assert list(images.images(whole, CHARTS[chart]).values()) == [
            f"r.example.org/docker.io/{said.replace('@D', f'@{digest}')}"
        ]
        found = images.absent(whole, "r.example.org", held, CHARTS[chart], "v")
        assert [finding.message.endswith("is not in the snapshot") for finding in found] == [True] * (
            not there
        )
        assert images.overrides(whole, "r.example.org", CHARTS[chart], "v")[0] in (
            made,
            {"global": {}} | made,
        )


def test_a_digest_that_its_chart_ignores_is_no_part_of_a_name() -> None:
    """ClearML's own images know none: what is pulled is the tag, and the linter names the key."""
    text = f"agentk8sglue: {{image: {{repository: a/b, tag: 1, digest: '{OTHER}'}}}}\n"
    values = yaml.load(text.encode(), "v")
    assert set(images.images(values, CHARTS["clearml-agent"]).values()) == {"docker.io/a/b:1"}
    assert [finding.subject for finding in lint("clearml-agent", text)] == [
        "v.yaml: agentk8sglue.image.digest"
    ]


def in_part() -> Snapshot:
    """A snapshot with an image of which one platform travelled."""
    one, layer = digest_of(b"one"), digest_of(b"layer")
    facts: list[tuple[str, dict[str, Any]]] = [
        (
            PIN,
            {"role": "index", "refs": ["docker.io/library/python:3.11"], "children": [one], "sparse": True},
        ),
        (one, {"role": "manifest", "children": [layer]}),
        (layer, {"role": "layer"}),
    ]
    artifacts = tuple(
        Artifact("image", "i", "1", f"{digest[7:12]}.json", digest, 1, "docker://x", ("images/any",), more)
        for digest, more in facts
    )
    lock = Lock("lab", digest_of(b""), (ANY,), (LockedEnvironment("images", ANY.name, "image"),), artifacts)
    snapshot, _ = oci.build(lock, {a.digest: (1, a.facts) for a in artifacts})
    return snapshot


def test_an_image_may_be_pinned_to_one_of_its_platforms() -> None:
    """The digests of a snapshot's image are its own and those of the manifests that it lists, not of layers."""
    assert carried(in_part()) == {"docker.io/library/python:3.11": {PIN, digest_of(b"one")}}


def test_a_digest_that_a_registry_does_not_get_is_noted(inside: Inside, tmp_path: Path) -> None:
    """A list that travelled in part is pushed as another one: who asks a registry for it by digest is told."""
    image = "docker.io/library/python:3.11"

    def told(pin: str, **asked: str) -> list[str]:
        (tmp_path / "v.yaml").write_text(f"agentk8sglue: {{defaultContainerImage: '{image}@{pin}'}}\n")
        told = order({**SETTINGS, "image": f"{image}@{pin}"}, values=str(tmp_path / "v.yaml"), **asked)
        told = replace(told, content=in_part(), crossed=False)
        looked = [*PLATFORM.render(told, inside).findings, *PLATFORM.preflight(told, inside)]
        found = [f for f in looked if f.code == "image-sparse"]
        assert not any(f.blocking for f in found)
        return [f.subject.rpartition("/")[2].partition("@")[0] for f in found]

    place = "v.yaml: agentk8sglue.defaultContainerImage"
    assert told(PIN, registry="registry.example.org") == ["python:3.11", place, place]
    assert told(digest_of(b"one"), registry="registry.example.org") == []
    assert told(PIN) == []


# Pull secrets


ODD = [
    "a<b>&c",
    "ü\u2028\u2029€",
    'quote"back\\slash',
    "tab\tx",
    "$HOME `id` 'x'",
    " space ",
    "\x7f\x01",
    "🎒",
]


def kubectl(*words: str) -> bytes:
    """What the real kubectl makes, with no cluster."""
    argv = ["kubectl", "create", "secret", "docker-registry", *words, "--dry-run=client", "-o", "yaml"]
    env = {**plain_environ(), "HOME": tempfile.gettempdir(), "KUBECONFIG": os.devnull}
    return subprocess.run(argv, check=True, capture_output=True, env=env).stdout


@pytest.mark.parametrize("password", [*ODD, *("".join(random.Random(seed).choices(
    "abcXYZ019 <>&\"'\\/$%{}[]:,;=+~`!?#@^|_-äß漢", k=12)) for seed in range(4))])  # fmt: skip
def test_a_pull_secret_is_that_of_kubectl(password: str) -> None:
    """Byte for byte, whatever the password holds, with an address and without, in a namespace and in none."""
    given = (
        "--docker-server=registry.example.org:5000",
        "--docker-username=me",
        f"--docker-password={password}",
    )
    made = pullsecret.write("site-registry", "clearml", "registry.example.org:5000", "me", password)
    assert made == kubectl("site-registry", "-n", "clearml", *given)
    made = pullsecret.write("a.b", "", "registry.example.org:5000", "me", password, "me@example.org")
    assert made == kubectl("a.b", "--docker-email=me@example.org", *given)


@pytest.mark.parametrize(
    "name",
    [
        "123", "1e3", "1e-3", "1.5e-3", "1e309", "1e-400", "1.e3", "0abc", "08", "012", "0o7", "0o8", "0b1", "0b2",
        "0x1f", "0xffffffffffffffff", "0x10000000000000000", "18446744073709551616", "2001-01-01", "2026-1-2",
        "2026-02-30", "0000-02-29", "0000-00-00", "true", "y", "t", "null", "on", "1.5", "1.5.2", "nan",
    ],
)  # fmt: skip
def test_names_that_yaml_would_take_for_something_else_are_quoted(name: str) -> None:
    """A name of digits, a day or a word of YAML 1.1 stands in quotes, just where kubectl puts them."""
    made = pullsecret.write(name, "ns", "r.example.org", "u", "p")
    given = ("--docker-server=r.example.org", "--docker-username=u", "--docker-password=p")
    assert made == kubectl(name, "-n", "ns", *given)


@pytest.mark.parametrize("name", ["--username", "--server", "--email", "--password-env", "--password-file"])
def test_bytes_that_are_no_text_are_one_clear_error(tmp_path: Path, name: str) -> None:
    """A password or a word of the command line that is not UTF-8 is refused, and what it holds is not told."""
    bad = "hunter\udcff2"
    (tmp_path / "bad").write_bytes(os.fsencode(bad))
    words = {"--server": "r.example.org", "--username": "me", "--password-env": "SECRET"}
    if name == "--password-file":
        del words["--password-env"]
    words[name] = {"--password-env": "BAD", "--password-file": str(tmp_path / "bad")}.get(name, bad)
    argv = tiny.command("render", "pull-secret", "site", *(word for pair in words.items() for word in pair))
    env = {**plain_environ(), "SECRET": "fine", "BAD": bad}
    done = subprocess.run(argv, capture_output=True, env=env)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"is not UTF-8 text" in done.stderr
    assert b"hunter" not in done.stderr


def test_a_password_goes_to_standard_output_alone(tmp_path: Path) -> None:
    """From a file or a variable; not into errors, the ledger or the store; files of more than one line are refused."""
    secret, store = "hunter2-é", tmp_path / "store"
    file = tmp_path / "password"
    file.write_text(f"{secret}\n")
    given = ("site", "--server", "r.example.org", "--username", "me", "-n", "ns")
    done = tiny.haversack("render", "pull-secret", *given, "--password-file", file, store=store)
    assert done.returncode == 0, done.stderr
    again = subprocess.run(
        tiny.command("render", "pull-secret", *given, "--password-env", "SECRET", "--json"),
        env={**tiny.environ(store), "SECRET": secret}, capture_output=True, text=True,
    )  # fmt: skip
    assert (
        again.stdout == done.stdout == pullsecret.write("site", "ns", "r.example.org", "me", secret).decode()
    )
    assert not store.exists()
    file.write_text(f"{secret}\nmore\n")
    for words in (
        ("--password-file", file),
        ("--password-file", tmp_path / "none"),
        ("--password-env", "NOBODY"),
        ("--password-env", "A", "--password-file", file),
        ("--password-file", file, "-n", "Bad"),
    ):
        wrong = tiny.haversack("render", "pull-secret", *given, *words, store=store)
        assert wrong.returncode != 0
        assert secret not in wrong.stdout + wrong.stderr


def test_the_script_makes_the_same_secret(tmp_path: Path) -> None:
    """The rendered script gives kubectl what the command makes; the shell checker finds nothing in it."""
    script = GOLDEN / "enterprise" / "pull-secret.sh"
    (tmp_path / "bin").mkdir()
    real = subprocess.run(["sh", "-c", "command -v kubectl"], capture_output=True, text=True).stdout.strip()
    # There is no cluster to apply anything to.
    stand_in = tmp_path / "bin" / "kubectl"
    stand_in.write_text(f'#!/bin/sh\ncase $1 in apply) cat ;; *) exec {real} "$@" ;; esac\n')
    stand_in.chmod(0o755)
    (tmp_path / "password").write_text("p&<w $x")
    env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "NAMESPACE": "clearml", "REGISTRY_USER": "me"}
    env |= {"HOME": str(tmp_path), "KUBECONFIG": os.devnull}
    done = subprocess.run(
        ["sh", script], env={**env, "PASSWORD_FILE": str(tmp_path / "password")}, capture_output=True
    )
    assert done.stdout == pullsecret.write("site-registry", "clearml", "mirror.example.org", "me", "p&<w $x")
    assert subprocess.run(["sh", script], env=env, capture_output=True).returncode != 0
    subprocess.run(["shellcheck", script], check=True)


# A whole site


@dataclass(frozen=True)
class Crossed:
    """The assets as they were outside, what `lock` said, the lock, and the store inside."""

    assets: Path
    told: dict[str, Any]
    again: dict[str, Any]
    lock: str
    store: Path


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Crossed:
    """An enterprise site whose assets and packages are its own, packed and received."""
    folder = tmp_path_factory.mktemp("clearml")
    assets = folder / "assets"
    assets.mkdir()
    make_deb(assets / SERVER, "code-server", "4.96.2")
    make_vsix(assets / PYTHON, "ms-python", "python", "2024.22.1")
    make_vsix(assets / JUPYTER, "ms-toolsai", "jupyter", "2024.8.1")
    (assets / DROPBEAR).write_bytes(b"\x7fELF, for tests")
    urls = "".join(
        f'{asset.key} = "file://{assets / name}"\n' for asset, name in zip(session.ASSETS, NAMES, strict=True)
    )
    with Lab(folder / "lab") as lab:
        make_wheel(lab.wheels, "demo", "1.0")
        for line in (*session.requirements("0.17.0"), *session.OPTIONAL):
            name = line.partition(";")[0]
            for sign in "=<>":
                name = name.partition(sign)[0]
            if name not in {"pip", "setuptools", "wheel", "tqdm"}:
                version = {"clearml-session": "0.17.0", "jupyterlab": "4.3.8", "mitmproxy": "10.1.6"}
                make_wheel(lab.wheels, name, version.get(name, "2.9"))
        # The real one does not let itself be imported after pip.
        late = {"setuptools/__init__.py": "import sys\nassert 'pip' not in sys.modules\n"}
        make_wheel(lab.wheels, "setuptools", "99", modules=late)
        for name in ("pip", "wheel"):
            make_wheel(lab.wheels, name, "99")
        lab.declare(
            "demo",
            more='[platform.clearml]\nflavor = "enterprise"\nsession = "0.17.0"\nqueues = ["gpu"]\n'
            f'registry_secret = "site-registry"\n[platform.clearml.assets]\n{urls}',
        )
        told = lab.told("lock")
        # The server's file is another one from now on.
        (assets / SERVER).rename(assets / "first.deb")
        make_deb(assets / SERVER, "code-server", "4.96.2", note="another one")
        again = lab.told("lock")
        (assets / "first.deb").replace(assets / SERVER)
        done = lab("pack", "-o", folder / "bundle", "--name", "2026-11")
        assert done.returncode == 0, done.stderr
        lock = (lab.root / "haversack.lock").read_text()
    done = tiny.haversack("receive", folder / "bundle", store=folder / "inside")
    assert done.returncode == 0, done.stderr
    return Crossed(assets, told, again, lock, folder / "inside")


def test_lock_pins_what_was_added(crossed: Crossed) -> None:
    """The first lock says what the platform adds and fetches it; the next one keeps to it, whatever the address gives."""
    assert any(APPS in line for line in crossed.told["added"])
    assert all(name in crossed.lock for name in (SERVER, PYTHON, JUPYTER, DROPBEAR))
    assert digest_of((crossed.assets / SERVER).read_bytes()) in crossed.lock
    assert ("mitmproxy-10.1.6" in crossed.lock) == (sys.version_info < (3, 12))
    assert "werkzeug-" not in crossed.lock
    assert crossed.again["added"] == crossed.told["added"]


def test_rendered_files_stay_as_people_edit_them(crossed: Crossed, tmp_path: Path) -> None:
    """Rendered from the store inside; the same again writes nothing, and an edited file is shown and stays."""

    def inside(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return tiny.haversack(*words, store=crossed.store)

    out = tmp_path / "out"
    render = ("render", "clearml", "-o", out, "--base-url", "https://mirror.example.org")
    done = inside(*render)
    assert done.returncode == 0, done.stderr
    assert sorted(
        p.relative_to(out).as_posix() for p in out.rglob("*") if p.suffix != ".json" and p.is_file()
    ) == [
        "clearml.conf",
        "helm/clearml-enterprise-agent-values.yaml",
        "helm/clearml-enterprise-app-gateway-values.yaml",
        "helm/clearml-enterprise-values.yaml",
        "pull-secret.sh",
        "vault.conf",
    ]
    first = (out / "vault.conf").read_text().splitlines()[0]
    told = r"of snapshot 2026-11 \(sha256:[0-9a-f]{12}…\), declaration sha256:[0-9a-f]{12}…\."
    assert re.fullmatch(f"# Written by haversack render clearml, {told}", first)
    assert re.fullmatch(f"# Written by haversack render clearml, {told}", f"# {ORIGIN}")
    assert "already" in inside(*render).stdout
    (out / "clearml.conf").write_text("agent { mine: true }\n")
    done = inside(*render)
    assert done.returncode == 15
    assert "-agent { mine: true }" in done.stderr
    assert (out / "clearml.conf").read_text() == "agent { mine: true }\n"


def test_doctor_looks_at_anybodys_values(crossed: Crossed, tmp_path: Path) -> None:
    """Without a file at the snapshot, with one at its keys: by the declared flavour's chart, or the one named."""

    def doctor(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return tiny.haversack("doctor", *words, store=crossed.store)

    assert doctor("clearml").returncode == 0
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text("agentk8sglue:\n  queue: gpu\n")
    done = doctor("clearml", "--values", theirs)
    assert (done.returncode, "community" in done.stderr) == (3, True)
    done = doctor("clearml", "--values", theirs, "--chart", "clearml-agent")
    assert done.returncode == 0, done.stderr
    named = tmp_path / "clearml-agent-values.yaml"
    named.write_text("agentk8sglue:\n  queue: gpu\n")
    assert doctor("clearml", "--values", named).returncode == 0
    theirs.write_text("agentk8sglue:\n  labels: &l {1: a}\n  basePodTemplate: {labels: *l}\n")
    assert doctor("clearml", "--values", theirs, "--chart", "clearml-agent").returncode == 0
    for words in (("clearml", "--chart", "clearml"), ("--values", theirs), ("clearml", "--values", "none")):
        assert doctor(*words).returncode != 0


def test_the_images_of_each_values_file_stay(crossed: Crossed, tmp_path: Path) -> None:
    """Another values file, or none, takes nothing away; nor does another platform or what clients are told."""
    theirs, out = tmp_path / "theirs.yaml", tmp_path / "out"
    theirs.write_text("image:\n  repository: docker.io/library/python\n")
    mirror = ("-o", out, "--base-url", "https://mirror.example.org")
    charts = ("clearml", "clearml-serving")
    orders = [("clearml", *mirror, "--values", theirs, "--chart", chart) for chart in charts]
    for order in (*orders, ("clearml", *mirror), ("clients", *mirror)):
        done = tiny.haversack("render", *order, store=crossed.store)
        assert (done.returncode, "removed" in done.stdout) == (0, False), done.stdout + done.stderr
    there = {path.relative_to(out).as_posix() for path in out.rglob("*")}
    assert there > {
        "helm/clearml-images.yaml",
        "helm/clearml-serving-images.yaml",
        "clearml.conf",
        "pip.conf",
    }


# ClearML's own readers


@pytest.fixture(scope="session")
def clearml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with clearml, its agent and Kubernetes' schemas; skipped without a way to PyPI."""
    folder = tmp_path_factory.mktemp("clearml-oracle") / "venv"
    wanted = ("clearml-agent==3.0.3", "clearml==2.1.12", "setuptools", "kubernetes-validate==1.37.0")
    python = folder / "bin" / "python"
    for words in (
        ("venv", "-q", "--python", sys.executable, folder),
        ("pip", "install", "-q", "--python", python, *wanted),
    ):
        done = subprocess.run([find_uv_bin(), *words], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"PyPI cannot be reached: {done.stderr[-300:]}")
    return python


def ask(python: Path, script: str, *words: str, home: Path) -> Any:
    """What a script says as JSON in its last line; it has no network but loopback's names."""
    env = {**plain_environ(), "HOME": str(home), "CLEARML_OFFLINE_MODE": "1"}
    argv = [str(python), "-W", "ignore", "-c", script, *words]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


_PARSE = """\
import json, sys
from clearml_agent.external.pyhocon import ConfigFactory
print(json.dumps(ConfigFactory.parse_string(open(sys.argv[1]).read()).as_plain_ordered_dict()))
"""


@pytest.mark.network
@pytest.mark.parametrize(
    "file", ["enterprise/vault.conf", "enterprise/clearml.conf", "community/clearml.conf"]
)
def test_its_own_parser_reads_what_was_meant(clearml: Path, tmp_path: Path, file: str) -> None:
    """HOCON: both sections come back, docker's words one by one, and every variable in both places."""
    told = ask(clearml, _PARSE, str(GOLDEN / file), home=tmp_path)
    words = told["agent"]["extra_docker_arguments"]
    assert words[::2] == ["-e"] * (len(words) // 2)
    assert dict(word.split("=", 1) for word in words[1::2]) == told["environment"]
    assert told["environment"]["PIP_INDEX_URL"] == told["environment"]["PIP_EXTRA_INDEX_URL"]
    assert told["agent"]["package_manager"] == {"pip_version": "", "pytorch_resolve": "none"}


@pytest.mark.network
def test_its_own_parser_reads_odd_texts(clearml: Path, tmp_path: Path) -> None:
    """Whatever characters a value has, ClearML's parser gives it back."""
    odd = {"a": 'say "x"', "b": "${HOME} $x", "c": "back\\slash", "d": "# no // comment", "e": "ü€", "f": "1",
           "g.h": "dotted", "i": [1, "two", True, None], "j": {"k": ""}}  # fmt: skip
    (tmp_path / "odd.conf").write_bytes(hocon.dump(odd))
    assert ask(clearml, _PARSE, str(tmp_path / "odd.conf"), home=tmp_path) == odd


_MERGE = """\
import json, sys
from clearml_agent.helper.docker_args import DockerArgsSanitizer
print(json.dumps(DockerArgsSanitizer.merge_docker_args(config={}, task_docker_arguments=[], extra_docker_arguments=json.loads(sys.argv[1]))))
"""


@pytest.mark.network
def test_its_own_sanitizer_keeps_every_argument(clearml: Path, tmp_path: Path) -> None:
    """The words for docker come through the agent as they are."""
    words = variables.docker_arguments(
        {"A": "b c", "PIP_INDEX_URL": "https://mirror.example.org/pypi/simple/"}
    )
    assert ask(clearml, _MERGE, json.dumps(words), home=tmp_path)[0] == words


_AGENT = """\
import base64, json, os, sys, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer

feature_set, vault, variables = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
part = lambda told: base64.urlsafe_b64encode(json.dumps(told).encode()).rstrip(b"=").decode()
claims = {"api_version": "2.30", "feature_set": feature_set, "exp": int(time.time()) + 999,
          "identity": {"user": "u", "role": "admin"}}
token = ".".join((part({"alg": "HS256", "typ": "JWT"}), part(claims), "x" * 43))

class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = {"token": token} if "auth.login" in self.path else {}
        if "get_vaults" in self.path:
            data = {"vaults": [{"scope": "group", "id": "v", "data": vault}]}
        meta = {"result_code": 200, "result_subcode": 0, "result_msg": "OK"}
        body = json.dumps({"meta": meta, "data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *_): pass

server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
host = f"http://127.0.0.1:{server.server_port}"
os.environ.update(variables, CLEARML_API_HOST=host, CLEARML_API_ACCESS_KEY="k", CLEARML_API_SECRET_KEY="s")

from clearml_agent.commands.worker import Worker
from clearml_agent.helper.package.base import PackageManager

worker = Worker()
config = worker._session.config
told = {"extra": worker._extra_docker_arguments, "pip": PackageManager.get_pip_versions(),
        "resolve": config.get("agent.package_manager.pytorch_resolve", None),
        "opencv": config.get("agent.docker_install_opencv_libs", None),
        "image": config.get("agent.default_docker.image"), "index": os.environ.get("PIP_INDEX_URL"),
        "owner": worker._load_vault_env_as_docker_args(worker._session)}
server.shutdown()
print(json.dumps(told))
"""


@pytest.mark.network
def test_its_own_agent_leaves_pip_as_it_is_in_a_pod(clearml: Path, tmp_path: Path) -> None:
    """With the variables of a pod the agent asks for no pip of its own; without, for versions that nobody locked."""
    for flavor in ("community", "enterprise"):
        (file,) = (GOLDEN / flavor / "helm").glob("*agent-values.yaml")
        env = yaml.load(file.read_bytes(), file.name)["agentk8sglue"]["basePodTemplate"]["env"]
        given = json.dumps({each["name"]: each["value"] for each in env})
        told = ask(clearml, _AGENT, "basic", "", given, home=tmp_path)
        assert told["pip"] == ["pip"]
    assert len(ask(clearml, _AGENT, "basic", "", "{}", home=tmp_path)["pip"]) > 1


@pytest.mark.network
def test_its_own_agent_takes_a_vault_as_the_file_says(clearml: Path, tmp_path: Path) -> None:
    """The agent's own vault acts in whole at its start, its owner's in docker words; a community server's not at all."""
    vault = (GOLDEN / "enterprise" / "vault.conf").read_text()
    told = ask(clearml, _AGENT, "advanced", vault, "{}", home=tmp_path)
    words = told["extra"]
    assert "PIP_INDEX_URL=https://mirror.example.org/pypi/simple/" in words
    assert told["owner"] == words
    assert (told["pip"], told["resolve"], told["opencv"]) == (["pip"], "none", False)
    assert told["image"] == "mirror.example.org/docker.io/library/python:3.11"
    assert told["index"] == "https://mirror.example.org/pypi/simple/"
    taken = {"CLEARML_AGENT_EXTRA_DOCKER_ARGS": "-e A=b"}
    told = ask(clearml, _AGENT, "advanced", vault, json.dumps(taken), home=tmp_path)
    assert told["extra"] != words
    assert ask(clearml, _AGENT, "basic", vault, "{}", home=tmp_path)["index"] is None


_VALIDATE = """\
import json, sys
import kubernetes_validate
for manifest in json.loads(sys.argv[1]):
    kubernetes_validate.validate(manifest, "1.30", strict=True)
try:
    kubernetes_validate.validate({**manifest, "spec": {"imagePullSecrets": ["a"], "containers": []}}, "1.30", strict=True)
except kubernetes_validate.ValidationError:
    print("true")
"""


@pytest.mark.network
def test_kubernetes_takes_what_charts_put_into_pods(clearml: Path, tmp_path: Path) -> None:
    """The variables and the pull secrets of every override are of the form that a pod has, by its own schema."""
    pods = []
    for file in sorted(GOLDEN.glob("*/helm/*agent-values.yaml")):
        values = yaml.load(file.read_bytes(), file.name)
        glue, told = values["agentk8sglue"], values.get("imageCredentials", {})
        secrets = told.get("extraImagePullSecrets") or [{"name": told.get("existingSecret", "none")}]
        for template in [
            glue["basePodTemplate"],
            *(q["templateOverrides"] for q in glue.get("queues", {}).values()),
        ]:
            container = {"name": "task", "image": glue.get("defaultContainerImage", "x"), **template}
            spec = {"imagePullSecrets": secrets, "containers": [container]}
            pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "task"}, "spec": spec})
    assert len(pods) == 5
    assert ask(clearml, _VALIDATE, json.dumps(pods), home=tmp_path) is True


_DOWNLOAD = """\
import json, sys
from clearml import StorageManager
print(json.dumps([StorageManager.get_local_copy(url.format(version="0"), extract_archive=False) for url in sys.argv[1:]]))
"""


@pytest.mark.network
def test_sessions_download_their_assets_from_the_live_server(
    crossed: Crossed, clearml: Path, tmp_path: Path
) -> None:
    """What a session does with its variables works on ``haversack serve``: names that dpkg and code-server know."""
    base = "http://mirror.example.org/"
    for way in ((), ("--dated",)):
        words = ("render", "clearml", "-o", tmp_path / "out", "--base-url", base, *way)
        done = tiny.haversack(*words, store=crossed.store)
        assert done.returncode == 0, done.stderr
        told = ask(clearml, _PARSE, str(tmp_path / "out" / "clearml.conf"), home=tmp_path)["environment"]
        names = {
            told[asset.variable]: name
            for asset, name in zip(session.ASSETS, NAMES, strict=True)
            if asset.variable
        }
        assert all(f"/files/{name}" in url for url, name in names.items())
        with Live(crossed.store, tmp_path / f"live{len(way)}") as live:
            urls = [url.replace(base, live.url) for url in (*names, f"{base}files/none.vsix")]
            *files, missing = ask(clearml, _DOWNLOAD, *urls, home=tmp_path)
        # This is what sessions do not look at, and go on with.
        assert missing is None
        for file, name in zip(files, names.values(), strict=True):
            assert file.endswith(f".{name}")
            assert Path(file).read_bytes() == (crossed.assets / name).read_bytes()
        subprocess.run(["dpkg-deb", "--info", files[0]], check=True, capture_output=True)


def test_the_payload_of_a_secret_is_what_docker_keeps() -> None:
    """Decoded, the secret is a ``config.json`` with one login."""
    manifest = yaml.load(pullsecret.write("s", "n", "r.example.org", "me", "p:w"), "s")
    config = json.loads(base64.b64decode(manifest["data"][".dockerconfigjson"]))
    assert base64.b64decode(config["auths"]["r.example.org"]["auth"]) == b"me:p:w"
    assert manifest["type"] == "kubernetes.io/dockerconfigjson"


def test_every_flavour_has_its_charts() -> None:
    """Overrides name charts of their own flavour alone."""
    wanted = helm.Wanted(("a",), {"A": "b"}, "r.example.org")
    for flavor in (COMMUNITY, ENTERPRISE):
        assert {CHARTS[name].flavor for name in helm.overrides(flavor, wanted)} == {flavor}
