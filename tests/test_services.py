"""Services of a control machine: what people may say of them, and what systemd makes of that."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from haversack.services import nix, text
from haversack.services.description import Option
from haversack.services.machine import listens, says_the_same
from haversack.services.values import Values, fault, fill, secrets
from tests.support.services import (
    AWAY,
    BROKEN,
    COMMANDS,
    GUIDE,
    HOSTILE,
    ORIGIN,
    PACKAGE,
    PEM,
    SITES,
    WARNED,
    WRONG,
    Told,
    directives,
    nested,
    options,
    sentence,
    site,
    tell,
    write,
)

OPTIONS = options()
NAMES = [f"{name}.{path}" for name, path, _ in OPTIONS]
# Older ones than systemd 254 say that they do not know the two, and do the rest.
UNKNOWN = {
    "Unknown key 'RestartSteps' in section [Service], ignoring.",
    "Unknown key 'RestartMaxDelaySec' in section [Service], ignoring.",
}


def test_the_issue_is_spelled_as_it_is() -> None:
    """Every option of the guide exists under its name, and its first example has no fault."""
    told = tell("skypilot", GUIDE)
    assert told.wrong == ()
    assert told.failed() == []


@pytest.mark.parametrize(("name", "path", "option"), OPTIONS, ids=NAMES)
def test_every_option_is_described_and_its_values_are_its_own(name: str, path: str, option: Option) -> None:
    """An option has a sentence, a default that its type takes (or null), and an example that it takes."""
    assert re.fullmatch(r"[A-Z0-9h][^\n]*\.", option.description)
    assert "  " not in option.description
    table = path.rpartition(".")[0]
    assert not table or table in nix.SERVICES[name].tables
    if option.type == "package":
        assert option.default is None
    elif option.nullable:
        assert option.default is None
        assert option.example is not None, "without an example nobody knows what to write"
    else:
        assert fault(option, option.default) == ""
    if option.example is not None:
        assert fault(option, option.example) == ""
    assert (option.type == "enum") <= (option.default in option.choices)


@pytest.mark.parametrize("name", nix.SERVICES)
def test_enabling_is_enough(name: str) -> None:
    """A service that is only enabled has no fault, no failed assertion and no warning."""
    told = tell(name, {"enable": True})
    assert (told.wrong, told.failed(), told.failed(block=False)) == ((), [], [])


@pytest.mark.parametrize(("name", "path", "option"), OPTIONS, ids=NAMES)
def test_nothing_that_systemd_would_read_otherwise_is_taken(name: str, path: str, option: Option) -> None:
    """No text with a line break, blank, quote, specifier or variable gets into a unit by any option."""
    for bad in HOSTILE:
        match option.type:
            case "lines" | "free":
                continue
            case "words":
                assert fault(option, [bad]), bad
            case "paths":
                assert fault(option, {option.choices[0]: bad}), bad
                assert bad == "-v" or fault(option, {option.choices[0]: f"/x/{bad}"}), bad
            case "path" | "package":
                assert fault(option, bad), bad
                assert bad == "-v" or fault(option, f"/x/{bad}"), bad
            case _:
                assert fault(option, bad), bad


@pytest.mark.parametrize(("path", "value", "says"), WRONG)
def test_a_wrong_value_is_told_by_its_place(path: str, value: Any, says: str) -> None:
    """What an option does not take is named with its path and what it would take."""
    wrong = tell("skypilot", nested(path, value)).wrong
    assert [place for place, _ in wrong] == [path]
    assert wrong[0][1].startswith(says)


def test_every_wrong_value_is_told_at_once() -> None:
    """One look tells all that is wrong, not the first thing."""
    given = {"enable": 1, "webUI": {"port": 0, "prot": 1}, "user": "a b"}
    assert {path for path, _ in tell("skypilot", given).wrong} == {
        "enable",
        "webUI.port",
        "webUI.prot",
        "user",
    }


@pytest.mark.parametrize(("name", "given", "says"), [*BROKEN, *WARNED])
def test_each_assertion_is_broken_by_what_it_is_about(name: str, given: Mapping[str, Any], says: str) -> None:
    """What must hold does not hold for a bad value, and the sentence says what and what to do."""
    told = tell(name, {"enable": True, **given})
    assert told.wrong == ()
    said = told.failed(block=(name, given, says) in BROKEN)
    assert sum(one.startswith(says) for one in said) == 1


def test_no_assertion_is_without_its_breach() -> None:
    """Every assertion and every warning of every service is broken by one of the values above."""
    broken = {
        (name, one.message)
        for name, given, _ in (*BROKEN, *WARNED)
        for told in [tell(name, {"enable": True, **given})]
        for one in told.service.assertions
        if not told.values.test(one.test)
    }
    assert broken == {(name, one.message) for name, told in nix.SERVICES.items() for one in told.assertions}


@pytest.mark.parametrize(
    "given",
    [
        {"enableWebUI": False, "systemdServices": False},
        {"enableWebUI": False, "endpoint": "https://far.example/sky", "webUI": {"port": 80}},
        {"enableWebUI": False, "endpoint": "http://[fd00::1]:65535/sky"},
        {"group": "research", "monitoring": {"host": "::"}, "mirror": "https://mirror.example/haversack/"},
        {"monitoring": {"host": "control-1.site.example"}, "logsDir": "/var/log/sky"},
        {"extraEnvironment": "A=b~c:d~\nB='~/x'\nC=::/x:\nD=\"~\""},
        {"mirror": "https://[2001:db8::7]", "proxy": "http://[::ffff:10.0.0.1]:3128/"},
        {"monitoring": {"metricsPort": 8080}},
        {"config": {"admin_policy": "x.Y"}},
        {"extraEnvironment": "export AWS_WEB_IDENTITY_TOKEN_FILE=/run/token\nTOKENIZERS_PARALLELISM=1"},
        {
            "config": {
                "kubernetes": {
                    "pod_config": {
                        "spec": {
                            "automountServiceAccountToken": False,
                            "imagePullSecrets": [{"name": "regcred"}],
                            "volumes": [{"name": "v", "secret": {"secretName": "certs"}}],
                            "containers": [
                                {
                                    "env": [
                                        {
                                            "name": "API_KEY",
                                            "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
                                        }
                                    ]
                                }
                            ],
                        }
                    }
                }
            }
        },
        {"extraEnvironment": "AWS_CONFIG_FILE=/etc/aws\nPYTHONPATH=/x\nHTTPS_PROXY=http://p:1\nMYHOME=/x"},
        {"config": {"kubernetes": {"pod_config": {"env": [{"name": "MAX_TOKENS", "value": "4096"}]}}}},
        {"config": {"limits": {"max_tokens": 4096, "bypass": "x", "kms_key_id": "x"}}},
        {"config": {"aws": {"password_file": "/run/x", "token": "", "secret": None}}},
        {"config": {"docker": {"run_options": ["--user=1000:1000", "--user root:root", "-P"]}}},
        {"config": {"a": ["pip install -U https://h.example/x.whl", "run --token=$TOKEN --max_tokens=5"]}},
    ],
)
def test_what_is_harmless_is_taken(given: Mapping[str, Any]) -> None:
    """Names of secrets are no secrets, ports of what does not run are free, and so on."""
    told = tell("skypilot", {"enable": True, **given})
    assert (told.wrong, told.failed()) == ((), [])


def test_a_secret_is_told_by_its_place() -> None:
    """Where in a table a secret is can be said without saying the secret."""
    table = {"a": [{"password": "x"}, {"b": PEM}], "env": [{"name": "API_KEY", "value": "y"}], "c": 1}
    assert list(secrets(table, "config")) == ["config.a.password", "config.a.b", "config.env.value"]


@pytest.mark.parametrize(("command", "hidden"), COMMANDS)
def test_a_password_in_a_command_is_a_secret(command: str, hidden: bool) -> None:
    """What is refused in `[platform.skypilot.aws]` is refused in `config`, for one region or for all."""
    for given in (command, {"us-west-2": command}):
        told = tell("skypilot", {"enable": True, "config": {"aws": {"ssh_proxy_command": given}}})
        assert bool(told.failed()) is hidden


@pytest.mark.parametrize("name", SITES)
def test_sites_have_the_units_they_asked_for(name: str) -> None:
    """No unit without its switch, and no file for what there is not."""
    told = site(name)
    assert told.failed() == []
    units = {Path(path).name for path in told.files() if path.startswith(text.UNITS)}
    web, clusters = (
        {"skypilot-web-ui.service"},
        {"skypilot-cluster-manager.service", "skypilot-cluster-manager.timer"},
    )
    stop, monitor = {"skypilot-autostop.service", "skypilot-autostop.timer"}, {"skypilot-monitor.service"}
    assert (
        units
        == {
            "minimal": web | clusters,
            "guide": web | clusters | stop | monitor,
            "no services": set(),
            "endpoint elsewhere": clusters | stop | monitor,
            "air gap": web | clusters | monitor,
            "own places": web | monitor,
            "mirror": {"haversack.service"},
            "mirror with everything": {"haversack.service"},
        }[name]
    )
    starting = set(text.units(told.service, told.values))
    assert starting == units - {"skypilot-cluster-manager.service", "skypilot-autostop.service"}


def test_what_is_made_is_what_was_said() -> None:
    """Users, folders, configuration, variables, logins and rules of a site with everything."""
    files = site("air gap").files()
    assert all(
        content.startswith(f"# {ORIGIN}\n") for path, content in files.items() if text.COMMANDS not in path
    )
    assert directives(files["etc/systemd/system/skypilot-web-ui.service"])["Service"]["LoadCredential"] == [
        "aws:/run/secrets/aws",
        "azure:/run/secrets/azure",
        "gcp:/run/secrets/gcp",
    ]
    assert "LoadCredential" not in files["etc/systemd/system/skypilot-cluster-manager.service"]
    assert json.loads(files["etc/skypilot/config.yaml"].split("\n", 1)[1]) == {
        "admin_policy": "site_defaults.SiteDefaults"
    }
    assert (
        files["etc/skypilot/environment"].split("\n", 1)[1] == 'A=b  \nB="c d"\nC=\'e f\'\nE=x=y\nF="it\'s"\n'
    )
    assert files["etc/profile.d/skypilot.sh"].split("\n", 1)[1] == (
        "export SKYPILOT_API_SERVER_ENDPOINT='http://[::1]:9443'\n"
        "export SKYPILOT_DISABLE_LOCAL_API_SERVER='1'\n"
        "export SKYPILOT_DISABLE_USAGE_COLLECTION='1'\n"
    )
    sudo = files["etc/sudoers.d/skypilot"].split("\n")[1:]
    assert [line.split(" ", 1)[0] for line in sudo if line] == ["alice", "bob.b"]
    assert "/usr/bin/systemctl start skypilot-cluster-manager.service" in sudo[0]
    assert "/usr/bin/systemctl status --no-pager skypilot-monitor.service" in sudo[0]
    assert "autostop" not in sudo[0]


@pytest.mark.parametrize("mirror", ["https://m.example", "https://m.example/", "https://m.example/x/"])
def test_indexes_are_where_the_mirror_serves_them(mirror: str) -> None:
    """However the mirror's address ends, its indexes are one folder below: // is not found there."""
    unit = tell("skypilot", {"enable": True, "mirror": mirror}).files()[
        f"{text.UNITS}/skypilot-web-ui.service"
    ]
    for name in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
        assert f'"{name}={mirror.rstrip("/")}/pypi/simple/"' in unit


def test_the_servers_own_metrics_are_for_this_machine_alone() -> None:
    """SkyPilot gives them at the host it listens at, without a login: at an open one there are none."""
    for host, given in (
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
    ):
        told = tell("skypilot", {"enable": True, "webUI": {"host": host}, "monitoring": {"enable": True}})
        units = {path: one for path, one in told.files().items() if path.startswith(text.UNITS)}
        assert ("--metrics-port" in units["etc/systemd/system/skypilot-web-ui.service"]) is given
        assert ("--server-metrics" in units["etc/systemd/system/skypilot-monitor.service"]) is given
        assert ("monitoring.serverPort" in listens(told.service, told.values)) is given
    away = tell("skypilot", {"enable": True, **AWAY, "webUI": {"host": "::"}, "monitoring": {"enable": True}})
    assert away.failed(block=False) == []


def test_the_monitor_reads_what_others_write() -> None:
    """State files are named to it where a unit writes them, and nowhere else."""
    unit = "etc/systemd/system/skypilot-{}.service"
    guide = site("guide").files()
    assert "--state /var/cache/skypilot/clusters.json" in guide[unit.format("monitor")]
    assert "--autostop-state /var/cache/skypilot/autostop.json" in guide[unit.format("monitor")]
    assert "--state /var/cache/skypilot/autostop.json" in guide[unit.format("autostop")]
    assert "state" not in site("own places").files()[unit.format("monitor")].partition("--server")[2].replace(
        "/srv/sky/state", ""
    )
    assert "autostop" not in site("air gap").files()[unit.format("monitor")]


def test_what_lies_where_a_link_belongs_is_left_alone(tmp_path: Path) -> None:
    """Logs and a configuration that somebody has there already are not removed, also not at the next start."""
    made = site("minimal").files()["etc/tmpfiles.d/skypilot.conf"]
    (tmp_path / "links.conf").write_text("".join(f"{x}\n" for x in made.splitlines() if x.startswith("L")))
    words = ["systemd-tmpfiles", f"--root={tmp_path}", "--create", str(tmp_path / "links.conf")]
    state = tmp_path / "var/lib/skypilot"
    (state / "sky_logs").mkdir(parents=True)
    (state / "sky_logs/run.log").write_text("of a person")
    (state / "config").mkdir()
    (state / "config/config.yaml").write_text("mine: 1")
    subprocess.run(words, check=True)
    assert (state / "sky_logs/run.log").read_text() == "of a person"
    assert (state / "config/config.yaml").read_text() == "mine: 1"
    (state / "sky_logs/run.log").unlink()
    (state / "sky_logs").rmdir()
    (state / "config/config.yaml").unlink()
    subprocess.run(words, check=True)
    assert [str((state / one).readlink()) for one in ("sky_logs", "config/config.yaml")] == [
        "/var/log/skypilot",
        "/etc/skypilot/config.yaml",
    ]


def test_without_units_nobody_may_do_anything_with_them() -> None:
    """A rule of sudoers without a command is a syntax error, with which sudo says no to everybody."""
    assert not [path for path in site("no services").files() if "sudoers" in path]


def test_a_user_of_ones_own_is_not_made() -> None:
    """Only the default user and group are made; a name that somebody chose is somebody's."""
    assert "etc/sysusers.d/skypilot.conf" not in site("own places").files()
    mixed = tell("skypilot", {"enable": True, "group": "research"}).files()["etc/sysusers.d/skypilot.conf"]
    assert mixed == f'# {ORIGIN}\nu skypilot -:research "SkyPilot" /var/lib/skypilot\n'


def test_everybody_has_the_command_with_what_logins_are_told(tmp_path: Path) -> None:
    """`sky` on everybody's path is the service's, and finds its server without a login; what somebody set stands."""
    real = tmp_path / "bin" / "sky"
    real.parent.mkdir()
    real.write_text('#!/bin/sh\necho "$SKYPILOT_API_SERVER_ENDPOINT $SKYPILOT_DISABLE_LOCAL_API_SERVER $*"\n')
    real.chmod(0o755)
    command = tmp_path / "sky"
    for name, own, said in (
        ("minimal", {}, "http://127.0.0.1:8080 1 status -a b c\n"),
        ("minimal", {"SKYPILOT_API_SERVER_ENDPOINT": "http://x:1"}, "http://x:1 1 status -a b c\n"),
        ("air gap", {}, "http://[::1]:9443 1 status -a b c\n"),
        ("no services", {}, "  status -a b c\n"),
    ):
        command.write_text(site(name, str(tmp_path)).files()["usr/local/bin/sky"])
        command.chmod(0o755)
        done = subprocess.run(
            [command, "status", "-a", "b c"], env=own, capture_output=True, check=True, text=True
        )
        assert done.stdout == said
    # Where the package's own is the one that everybody finds, ours would start itself for ever.
    assert "usr/local/bin/sky" not in tell("skypilot", {"enable": True}, "/usr/local").files()


def test_where_a_file_comes_from_is_no_other_file() -> None:
    """Of a script, too, the line that names the snapshot may differ; all others count, with the program that runs it."""
    script = site("minimal").files()["usr/local/bin/sky"]
    assert script.splitlines()[1] == f"# {ORIGIN}"
    assert says_the_same(script.encode(), script.replace(ORIGIN, "of another").encode())
    for old, new in (("/bin/sh", "/bin/bash"), ("over ssh", "by ssh"), ("exec", "echo")):
        assert not says_the_same(script.encode(), script.replace(old, new).encode())
    assert says_the_same(b"# one\na\n", b"# other\na\n")
    assert not says_the_same(b"# one\na\n", b"# one\nb\n")


def test_who_has_no_server_is_told_none() -> None:
    """Without services there is no address for logins to ask, where nobody would answer."""
    told = site("no services").files()["etc/profile.d/skypilot.sh"]
    assert "ENDPOINT" not in told
    # They may have servers of their own.
    assert "LOCAL" not in told
    assert (
        "'http://skypilot.site.example:8080'"
        in site("endpoint elsewhere").files()["etc/profile.d/skypilot.sh"]
    )


def test_variables_mean_the_same_to_systemd_and_to_a_shell(tmp_path: Path) -> None:
    """What a person writes as for a shell is read by systemd as a shell reads it."""
    lines = (
        "export A=b  \nB=\"c d\"\n  export  C='e f'\nE=x=y\nF=\"it's\"\nG=a#b\n# no\n\nI='a\"b'\nJ=a,b:c\n"
    )
    told = tell("skypilot", {"enable": True, "extraEnvironment": lines})
    assert told.failed() == []
    (tmp_path / "environment.d").mkdir()
    (tmp_path / "environment.d" / "one.conf").write_text(text.environment(lines))
    # The reader of EnvironmentFile= (parse_env_file), in a program that can be asked.
    generator = "/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator"
    bare = {"XDG_CONFIG_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    ours = subprocess.run([generator], env=bare, capture_output=True, text=True, check=True).stdout
    (tmp_path / "lines.sh").write_text(f"set -a\n{lines}\nexec env -0")
    said = subprocess.run(["sh", tmp_path / "lines.sh"], env={}, capture_output=True, text=True, check=True)
    wanted = dict(one.split("=", 1) for one in said.stdout.split("\0") if re.match("[A-J]=", one))
    # It prints values as a shell would read them.
    (tmp_path / "ours.sh").write_text(f"set -a\n{ours}\nexec env -0")
    read = subprocess.run(["sh", tmp_path / "ours.sh"], env={}, capture_output=True, text=True, check=True)
    found = dict(one.split("=", 1) for one in read.stdout.split("\0") if re.match("[A-J]=", one))
    assert len(wanted) == 8
    assert found == wanted


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stubs of the programs that units start, and the files of each site beside."""
    root = tmp_path_factory.mktemp("machine")
    for program in ("python", "haversack"):
        stub = root / "package" / "bin" / program
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.write_text("#!/bin/sh\n")
        stub.chmod(0o755)
    for name in SITES:
        write(site(name, str(root / "package")).files(), root / name)
    return root


def _units(folder: Path) -> Iterator[Path]:
    yield from sorted((folder / text.UNITS).glob("*"))


@pytest.mark.parametrize("name", [name for name in SITES if name != "no services"])
def test_systemd_reads_the_units_without_a_word(machine: Path, name: str) -> None:
    """systemd-analyze finds no fault in any unit; systemd before 254 ignores the two that make restarts slower."""
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True)
    old = int(version.stdout.split()[1]) < 254
    units = list(_units(machine / name))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    said = {line.rpartition(".service:")[2].split(": ", 1)[1] for line in done.stderr.splitlines()}
    assert (done.returncode, done.stdout) == (0, "")
    assert said == (UNKNOWN if old and "Restart=" in "".join(unit.read_text() for unit in units) else set())


@pytest.mark.parametrize("name", [name for name in SITES if name != "no services"])
def test_units_are_hardened(machine: Path, name: str) -> None:
    """Each service has an exposure of 2.0 or better, as systemd-analyze counts."""
    for unit in _units(machine / name):
        if unit.suffix == ".service":
            command = [
                "systemd-analyze",
                "security",
                "--offline=true",
                "--threshold=20",
                "--no-pager",
                str(unit),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-200:]


@pytest.mark.parametrize("name", SITES)
def test_no_line_is_anything_but_a_directive(name: str) -> None:
    """Every line of a unit is a section, a comment or a directive; quotes are around variables, % begins only %d/."""
    known = re.compile(
        r"""|\#\ .*|\[(Unit|Service|Timer|Install)\]|Description=[^"%]*
        |Environment="[A-Za-z_]+=(%d/[a-z]+|[^"'%$\\]*)"|[A-Z][A-Za-z]+=([^"'%\\]|%d/)*""",
        re.VERBOSE,
    )
    for path, content in site(name).files().items():
        if path.startswith(text.UNITS):
            assert [line for line in content.splitlines() if not known.fullmatch(line)] == []


def test_a_unit_never_waits_for_another_server_to_appear() -> None:
    """No unit requires another: what is down is told by its own state, and nothing is stopped with it."""
    for told in (site(name) for name in SITES):
        for path, content in told.files().items():
            if path.startswith(text.UNITS):
                assert {"Requires", "BindsTo", "PartOf"}.isdisjoint(directives(content)["Unit"]), path


def test_a_value_given_as_null_is_as_if_not_given() -> None:
    """Null is the default of options that may be null, and no value of others."""
    options_, wrong = fill(nix.SERVICES["skypilot"], {"caFile": None, "cluster": {"autoStop": None}})
    assert wrong == []
    assert options_["cluster.autoStop"] is None
    values = Values(options_, {"package": PACKAGE})
    assert Told(nix.SERVICES["skypilot"], values, ()).failed() == []
    assert sentence("{caFile}", options_) == ""
