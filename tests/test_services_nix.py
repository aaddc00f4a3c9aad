"""The modules of NixOS: evaluated with Debian's Nix, and compared with the units of any other machine."""

from __future__ import annotations

import ast
import json
import os
import random
import re
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import haversack
from haversack.services import nix, text
from haversack.services.layout import WIDTH
from haversack.services.values import fill
from haversack.skypilot import known
from tests.support.nix import FLAKE, MINILIB, MODULES, ROOT, Expression, evaluate, parse, run, shown
from tests.support.services import (
    BROKEN,
    COMMANDS,
    HOSTILE,
    PACKAGE,
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
)

# A checkout of nixpkgs, or of its lib alone; without one there is no test of it.
NIXPKGS = os.environ.get("HAVERSACK_NIXPKGS_LIB", "")
LIBS = ["", *([NIXPKGS] if NIXPKGS else [])]
PROGRAMS = re.compile(r"/nix/store/[a-z0-9]{32}-skypilot-programs")
KILL = "/nix/store/00000000000000000000000000000000-coreutils/bin/kill"


@pytest.mark.parametrize("name", nix.SERVICES)
def test_modules_are_what_is_described(name: str) -> None:
    """The committed modules are made of the description; CONTRIBUTING says how to write them out anew."""
    assert (MODULES / f"{name}.nix").read_text() == nix.module(nix.SERVICES[name])


@pytest.mark.parametrize("file", sorted([*ROOT.glob("*.nix"), *MODULES.rglob("*.nix")]), ids=str)
def test_every_file_is_nix_and_laid_out(file: Path) -> None:
    """Each file is read by Nix, indented by twos, without tabs, and as wide as nixfmt makes it but for long texts."""
    assert parse(file) == ""
    lines = file.read_text().split("\n")
    assert lines[-1] == ""
    depth = 0
    for number, line in enumerate(lines, 1):
        where = f"{file.name}:{number}"
        assert "\t" not in line, where
        assert line == line.rstrip(), where
        room = len(line) - len(line.lstrip())
        assert room % 2 == 0, where
        # Deeper by more than one step is nothing that a person would write.
        assert not line or room <= depth + 4, where
        depth = room if line else depth
        # nixfmt counts from where a line begins, and leaves long texts alone.
        assert len(line.lstrip()) <= WIDTH or '"' in line, where


@pytest.mark.parametrize("name", nix.SERVICES)
def test_options_are_documented_as_they_are_described(name: str) -> None:
    """Each option of the module has the default, example and sentence of the description, and a type."""
    told = run(
        f"""
        let
          shown = option: {{
            inherit (option) description;
            type = option.type.description;
            default = option.defaultText or option.default;
            example = option.example or null;
          }};
          each = builtins.mapAttrs (_: one: if one ? _type then shown one else {{ table = each one; }});
        in
        each ((import {MINILIB}).documented {MODULES}/{name}.nix "{name}")
        """
    )
    flat: dict[str, dict[str, Any]] = {}
    for key, one in told.items():
        inner = (
            {f"{key}.{deep}": shown_ for deep, shown_ in one["table"].items()}
            if "table" in one
            else {key: one}
        )
        flat |= inner
    described = nix.SERVICES[name].options
    assert set(flat) == set(described)
    for path, option in described.items():
        assert " ".join(flat[path]["description"].split()) == option.description
        assert flat[path]["example"] == _json(option.example)
        assert flat[path]["default"] == (
            f"pkgs.{name}" if option.type == "package" else _json(option.default)
        )


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("lib", LIBS, ids=lambda lib: "nixpkgs" if lib else "minilib")
def test_every_example_is_taken(lib: str) -> None:
    """Each option's example evaluates, with what must stand beside it, and no assertion fails."""
    beside: Mapping[str, dict[str, Any]] = {
        "endpoint": {"enableWebUI": False},
        "tls.certificate": {"tls": {"key": "/run/secrets/mirror.key"}},
        "tls.key": {"tls": {"certificate": "/etc/ssl/mirror.pem"}},
    }
    examples = [
        (name, path, option.example) for name, path, option in options() if option.example is not None
    ]
    given: list[tuple[str, Any]] = []
    for name, path, example in examples:
        table: dict[str, Any] = {"enable": True, **beside.get(path, {})}
        key, dot, inner = path.partition(".")
        table[key] = {**table.get(key, {}), inner: example} if dot else example
        given.append((name, table))
    for (name, path, _), found in zip(examples, evaluate(given, lib), strict=True):
        assert (found["problems"], found["failed"]) == ([], []), f"{name}.{path}"


@pytest.mark.parametrize("lib", LIBS, ids=lambda lib: "nixpkgs" if lib else "minilib")
def test_what_is_refused_elsewhere_is_refused_here(lib: str) -> None:
    """A wrong value that the declaration refuses is refused by a type, an assertion, or for its name."""
    # JSON has no NaN and no objects; a path of Python is none of Nix.
    wrong = [(path, value) for path, value, says in WRONG if not says.startswith("is not a table of texts")]
    found = evaluate([("skypilot", {"enable": True, **nested(path, value)}) for path, value in wrong], lib)
    for (path, value), one in zip(wrong, found, strict=True):
        if path == "extraEnvironment" and isinstance(value, str):
            assert one["failed"], value
        elif isinstance(value, dict) and "ibm" in value:
            assert one["failed"] == [
                "services.skypilot: cloudCredentials has a key that is none of aws, gcp, azure"
            ]
        else:
            assert one["problems"], f"{path} = {value!r}"


def test_nothing_that_systemd_would_read_otherwise_is_taken() -> None:
    """No option takes a text with a line break, blank, quote, specifier or variable; Nix has no text with a NUL."""
    cases: list[tuple[str, str, Any]] = []
    for name, path, option in options():
        for bad in HOSTILE:
            if "\0" in bad or option.type in {"lines", "free"}:
                continue
            wrong: Any = {"words": [bad], "paths": {"aws": bad}}.get(option.type, bad)
            cases.append((name, path, wrong))
    found = evaluate([(name, {"enable": True, **nested(path, wrong)}) for name, path, wrong in cases])
    assert [case for case, one in zip(cases, found, strict=True) if not one["problems"]] == []


def test_both_worlds_refuse_the_same() -> None:
    """Of texts put together at random, near what means something to systemd or a shell, both refuse the same."""
    chance = random.Random(6)
    parts = [
        *(
            "a",
            "B",
            "0",
            "_",
            "-",
            ".",
            "..",
            "/",
            "//",
            "~",
            "=",
            ":",
            "@",
            ",",
            "+",
            '"',
            "'",
            "$",
            "`",
            "\\",
        ),
        *(
            "\n",
            "\r",
            "\t",
            " ",
            "#",
            ";",
            "&",
            "(",
            "<",
            "|",
            "%",
            "*",
            "é",
            "export ",
            "A=",
            "TOKEN=",
            "${a}",
        ),
        *(
            "AKIAABCDEFGHIJKLMNOP",
            "http://u:p@h",
            "sshpass -p ",
            "-P",
            " --password=",
            "curl -u ",
            " login -p ",
            "Authorization: Bearer ",
            "_pass=",
            "4096",
            "http://h",
            "-----BEGIN PRIVATE KEY",
        ),
    ]
    names = [
        "pass",
        "PG",
        "max_",
        "4",
        "storage",
        "secret",
        "_",
        "-",
        "Key",
        "key",
        "name",
        "file",
        "token",
        "s",
        "api",
        "ACCESS",
        "password",
        "x",
    ]

    def some(words: list[str], most: int) -> str:
        return "".join(chance.choices(words, k=chance.randint(0, most)))

    def table() -> dict[str, Any]:
        key, text_ = some(names, 3), some(parts, 3)
        return chance.choice(
            [{key: text_}, {key: [text_]}, {"a": {key: {"b": text_}}}, {"l": [{"name": key, "value": text_}]}]
        )

    cases: list[tuple[str, Any]] = []
    for _ in range(250):
        cases += [
            ("extraEnvironment", some(parts, 5)),
            ("extraEnvironment", f"export A={some(parts, 3)}"),
            ("stateDir", f"/{some(parts, 4)}"),
            ("user", some(parts, 3)),
            ("mirror", some(parts, 4)),
            ("mirror", f"http://{some([*parts, '[', ']', ':', '1', '::', '8080'], 5)}"),
            ("administrators", [some(parts, 3)]),
            ("config", table()),
        ]
    given = [("skypilot", {"enable": True, **nested(path, value)}) for path, value in cases]
    refused = [bool(told.wrong or told.failed()) for told in (tell(*one) for one in given)]
    assert [bool(one["problems"] or one["failed"]) for one in evaluate(given)] == refused
    assert 200 < sum(refused) < len(refused) - 200


@pytest.mark.parametrize("lib", LIBS, ids=lambda lib: "nixpkgs" if lib else "minilib")
def test_what_must_hold_fails_with_the_same_sentence(lib: str) -> None:
    """Each assertion and warning that a value breaks in a declaration is broken in the module, word for word."""
    cases = [*BROKEN, *WARNED]
    found = evaluate([(name, {"enable": True, **given}) for name, given, _ in cases], lib)
    for (name, given, _), one in zip(cases, found, strict=True):
        told = tell(name, {"enable": True, **given})
        assert one["problems"] == []
        assert one["failed"] == [f"services.{name}: {said}" for said in told.failed()], given
        warned = [f"services.{name}: {said}" for said in told.failed(block=False)]
        assert one["config"]["warnings"] == warned, given


@pytest.mark.parametrize("lib", LIBS, ids=lambda lib: "nixpkgs" if lib else "minilib")
def test_two_services_of_one_system_share_no_port(lib: str) -> None:
    """Where both modules are imported, a port of the mirror is none of SkyPilot's; what does not run has none."""
    mirror: dict[str, Any] = {"enable": True, "port": 8080, "metrics": {"port": 9090}}
    away = {"enable": True, "enableWebUI": False, "endpoint": "http://far.example:1234"}
    both = {"webUI": {"port": 18080}, "monitoring": {"enable": True, "metricsPort": 8080, "serverPort": 9090}}
    given = [{"enable": True}, {"enable": True, **both}, away, {"enable": True, "webUI": {"port": 8081}}]
    found = [
        one["failed"] for one in evaluate([("skypilot", one) for one in given], lib, {"haversack": mirror})
    ]
    said = "services.skypilot: {} and services.haversack.{} are both {}: two servers cannot share a port"
    assert found == [
        [said.format("webUI.port", "port", 8080)],
        [
            said.format("monitoring.serverPort", "metrics.port", 9090),
            said.format("monitoring.metricsPort", "port", 8080),
        ],
        [],
        [],
    ]
    for quiet in ({**mirror, "enable": False}, {"enable": True}):
        (one,) = evaluate([("skypilot", {"enable": True})], lib, {"haversack": quiet})
        assert one["failed"] == []


@pytest.mark.parametrize("lib", LIBS, ids=lambda lib: "nixpkgs" if lib else "minilib")
def test_two_services_of_one_system_share_no_folder(lib: str) -> None:
    """What SkyPilot's service owns, and removes by its age, is not in or around the mirror's store."""
    given = [{"logsDir": "/srv/a"}, {"logsDir": "/srv/a/store"}, {"stateDir": "/srv/a/store/x"}, {}]
    mirror = {"enable": True, "store": "/srv/a/store"}
    for enabled in (True, False):
        found = evaluate(
            [("skypilot", {"enable": True, **one}) for one in given],
            lib,
            {"haversack": {**mirror, "enable": enabled}},
        )
        said = "services.skypilot: {} is {}, in or around services.haversack.store: name a folder beside it"
        wanted = [[said.format(folder, place) for folder, place in one.items() if enabled] for one in given]
        assert [one["failed"] for one in found] == wanted


def test_an_index_is_where_the_mirror_serves_it() -> None:
    """A slash at the end of the mirror's address is not doubled here either."""
    given = ["https://m.example", "https://m.example/", "https://m.example/x/"]
    found = evaluate([("skypilot", {"enable": True, "mirror": mirror}) for mirror in given])
    units = [one["config"]["systemd"]["services"]["skypilot-web-ui"] for one in found]
    wanted = [f"{mirror.rstrip('/')}/pypi/simple/" for mirror in given]
    assert [unit["environment"]["UV_DEFAULT_INDEX"] for unit in units] == wanted
    assert [unit["environment"]["PIP_INDEX_URL"] for unit in units] == wanted


def test_a_password_in_a_command_is_a_secret_here_too() -> None:
    """Commands with passwords are refused in both worlds, and those without in none."""
    given = [{"config": {"aws": {"ssh_proxy_command": command}}} for command, _ in COMMANDS]
    found = evaluate([("skypilot", {"enable": True, **one}) for one in given])
    assert [bool(one["failed"]) for one in found] == [hidden for _, hidden in COMMANDS]
    counts: list[Any] = [4096, "4096", "4096x"]
    found = evaluate([("skypilot", {"enable": True, "config": {"max_tokens": one}}) for one in counts])
    assert [bool(one["failed"]) for one in found] == [False, False, True]


def test_keys_of_the_guide_that_skypilot_refuses_are_refused_with_what_to_do() -> None:
    """What the guide writes into `config`, and no SkyPilot reads, is refused when the system is evaluated."""
    foreign = nix.SERVICES["skypilot"].config
    assert foreign is not None
    assert set(foreign.foreign) == {"cloud", "spot", "cluster"}
    assert set(foreign.foreign).isdisjoint(known.TOP)
    found = evaluate([("skypilot", {"enable": True, "config": {key: {}}}) for key in foreign.foreign])
    assert [one["failed"] for one in found] == [
        [f"services.skypilot: config.{key} is no key that there is: {instead}"]
        for key, instead in foreign.foreign.items()
    ]


def test_the_words_of_a_refusal_help() -> None:
    """A wrong value is named by its option, with what it would take."""
    given: list[dict[str, Any]] = [
        {"webUI": {"port": 70000}},
        {"configDir": "etc/sky"},
        {"cluster": {"autoStop": "an hour"}},
        {"webUI": {"prot": 1}},
        {"user": "a b"},
    ]
    assert [
        one["problems"] for one in evaluate([("skypilot", {"enable": True, **one}) for one in given])
    ] == [
        [
            "A definition for option `services.skypilot.webUI.port' is not of type "
            "`integer between 1 and 65535 (both inclusive)'."
        ],
        [
            "A definition for option `services.skypilot.configDir' is not of type `absolute path in quotes, of "
            "letters, digits and _@=,.+-, without . or .. and without / at its end'."
        ],
        [
            "A definition for option `services.skypilot.cluster.autoStop' is not of type "
            "`null or integer between 1 and 525600 (both inclusive)'."
        ],
        ["The option `services.skypilot.webUI.prot' does not exist."],
        [
            "A definition for option `services.skypilot.user' is not of type "
            "`word of letters, digits and _@:=,.+/~-'."
        ],
    ]


@pytest.mark.parametrize("lib", LIBS, ids=lambda lib: "nixpkgs" if lib else "minilib")
def test_no_secret_gets_into_the_store(lib: str) -> None:
    """A credential written as a path of Nix, which would be copied, or that lies in the store, is refused."""
    file = Expression("./secret.json")
    stored = "/nix/store/00000000000000000000000000000000-secret"
    cases: list[tuple[str, dict[str, Any]]] = [
        ("skypilot", {"cloudCredentials": {"aws": file}}),
        ("skypilot", {"cloudCredentials": {"gcp": stored}}),
        ("haversack", {"auth": file}),
        ("haversack", {"auth": stored}),
        ("haversack", {"tls": {"key": file, "certificate": "/etc/ssl/a.pem"}}),
        ("haversack", {"tls": {"key": stored, "certificate": "/etc/ssl/a.pem"}}),
    ]
    found = evaluate([(name, {"enable": True, **given}) for name, given in cases], lib)
    assert all(one["problems"] for one in found[::2])
    assert [[said.partition(" is in")[0] for said in one["failed"]] for one in found[1::2]] == [
        ["services.skypilot: cloudCredentials"],
        ["services.haversack: auth"],
        ["services.haversack: tls.key"],
    ]


def test_no_file_gets_into_the_store_by_the_configuration() -> None:
    """A path without quotes anywhere in `config` is refused: its file would be everybody's to read."""
    given = [{"gcp": {"key": Expression("./key.json")}}, {"a": [Expression("./x")]}, {"a": "/run/key.json"}]
    one = f'module = {MODULES}/skypilot.nix; name = "skypilot"; given = {{ enable = true; inherit config; }};'
    # Only what failed: to write out the rest would copy the files.
    found = run(f"map (config: ((import {MINILIB}).evaluate {{ {one} }}).failed) {shown(given)}")
    said = "services.skypilot: config has a path without quotes, which would be copied to the store: write it in quotes"
    assert found == [[said], [said], []]


def test_nothing_is_made_without_being_enabled() -> None:
    """A module that is imported and not enabled sets nothing, and needs no package."""
    for one in evaluate([(name, given) for name in nix.SERVICES for given in ({}, {"enable": False})]):
        assert (one["problems"], one["failed"], one["config"]) == ([], [], None)


def test_a_package_may_be_many_things() -> None:
    """A package of nixpkgs runs in an interpreter that can import it, an environment and a prefix in their own."""
    made = "(import ./tests/support/minilib.nix).package"
    environment = (
        f'{made} "env" // {{ interpreter = "/nix/store/env/bin/python3.12"; overrideAttrs = null; }}'
    )
    given: list[Any] = [
        {},
        {"package": Expression(environment)},
        {"package": "/opt/haversack/skypilot"},
    ]
    found = evaluate([("skypilot", {"enable": True, **one}) for one in given])
    starts = [
        one["config"]["systemd"]["services"]["skypilot-web-ui"]["serviceConfig"]["ExecStart"].split()[0]
        for one in found
    ]
    store = "/nix/store/00000000000000000000000000000000-"
    assert starts == [
        f"{store}python3-with-skypilot/bin/python",
        "/nix/store/env/bin/python3.12",
        "/opt/haversack/skypilot/bin/python",
    ]
    assert [one["config"]["environment"]["systemPackages"] for one in found] == [
        [f"{store}skypilot"],
        [f"{store}env"],
        [f"{store}sky"],
    ]


def test_the_code_for_each_cloud_that_is_asked_for_is_there() -> None:
    """nixpkgs has it under optional dependencies: those of credentials, of named clouds and of tables are put in."""
    bare = Expression('(import ./tests/support/minilib.nix).package "old" // { overrideAttrs = null; }')
    own = {"cloudCredentials": {"aws": "/run/aws"}, "config": {"allowed_clouds": ["aws", "gcp"]}}
    given: list[dict[str, Any]] = [
        {},
        {"cloudCredentials": {"aws": "/run/aws"}},
        {"config": {"allowed_clouds": ["AWS", "Kubernetes"]}},
        {"config": {"kubernetes": {}, "docker": {}}},
        {**own, "cloudCredentials": {"azure": "/run/azure", "aws": "/run/aws"}},
        {**own, "package": bare},
        {**own, "package": "/opt/skypilot"},
        {"config": {"allowed_clouds": "aws"}},
        {"config": {"allowed_clouds": ["nebius", 5]}},
    ]
    found = evaluate([("skypilot", {"enable": True, **one}) for one in given])
    starts = [
        one["config"]["systemd"]["services"]["skypilot-web-ui"]["serviceConfig"]["ExecStart"].split("/bin/")[
            0
        ]
        for one in found
    ]
    with_ = "/nix/store/00000000000000000000000000000000-python3-with-"
    assert starts == [
        f"{with_}skypilot",
        f"{with_}skypilot+awscli+boto3",
        f"{with_}skypilot+awscli+boto3+kubernetes",
        f"{with_}skypilot+kubernetes",
        f"{with_}skypilot+awscli+boto3+azure-identity+google-api-python-client",
        f"{with_}old",
        "/opt/skypilot",
        f"{with_}skypilot+awscli+boto3",
        f"{with_}skypilot",
    ]
    said = "services.skypilot: package has no optional dependencies for {}: see that it can reach them"
    lacking = [
        [word for word in one["config"]["warnings"] if "optional dependencies" in word] for one in found
    ]
    assert lacking[5] == [said.format("aws, gcp")]
    assert lacking[8] == [said.format("nebius")]
    assert not any(lacking[:5] + lacking[6:8])


def test_a_shell_lies_where_skypilot_calls_it() -> None:
    """It runs commands with /bin/bash, and /bin of NixOS has only sh: units see a folder with both there."""
    (found,) = evaluate([("skypilot", {"enable": True, "package": "/opt/skypilot"})])
    store = "/nix/store/00000000000000000000000000000000-"
    for unit in found["config"]["systemd"]["services"].values():
        assert f"{store}bash" in unit["path"]
        assert unit["serviceConfig"]["BindReadOnlyPaths"] == f"{store}bash/bin:/bin"


def test_a_missing_package_says_what_to_do() -> None:
    """Where nixpkgs has no such package, the error names the option."""
    for name in nix.SERVICES:
        given = (
            f'module = {MODULES}/{name}.nix; name = "{name}"; given.enable = true;'
            f' packages = builtins.removeAttrs pkgs [ "{name}" ];'
        )
        with pytest.raises(subprocess.CalledProcessError) as caught:
            run(f"with import {MINILIB}; evaluate {{ {given} }}")
        assert f"services.{name}.package: name a prefix or add an overlay" in caught.value.stderr


# --- the same site, here and on any machine with systemd --------------------------------------------------------------


def _made(name: str, lib: str = "") -> tuple[Told, dict[str, Any], dict[str, Any]]:
    """A site on any machine and here, with the same prefix as package."""
    service, given = SITES[name]
    (found,) = evaluate([(service, {**given, "package": PACKAGE})], lib)
    assert (found["problems"], found["failed"]) == ([], [])
    return site(name), found["config"], found["content"]


def _as_unit(unit: Mapping[str, Any], timer: bool) -> dict[str, dict[str, list[str]]]:
    """A unit as NixOS writes it (nixos/lib/systemd-lib.nix), by section and key."""
    told = {
        "Unit": {
            "Description": [unit["description"]],
            **{key: [" ".join(unit[key.lower()])] for key in ("After", "Wants") if unit.get(key.lower())},
            **_section(unit.get("unitConfig", {})),
        },
    }
    if timer:
        told["Timer"] = _section(unit["timerConfig"])
    else:
        variables = {key: value for key, value in unit["environment"].items() if value is not None}
        told["Service"] = {
            "Environment": [f'"{key}={value}"' for key, value in sorted(variables.items())],
            **_section(unit["serviceConfig"]),
        }
    if unit.get("wantedBy"):
        told["Install"] = {"WantedBy": [" ".join(unit["wantedBy"])]}
    return told


def _section(table: Mapping[str, Any]) -> dict[str, list[str]]:
    found = {}
    for key, value in table.items():
        each = value if isinstance(value, list) else [value]
        if each:
            found[key] = ["yes" if one is True else _placed(str(one)) for one in each]
    return found


def _placed(line: str) -> str:
    """The places of NixOS as those of any other machine."""
    return PROGRAMS.sub("/usr/local/libexec/skypilot", line).replace(KILL, "/bin/kill")


@pytest.mark.parametrize("name", SITES)
@pytest.mark.parametrize("lib", LIBS, ids=lambda lib: "nixpkgs" if lib else "minilib")
def test_units_are_the_same_key_by_key(name: str, lib: str) -> None:
    """The same site has the same units with the same directives in both worlds, but for places and PATH."""
    told, config, _ = _made(name, lib)
    services, timers = config["systemd"]["services"], config["systemd"].get("timers", {})
    ours = {f"{unit}.service": _as_unit(one, timer=False) for unit, one in services.items()}
    ours |= {f"{unit}.timer": _as_unit(one, timer=True) for unit, one in timers.items()}
    theirs = {
        Path(path).name: directives(content)
        for path, content in told.files().items()
        if path.startswith(text.UNITS)
    }
    path = f'"PATH={PACKAGE}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"'
    for unit in theirs.values():
        if "Service" in unit:
            # NixOS makes PATH of the packages in `path`, and what every unit of it has.
            unit["Service"]["Environment"].remove(path)
    for one in ours.values():
        if "Service" in one:
            one["Service"]["Environment"] = [_placed(line) for line in one["Service"]["Environment"]]
            # Others have bash in /bin.
            one["Service"].pop("BindReadOnlyPaths", None)
    assert ours == theirs
    for one in services.values():
        assert one["path"][0] == PACKAGE
        assert all(type(value) in {str, type(None)} for value in one["environment"].values())


@pytest.mark.parametrize("name", SITES)
def test_what_lies_around_units_is_the_same(name: str) -> None:
    """Users, folders, configuration, variables, logins and rules are the same in both worlds."""
    told, config, content = _made(name)
    files = {path: text_.split("\n", 1)[1] for path, text_ in told.files().items()}
    service = told.service.name
    rules = "".join(f"{line}\n" for line in config["systemd"]["tmpfiles"]["rules"])
    assert rules == files[f"etc/tmpfiles.d/{service}.conf"]
    users = "".join(
        f'u {user} -:{one["group"]} "{one["description"]}" {one["home"]}\n'
        for user, one in config["users"]["users"].items()
        if one["isSystemUser"]
    )
    groups = "".join(f"g {group} -\n" for group in config["users"]["groups"])
    assert groups + users == files.get(f"etc/sysusers.d/{service}.conf", "")
    for path, made in content.items():
        if path.endswith(".yaml"):
            assert made == json.loads(files[f"etc/{path}"])
        else:
            assert made == files[f"etc/{path}"]
    logins = "".join(
        f"export {key}='{value}'\n" for key, value in config["environment"].get("variables", {}).items()
    )
    assert logins == files.get(f"etc/profile.d/{service}.sh", "")
    sudo = [
        f"{person} ALL=({rule['runAs']}) NOPASSWD: "
        + ", ".join(
            one["command"].replace("/run/current-system/sw/bin/", "/usr/bin/") for one in rule["commands"]
        )
        for rule in config["security"]["sudo"]["extraRules"]
        for person in rule["users"]
    ]
    assert "".join(f"{line}\n" for line in sudo) == files.get(f"etc/sudoers.d/{service}", "")


def test_what_a_cloud_is_asked_with_is_there_where_it_is_given() -> None:
    """SkyPilot asks gcloud and az; both are large, and on no path of who has no credentials for them."""
    found = {}
    for name in ("minimal", "guide", "air gap"):
        path = _made(name)[1]["systemd"]["services"]["skypilot-web-ui"]["path"]
        found[name] = [one.rpartition("00000-")[2] for one in path if "sdk" in one or "azure" in one]
    assert found == {
        "minimal": [],
        "guide": ["google-cloud-sdk"],
        "air gap": ["google-cloud-sdk", "azure-cli"],
    }


def test_only_what_was_asked_for_is_opened() -> None:
    """The firewall has a hole for a port whose switch is on and whose service runs, and no other."""
    opened = {name: _made(name)[1]["networking"]["firewall"]["allowedTCPPorts"] for name in SITES}
    assert opened == {
        "minimal": [],
        "guide": [8080],
        "no services": [],
        "endpoint elsewhere": [9090],
        "air gap": [9443],
        "own places": [],
        "mirror": [],
        "mirror with everything": [8443],
    }


def test_a_change_of_configuration_restarts_what_reads_it_at_its_start() -> None:
    """Long-running units have what they read as triggers; a timer's service reads it each time."""
    services = _made("guide")[1]["systemd"]["services"]
    assert {name: len(one.get("restartTriggers", [])) for name, one in services.items()} == {
        "skypilot-web-ui": 2,
        "skypilot-monitor": 2,
        "skypilot-cluster-manager": 0,
        "skypilot-autostop": 0,
    }


@pytest.mark.parametrize("name", SITES)
def test_nixpkgs_and_the_small_library_agree(name: str) -> None:
    """What evaluates here evaluates to the same with nixpkgs' own lib, where there is one."""
    found = [_made(name, lib)[1:] for lib in LIBS]
    assert all(_bare(one) == _bare(found[0]) for one in found)


def _bare(value: Any) -> Any:
    """Without what is only a default."""
    if isinstance(value, (list, tuple)):
        return [_bare(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _bare(one) for key, one in value.items() if one not in (None, [], {})}
    return value


# --- what is documented -----------------------------------------------------------------------------------------------


PAGE = ROOT / "docs" / "platforms" / "nixos.md"


def test_examples_of_the_documentation_evaluate(tmp_path: Path) -> None:
    """Every configuration in the documentation evaluates, without a failed assertion."""
    snippets = re.findall(r"^```nix\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(snippets) >= 5
    seen = set()
    for number, snippet in enumerate(snippets):
        file = tmp_path / f"{number}.nix"
        file.write_text(snippet)
        assert parse(file) == ""
        if "inputs" in snippet:
            continue
        for name in nix.SERVICES:
            told = run(
                f"let told = import {file}; minilib = import {MINILIB};"
                " read = if builtins.isFunction told then told { inherit (minilib) pkgs lib; config = { }; } else told;"
                f' in if read ? services.{name} then minilib.evaluate {{ module = {MODULES}/{name}.nix; name = "{name}";'
                f" given = read.services.{name}; }} else null"
            )
            if told is not None:
                seen.add(name)
                assert (told["problems"], told["failed"]) == ([], []), snippet
    assert seen == set(nix.SERVICES)


def test_the_table_of_options_is_the_description() -> None:
    """The page of NixOS has a row for each option: its default and its sentence, as they are described."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `services.")]
    wanted = []
    for name, path, option in options():
        default = "its own" if option.type == "package" else f"`{shown(option.default)}`"
        wanted.append(f"| `services.{name}.{path}` | {default} | {option.description} |")
    assert rows == wanted


def test_values_of_python_and_nix_are_the_same() -> None:
    """A value written for Nix comes back as it was."""
    table = {"a b": [1, -2, True, None, 'x"y\\z${a}\n\t', {"c": []}], "d": {}, "e": 1.5}
    assert run(shown(table)) == table
    assert fill(nix.SERVICES["skypilot"], {"config": table})[1] == []
    assert sentence("{a}", {"a": None}) == ""


# --- the flake and its virtual machines -------------------------------------------------------------------------------

# What the driver of NixOS' tests lets a script call (nixos/lib/test-driver).
CALLED = {
    "succeed",
    "fail",
    "wait_for_unit",
    "wait_for_open_port",
    "wait_until_succeeds",
}


@pytest.fixture(scope="module")
def flake() -> dict[str, Any]:
    """What the flake gives, with inputs of ours instead of nixpkgs."""
    told = run(f"import {FLAKE} {{ flake = {ROOT}/flake.nix; }}")
    assert isinstance(told, dict)
    return told


def test_the_flake_gives_modules_an_overlay_packages_and_checks(flake: dict[str, Any]) -> None:
    """Everything that is documented of the flake is there."""
    systems = ["aarch64-linux", "x86_64-linux"]
    assert flake["names"] == {
        "nixosModules": ["default", "haversack", "skypilot"],
        "overlays": ["default"],
        "packages": systems,
        "checks": ["x86_64-linux"],
    }
    assert flake["default"] == [f"{MODULES}/skypilot.nix", f"{MODULES}/haversack.nix"]
    assert set(flake["checks"]) == {"skypilot-module", "air-gap"}


def test_the_package_is_this_source(flake: dict[str, Any]) -> None:
    """The package has the version of this source, all that it depends on, and files that there are."""
    package = flake["package"]
    assert package["version"] == haversack.__version__
    needed = {one.rpartition("00000-")[2] for one in package["dependencies"]} | set(
        package["pythonRemoveDeps"]
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert needed == {re.split(r"[^a-z0-9.-]", one)[0].replace(".", "-") for one in project["dependencies"]}
    assert all(Path(one).exists() for one in package["src"])
    assert package["meta"]["mainProgram"] in project["scripts"]


def test_virtual_machines_evaluate_and_their_scripts_compile(flake: dict[str, Any]) -> None:
    """Each machine's services evaluate, and each script is Python that calls machines there are by what they can."""
    enabled = 0
    for check in flake["checks"].values():
        tree = ast.parse(check["testScript"])
        used = {
            (node.func.value.id, node.func.attr)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        }
        assert {machine for machine, _ in used} == set(check["machines"])
        assert {verb for _, verb in used} <= CALLED
        for machine in check["machines"].values():
            for name, told in machine["services"].items():
                assert (told["problems"], told["failed"]) == ([], [])
                if told["config"] is not None:
                    enabled += 1
                    assert f"{MODULES}/{name}.nix" in machine["modules"]
    assert enabled == 6


def test_scripts_ask_for_units_that_there_are(flake: dict[str, Any]) -> None:
    """A unit, folder or port in a script is one of what its machines have, so that a test cannot miss what it is about."""
    for check in flake["checks"].values():
        configs = [
            told["config"]
            for machine in check["machines"].values()
            for told in machine["services"].values()
            if told["config"] is not None
        ]
        units = {
            f"{name}.{kind}"
            for config in configs
            for kind, table in (("service", "services"), ("timer", "timers"))
            for name in config["systemd"].get(table, {})
        }
        said = set(re.findall(r"\b((?:skypilot|haversack)[a-z-]*\.(?:service|timer))", check["testScript"]))
        assert said
        assert said <= units
