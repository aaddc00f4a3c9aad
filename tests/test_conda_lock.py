from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haversack.errors import DeclarationError
from haversack.kinds import Locked
from haversack.model.artifact import Artifact
from haversack.model.lock import Lock, merge_artifacts
from haversack.testing.contracts.refused import refused
from tests.support.channel import ChannelServer
from tests.support.conda import Package, make_conda, write_channel
from tests.support.site import Lab
from tests.support.wheels import make_wheel


def packages(folder: Path) -> list[Package]:
    """A Python that is none, two libraries and what needs a GPU, for two systems."""
    return [
        make_conda(folder, "python", "3.11.9", subdir="linux-64", depends=["__glibc >=2.17"]),
        make_conda(folder, "python", "3.12.4", subdir="linux-64", depends=["__glibc >=2.28"]),
        make_conda(folder, "python", "3.12.4", subdir="osx-arm64", depends=["__osx >=11.0"]),
        make_conda(
            folder, "numpy", "1.26.4", subdir="linux-64", depends=["python"], purls=["pkg:pypi/numpy"]
        ),
        make_conda(folder, "numpy", "1.26.4", subdir="osx-arm64", depends=["python"]),
        make_conda(folder, "words", "2.0", noarch="python", depends=["python >=3.11"]),
        make_conda(folder, "torch", "2.4", subdir="linux-64", build="cuda_0", depends=["__cuda >=12"]),
        make_conda(folder, "fast", "1.0", subdir="linux-64", depends=["__archspec 1 x86_64_v3"]),
    ]


class CondaLab(Lab):
    """A site with a conda channel on loopback beside its index."""

    def __init__(self, folder: Path, **words: Any) -> None:
        super().__init__(folder)
        self.channel = write_channel(folder / "conda" / "main", packages(folder / "conda" / "main"))
        self.server = ChannelServer(folder / "conda", **words)

    @property
    def url(self) -> str:
        """The address of the channel."""
        return f"{self.server.url}main"

    def write_env(self, text: str, keys: str = "", targets: str = '["gpu"]', auth: str = "none") -> None:
        """``environment.yml``, and the declaration of an environment ``lab`` of it."""
        self.write("environment.yml", text)
        self.site_of(f'file = "environment.yml"\nchannels = ["main"]\n{keys}', targets, auth)

    def site_of(self, keys: str, targets: str = '["gpu"]', auth: str = "none", kind: str = "conda") -> None:
        """The declaration of one environment with these keys."""
        self.write(
            "haversack.toml",
            f'[site]\nname = "lab"\n[index.main]\nurl = "{self.index.url}"\ndefault = true\n'
            f'[channel.main]\nurl = "{self.url}"\nauth = "{auth}"\n'
            '[target.gpu]\nplatform = "linux-x86_64"\nglibc = "2.28"\npython = "3.11"\n'
            '[target.mac]\nplatform = "macos-arm64"\npython = "3.11"\n'
            f'[env.lab]\nkind = "{kind}"\ntargets = {targets}\n{keys}\n',
        )


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[CondaLab]:
    """A lab for one test."""
    with CondaLab(tmp_path) as made, made.server:
        yield made


def versions(locked: Locked) -> dict[str, str]:
    """Name and version of everything, when nothing blocks."""
    assert [str(f) for f in locked.findings if f.blocking] == []
    return {a.name: a.version for a in locked.artifacts}


def only(lab: CondaLab, held: Lock | None = None) -> Locked:
    """What the one environment gets on its one target."""
    (locked,) = lab.lock_kind(held)
    return locked


def test_an_environment_file_is_solved_for_the_target(lab: CondaLab) -> None:
    """Every target gets what its own virtual packages allow, wherever the lock is made."""
    lab.write_env(
        "dependencies:\n- numpy\n- words\n", targets='["gpu", "mac", "linux-x86_64-glibc2.17-py311"]'
    )
    linux, mac, old = lab.lock_kind()
    assert versions(linux) == {"python": "3.12.4", "numpy": "1.26.4", "words": "2.0"}
    assert {a.facts["subdir"] for a in mac.artifacts} == {"osx-arm64", "noarch"}
    assert versions(old)["python"] == "3.11.9"
    assert linux.environment.roots == ("numpy", "words")
    for artifact in linux.artifacts:
        assert artifact.origin == f"{lab.url}/{artifact.facts['subdir']}/{artifact.filename}"


def test_a_missing_virtual_package_is_told_in_plain_words(lab: CondaLab) -> None:
    """The reason names what is wanted, what the target has, and the key that says so."""
    lab.write_env("dependencies:\n- torch\n")
    (finding,) = only(lab).findings
    assert finding.code == "no-solution"
    assert "__cuda >=12 is wanted, and the target gpu has no __cuda" in finding.message
    assert "set cuda of the target" in finding.remedy
    lab.write_env("dependencies:\n- fast\n")
    (finding,) = only(lab).findings
    assert "archspec" in finding.remedy
    text = (lab.root / "haversack.toml").read_text()
    lab.write("haversack.toml", text.replace('glibc = "2.28"', 'glibc = "2.28"\narchspec = "x86_64_v3"'))
    assert versions(only(lab)) == {"fast": "1.0"}
    lab.write_env("dependencies:\n- torch\n")
    text = (lab.root / "haversack.toml").read_text()
    lab.write("haversack.toml", text.replace('glibc = "2.28"', 'glibc = "2.28"\ncuda = "12.4"'))
    assert versions(only(lab)) == {"torch": "2.4"}


def test_a_held_version_is_kept(lab: CondaLab) -> None:
    """A newer package in the channel moves nothing that was locked, until the lock is upgraded."""
    lab.write_env("dependencies:\n- words\n")
    first = only(lab)
    site = lab.site()
    lock = Lock(site.name, site.digest, site.targets, (first.environment,), merge_artifacts(first.artifacts))
    newer = make_conda(lab.channel, "words", "2.1", noarch="python", depends=["python"])
    write_channel(lab.channel, [*packages(lab.channel), newer])
    assert versions(only(lab, lock))["words"] == "2.0"
    assert versions(only(lab))["words"] == "2.1"


def test_a_pip_section_takes_what_conda_has_not(lab: CondaLab) -> None:
    """Wheels are resolved for the Python among the packages; what conda provides is not brought twice."""
    make_wheel(lab.wheels, "extra", "1.0", requires=["numpy>=1.20", "small"])
    make_wheel(lab.wheels, "small", "0.1")
    make_wheel(lab.wheels, "numpy", "1.26.4")
    make_wheel(lab.wheels, "numpy", "2.0.0")
    lab.write_env("dependencies:\n- numpy\n- pip:\n  - extra\n  - -r more.txt\n")
    lab.write("more.txt", "small==0.1\n")
    locked = only(lab)
    assert versions(locked) == {"python": "3.12.4", "numpy": "1.26.4", "extra": "1.0", "small": "0.1"}
    assert sorted(a.name for a in locked.artifacts if a.kind == "wheel") == ["extra", "small"]
    assert "pip: extra" in locked.environment.roots


def test_a_version_that_is_none_of_pythons_bounds_nothing(lab: CondaLab) -> None:
    """conda may call a version 2024h: such a package does not get in the way of the wheels."""
    odd = make_conda(lab.channel, "odd", "2024h", noarch="python", depends=["python"])
    write_channel(lab.channel, [*packages(lab.channel), odd])
    make_wheel(lab.wheels, "extra", "1.0")
    lab.write_env("dependencies:\n- odd\n- pip:\n  - extra\n")
    assert versions(only(lab)) == {"python": "3.12.4", "odd": "2024h", "extra": "1.0"}


def test_a_pip_section_without_python_is_told(lab: CondaLab) -> None:
    """A pip section needs a Python among the packages."""
    lab.write_env("dependencies:\n- python\n- pip:\n  - extra\n")
    make_wheel(lab.wheels, "extra", "1.0")
    assert versions(only(lab))["extra"] == "1.0"
    write_channel(lab.channel, [make_conda(lab.channel, "lone", "1.0")])
    lab.write_env("dependencies:\n- lone\n- pip:\n  - extra\n")
    assert "no python" in only(lab).findings[0].message


def test_channels_are_names_addresses_or_nothing(lab: CondaLab) -> None:
    """Names come from the declaration, and from the file without that; an address with a secret is refused unseen."""
    lab.write_env("channels: [main]\ndependencies:\n- words\n")
    lab.site_of('file = "environment.yml"')
    assert "words" in versions(only(lab))
    lab.site_of(f'file = "environment.yml"\nchannels = ["{lab.url}"]')
    assert "words" in versions(only(lab))
    lab.write("environment.yml", "dependencies:\n- main::words\n")
    assert "words" in versions(only(lab))
    lab.write("environment.yml", "dependencies:\n- words\n")
    lab.site_of('file = "environment.yml"')
    assert "no channel" in refused(DeclarationError, lab.lock_kind).message
    lab.site_of('file = "environment.yml"\nchannels = ["defaults"]')
    assert "defaults" in refused(DeclarationError, lab.lock_kind).message
    for secret in ("http://ada:hunter2@127.0.0.1:9/main", "http://127.0.0.1:9/t/hunter2/main"):
        lab.site_of(f'file = "environment.yml"\nchannels = ["{secret}"]')
        problem = refused(DeclarationError, lab.lock_kind)
        assert "hunter2" not in f"{problem}{problem.remedy}"


def test_a_channel_with_a_password(tmp_path: Path) -> None:
    """Credentials come from the environment; without them the error names the variables."""
    with CondaLab(tmp_path, username="ada", password="hunter2") as lab, lab.server:
        lab.write_env("dependencies:\n- words\n", auth="env")
        (finding,) = only(lab).findings
        assert "HAVERSACK_CHANNEL_MAIN_USERNAME" in finding.message
        keys = {"HAVERSACK_CHANNEL_MAIN_USERNAME": "ada", "HAVERSACK_CHANNEL_MAIN_PASSWORD": "hunter2"}
        (locked,) = lab.lock_kind(environ=keys)
        assert "words" in versions(locked)
        assert "hunter2" not in repr(locked)


def explicit(lab: CondaLab, *lines: str) -> None:
    """An ``@EXPLICIT`` file, declared."""
    lab.write("spec.txt", "\n".join(("# platform: linux-64", "@EXPLICIT", *lines)) + "\n")
    lab.site_of('file = "spec.txt"')


def test_an_explicit_file_takes_records_from_the_channel(lab: CondaLab) -> None:
    """An md5 is enough to name a package whose sha256 the channel tells, hotfixes and all."""
    made = {p.filename: p for p in packages(lab.channel) if p.subdir != "osx-arm64"}
    record = made["words-2.0-0.conda"].record
    write_channel(
        lab.channel,
        made.values(),
        patch=lambda r: r | ({"depends": ["python 3.11.*"]} if r["name"] == "words" else {}),
    )
    explicit(lab, f"{lab.url}/noarch/words-2.0-0.conda#{record['md5']}")
    locked = only(lab)
    assert versions(locked) == {"words": "2.0"}
    assert locked.artifacts[0].facts["record"]["depends"] == ["python 3.11.*"]
    assert locked.artifacts[0].digest == f"sha256:{record['sha256']}"


def test_an_explicit_file_with_other_digests_is_refused(lab: CondaLab) -> None:
    """A package whose digest the channel tells otherwise is not taken, by md5 or by sha256."""
    for digits in ("0" * 32, "sha256:" + "0" * 64):
        explicit(lab, f"{lab.url}/noarch/words-2.0-0.conda#{digits}")
        assert [f.code for f in only(lab).findings] == ["hash-refused"]


def test_a_package_that_its_channel_dropped(lab: CondaLab) -> None:
    """With a sha256 the record is read from the package; an md5 alone protects nothing."""
    made = {p.filename: p for p in packages(lab.channel) if p.subdir != "osx-arm64"}
    gone = made.pop("words-2.0-0.conda")
    write_channel(lab.channel, made.values(), removed=[gone])
    place = f"{lab.url}/noarch/words-2.0-0.conda"
    explicit(lab, f"{place}#{gone.record['md5']}")
    assert [f.code for f in only(lab).findings] == ["conda-unhashed"]
    explicit(lab, f"{place}#sha256:{gone.record['sha256']}")
    locked = only(lab)
    assert versions(locked) == {"words": "2.0"}
    assert locked.artifacts[0].facts["record"]["depends"] == ["python >=3.11"]
    assert locked.artifacts[0].facts["channel"] == lab.url


def test_a_package_of_another_platform_is_told(lab: CondaLab) -> None:
    """An explicit file is for one platform; the target of another gets a finding."""
    explicit(lab, f"{lab.url}/osx-arm64/numpy-1.26.4-0.conda#{'0' * 32}")
    (finding,) = only(lab).findings
    assert finding.code == "lock-platform"
    assert "osx-arm64" in finding.message


def conda_lock(lab: CondaLab, *entries: dict[str, Any], platforms: tuple[str, ...] = ("linux-64",)) -> None:
    """A ``conda-lock.yml``, declared."""
    head = {
        "content_hash": {},
        "channels": [{"url": "main", "used_env_vars": []}],
        "platforms": list(platforms),
        "sources": ["environment.yml"],
    }
    parts = {"version": 1, "metadata": head, "package": list(entries)}
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in parts.items())
    lab.write("conda-lock.yml", text)
    lab.site_of('file = "conda-lock.yml"')


def entry(lab: CondaLab, package: Package, **more: Any) -> dict[str, Any]:
    """A package as conda-lock writes it."""
    record = package.record
    return {
        "name": record["name"], "version": record["version"], "manager": "conda", "platform": "linux-64",
        "dependencies": {}, "url": f"{lab.url}/{package.subdir}/{package.filename}",
        "hash": {"md5": record["md5"], "sha256": record["sha256"]}, "category": "main", "optional": False, **more,
    }  # fmt: skip


def test_a_conda_lock_is_taken_over(lab: CondaLab) -> None:
    """Packages and wheels of the target's platform and the wished categories, at their very bytes."""
    made = {p.filename: p for p in packages(lab.channel) if p.subdir != "osx-arm64"}
    wheel = make_wheel(lab.wheels, "extra", "1.0")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    pip = {
        "name": "extra", "version": "1.0", "manager": "pip", "platform": "linux-64", "dependencies": {},
        "url": f"{lab.index.url}extra/{wheel.name}", "hash": {"sha256": digest}, "category": "main", "optional": False,
    }  # fmt: skip
    python, words = made["python-3.12.4-0.conda"], made["words-2.0-0.conda"]
    conda_lock(lab, entry(lab, python), entry(lab, words, category="dev", optional=True), pip)
    locked = only(lab)
    assert versions(locked) == {"python": "3.12.4", "extra": "1.0"}
    lab.site_of('file = "conda-lock.yml"\ncategories = ["main", "dev"]')
    assert versions(only(lab)) == {"python": "3.12.4", "words": "2.0", "extra": "1.0"}


def test_a_conda_lock_without_the_target_is_told(lab: CondaLab) -> None:
    """A lock that misses the target says which platforms it has, and how to add the other."""
    conda_lock(lab, platforms=("osx-arm64",))
    (finding,) = only(lab).findings
    assert finding.code == "lock-platform"
    assert "osx-arm64" in finding.message
    assert "linux-64" in finding.remedy


def test_an_environment_of_this_machine_is_taken_over(lab: CondaLab, tmp_path: Path) -> None:
    """Its conda-meta tells the packages; one without a sha256 is asked of its channel."""
    made = {p.filename: p for p in packages(lab.channel) if p.subdir != "osx-arm64"}
    meta = tmp_path / "prefix" / "conda-meta"
    meta.mkdir(parents=True)
    for filename, drop in (("python-3.12.4-0.conda", ""), ("words-2.0-0.conda", "sha256")):
        package = made[filename]
        record = {
            **package.record, "fn": filename, "channel": lab.url, "url": f"{lab.url}/{package.subdir}/{filename}",
            "files": ["lib/python3.12/site-packages/words-2.0.dist-info/METADATA"], "paths_data": {"paths": []}, "link": {"source": "/home/ada/pkgs", "type": 1},
        }  # fmt: skip
        record.pop(drop, None)
        (meta / f"{filename.removesuffix('.conda')}.json").write_text(json.dumps(record))
    for stem in ("words-2.0", "extra-1.0"):
        info = tmp_path / "prefix" / "lib" / "python3.12" / "site-packages" / f"{stem}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\n")
    make_wheel(lab.wheels, "extra", "1.0")
    make_wheel(lab.wheels, "extra", "1.1")
    lab.site_of(f'prefix = "{tmp_path / "prefix"}"')
    locked = only(lab)
    assert versions(locked) == {"python": "3.12.4", "words": "2.0", "extra": "1.0"}
    assert "/home/ada" not in repr(locked)
    lab.site_of(f'prefix = "{tmp_path}"')
    assert "conda-meta" in refused(DeclarationError, lab.lock_kind).message


def test_a_record_without_sha256_is_told(lab: CondaLab) -> None:
    """A channel that names only an md5 cannot be trusted with what crosses."""

    def patch(record: dict[str, Any]) -> dict[str, Any]:
        record.pop("sha256")
        return record

    write_channel(lab.channel, packages(lab.channel), patch=patch)
    lab.write_env("dependencies:\n- torch\n", keys="")
    text = (lab.root / "haversack.toml").read_text()
    lab.write("haversack.toml", text.replace('glibc = "2.28"', 'glibc = "2.28"\ncuda = "12.4"'))
    (finding,) = only(lab).findings
    assert finding.code == "conda-unhashed"
    assert "md5" in finding.message


def test_a_channel_that_is_down_is_a_finding(lab: CondaLab) -> None:
    """Other environments are told of at the same time, so this is no error of its own."""
    lab.server.fail("repodata", 503)
    lab.write_env("dependencies:\n- words\n")
    (finding,) = only(lab).findings
    assert finding.code == "fetch-failed"
    assert lab.url in finding.message


def test_locking_twice_gives_the_same(lab: CondaLab) -> None:
    """An unchanged environment.yml gives equal artifacts."""
    lab.write_env("dependencies:\n- numpy\n- words\n")

    def key(artifact: Artifact) -> str:
        return artifact.filename

    assert sorted(only(lab).artifacts, key=key) == sorted(only(lab).artifacts, key=key)


@pytest.mark.parametrize("end", ["", "/", "/main"])
def test_no_token_is_taken_from_anywhere(lab: CondaLab, end: str) -> None:
    """A token in a channel of the file, of the declaration, or of a specification is refused unrepeated."""
    url = f"{lab.server.url}t/hunter2{end}"
    lab.write_env(f"channels: ['{url}']\ndependencies: [numpy]\n")
    lab.site_of('file = "environment.yml"')
    problems = [refused(DeclarationError, lab.lock_kind)]
    lab.write_env(f"dependencies: ['{url}::numpy']\n")
    problems.append(refused(DeclarationError, lab.lock_kind))
    lab.write_env("dependencies: [numpy]\n")
    lab.site_of(f'file = "environment.yml"\nchannels = ["{url}"]')
    problems.append(refused(DeclarationError, lab.lock_kind))
    for problem in problems:
        assert "a token" in problem.message
        assert "hunter2" not in f"{problem} {problem.remedy}"


def test_pack_asks_for_a_new_lock_when_a_file_of_the_pip_section_changed(lab: CondaLab) -> None:
    """What ``-r`` takes in counts like the file itself, or pack would ship what nobody asks for any more."""
    make_wheel(lab.wheels, "small", "0.1")
    lab.write("more.txt", "small==0.1\n")
    lab.write_env("dependencies:\n- python\n- pip:\n  - -r more.txt\n")
    lab.lock()
    lab.write("more.txt", "small==0.2\n")
    done = lab("pack", "-o", "bundle")
    assert done.returncode != 0
    assert "changed since it was locked" in done.stderr
    assert "haversack lock" in done.stderr


def test_a_conda_lock_is_known_by_its_keys(lab: CondaLab) -> None:
    """JSON on one line is YAML too; an environment.yml that only speaks of those keys is none."""
    conda_lock(lab, *(entry(lab, p) for p in packages(lab.channel) if p.record["name"] == "words"))
    parts = [line.partition(": ") for line in (lab.root / "conda-lock.yml").read_text().splitlines()]
    lab.write("conda-lock.yml", json.dumps({key: json.loads(value) for key, _, value in parts}))
    assert versions(only(lab)) == {"words": "2.0"}
    lab.write_env("# package: metadata\ndependencies:\n- words\n")
    assert "words" in versions(only(lab))


@pytest.mark.parametrize("spec", ["numpy >>> 3", "numpy=[[", "*", "numpy[foo=bar]"])
def test_what_is_no_specification_is_a_finding(lab: CondaLab, spec: str) -> None:
    """It is named, with the reason, beside what is wrong with other environments."""
    lab.write_env(json.dumps({"dependencies": [spec]}))
    (finding,) = only(lab).findings
    assert finding.code == "no-solution"
    assert repr(spec) in finding.message


@pytest.mark.parametrize(
    "spec",
    ["https://conda.example.org/main/noarch/a-1-0.conda", "numpy[url=https://conda.example.org/a-1-0.conda]"],
)
def test_a_dependency_by_its_address_is_refused(lab: CondaLab, spec: str) -> None:
    """Rattler would fetch it at once, past the channels and past their hashes; an explicit file is for that."""
    lab.write_env(json.dumps({"dependencies": [spec]}))
    problem = refused(DeclarationError, lab.lock_kind)
    assert problem.where == "environment.yml"
    assert "@EXPLICIT" in problem.remedy


@pytest.mark.parametrize("name", ["a b[c", "[x]", "git@x:y"])
def test_what_is_no_channel_is_refused(lab: CondaLab, name: str) -> None:
    """In the list and before ``::``; what stands before an ``@`` may be a password and is not repeated."""
    lab.write("environment.yml", json.dumps({"channels": [name], "dependencies": ["words"]}))
    lab.site_of('file = "environment.yml"')
    problem = refused(DeclarationError, lab.lock_kind)
    assert problem.where == "environment.yml"
    assert ("@" in name) != (repr(name) in problem.message)
    lab.write_env(json.dumps({"dependencies": [f"{name}::words"]}))
    assert "channel" in refused(DeclarationError, lab.lock_kind).message


def test_a_channel_at_no_port_is_a_finding(lab: CondaLab) -> None:
    """An address that only looks like one is told as a channel that does not answer."""
    lab.write(
        "environment.yml", "channels: ['https://conda.example.org:99999/main']\ndependencies: [words]\n"
    )
    lab.site_of('file = "environment.yml"')
    (finding,) = only(lab).findings
    assert (finding.code, finding.blocking) == ("fetch-failed", True)
    assert "99999" in finding.message


def test_a_package_that_none_can_be_called_is_told(lab: CondaLab) -> None:
    """By its file, and the channel is asked for the others all the same."""
    explicit(
        lab,
        f"{lab.url}/linux-64/foo[-1.0-0.conda#{'0' * 32}",
        f"{lab.url}/noarch/words-2.0-0.conda#{'0' * 32}",
    )
    found = {f.code: f.subject for f in only(lab).findings}
    assert found.keys() == {"conda-invalid", "hash-refused"}
    assert found["conda-invalid"] == "foo[-1.0-0.conda in lab/gpu"


def test_an_environment_of_this_machine_that_says_nonsense(lab: CondaLab, tmp_path: Path) -> None:
    """An address that is none is a finding; JSON that is no record, or too deep to read, names its file."""
    meta = tmp_path / "prefix" / "conda-meta" / "a-1-0.json"
    meta.parent.mkdir(parents=True)
    lab.site_of(f'prefix = "{tmp_path / "prefix"}"')
    record = {
        "name": "a",
        "version": "1",
        "build": "0",
        "build_number": 0,
        "subdir": "noarch",
        "md5": "0" * 32,
    }
    for url in ("nonsense", 7, "https://[x/noarch/a-1-0.conda"):
        meta.write_text(json.dumps({**record, "url": url}))
        (finding,) = only(lab).findings
        assert (finding.code, finding.subject) == ("conda-invalid", "a in lab/gpu")
    for text in ("[" * 100_000, "[]", "{"):
        meta.write_text(text)
        problem = refused(DeclarationError, lab.lock_kind)
        assert problem.where == str(meta)
        assert "no record of conda's" in problem.message
