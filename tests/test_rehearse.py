"""Rehearsal: what crosses is installed here with no network, and works, or nothing is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from haversack.errors import HaversackError, ProofError
from haversack.formats import bundle as layout
from haversack.model.finding import Finding
from haversack.model.target import Target
from haversack.ports.run import Programs
from haversack.wheels.install import check, install
from haversack.wheels.interpreter import find
from tests.support import tiny
from tests.support.packed import artifacts_of, here, packed
from tests.support.wheels import make_wheel


@pytest.fixture(autouse=True)
def _caged() -> None:
    """Without a cage nothing is rehearsed."""
    reason = Programs().cage()
    if reason:
        pytest.skip(reason)


def refused(folder: Path, *wheels: Path, command: str | None = None) -> list[Finding]:
    """What the rehearsal complained of; nothing was written."""
    with pytest.raises(ProofError) as caught:
        packed(folder, *wheels, command=command)
    assert caught.value.exit_code == 12
    assert list((folder / "bundle").rglob("*")) == []
    assert {finding.code for finding in caught.value.findings} == {"rehearsal-failed"}
    return list(caught.value.findings)


def wheel(folder: Path, source: str, name: str = "demo", **more: Sequence[str]) -> Path:
    """A wheel whose one module is ``source``."""
    return make_wheel(folder, name, "1.0", modules={f"{name}/__init__.py": source}, **more)  # type: ignore[arg-type]


def test_a_module_that_does_not_import_is_named(tmp_path: Path) -> None:
    """Every module is imported, and the one that fails is named with its error."""
    good = wheel(tmp_path, "", "good")
    bad = wheel(tmp_path, "import nothing_of_that_name\n", "bad")
    (finding,) = refused(tmp_path, good, bad)
    assert finding.subject == "lab/here"
    assert "bad: ModuleNotFoundError" in finding.message
    assert "nothing_of_that_name" in finding.message


def test_all_modules_that_fail_are_named(tmp_path: Path) -> None:
    """One failing import does not hide the next, whatever it raises."""
    first = wheel(tmp_path, "raise SystemExit('no')\n", "first")
    second = wheel(tmp_path, "1 / 0\n", "second")
    third = wheel(tmp_path, "", "third")
    said = [finding.message for finding in refused(tmp_path, first, second, third)]
    assert len(said) == 2
    assert any("first: SystemExit" in text for text in said)
    assert any("second: ZeroDivisionError" in text for text in said)


@pytest.mark.parametrize("deed", ["os.kill(os.getpid(), signal.SIGSEGV)", "os._exit(1)", "os._exit(0)"])
def test_a_module_that_kills_the_interpreter_is_named(tmp_path: Path, deed: str) -> None:
    """A crash in machine code, which leaves no traceback, still names the module that was being imported."""
    crash = wheel(tmp_path, f"import os, signal\n{deed}\n", "crash")
    (finding,) = refused(tmp_path, wheel(tmp_path, "", "before"), crash, wheel(tmp_path, "", "then"))
    assert "import of crash: " in finding.message
    assert "exit code" in finding.message


def test_a_module_that_talks_is_not_to_blame(tmp_path: Path) -> None:
    """What a module prints or warns of while it is imported is not taken for a failure, another's failure is."""
    talk = (
        "import sys, warnings\nprint('out')\nprint('err: not good', file=sys.stderr)\nwarnings.warn('old')\n"
    )
    talker = wheel(tmp_path, talk, "talker")
    (finding,) = refused(tmp_path, talker, wheel(tmp_path, "1 / 0\n", "failer"))
    assert "import of failer: ZeroDivisionError" in finding.message
    assert packed(tmp_path, talker).bundle.rehearsals[0].result == "passed"


def test_what_dials_out_fails(tmp_path: Path) -> None:
    """A package that needs the network when it is imported fails outside as it would inside, at once."""
    source = "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=60)\n"
    (finding,) = refused(tmp_path, wheel(tmp_path, source))
    assert "Network is unreachable" in finding.message


def test_names_are_not_resolved(tmp_path: Path) -> None:
    """A package that looks a host up when it is imported fails in the cage."""
    source = "import socket\nsocket.getaddrinfo('example.org', 443)\n"
    (finding,) = refused(tmp_path, wheel(tmp_path, source))
    assert "gaierror" in finding.message


def test_a_check_of_ones_own(tmp_path: Path) -> None:
    """A declared check runs in the environment, with its programs first on the PATH, instead of the imports."""
    tool = make_wheel(
        tmp_path,
        "demo",
        "1.0",
        modules={"demo/__init__.py": "def main():\n    print('hello')\n", "demo/broken.py": "1 / 0\n"},
        entry_points={"demo-tool": "demo:main"},
    )
    check = (
        'test "$(demo-tool)" = hello && python -c "import demo, sys; assert sys.prefix == \'$VIRTUAL_ENV\'"'
    )
    done = packed(tmp_path, tool, command=check)
    assert [(r.ref, r.result) for r in done.bundle.rehearsals] == [("lab/here", "passed")]


def test_a_check_that_fails_says_what_it_said(tmp_path: Path) -> None:
    """A failing check ends with 12, its exit code and its words."""
    (finding,) = refused(tmp_path, wheel(tmp_path, ""), command="echo the GPU is missing; exit 3")
    assert "exited with 3" in finding.message
    assert "the GPU is missing" in finding.message


def test_a_check_sees_no_index_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check runs caged, without this machine's pip settings and without the passwords of indexes."""
    for name in ("HAVERSACK_INDEX_MAIN_PASSWORD", "UV_INDEX_MAIN_PASSWORD", "PIP_INDEX_URL", "PYTHONPATH"):
        monkeypatch.setenv(name, "leak")
    command = (
        "! env | grep leak && ! python -c 'import socket; socket.create_connection((\"192.0.2.1\", 80), 5)'"
    )
    assert packed(tmp_path, wheel(tmp_path, ""), command=command).findings == ()


def test_a_rehearsal_is_not_repeated(tmp_path: Path) -> None:
    """What passed with the same bytes and the same Python is not rehearsed again, and keeps its time."""
    proof = tmp_path / "count"
    demo = wheel(tmp_path, "")
    first = packed(tmp_path, demo, command=f"echo x >> {proof}")
    shutil.rmtree(tmp_path / "bundle")
    second = packed(tmp_path, demo, command=f"echo x >> {proof}")
    assert proof.read_text() == "x\n"
    assert first.bundle.rehearsals == second.bundle.rehearsals


def test_a_failed_rehearsal_is_repeated(tmp_path: Path) -> None:
    """A failure is not remembered: once its cause is mended the same pack goes through."""
    demo = wheel(tmp_path, "")
    mended = tmp_path / "mended"
    refused(tmp_path, demo, command=f"test -e {mended}")
    mended.touch()
    assert packed(tmp_path, demo, command=f"test -e {mended}").bundle.rehearsals[0].result == "passed"


def test_no_rehearsal_stands_in_the_manifest(tmp_path: Path) -> None:
    """Whoever packs without a rehearsal says so to everybody who reads the manifest."""
    packed(tmp_path, wheel(tmp_path, "1 / 0\n"), rehearsing=False)
    manifest, _ = layout.read((tmp_path / "bundle" / "volume-001" / "bundle.json").read_bytes())
    assert [(r.ref, r.result) for r in manifest.rehearsals] == [("lab/here", "off")]
    assert "--no-rehearse" in manifest.rehearsals[0].detail


def test_a_python_that_is_not_here_is_a_note(tmp_path: Path) -> None:
    """A target whose Python this machine lacks is packed, and the manifest says why it was not rehearsed."""
    minor = next(
        minor
        for minor in (f"3.{n}" for n in range(30, 40))
        if find(minor, tiny.inside(tmp_path / "i")) is None
    )
    done = packed(tmp_path, wheel(tmp_path, ""), targets=[here(python=minor)])
    assert [(r.result, r.detail) for r in done.bundle.rehearsals] == [
        ("skipped", f"there is no Python {minor} on this machine")
    ]
    assert [(finding.code, finding.blocking) for finding in done.findings] == [("rehearsal-skipped", False)]


def test_a_foreign_target_is_a_note(tmp_path: Path) -> None:
    """A target that cannot run here is packed, and the manifest says why it was not rehearsed."""
    done = packed(tmp_path, wheel(tmp_path, ""), targets=[Target("here", "windows-amd64", "3.11")])
    assert [r.result for r in done.bundle.rehearsals] == ["skipped"]
    assert "does not run on this machine" in done.bundle.rehearsals[0].detail


def test_pip_checks_rule_is_asked(tmp_path: Path) -> None:
    """An environment that lacks what one of its distributions requires is found out by pip check's rule."""
    wheels = [make_wheel(tmp_path, "alone", "1.0", requires=["absent>=2"])]
    inside = tiny.outside(tmp_path / "store")
    artifacts = artifacts_of(wheels, "lab/here")
    with inside.store.exclusive():
        for artifact, path in zip(artifacts, wheels, strict=True):
            inside.store.add(artifact.digest, [path.read_bytes()])
    install(artifacts, tmp_path / "env", inside.python, inside)
    (finding,) = check(artifacts, tmp_path / "env", None, "lab/here", inside, caged=True)
    assert finding.code == "rehearsal-failed"
    assert "pip check" in finding.message
    assert "absent" in finding.message


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rehearsal, passed or failed, leaves no environment in the folder for temporary files."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", None)
    demo = wheel(tmp_path, "")
    with pytest.raises(HaversackError):
        packed(tmp_path, demo, command="false")
    packed(tmp_path, demo, command="true")
    assert list(scratch.iterdir()) == []
