"""Lock and its indexes: bad ones, private ones, and those that the machine would rather have used."""

from __future__ import annotations

import base64
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest

from haversack.model.artifact import digest_of
from tests.support.index import Index
from tests.support.site import Lab, grep
from tests.support.wheels import make_wheel

USER = "ana@lab"
# With what URLs, netrc files and shells would trip over.
PASSWORD = "pa55/w:rd+%41~é"
NETRC_PASSWORD = "pa55-w0rd+%41~"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A site with one package."""
    with Lab(tmp_path / "lab") as made:
        make_wheel(made.wheels, "demo", "1.0")
        made.declare("demo")
        yield made


def test_an_index_of_html_alone(lab: Lab) -> None:
    """PEP 503 pages, which tell no sizes, are enough: the sizes are asked for when collecting."""
    (locked,) = lab.lock_kind()
    (artifact,) = locked.artifacts
    assert artifact.size is None
    lab.told("lock")
    told = lab.told("pack", "-o", lab.folder / "out", "--no-rehearse")
    assert told["bytes"] > (lab.wheels / artifact.filename).stat().st_size


def test_an_index_that_is_down(lab: Lab) -> None:
    """Locking against an index that nobody answers for ends with 6 and names the index."""
    lab.index.down()
    told = lab.told("lock", code=6)
    assert {finding["code"] for finding in told["findings"]} == {"fetch-failed"}
    assert lab.index.origin in told["findings"][0]["message"]


def test_an_index_that_is_overloaded(lab: Lab) -> None:
    """Locking against an index that answers 503 for ever ends with a finding of the fetch."""
    lab.index.fault("/simple/demo", status=503)
    ((code, text),) = lab.findings()
    assert code == "fetch-failed"
    assert "503" in text


def test_an_index_that_recovers(lab: Lab) -> None:
    """A passing failure of the index is not noticed by who locks."""
    fault = lab.index.fault("/simple/demo", status=503, times=1)
    assert lab.names() == [["demo-1.0-py3-none-any.whl"]]
    assert fault.hits == 1


def test_a_page_without_digests(lab: Lab) -> None:
    """Where an index names no sha256, the digest of what it gave while locking holds from then on."""
    body = b'<html><body><a href="../../files/demo-1.0-py3-none-any.whl">demo-1.0-py3-none-any.whl</a></body>'
    with Index({}) as other:
        other.answer = (  # type: ignore[method-assign]
            lambda path, accept: (
                ("text/html", body) if path == "/simple/demo/" else lab.index.answer(path, accept)
            )
        )
        text = (lab.root / "haversack.toml").read_text().replace(lab.index.url, other.url)
        (lab.root / "haversack.toml").write_text(text)
        (locked,) = lab.lock_kind()
    (artifact,) = locked.artifacts
    assert locked.findings == ()
    assert artifact.digest == digest_of((lab.wheels / artifact.filename).read_bytes())


@pytest.mark.parametrize("code", [401, 403])
def test_a_private_index_without_credentials(lab: Lab, code: int) -> None:
    """An index that asks for credentials nobody declared is a finding that says to set auth."""
    lab.index.fault("/simple/", status=code)
    told = lab.told("lock", code=6)
    assert {finding["code"] for finding in told["findings"]} == {"fetch-failed"}
    assert "auth" in told["findings"][0]["remedy"]


KEYRING = '''\
from keyring.backend import KeyringBackend
from keyring.credentials import SimpleCredential


class Keyring(KeyringBackend):
    """A keyring that knows one index."""

    priority = 9

    def set_password(self, service, username, password):
        raise NotImplementedError

    def get_password(self, service, username):
        return {password!r} if service == {url!r} and username == {user!r} else None

    def get_credential(self, service, username):
        return SimpleCredential({user!r}, {password!r}) if service == {url!r} else None
'''


def credentials(lab: Lab, auth: str, folder: Path) -> tuple[str, Mapping[str, str]]:
    """The password of a source of credentials, and the variables that bring it; files go to ``folder``."""
    if auth == "env":
        return PASSWORD, {"HAVERSACK_INDEX_MAIN_USERNAME": USER, "HAVERSACK_INDEX_MAIN_PASSWORD": PASSWORD}
    folder.mkdir()
    if auth == "netrc":
        (folder / "netrc").write_text(f"machine 127.0.0.1 login {USER} password {NETRC_PASSWORD}\n")
        (folder / "netrc").chmod(0o600)
        return NETRC_PASSWORD, {"NETRC": str(folder / "netrc")}
    if importlib.util.find_spec("keyring"):
        source = KEYRING.format(url=lab.index.url, user=USER, password=PASSWORD)
        (folder / "onekeyring.py").write_text(source)
        return PASSWORD, {"PYTHONPATH": str(folder), "PYTHON_KEYRING_BACKEND": "onekeyring.Keyring"}
    program = folder / "keyring"
    answer = f'{{"username": "{USER}", "password": "{PASSWORD}"}}'
    program.write_text(f"#!{sys.executable}\nprint({answer!r})\n")
    program.chmod(0o755)
    return PASSWORD, {"PATH": f"{folder}:{lab.environ['PATH']}"}


def shapes(password: str) -> list[bytes]:
    """The ways in which a password could leak."""
    pair = f"{USER}:{password}".encode()
    found = {
        password.encode(),
        quote(password, safe="").encode(),
        quote(password).encode(),
        base64.b64encode(pair),
        base64.urlsafe_b64encode(pair),
        base64.b64encode(password.encode()),
        password.encode("unicode_escape"),
    }
    return sorted(found)


@pytest.mark.parametrize("auth", ["env", "netrc", "keyring"])
def test_a_password_opens_the_index_and_is_written_nowhere(lab: Lab, tmp_path: Path, auth: str) -> None:
    """Credentials work for lock and pack, and stand in no file, no output and no other program's argv."""
    password, env = credentials(lab, auth, tmp_path / "secret")
    lab.index.auth = (USER, password)
    lab.declare("demo", auth=auth)
    said = []
    for words in (["lock"], ["lock", "--json"], ["pack", "-o", str(lab.folder / "out"), "--json"]):
        done = lab(*words, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout + done.stderr)
    assert lab.index.asked("/files/demo")
    # It never was refused and then tried with a password in some other place.
    leaks = shapes(password)
    assert [text for text in said if any(word.decode() in text for word in leaks)] == []
    assert grep(lab.folder, *leaks) == []


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("auth", ["env", "netrc"])
def test_a_refused_password_is_not_repeated(lab: Lab, tmp_path: Path, auth: str, as_json: bool) -> None:
    """When the index refuses the credentials, the error says so without any of them."""
    password, env = credentials(lab, auth, tmp_path / "secret")
    lab.index.auth = (USER, "another")
    lab.declare("demo", auth=auth)
    done = lab("lock", *(["--json"] if as_json else []), env=env)
    assert done.returncode == 6
    assert "demo" in done.stdout + done.stderr
    for word in shapes(password):
        assert word.decode() not in done.stdout + done.stderr
    assert grep(lab.folder, *shapes(password)) == []


def test_a_password_revoked_before_collecting(lab: Lab, tmp_path: Path) -> None:
    """When the credentials stop working between lock and pack, pack ends with 6 and repeats none of them."""
    password, env = credentials(lab, "env", tmp_path / "secret")
    lab.index.auth = (USER, password)
    lab.declare("demo", auth="env")
    lab.told("lock", env=env)
    lab.index.auth = (USER, "another")
    done = lab("pack", "-o", str(lab.folder / "out"), "--json", env=env)
    assert done.returncode == 6
    assert "401" in done.stdout
    assert "auth" in done.stdout
    assert [word for word in shapes(password) if word.decode() in done.stdout + done.stderr] == []


def test_a_password_is_only_for_its_own_index(lab: Lab, tmp_path: Path) -> None:
    """Files that an index keeps on another host are fetched without the index's password."""
    password, env = credentials(lab, "env", tmp_path / "secret")
    with (
        Index(lab.wheels) as files,
        Index(lab.wheels, auth=(USER, password), files_at=files.files_url) as index,
    ):
        lab.declare("demo", auth="env")
        text = (lab.root / "haversack.toml").read_text().replace(lab.index.url, index.url)
        (lab.root / "haversack.toml").write_text(text)
        lab.told("lock", env=env)
        lab.told("pack", "-o", lab.folder / "out", env=env)
        assert files.asked("/files/demo")
        assert {request.authorization for request in files.requests} == {None}


def test_credentials_that_are_not_there(lab: Lab) -> None:
    """Declared credentials that nobody set end with 6, naming the variables, before anything is asked."""
    lab.declare("demo", auth="env")
    told = lab.told("lock", code=6)
    assert "HAVERSACK_INDEX_MAIN_PASSWORD" in told["message"]
    assert lab.index.requests == []


def test_a_url_in_a_requirement_does_not_bring_its_password_along(lab: Lab) -> None:
    """Whoever writes a password into a requirement's URL finds it in no lock and in no error."""
    wheel = "demo-1.0-py3-none-any.whl"
    lab.index.auth = (USER, "hunter2secret")
    url = lab.index.file_url(wheel).replace("://", f"://{quote(USER)}:hunter2secret@")
    lab.declare(f"demo @ {url}")
    (locked,) = lab.lock_kind()
    assert [artifact.origin for artifact in locked.artifacts] == [lab.index.file_url(wheel)]
    lab.declare(f"demo @ {url.replace('demo-1.0', 'gone-1.0')}")
    assert "hunter2secret" not in str(lab.findings())


def evil_environment(lab: Lab, evil: Index, folder: Path) -> dict[str, str]:
    """Everything that steers pip and uv on a machine, pointed at another index and another Python."""
    config, victim = folder / "config", folder / "victim"
    uv_toml = f'[[index]]\nurl = "{evil.url}"\ndefault = true\n\n[pip]\nindex-url = "{evil.url}"\n'
    pip_conf = f"[global]\nindex-url = {evil.url}\nextra-index-url = {evil.url}\n"
    for name, text in {"uv/uv.toml": uv_toml, "pip/pip.conf": pip_conf}.items():
        (config / name).parent.mkdir(parents=True)
        (config / name).write_text(text)
    (folder / "pip.conf").write_text(pip_conf)
    (folder / "limits.txt").write_text("demo==9.9\n")
    (folder / ".netrc").write_text(f"machine 127.0.0.1 login {USER} password stray\n")
    victim.mkdir()
    find_links = str(evil.file_url("")).rstrip("/")
    return {
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(config),
        "PIP_INDEX_URL": evil.url,
        "PIP_EXTRA_INDEX_URL": evil.url,
        "PIP_FIND_LINKS": find_links,
        "PIP_CONFIG_FILE": str(folder / "pip.conf"),
        "PIP_CONSTRAINT": str(folder / "limits.txt"),
        "UV_DEFAULT_INDEX": evil.url,
        "UV_INDEX_URL": evil.url,
        "UV_INDEX": evil.url,
        "UV_EXTRA_INDEX_URL": evil.url,
        "UV_FIND_LINKS": str(folder / "links"),
        "UV_CONFIG_FILE": str(config / "uv" / "uv.toml"),
        "UV_CONSTRAINT": str(folder / "limits.txt"),
        "UV_OVERRIDE": str(folder / "limits.txt"),
        "UV_EXCLUDE_NEWER": "2001-01-01",
        "UV_PRERELEASE": "allow",
        "UV_OFFLINE": "1",
        "UV_PYTHON": str(victim / "bin" / "python"),
        "UV_PROJECT_ENVIRONMENT": str(victim),
        "VIRTUAL_ENV": str(victim),
        "CONDA_PREFIX": str(victim),
        "PYTHONHOME_": "",
    }


def test_the_machines_own_settings_change_nothing(lab: Lab, tmp_path: Path) -> None:
    """No variable and no file of pip's or uv's on the machine moves a version or is asked for a package."""
    with Index(tmp_path / "evil") as evil:
        make_wheel(tmp_path / "evil", "demo", "9.9")
        make_wheel(tmp_path / "evil", "only-evil", "1.0")
        make_wheel(tmp_path / "links", "demo", "9.9")
        env = evil_environment(lab, evil, tmp_path / "home")
        lab.write("uv.toml", f'[pip]\nindex-url = "{evil.url}"\n')
        plain = lab.lock().data
        (lab.root / "haversack.lock").unlink()
        assert lab("lock", env=env).returncode == 0
        assert (lab.root / "haversack.lock").read_bytes() == plain
        lab.declare("only-evil")
        told = lab.told("lock", code=5, env=env)
        assert [finding["code"] for finding in told["findings"]] == ["no-solution"]
        assert evil.requests == []
        assert list((tmp_path / "home" / "victim").iterdir()) == []


def test_settings_of_uv_in_the_project_change_nothing(lab: Lab, tmp_path: Path) -> None:
    """Indexes that a pyproject names for uv are not asked: the declaration alone says where files come from."""
    with Index(tmp_path / "evil") as evil:
        make_wheel(tmp_path / "evil", "demo", "9.9")
        lab.write(
            "pyproject.toml",
            '[project]\nname = "p"\nversion = "1"\ndependencies = ["demo"]\n'
            f'[[tool.uv.index]]\nname = "evil"\nurl = "{evil.url}"\ndefault = true\n[tool.uv.pip]\nindex-url = "{evil.url}"\n',
        )
        lab.declare(env='project = "."')
        assert lab.names() == [["demo-1.0-py3-none-any.whl"]]
        assert evil.requests == []


def test_a_second_index_is_asked_first(lab: Lab, tmp_path: Path) -> None:
    """A package of a further index comes from there, and no newer one of that name from the default index."""
    with Index(tmp_path / "own") as own:
        make_wheel(tmp_path / "own", "ours", "1.0")
        make_wheel(lab.wheels, "ours", "9.9")
        lab.declare("ours", "demo", more=f'[index.own]\nurl = "{own.url}"')
        assert lab.names() == [["demo-1.0-py3-none-any.whl", "ours-1.0-py3-none-any.whl"]]
