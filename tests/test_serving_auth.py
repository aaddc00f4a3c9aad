"""Who may read from the live server: users, tokens, rules by path, and the file they stand in."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haversack.errors import DeclarationError
from haversack.formats import repodata
from haversack.model.artifact import Artifact, digest_of
from haversack.model.lock import LockedEnvironment
from haversack.ports.run import scrubbed
from haversack.serving import auth
from haversack.serving.auth import DeniedError
from tests.support.conda import make_conda
from tests.support.live import Live, Reply, ask
from tests.support.tiny import Tiny, command, environ, haversack, tiny_bundle
from tests.support.viewing import stocked, wheel_of
from tests.support.wheels import make_wheel

TOKEN = "a-token-that-is-long-and-random"
ALICE, PASSWORD = "alice", "s3cret: it's ünusual"
NOW = 1_800_000_000.0


def basic(name: str, password: str) -> str:
    """The value of an Authorization field."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def rules_file(folder: Path) -> Path:
    """A file with a user of each kind, and rules."""
    path = folder / "auth.toml"
    path.write_text(
        auth.entry(ALICE, auth.hashed_password(PASSWORD), token=False, expires=None)
        + auth.entry("ci", auth.hashed_token(TOKEN), token=True, expires=None)
        + f'[[user]]\nname = "old"\ntoken = "{auth.hashed_token("old-" + TOKEN)}"\nexpires = 2020-01-01\n'
        + '[[rule]]\npath = "/pypi/"\nallow = ["alice", "ci"]\n'
        + '[[rule]]\npath = "/pypi/simple/beta/"\nallow = ["ci"]\n'
        + '[[rule]]\npath = "/v2/docker.io/team/"\nallow = ["alice"]\n'
        + '[[rule]]\npath = "/metrics"\nallow = []\n'
        + '[[rule]]\npath = "/healthz"\nallow = ["*"]\n'
    )
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A store with a snapshot."""
    return tiny_bundle(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def live(made: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with users and rules."""
    folder = tmp_path_factory.mktemp("auth")
    with Live(made.store, folder / "live", "--auth", rules_file(folder)) as server:
        yield server


def test_a_rule_lets_only_those_in_whom_it_names(live: Live) -> None:
    """Without a login 401, with one that is not named 403, with the right one the page; the longest path decides."""
    alice, ci = basic(ALICE, PASSWORD), f"Bearer {TOKEN}"
    for _ in range(2):
        assert live.get("pypi/simple/alpha/").status == 401
        assert live.get("pypi/simple/alpha/", authorization=alice).status == 200
        assert live.get("pypi/simple/alpha/", authorization=ci).status == 200
        assert live.get("pypi/simple/beta/", authorization=alice).status == 403
        assert live.get("pypi/simple/beta/", authorization=ci).status == 200
        assert live.get("metrics", authorization=alice).status == 403
        assert live.get("healthz").status == live.get("").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "@2026-11/pypi/simple/alpha/",
        "@current/pypi/simple/alpha/",
        "pypi",
        "pypi/",
        "pypi/simple/Alpha",
        "pypi/simple/alpha/index.html",
        "pyp%69/simple/alpha/",
    ],
)
def test_no_other_way_leads_around_a_rule(live: Live, path: str) -> None:
    """A rule holds in every snapshot and for every spelling of a path."""
    assert live.get(path).status == 401


def test_the_whole_snapshot_is_for_those_who_may_read_everything(live: Live, made: Tiny) -> None:
    """Every file lies in the registry once more: who is kept from any of them is kept from all of them there."""
    alice, ci = basic(ALICE, PASSWORD), f"Bearer {TOKEN}"
    digest = digest_of(next(made.wheels.glob("beta-*")).read_bytes())
    for path in (
        f"v2/haversack/snapshot/blobs/{digest}",
        f"v2/snapshot/blobs/{digest}?ns=haversack",
        f"@2026-11/v2/haversack/snapshot/blobs/{digest}",
        "v2/haversack/snapshot/manifests/current",
        "v2/haversack/",
    ):
        assert live.get(path).status == 401
        # Each may not read something: beta, or images of a team.
        assert live.get(path, authorization=alice).status == 403
        assert live.get(path, authorization=ci).status == 403
    named = live.raw(
        f"GET /v2/snapshot/blobs/{digest} HTTP/1.1\r\nHost: haversack\r\nConnection: close\r\n\r\n".encode()
    )
    assert named.startswith(b"HTTP/1.1 401")


def test_who_may_read_everything_reads_the_whole_snapshot(made: Tiny, tmp_path: Path) -> None:
    """A login that every rule allows; a rule of the server's own pages is no matter; without rules it is open."""
    path = tmp_path / "auth.toml"
    users = auth.entry("a", auth.hashed_token("t"), token=True, expires=None)
    users += auth.entry("b", auth.hashed_token("u"), token=True, expires=None)
    own = '[[rule]]\npath = "/metrics"\nallow = []\n'
    guarding = '[[rule]]\npath = "/pypi/"\nallow = ["a", "b"]\n[[rule]]\npath = "/v2/"\nallow = ["a"]\n'
    asked = "/v2/haversack/snapshot/tags/list"
    for rules, right in ((own, ("", "a", "b")), (own + guarding, ("a",))):
        path.write_text(users + rules)
        path.chmod(0o600)
        read = auth.read(path, time.time)
        for name in ("", "a", "b"):
            if name in right:
                read.check(auth.Login(name), asked)
            else:
                with pytest.raises(DeniedError):
                    read.check(auth.Login(name), asked)


def test_ways_around_a_rule_are_told_at_the_start(tmp_path: Path) -> None:
    """A wheel that a rule guards in the index and none where it came from is named; with a second rule it is not."""
    wheel = make_wheel(tmp_path / "made", "alpha", "1.0")
    origin = f"https://files.example.org/{wheel.name}"
    environment = LockedEnvironment("lab", "node", "pip")
    stocked(tmp_path / "store", [environment], [wheel_of(wheel, origin=origin)], [wheel.read_bytes()])
    path = tmp_path / "auth.toml"
    path.write_text('[[rule]]\npath = "/pypi/"\nallow = []\n')
    path.chmod(0o600)
    with Live(tmp_path / "store", tmp_path / "one", "--auth", path) as live:
        assert live.get(f"upstream/files.example.org/{wheel.name}").status == 200
        told = live.errors.read_text()
        assert "[rule-around]" in told
        assert (
            f"/pypi/: guards 1 files that /upstream/ shows to others too, as /upstream/files.example.org/{wheel.name}"
            in told
        )
    path.write_text('[[rule]]\npath = "/pypi/"\nallow = []\n[[rule]]\npath = "/upstream/"\nallow = []\n')
    with Live(tmp_path / "store", tmp_path / "two", "--auth", path) as live:
        assert "rule-around" not in live.errors.read_text()


def test_the_channel_of_all_is_a_way_around_a_rule_for_one(tmp_path: Path) -> None:
    """A package that a rule guards in its channel is open in the merged one, until a rule guards that too: it is told."""
    package = make_conda(tmp_path / "made", "tool", "1.0", files={"bin/tool": b"x"})
    channel = "https://conda.example.org/private"
    url = f"{channel}/{package.subdir}/{package.filename}"
    record = {**package.record, "fn": package.filename, "url": url, "channel": channel}
    artifact = repodata.artifact_of(record, "lab/node")
    assert isinstance(artifact, Artifact)
    environment = LockedEnvironment("lab", "node", "conda")
    stocked(tmp_path / "store", [environment], [artifact], [package.path.read_bytes()])
    path = tmp_path / "auth.toml"
    path.write_text('[[rule]]\npath = "/conda/conda.example.org/"\nallow = []\n')
    path.chmod(0o600)
    with Live(tmp_path / "store", tmp_path / "one", "--auth", path) as live:
        assert live.get(f"conda/conda.example.org/private/{package.subdir}/{package.filename}").status == 401
        assert live.get(f"conda/_merged/{package.subdir}/{package.filename}").status == 200
        assert "write a rule for /conda/_merged/ as well" in live.errors.read_text()
    path.write_text(path.read_text() + '[[rule]]\npath = "/conda/_merged/"\nallow = []\n')
    with Live(tmp_path / "store", tmp_path / "two", "--auth", path) as live:
        assert live.get(f"conda/_merged/{package.subdir}/repodata.json").status == 401
        assert "rule-around" not in live.errors.read_text()


def test_a_registry_asks_for_a_login_at_its_root(live: Live) -> None:
    """Clients send a login only where the root asked for one; a rule holds for every name of an image."""
    asked = live.get("v2/")
    assert asked.status == 401
    assert json.loads(asked.body)["errors"][0]["code"] == "UNAUTHORIZED"
    assert live.get("v2/", authorization=basic(ALICE, PASSWORD)).status == 200
    assert live.get("v2/docker.io/team/x/manifests/1").status == 401
    assert live.get("v2/docker.io/other/x/manifests/1").status == 404
    # What podman sends where it has no login for a registry that asks for one.
    assert live.get("v2/docker.io/other/x/manifests/1", authorization=basic("", "")).status == 404


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (basic(ALICE, "wrong"), "wrong user or password"),
        (basic("nobody", "wrong"), "wrong user or password"),
        (basic("ci", "wrong"), "wrong user or password"),
        ("Bearer wrong", "not known"),
        ("Bearer old-" + TOKEN, "expired"),
        (basic("old", "old-" + TOKEN), "expired"),
        ("Basic %%%", "cannot be read"),
        ("Basic \xe9", "cannot be read"),
        (basic("a\0b", "c"), "wrong user or password"),
        ("Digest x", "Basic and Bearer"),
    ],
)
def test_a_login_that_is_wrong_is_told(live: Live, header: str, reason: str) -> None:
    """A wrong login is refused everywhere, with a reason and both challenges, and no secret is logged."""
    for path in ("pypi/simple/alpha/", "", "v2/"):
        refused = live.get(path, authorization=header)
        assert refused.status == 401
        assert reason in refused.body.decode()
    raw = live.raw(f"GET / HTTP/1.0\r\nAuthorization: {header}\r\n\r\n".encode())
    assert b"WWW-Authenticate: Basic realm=" in raw
    assert b"\r\nWWW-Authenticate: Bearer realm=" in raw


def test_secrets_are_nowhere(live: Live) -> None:
    """The log names users and reasons, never a password, a token or what is stored of them."""
    live.get("pypi/", authorization=basic(ALICE, "my-wrong-word"))
    live.get("pypi/", authorization=basic(ALICE, PASSWORD))
    time.sleep(0.5)
    text = live.log.read_text() + live.errors.read_text()
    assert '"user":"alice"' in text
    assert "wrong user or password" in text
    live.get("pypi/", authorization=basic("my-password-as-name", ""))
    time.sleep(0.5)
    assert "my-password-as-name" not in live.log.read_text()
    for secret in ("my-wrong-word", "s3cret", TOKEN, "scrypt", basic(ALICE, PASSWORD)[6:]):
        assert secret not in text


def test_a_token_serves_as_a_password(live: Live, tmp_path: Path) -> None:
    """Clients that know only names and passwords give the token as one: pip in its address, curl, skopeo."""
    address = live.url.replace("http://", f"http://ci:{TOKEN}@")
    env = scrubbed(os.environ) | {"HOME": str(tmp_path), "no_proxy": "*"}
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    subprocess.run(
        [*pip, "--index-url", f"{address}pypi/simple/", "-d", tmp_path, "beta"], check=True, env=env
    )
    curl = ["curl", "-sSf", "--noproxy", "*", "-u", f"ci:{TOKEN}", f"{live.url}pypi/simple/beta/"]
    subprocess.run(curl, check=True, capture_output=True)


def test_a_password_is_quick_once_it_was_right(live: Live) -> None:
    """scrypt makes the first guess slow; a login that was right is remembered."""
    begun = time.monotonic()
    for number in range(100):
        assert live.get(f"pypi/simple/alpha/?{number}", authorization=basic(ALICE, PASSWORD)).status == 200
    assert time.monotonic() - begun < 3


def test_who_guesses_keeps_nobody_waiting(live: Live) -> None:
    """Beside many wrong passwords, pages and logins known before come at once; too many guesses are sent away."""
    alice = basic(ALICE, PASSWORD)
    assert live.get("pypi/simple/alpha/", authorization=alice).status == 200
    host, port = live.url.removeprefix("http://").strip("/").split(":")
    guessing = [socket.create_connection((host, int(port)), timeout=20) for _ in range(100)]
    for number, one in enumerate(guessing):
        login = basic(ALICE, f"guess-{number}").encode()
        one.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: " + login + b"\r\n\r\n")
    assert live.get("healthz").status == 200
    assert live.get("pypi/simple/alpha/?beside", authorization=alice).status == 200
    waiting = set(guessing) - set(select.select(guessing, [], [], 0)[0])
    assert len(waiting) > 5
    found = []
    for one in guessing:
        with one:
            found.append(int(one.recv(4096).split()[1]))
    assert (len(found) - found.count(503), set(found)) == (found.count(401), {401, 503})


def test_guesses_push_out_no_right_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that was right stays remembered however many wrong ones come after it."""
    rules = auth.read(rules_file(tmp_path), time.time)
    right = basic(ALICE, PASSWORD)
    rules.login(right)
    monkeypatch.setattr(auth, "_fits", lambda *_: False)
    for number in range(auth._RIGHT + auth._WRONG):
        with pytest.raises(DeniedError):
            rules.login(basic(ALICE, str(number)))
    assert rules.remembers(right)
    assert rules.login(right).name == ALICE
    assert not rules.remembers(basic(ALICE, "0"))
    assert len(rules._wrong) == auth._WRONG


def test_rules_are_read_anew(made: Tiny, tmp_path: Path) -> None:
    """After SIGHUP the file holds as it is now; if it is none any more, what was read before."""
    path = rules_file(tmp_path)
    with Live(made.store, tmp_path / "live", "--auth", path) as live:
        ci = f"Bearer {TOKEN}"
        assert live.get("pypi/simple/alpha/", authorization=ci).status == 200
        path.write_text('[[rule]]\npath = "/pypi/"\nallow = ["*"]\n')
        live.process.send_signal(signal.SIGHUP)
        assert _soon(lambda: live.get("pypi/simple/alpha/"), 200)
        assert live.get("pypi/simple/alpha/", authorization=ci).status == 401
        path.write_text("[[rules]]\n")
        live.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert live.get("pypi/simple/alpha/").status == 200
        assert "stays in use" in live.errors.read_text()


def _soon(call: object, status: int) -> bool:
    assert callable(call)
    for _ in range(60):
        reply: Reply = call()
        if reply.status == status:
            return True
        time.sleep(0.05)
    return False


def test_a_login_ends_while_it_is_remembered(tmp_path: Path) -> None:
    """A login is right until its moment and not after, however often it was right before."""
    path = rules_file(tmp_path)
    path.write_text(
        f'[[user]]\nname = "a"\ntoken = "{auth.hashed_token("t")}"\nexpires = 2027-01-15T08:00:00Z\n'
    )
    clock = [NOW - 1]
    rules = auth.read(path, lambda: clock[0])
    assert rules.login("Bearer t") == auth.Login("a", NOW)
    clock[0] = NOW
    with pytest.raises(DeniedError, match="expired"):
        rules.login("Bearer t")


# The file


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[[users]]", "users"),
        ("user = 1", "user"),
        ("[[user]]", "user[0].name"),
        ('[[user]]\nname = "a:b"\ntoken = "x"', "user[0].name"),
        ('[[user]]\nname = "a"', "user[0]"),
        ('[[user]]\nname = "a"\npassword = "plain"', "user[0]"),
        ('[[user]]\nname = "a"\npassword = "scrypt:3:8:1:AAAA:AAAA"', "user[0]"),
        ('[[user]]\nname = "a"\ntoken = "sha256:00"', "user[0]"),
        (f'[[user]]\nname = "a"\ntoken = "sha256:{"0" * 64}"\nexpires = "soon"', "user[0].expires"),
        (f'[[user]]\nname = "a"\ntoken = "sha256:{"0" * 64}"\nadmin = true', "user[0].admin"),
        (f'[[user]]\nname = "a"\ntoken = "sha256:{"0" * 64}"\n' * 2, "user[1]"),
        ('[[rule]]\npath = "pypi"\nallow = []', "rule[0].path"),
        ('[[rule]]\npath = "/pypi"', "rule[0].allow"),
        ('[[rule]]\npath = "/pypi"\nallow = "alice"', "rule[0].allow"),
        ("[[", "auth.toml"),
        ('[[rule]]\npath = "/@2026-11/pypi/"\nallow = []', "rule[0].path"),
        ('[[rule]]\npath = "/Files/"\nallow = []', "rule[0].path"),
        ('[[rule]]\npath = "/six/"\nallow = []', "rule[0].path"),
        ('[[rule]]\npath = "/pypi/six/"\nallow = []', "rule[0].path"),
        ('[[rule]]\npath = "/metrics/x"\nallow = []', "rule[0].path"),
        ('[[rule]]\npath = "/v2/team/"\nallow = []', "rule[0].path"),
        ('[[rule]]\npath = "/files/a%20b"\nallow = []', "rule[0].path"),
        ('[[rule]]\npath = "/files/../pypi/"\nallow = []', "rule[0].path"),
        ('[[rule]]\npath = "//pypi/"\nallow = []', "rule[0].path"),
        ('[[rule]]\npath = "/pypi/"\nallow = ["*", "alicf"]', "rule[0].allow[1]"),
        (
            '[[rule]]\npath = "/pypi/simple/six/"\nallow = ["*"]\n'
            '[[rule]]\npath = "/pypi/simple/Six/"\nallow = []',
            "rule[1].path",
        ),
    ],
)
def test_a_wrong_file_is_told_by_its_place(tmp_path: Path, text: str, place: str) -> None:
    """What is wrong is named with its place, and no secret of the file is repeated."""
    path = tmp_path / "auth.toml"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(DeclarationError) as wrong:
        auth.read(path, time.time)
    assert place in wrong.value.where
    assert "0" * 64 not in str(wrong.value)
    assert "plain" not in str(wrong.value)


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("/v2/127.0.0.1:15443/", "/v2/127.0.0.1_15443/team/x/tags/list"),
        ("/v2/Docker.io/team/", "/v2/docker.io/team/x/tags/list"),
        ("/v2/localhost/", "/v2/localhost/x/tags/list"),
        ("/v2/haversack/", "/v2/haversack/snapshot/tags/list"),
        ("/upstream/Files.example.org:8443/", "/upstream/files.example.org_8443/x.whl"),
        ("/conda/conda.example.org:1/forge/", "/conda/conda.example.org_1/forge/noarch/repodata.json"),
        ("/pypi/simple/Scoring_Model/", "/pypi/simple/scoring-model/index.html"),
        ("/pypi/files/", "/pypi/files/00/x"),
        ("/files/model (1).bin", "/files/model (1).bin"),
        ("/metrics/", "/metrics"),
        ("/pypi", "/pypi/simple/"),
        ("/", "/files/x"),
    ],
)
def test_a_rule_guards_what_it_names_however_it_is_spelt(tmp_path: Path, written: str, asked: str) -> None:
    """A host with its port, and the name of a project, mean what they mean where they come from."""
    path = tmp_path / "auth.toml"
    path.write_text(f'[[rule]]\npath = "{written}"\nallow = []\n')
    path.chmod(0o600)
    with pytest.raises(DeniedError):
        auth.read(path, time.time).check(auth.NOBODY, asked)


def test_rules_that_guard_nothing_stop_the_server_and_replace_none(made: Tiny, tmp_path: Path) -> None:
    """A server does not start with such a rule; on SIGHUP those of before hold on, and an error is logged."""
    path = rules_file(tmp_path)
    right = path.read_text()
    wrong = right + '[[rule]]\npath = "/Files/"\nallow = ["alicf"]\n'
    path.write_text(wrong)
    done = haversack("serve", "--auth", path, store=made.store)
    assert done.returncode == DeclarationError.exit_code
    assert "rule[5]" in done.stderr
    path.write_text(right)
    with Live(made.store, tmp_path / "live", "--auth", path) as live:
        path.write_text(wrong)
        live.process.send_signal(signal.SIGHUP)
        for _ in range(60):
            if "stays in use" in live.errors.read_text():
                break
            time.sleep(0.05)
        assert "rule[5]" in live.errors.read_text()
        assert live.get("pypi/simple/alpha/").status == 401


def test_a_user_may_be_added_whom_a_rule_names_already(made: Tiny, tmp_path: Path) -> None:
    """Rules may be written first; a login that would have ended before it began is refused."""
    path = tmp_path / "users.toml"
    path.write_text('[[rule]]\npath = "/pypi/"\nallow = ["bob"]\n')
    path.chmod(0o600)
    late = haversack("user", "add", path, "bob", "--token", "--expires", "2020-01-01", store=made.store)
    assert late.returncode == 2
    assert "--expires" in late.stderr
    assert "[[user]]" not in path.read_text()
    assert haversack("user", "add", path, "bob", "--token", store=made.store).returncode == 0
    auth.read(path, time.time)


def test_a_file_that_everybody_reads_is_refused(made: Tiny, tmp_path: Path) -> None:
    """Hashes of passwords are for the server alone; the server does not start."""
    path = rules_file(tmp_path)
    path.chmod(0o644)
    done = haversack("serve", "--auth", path, store=made.store)
    assert done.returncode == DeclarationError.exit_code
    assert "chmod 600" in done.stderr


def test_users_are_added_without_a_secret_on_the_command_line(made: Tiny, tmp_path: Path) -> None:
    """A password comes from a terminal or standard input, a token is made and shown once; the file is private."""
    path = tmp_path / "users.toml"
    argv = command("user", "add", path, "alice", "--password-stdin")
    subprocess.run(argv, input=f"{PASSWORD}\n", text=True, env=environ(made.store), check=True)
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(path.read_text() + "# a word of a person\n")
    added = haversack(
        "user", "add", path, "ci", "--token", "--expires", "2999-01-01", "--json", store=made.store
    )
    token = json.loads(added.stdout)["token"]
    text = path.read_text()
    assert "# a word of a person" in text
    assert token not in text
    assert PASSWORD not in text
    rules = auth.read(path, time.time)
    assert rules.login(basic("alice", PASSWORD)).name == "alice"
    assert rules.login(f"Bearer {token}").name == "ci"
    alone = haversack("user", "add", path, "more", "--token", store=made.store)
    assert auth.read(path, time.time).login(f"Bearer {alone.stdout.strip()}").name == "more"
    assert f"added more to {path}" in alone.stderr
    twice = haversack("user", "add", path, "ci", "--token", store=made.store)
    assert twice.returncode == DeclarationError.exit_code
    assert haversack("user", "add", path, "a:b", "--token", store=made.store).returncode != 0
    empty = subprocess.run(
        command("user", "add", path, "bob", "--password-stdin"),
        input="\n",
        text=True,
        env=environ(made.store),
    )
    assert empty.returncode == 2


def test_a_name_nobody_has_takes_as_long_as_a_wrong_password(tmp_path: Path) -> None:
    """Nobody learns by the clock which users there are."""
    rules = auth.read(rules_file(tmp_path), time.time)
    spans = []
    for name in ("alice", "nobody"):
        begun = time.monotonic()
        with pytest.raises(DeniedError):
            rules.login(basic(name, "wrong"))
        spans.append(time.monotonic() - begun)
    assert 0.2 < spans[0] / spans[1] < 5


def test_nobody_is_asked_without_rules(made: Tiny, tmp_path: Path) -> None:
    """A server without --auth looks at no login: clients send theirs to every host of a file."""
    with Live(made.store, tmp_path) as live:
        assert ask(live.url + "pypi/simple/", data=None, authorization="Basic x").status == 200
