"""Platforms in a declaration and in a lock; what each of them renders is tested beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from haversack.errors import DeclarationError, UsageError
from haversack.formats.declaration import parse
from haversack.kinds import keys, kinds
from haversack.model.finding import CODES
from haversack.model.lock import LockedEnvironment
from haversack.model.site import Site
from haversack.model.snapshot import SnapshotEnvironment
from haversack.model.target import ANY
from haversack.platforms import platforms, unreachable
from tests.support import tiny
from tests.support.site import Lab
from tests.support.wheels import make_wheel

PAGES = Path(__file__).parent.parent / "docs" / "platforms"
SLURM = '[platform.slurm]\nmodules = "/shared/modulefiles"\nenvs = ["lab"]\n'
LAB = 'kind = "pip"\nrequirements = ["requirements.txt"]\ntargets = ["linux-x86_64-py311"]\n'


def declared(folder: Path, text: str) -> Site:
    """A declaration with an environment ``lab``."""
    (folder / "requirements.txt").write_text("demo\n")
    (folder / "haversack.toml").write_text(f'[site]\nname = "lab"\n[env.lab]\n{LAB}{text}')
    return parse(folder / "haversack.toml", keys())


def test_contributing_names_all_that_a_platform_took() -> None:
    """Every file that speaks of the platform it shows is named there, and every file that it names is there."""
    page = PAGES.parent.parent / "CONTRIBUTING.md"
    text = page.read_text(encoding="utf-8").partition("## Add a platform")[2].partition("\n## ")[0]
    named = {page.parent / link for link in re.findall(r"\]\(([^)]+)\)", text)}
    assert [path for path in named if not path.is_file()] == []
    speak = {
        path
        for folder in ("src", "tests", "docs")
        for path in (page.parent / folder).rglob("*")
        if path.suffix in {".py", ".json", ".md"}
        and re.search(r"platform\.jupyter|render jupyter|\"jupyter\": \{", path.read_text(encoding="utf-8"))
    }
    golden = {path for path in speak if "golden" in path.parts}
    assert golden
    assert "`tests/golden/jupyter`" in text
    assert speak - golden - {Path(__file__)} <= named


def test_a_platform_is_an_environment_of_its_own_name(tmp_path: Path) -> None:
    """`[platform.slurm]` is for no machine in particular, and collides with no `[env.slurm]`."""
    site = declared(tmp_path, f"[env.slurm]\n{LAB}{SLURM}")
    assert [environment.name for environment in site.environments] == ["lab", "slurm", "platform.slurm"]
    platform = site.environments[-1]
    assert (platform.kind, platform.targets) == ("platform", (ANY.name,))
    assert platform.settings == {"modules": "/shared/modulefiles", "envs": ("lab",)}


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("[platform.slrum]\n", "platform.slrum", "did you mean slurm?"),
        ("[platform.nomad]\n", "platform.nomad", "known here are"),
        ("[platform]\nslurm = 1\n", "platform.slurm", "table"),
        ('[platform.slurm]\nmodules = "/m"\n', "platform.slurm", "envs"),
        (f"{SLURM}partiton = 'gpu'\n", "platform.slurm.partiton", "did you mean partition?"),
        (f"{SLURM}prefixes = 'shared/envs'\n", "platform.slurm.prefixes", "an absolute path"),
        (f"{SLURM}prefixes = '/shared/../envs'\n", "platform.slurm.prefixes", "an absolute path"),
        (f"{SLURM}prefixes = '/a:/b'\n", "platform.slurm.prefixes", "an absolute path"),
        (f"{SLURM}account = 'a b'\n", "platform.slurm.account", "an account"),
        (f'[env."platform.slurm"]\n{LAB}', 'env."platform.slurm"', "keeps"),
        (f'[env."Platform.x"]\n{LAB}', 'env."Platform.x"', "keeps"),
    ],
)
def test_what_is_no_platform_is_refused(tmp_path: Path, text: str, where: str, says: str) -> None:
    """A name or a key that nobody knows, or a value that cannot be, names its place and what to write."""
    with pytest.raises(DeclarationError) as caught:
        declared(tmp_path, text)
    assert caught.value.where == f"haversack.toml: {where}"
    assert says in f"{caught.value.message} {caught.value.remedy}"


def test_an_environment_that_is_not_declared_cannot_be_locked(tmp_path: Path) -> None:
    """A platform that names another environment blocks the lock, with the names there are."""
    with Lab(tmp_path / "lab") as lab:
        make_wheel(lab.wheels, "demo", "1.0")
        lab.declare("demo", more=SLURM.replace('"lab"', '"lap"'))
        done = lab("lock")
        assert done.returncode == 3
        assert "lap is no environment of this declaration [platform-setting]" in done.stderr
        assert "write one of lab" in done.stderr
    assert CODES["platform-setting"][0] is DeclarationError


def test_what_a_platform_cannot_be_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    """An option that the version does not have ends `lock` before an index is asked, however long that would take."""
    impossible = '[platform.skypilot]\nversion = "0.9.3"\n[platform.skypilot.aws]\nuse_ssm = true\n'
    with Lab(tmp_path / "lab") as lab:
        lab.declare("demo", more=impossible)
        done = lab("lock")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "which 0.9.3 does not have" in done.stderr
    assert "demo" not in done.stderr


def test_a_platform_is_not_installed(tmp_path: Path) -> None:
    """Whoever tries is told what renders it."""
    locked = LockedEnvironment("platform.slurm", ANY.name, "platform")
    environment = SnapshotEnvironment(locked, ANY, (), f"sha256:{'0' * 64}")
    inside = tiny.inside(tmp_path / "store")
    with pytest.raises(UsageError) as caught:
        kinds()["platform"].install(
            environment, tmp_path / "to", None, inside, home=tmp_path / "to", compile_bytecode=False
        )
    assert caught.value.remedy == "haversack render slurm"


def test_a_snapshot_without_the_platform_says_which_it_has(tmp_path: Path) -> None:
    """`render` and `doctor` of a platform that nobody declared say so."""
    made = tiny.tiny_bundle(tmp_path / "tiny")
    for words in (("render", "slurm", "-o", tmp_path / "out"), ("doctor", "slurm"), ("doctor", "nomad")):
        done = tiny.haversack(*words, store=made.store)
        assert done.returncode == 18, done.stderr
        assert "it has none" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "page",
    sorted(page for page in PAGES.glob("*.md") if page.stem in platforms()),
    ids=lambda page: page.stem,
)
def test_what_a_page_declares_is_accepted(tmp_path: Path, page: Path) -> None:
    """The declaration that a page of docs/platforms begins with is read by the strict parser."""
    text = re.findall(r"^```toml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "haversack.toml").write_text(text)
    (tmp_path / "node.target.toml").write_text('platform = "linux-x86_64"\npython = "3.11"\nglibc = "2.28"\n')
    (tmp_path / "analysis.txt").write_text("numpy\n")
    (tmp_path / "geo.yml").write_text("dependencies: [gdal]\n")
    site = parse(tmp_path / "haversack.toml", keys())
    assert f"platform.{page.stem}" in [environment.name for environment in site.environments]


HERE = [
    "localhost.", "[::ffff:127.0.0.1]", "[::1]", "[::]", "127.1", "0", "0.0.0.0", "2130706433", "0x7f000001", "017700000001",
    "localhost.localdomain", "ip6-localhost", "ip6-loopback", "localhost6.localdomain6", "a.LocalHost", "169.254.1.1",
]  # fmt: skip


@pytest.mark.parametrize("host", HERE)
def test_a_machine_itself_is_no_address_for_others(host: str) -> None:
    """In whatever spelling, a pod would ask itself; a name that only begins like it is somebody's."""
    assert [finding.blocking for finding in unreachable(f"https://{host}:8443")] == [True]
    assert [finding.blocking for finding in unreachable(f"http://{host}")] == [True]


@pytest.mark.parametrize("host", ["localhost.example.org", "10.0.0.1", "127.example", "mirror", "[fd00::1]"])
def test_other_machines_are_addresses(host: str) -> None:
    """What looks like the machine itself and is not."""
    assert unreachable(f"https://{host}") == []
