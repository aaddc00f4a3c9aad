"""Where the credentials of an index come from, and that no error gives them away."""

from __future__ import annotations

import os
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from haversack.errors import FetchError, NotFoundError
from haversack.model.site import Credentials, Index
from haversack.ports import credentials
from haversack.ports.credentials import IndexCredentials, origin
from haversack.ports.fetch import HttpFetch
from tests.support import index as support

URL = "https://pkgs.example/simple/"


def index(auth: str, name: str = "in-house.gpu", url: str = URL) -> Index:
    """An index that says where its credentials are."""
    return Index(name, url, auth=auth)


def everything_said(error: BaseException) -> str:
    """All that a person or a log could see of an error, and of what it was raised for."""
    return "\n".join([str(error), repr(error), repr(error.__context__), *traceback.format_exception(error)])


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://Pkgs.Example/simple/", ("https", "pkgs.example", 443)),
        ("http://pkgs.example:8080", ("http", "pkgs.example", 8080)),
        ("HTTP://u:p@pkgs.example", ("http", "pkgs.example", 80)),
        ("https://[::1]:8443/x", ("https", "::1", 8443)),
        ("https://pkgs.example:0/", ("https", "pkgs.example", 0)),
        ("file:///srv", None),
        ("https:///x", None),
        ("https://pkgs.example:port/", None),
        ("https://[::1/x", None),
        ("https://thief.example\\@pkgs.example/", None),
        ("https://thief.example @pkgs.example/", None),
        ("https://pkgs\n.example/", None),
        ("pkgs.example", None),
    ],
)
def test_origins(url: str, place: tuple[str, str, int] | None) -> None:
    """Scheme, host and port make the origin; a URL two readers could read differently has none."""
    assert origin(url) == place


def test_an_index_without_auth_has_none() -> None:
    """Nothing is looked up, and nothing is sent, for an index that declares no auth."""
    found = IndexCredentials([index("none")], {})
    assert found.by_index("in-house.gpu") is None
    assert found.by_url(URL) is None


def test_an_unknown_source_is_an_error() -> None:
    """An index whose auth nobody knows gets no silent anonymous access."""
    with pytest.raises(FetchError, match="unknown auth 'kerberos'"):
        IndexCredentials([index("kerberos")], {}).by_url(URL)


def test_credentials_from_the_environment() -> None:
    """The variables carry the name of the index in capitals, everything else in it an underscore."""
    environ = {
        "HAVERSACK_INDEX_IN_HOUSE_GPU_USERNAME": "ann",
        "HAVERSACK_INDEX_IN_HOUSE_GPU_PASSWORD": "p@ss",
    }
    assert IndexCredentials([index("env")], environ).by_index("in-house.gpu") == Credentials("ann", "p@ss")


def test_a_missing_variable_is_named() -> None:
    """What is not set is named, all of it, and what is set is not shown."""
    with pytest.raises(FetchError) as caught:
        IndexCredentials([index("env")], {"HAVERSACK_INDEX_IN_HOUSE_GPU_USERNAME": "ann"}).by_index(
            "in-house.gpu"
        )
    assert str(caught.value) == "index in-house.gpu: HAVERSACK_INDEX_IN_HOUSE_GPU_PASSWORD is not set"
    with pytest.raises(FetchError, match="USERNAME and HAVERSACK_INDEX_IN_HOUSE_GPU_PASSWORD are not set"):
        IndexCredentials([index("env")], {}).by_url(URL)


@pytest.mark.parametrize(
    ("url", "known"),
    [
        ("https://pkgs.example/files/a.whl", True),
        ("https://PKGS.example:443/files/a.whl", True),
        ("http://pkgs.example/files/a.whl", False),
        ("https://pkgs.example:8443/files/a.whl", False),
        ("https://files.pkgs.example/a.whl", False),
        ("https://pkgs.example.thief.example/a.whl", False),
        ("https://pkgs.example@thief.example/a.whl", False),
        ("https://thief.example\\@pkgs.example/a.whl", False),
        ("file:///srv/a.whl", False),
    ],
)
def test_credentials_are_bound_to_the_origin(url: str, known: bool) -> None:
    """Only the scheme, host and port of the index get its credentials."""
    environ = {"HAVERSACK_INDEX_A_USERNAME": "ann", "HAVERSACK_INDEX_A_PASSWORD": "p"}
    found = IndexCredentials([index("none", "open", "http://pkgs.example/"), index("env", "a")], environ)
    assert (found.by_url(url) is not None) == known


def test_each_index_has_its_own() -> None:
    """Two indexes at two origins are not mixed up, and an unknown name is an error."""
    environ = {
        "HAVERSACK_INDEX_A_USERNAME": "ann",
        "HAVERSACK_INDEX_A_PASSWORD": "1",
        "HAVERSACK_INDEX_B_USERNAME": "bob",
        "HAVERSACK_INDEX_B_PASSWORD": "2",
    }
    found = IndexCredentials(
        [index("env", "a", "https://a.example/simple"), index("env", "b", "https://b.example/simple")],
        environ,
    )
    assert found.by_url("https://b.example/x") == found.by_index("b") == Credentials("bob", "2")
    assert found.by_index("a") == Credentials("ann", "1")
    with pytest.raises(NotFoundError, match="'c'"):
        found.by_index("c")


def test_an_open_index_does_not_hide_one_with_auth() -> None:
    """Where two indexes share an origin, the one that declares auth speaks for it."""
    environ = {"HAVERSACK_INDEX_A_USERNAME": "ann", "HAVERSACK_INDEX_A_PASSWORD": "1"}
    found = IndexCredentials([index("none", "open"), index("env", "a")], environ)
    assert found.by_url(URL) == Credentials("ann", "1")


def test_the_repr_of_credentials_shows_nothing() -> None:
    """Neither half is printed by accident, also not by what holds them."""
    environ = {"HAVERSACK_INDEX_A_USERNAME": "ann", "HAVERSACK_INDEX_A_PASSWORD": "hunter2"}
    found = IndexCredentials([index("env", "a")], environ)
    assert "hunter2" not in repr(found.by_index("a")) + repr(found)
    assert "ann" not in repr(found.by_index("a"))


def test_credentials_from_a_netrc_file(tmp_path: Path) -> None:
    """NETRC names the file, and the machine is the host of the index."""
    path = tmp_path / "my netrc"
    path.write_text(
        "machine other.example login bob password 1\nmachine pkgs.example login ann password p#ss\n"
    )
    found = IndexCredentials([index("netrc")], {"NETRC": str(path)})
    assert found.by_index("in-house.gpu") == Credentials("ann", "p#ss")


def test_the_netrc_file_at_home_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NETRC it is the file in the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("default login ann password word\n")
    assert IndexCredentials([index("netrc")], {}).by_url(URL) == Credentials("ann", "word")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"machine pkgs.example\nlogin ann\npasswort hunter2\n", "see line"),
        (b"hunter2\n", "see line"),
        (b"machine pkgs.example login ann password hunter2\nmacdef hunter2\nx", "see line"),
        (b"machine other.example login ann password hunter2\n", "no login and password for pkgs.example"),
        (b"machine pkgs.example login hunter2\n", "no login and password for pkgs.example"),
        (b"machine pkgs.example login ann password hunter2\xff\n", "it is not text"),
        (None, "No such file"),
    ],
)
def test_a_netrc_file_of_no_use_is_named(tmp_path: Path, content: bytes | None, problem: str) -> None:
    """The error names the file and the line, never a word of what is in it."""
    path = tmp_path / "netrc"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FetchError, match=problem) as caught:
        IndexCredentials([index("netrc")], {"NETRC": str(path)}).by_index("in-house.gpu")
    assert str(path) in caught.value.message
    assert "hunter2" not in everything_said(caught.value)


RING = """
from keyring.backend import KeyringBackend
from keyring.credentials import SimpleCredential

class Ring(KeyringBackend):
    priority = 1
    def get_password(self, service, username):
        return {("%s", "ann"): "pässword"}.get((service, username))
    def set_password(self, service, username, password):
        raise NotImplementedError
    def get_credential(self, service, username):
        return SimpleCredential("ann", "pässword") if service == "%s" else None
""" % (URL, URL)  # noqa: UP031 - braces are what it is made of


@pytest.fixture
def ring(tmp_path: Path) -> dict[str, str]:
    """An environment in which the real keyring program has a backend that knows one service."""
    pytest.importorskip("keyring")
    (tmp_path / "testring.py").write_text(RING, encoding="utf-8")
    return {**os.environ, "PYTHON_KEYRING_BACKEND": "testring.Ring", "PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("username", [None, "ann"])
def test_credentials_from_the_keyring(ring: dict[str, str], username: str | None) -> None:
    """The keyring tells both halves, or the password of the user whom the environment names."""
    if username:
        ring["HAVERSACK_INDEX_IN_HOUSE_GPU_USERNAME"] = username
    found = IndexCredentials([index("keyring")], ring).by_index("in-house.gpu")
    assert found == Credentials("ann", "pässword")


def test_a_module_in_the_folder_is_no_keyring(
    ring: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A keyring.py in the folder of the declaration does not run."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "keyring.py").write_text("raise SystemExit('somebody ran me')\n")
    monkeypatch.chdir(tmp_path / "here")
    assert IndexCredentials([index("keyring")], ring).by_url(URL) == Credentials("ann", "pässword")


@pytest.mark.parametrize("username", [None, "ann"])
def test_a_keyring_that_knows_nothing_is_an_error(ring: dict[str, str], username: str | None) -> None:
    """What to store is said when there is nothing."""
    if username:
        ring["HAVERSACK_INDEX_IN_HOUSE_GPU_USERNAME"] = username
    with pytest.raises(FetchError, match=r"the keyring gave nothing for https://b\.example/") as caught:
        IndexCredentials([index("keyring", url="https://b.example/")], ring).by_index("in-house.gpu")
    assert "keyring get https://b.example/ NAME" in caught.value.remedy


def program(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment whose keyring is a program on the PATH, not a module."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    path = folder / "keyring"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_keyring_on_the_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the module is not installed the program is, with the words every version knows."""
    environ = program(tmp_path, f'echo "$@" > {tmp_path}/words; echo word', monkeypatch)
    environ["HAVERSACK_INDEX_IN_HOUSE_GPU_USERNAME"] = "ann"
    assert IndexCredentials([index("keyring")], environ).by_url(URL) == Credentials("ann", "word")
    assert (tmp_path / "words").read_text() == f"get {URL} ann\n"


def test_without_a_keyring_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No module and no program: the error says what to install."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(FetchError, match="no keyring program") as caught:
        IndexCredentials([index("keyring")], {"PATH": str(tmp_path)}).by_index("in-house.gpu")
    assert "install `keyring`" in caught.value.remedy


@pytest.mark.parametrize(
    "script",
    [
        "echo hunter2 >&2; exit 1",
        "echo hunter2",
        """echo '{"password": "hunter2"}'""",
        """echo '["hunter2"]'""",
        r"printf 'hunter2\377'",
    ],
)
def test_a_keyring_that_talks_nonsense_tells_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """What a keyring prints is never repeated, whatever it is."""
    environ = program(tmp_path, script, monkeypatch)
    with pytest.raises(FetchError) as caught:
        IndexCredentials([index("keyring")], environ).by_index("in-house.gpu")
    assert "hunter2" not in everything_said(caught.value)


def test_a_keyring_that_waits_for_ever_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody there to unlock it: the run ends."""
    monkeypatch.setattr(credentials, "_KEYRING_SECONDS", 0.2)
    environ = program(tmp_path, "exec sleep 60", monkeypatch)
    with pytest.raises(FetchError, match="did not answer within"):
        IndexCredentials([index("keyring")], environ).by_index("in-house.gpu")


def test_a_keyring_that_cannot_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken program is named as that."""
    environ = program(tmp_path, "", monkeypatch)
    (tmp_path / "keyring").write_text("#!/no/such/interpreter\n")
    with pytest.raises(FetchError, match="cannot be started"):
        IndexCredentials([index("keyring")], environ).by_index("in-house.gpu")


def test_a_person_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen threads, by name and by URL, make one call."""
    environ = program(tmp_path, f"echo x >> {tmp_path}/calls; sleep 0.1; echo word", monkeypatch)
    environ["HAVERSACK_INDEX_IN_HOUSE_GPU_USERNAME"] = "ann"
    found = IndexCredentials([index("keyring")], environ)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: found.by_url(URL) if n % 2 else found.by_index("in-house.gpu"), range(16)))
    assert (tmp_path / "calls").read_text() == "x\n"


def test_an_index_that_asks_is_satisfied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetch and credentials together get a file from an index that wants both."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with support.Index({"a-1-py3-none-any.whl": b"wheel"}, auth=("ann", "hunter2")) as served:
        environ = {"HAVERSACK_INDEX_A_USERNAME": "ann", "HAVERSACK_INDEX_A_PASSWORD": "hunter2"}
        found = IndexCredentials([index("env", "a", served.url)], environ)
        assert HttpFetch(found.by_url).size(served.file_url("a-1-py3-none-any.whl")) == 5
        environ["HAVERSACK_INDEX_A_PASSWORD"] = "wrong"
        refused = IndexCredentials([index("env", "a", served.url)], environ)
        assert HttpFetch(refused.by_url).size(served.file_url("a-1-py3-none-any.whl")) is None
