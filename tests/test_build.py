"""Build: a wheel from a source distribution, with everything it was made of on record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from haversack.formats import lockfile
from haversack.formats.pylock import Pick
from haversack.model.artifact import Artifact, digest_of
from haversack.model.finding import Finding
from haversack.ports.machine import probe
from haversack.wheels import build
from tests.support.site import WINDOWS, Lab
from tests.support.wheels import make_sdist, make_wheel

DIALS = """\
import socket
try:
    socket.create_connection(("192.0.2.1", 80), timeout=2).close()
    reached = "connected"
except OSError as problem:
    reached = str(problem)
raise RuntimeError("dialled: " + reached)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A site whose index has what its tests put there."""
    with Lab(tmp_path / "lab") as made:
        yield made


def the_wheel(lab: Lab, name: str = "demo") -> Artifact:
    """The one artifact of a name that locking gives; a finding fails the test."""
    (locked,) = lab.lock_kind()
    assert [str(finding) for finding in locked.findings] == []
    (artifact,) = (artifact for artifact in locked.artifacts if artifact.name == name)
    return artifact


def built(artifact: Artifact) -> Mapping[str, Any]:
    """What the lock says of how it was made."""
    found: Mapping[str, Any] = artifact.facts["built"]
    return found


def test_a_source_distribution_becomes_a_wheel(lab: Lab) -> None:
    """With build = true the wheel that the sdist's own backend makes is locked, with its source on record."""
    sdist = make_sdist(lab.wheels, "demo", "1.0", requires=["core"])
    make_wheel(lab.wheels, "core", "1.0")
    lab.declare("demo", env="build = true")
    artifact = the_wheel(lab)
    same = make_wheel(lab.folder / "same", "demo", "1.0", requires=["core"])
    source = digest_of(sdist.read_bytes())
    assert artifact.digest == digest_of(same.read_bytes())
    assert artifact.filename == same.name
    assert artifact.origin == f"built:{source}"
    assert built(artifact)["sdist"] == {"digest": source, "origin": lab.index.file_url(sdist.name)}
    assert built(artifact)["requires"] == []
    assert the_wheel(lab, "core").origin == lab.index.file_url("core-1.0-py3-none-any.whl")


def test_a_build_takes_what_it_requires_from_the_index(lab: Lab) -> None:
    """Build requirements, and theirs, come from the site's index by digest and are named in the lock."""
    make_wheel(lab.wheels, "helper", "2.0")
    make_wheel(lab.wheels, "tool", "1.0", requires=["helper>=2"])
    make_sdist(lab.wheels, "demo", "1.0", build_requires=["tool"], backend_imports=["tool", "helper"])
    lab.declare("demo", env="build = true")
    requires = built(the_wheel(lab))["requires"]
    wheels = {name: lab.wheels / f"{name}-py3-none-any.whl" for name in ("helper-2.0", "tool-1.0")}
    assert requires == [
        {
            "name": stem.partition("-")[0],
            "version": stem.partition("-")[2],
            "digest": digest_of(path.read_bytes()),
        }
        for stem, path in wheels.items()
    ]


def build_alone(lab: Lab, sdist: Path) -> tuple[Artifact | None, list[Finding]]:
    """Build one source distribution, without resolving anything first."""
    lab.declare("demo", env="build = true")
    site = lab.site()
    out = lab.outside(site)
    name, _, version = sdist.name.removesuffix(".tar.gz").partition("-")
    digest = digest_of(sdist.read_bytes())
    pick = Pick(name, version, sdist.name, lab.index.file_url(sdist.name), digest, None, wheel=False)
    order = build.Order(pick, "lab/here", site.target("here"), lab.root, out.python, site.indexes)
    with out.store.exclusive():
        return build.build(order, out)


def test_a_build_has_no_network(lab: Lab) -> None:
    """A backend that dials out while building finds no network, and the build fails with its words."""
    make_wheel(lab.wheels, "dialler", "1.0", modules={"dialler/__init__.py": DIALS})
    sdist = make_sdist(lab.wheels, "demo", "1.0", build_requires=["dialler"], backend_imports=["dialler"])
    artifact, (finding,) = build_alone(lab, sdist)
    assert artifact is None
    assert finding.code == "build-failed"
    assert "dialled: " in finding.message
    assert "Network is unreachable" in finding.message


def test_a_build_inherits_nothing_of_the_machine(lab: Lab) -> None:
    """A build sees no password and no variable that steers pip or uv, and that it was caged is on record."""
    source = """
import os
seen = sorted(n for n in os.environ if n.startswith(("PIP_", "HAVERSACK_", "UV_INDEX", "CONDA_")))
if seen != ["PIP_CONFIG_FILE"] or os.environ["PIP_CONFIG_FILE"] != os.devnull:
    raise RuntimeError(f"seen: {seen}")
"""
    make_wheel(lab.wheels, "nosy", "1.0", modules={"nosy/__init__.py": source})
    sdist = make_sdist(lab.wheels, "demo", "1.0", build_requires=["nosy"], backend_imports=["nosy"])
    lab.environ |= {
        "PIP_INDEX_URL": "http://127.0.0.1:1/",
        "UV_INDEX_MAIN_PASSWORD": "secret",
        "HAVERSACK_INDEX_MAIN_PASSWORD": "secret",
        "CONDA_PREFIX": "/opt",
    }
    artifact, findings = build_alone(lab, sdist)
    assert findings == []
    assert artifact is not None
    assert built(artifact)["caged"] is True


def test_a_built_wheel_crosses_and_its_provenance_with_it(lab: Lab) -> None:
    """Locking again gives equal bytes without building again, and the bundle installs what was built."""
    make_sdist(lab.wheels, "demo", "1.0")
    lab.declare("demo", env="build = true")
    first = lab.lock()
    assert lab.lock().data == first.data
    (lab.root / lockfile.FILENAME).unlink()
    assert lab.lock().data == first.data
    # uv asked for it too, to read what it requires.
    asked = lab.index.asked("/files/demo-1.0.tar.gz")
    assert [request.headers["user-agent"] for request in asked].count("haversack") == 1
    lab.told("pack", "-o", lab.folder / "out")
    inside = {"HAVERSACK_STORE": str(lab.folder / "inside")}
    lab.told("receive", lab.folder / "out", env=inside)
    told = lab.told("install", "lab", "--to", lab.folder / "env", "--check", env=inside)
    assert told["ref"] == "lab/here"


def test_a_build_again_elsewhere_gives_the_same_bytes(lab: Lab, tmp_path: Path) -> None:
    """Another store, hence another build, gives the same lock."""
    make_sdist(lab.wheels, "demo", "1.0")
    lab.declare("demo", env="build = true")
    first = lab.lock().data
    (lab.root / lockfile.FILENAME).unlink()
    lab.store = tmp_path / "another"
    lab.environ["HAVERSACK_STORE"] = str(lab.store)
    assert lab.lock().data == first


def test_a_lock_with_a_built_wheel_on_another_machine(lab: Lab, tmp_path: Path) -> None:
    """Where the built wheel is not in the store, pack says to lock there, since nobody else has it."""
    make_sdist(lab.wheels, "demo", "1.0")
    lab.declare("demo", env="build = true")
    lab.lock()
    other = {"HAVERSACK_STORE": str(tmp_path / "another")}
    told = lab.told("pack", "-o", lab.folder / "out", code=6, env=other)
    assert "was built when it was locked" in str(told["findings"])
    assert "haversack lock" in str(told["findings"])


def test_without_leave_nothing_is_built(lab: Lab) -> None:
    """An sdist without build = true is a finding, and its code does not run."""
    proof = lab.folder / "ran"
    make_wheel(lab.wheels, "tracer", "1.0", modules={"tracer/__init__.py": f"open({str(proof)!r}, 'w')\n"})
    make_sdist(lab.wheels, "demo", "1.0", build_requires=["tracer"], backend_imports=["tracer"])
    lab.declare("demo")
    assert [code for code, _ in lab.findings()] == ["no-wheel"]
    assert not proof.exists()


def test_a_wheel_is_preferred_to_building(lab: Lab) -> None:
    """build = true is a last resort: a version that has a wheel is not built."""
    make_sdist(lab.wheels, "demo", "1.0")
    make_wheel(lab.wheels, "demo", "1.0")
    lab.declare("demo", env="build = true")
    assert the_wheel(lab).origin == lab.index.file_url("demo-1.0-py3-none-any.whl")


def test_a_build_that_fails_says_what_the_backend_said(lab: Lab) -> None:
    """A failing build is a finding with the backend's words, and locking ends with 5."""
    make_sdist(lab.wheels, "demo", "1.0", fails=True)
    lab.declare("demo", env="build = true")
    told = lab.told("lock", code=5)
    (finding,) = told["findings"]
    assert finding["code"] == "build-failed"
    assert "demo==1.0" in finding["message"]
    assert "this source distribution does not build" in finding["message"]


def test_a_build_requirement_that_is_not_there(lab: Lab) -> None:
    """A build requirement the index does not have is named, and whose it is."""
    make_sdist(lab.wheels, "demo", "1.0", build_requires=["nobody-has-this"])
    lab.declare("demo", env="build = true")
    ((code, text),) = lab.findings()
    assert code == "no-solution"
    assert "nobody-has-this" in text
    assert "demo" in text


def test_a_platform_wheel_is_not_for_a_foreign_target(lab: Lab) -> None:
    """What is built here into machine code is refused for targets on which it would not run."""
    tag = f"cp311-cp311-{probe().platform_tags()[-1]}"
    make_sdist(lab.wheels, "demo", "1.0", tag=tag)
    lab.declare("demo", env="build = true", targets=(WINDOWS, "linux-x86_64-manylinux2014-py311"))
    assert [code for code, _ in lab.findings()] == ["build-foreign", "build-foreign"]


def test_a_platform_wheel_is_for_this_machine(lab: Lab) -> None:
    """What is built here into machine code is locked for a target like this machine."""
    tag = f"cp311-cp311-{probe().platform_tags()[-1]}"
    make_sdist(lab.wheels, "demo", "1.0", tag=tag)
    lab.declare("demo", env="build = true")
    assert the_wheel(lab).filename == f"demo-1.0-{tag}.whl"


def test_a_pure_wheel_built_here_is_for_any_target(lab: Lab) -> None:
    """A build without machine code serves every target, and is built once."""
    make_sdist(lab.wheels, "demo", "1.0")
    lab.declare("demo", env="build = true", targets=("here", WINDOWS))
    assert lab.names() == [["demo-1.0-py3-none-any.whl"]] * 2


def test_a_source_distribution_that_is_not_the_one_of_the_index(lab: Lab) -> None:
    """Sources whose bytes are not what the index says are never run."""
    proof = lab.folder / "ran"
    make_wheel(lab.wheels, "tracer", "1.0", modules={"tracer/__init__.py": f"open({str(proof)!r}, 'w')\n"})
    sdist = make_sdist(lab.wheels, "demo", "1.0", build_requires=["tracer"], backend_imports=["tracer"])
    lab.index.lie_about.add(sdist.name)
    lab.declare("demo", env="build = true")
    assert len(lab.findings()) == 1
    assert not proof.exists()
