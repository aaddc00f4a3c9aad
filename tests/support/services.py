"""Sites for services, by names: what people write for them, and what is made of that on any machine with systemd."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.services import nix, text
from haversack.services.description import Option, Service
from haversack.services.values import Values, fill

ORIGIN = "from a test"
PACKAGE = "/opt/haversack/anything"

# The first example of the guide, whole.
GUIDE: Mapping[str, Any] = {
    "enable": True,
    "enableWebUI": True,
    "enableCluster": True,
    "systemdServices": True,
    "user": "skypilot",
    "group": "skypilot",
    "configDir": "/var/lib/skypilot/config",
    "logsDir": "/var/log/skypilot",
    "cacheDir": "/var/cache/skypilot",
    "webUI": {"port": 8080, "host": "127.0.0.1", "openFirewall": True},
    "cluster": {"autoStop": 60, "defaultInstanceType": "m5.large", "defaultRegion": "us-west-2"},
    "monitoring": {"enable": True, "metricsPort": 9090, "logLevel": "INFO"},
    "config": {"allowed_clouds": ["aws"], "jobs": {"controller": {"resources": {"cpus": 4}}}},
    "cloudCredentials": {
        "aws": "/run/secrets/aws-credentials",
        "gcp": "/run/secrets/gcp-service-account.json",
    },
    "extraEnvironment": "export AWS_PROFILE=skypilot",
}

SITES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "minimal": ("skypilot", {"enable": True}),
    "guide": ("skypilot", GUIDE),
    "no services": ("skypilot", {**GUIDE, "systemdServices": False}),
    "endpoint elsewhere": (
        "skypilot",
        {
            "enable": True,
            "enableWebUI": False,
            "endpoint": "http://skypilot.site.example:8080",
            "cluster": {"autoStop": 5, "refreshMinutes": 1},
            "monitoring": {"enable": True, "host": "0.0.0.0", "openFirewall": True, "logLevel": "DEBUG"},
        },
    ),
    "air gap": (
        "skypilot",
        {
            "enable": True,
            "mirror": "https://mirror.site.example",
            "caFile": "/etc/ssl/site-ca.pem",
            "catalogs": "/etc/skypilot/catalogs",
            "cloudCredentials": {
                "aws": "/run/secrets/aws",
                "azure": "/run/secrets/azure",
                "gcp": "/run/secrets/gcp",
            },
            "webUI": {"host": "::", "port": 9443, "openFirewall": True},
            "monitoring": {"enable": True, "logLevel": "DEBUG", "serverPort": 40001},
            "cluster": {"defaultRegion": "eu-west-1"},
            "administrators": ["alice", "bob.b"],
            "extraEnvironment": '# of this site\n\n  export A=b  \nB="c d"\nexport  C=\'e f\'\nE=x=y\nF="it\'s"\n',
        },
    ),
    "own places": (
        "skypilot",
        {
            "enable": True,
            "user": "ml",
            "group": "research",
            "stateDir": "/srv/sky/state",
            "configDir": "/srv/sky/config",
            "logsDir": "/srv/sky/logs",
            "cacheDir": "/srv/sky/cache",
            "logsKeepDays": 7,
            "enableCluster": False,
            "cluster": {"autoStop": 60},
            "webUI": {"host": "::1"},
            "monitoring": {"enable": True},
        },
    ),
    "mirror": ("haversack", {"enable": True}),
    "mirror with everything": (
        "haversack",
        {
            "enable": True,
            "store": "/srv/haversack",
            "host": "::",
            "port": 8443,
            "openFirewall": True,
            "tls": {"certificate": "/etc/ssl/mirror.pem", "key": "/run/secrets/mirror.key"},
            "auth": "/run/secrets/haversack-users.toml",
            "metrics": {"host": "10.0.0.1", "port": 9091},
            "administrators": ["alice"],
        },
    ),
}


@dataclass(frozen=True)
class Told:
    """A service, the values of its options, and what was wrong with what was given."""

    service: Service
    values: Values
    wrong: tuple[tuple[str, str], ...]

    def failed(self, block: bool = True) -> list[str]:
        """The sentences of assertions that do not hold, or of warnings."""
        return [
            sentence(one.message, self.values.options)
            for one in self.service.assertions
            if one.block is block and not self.values.test(one.test)
        ]

    def files(self) -> dict[str, str]:
        """Files of a machine with systemd."""
        assert self.wrong == ()
        return text.files(self.service, self.values, ORIGIN)


def tell(name: str, given: Mapping[str, Any], package: str = PACKAGE) -> Told:
    """A service told so."""
    service = nix.SERVICES[name]
    options, wrong = fill(service, given)
    return Told(service, Values(options, text.places(service, package)), tuple(wrong))


def site(name: str, package: str = PACKAGE) -> Told:
    """One of the sites."""
    service, given = SITES[name]
    return tell(service, given, package)


def sentence(message: str, options: Mapping[str, Any]) -> str:
    """A message with values of options in it."""
    for path, value in options.items():
        message = message.replace(f"{{{path}}}", "" if value is None else str(value))
    return message


def nested(path: str, value: Any) -> dict[str, Any]:
    """``webUI.port`` as a table in a table."""
    for name in reversed(path.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def merged(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Tables in one, tables in them too."""
    found: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
            found[key] = merged(found[key], value) if both else value
    return found


def options() -> list[tuple[str, str, Option]]:
    """Every option of every service, with both names."""
    return [
        (name, path, option)
        for name, service in nix.SERVICES.items()
        for path, option in service.options.items()
    ]


def directives(text: str) -> dict[str, dict[str, list[str]]]:
    """A unit file by section and key, each with its lines in their order."""
    found: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return found


def write(files: Mapping[str, str], folder: Path) -> None:
    """Files into a folder that is ``/`` for them."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
