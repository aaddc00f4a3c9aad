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
PACKAGE = "/srv/sky/package"

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
    "no services": ("skypilot", {**GUIDE, "systemdServices": False, "administrators": ["alice"]}),
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
            "proxy": "http://proxy.site.example:3128",
            "noProxy": "localhost,127.0.0.1,::1,10.0.0.0/8,.svc",
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


# What would be another directive, a specifier, a variable, an end of a word or of a quote.
HOSTILE = (
    "a\nExecStartPre=/bin/evil",
    "a\rExecStartPre=/bin/evil",
    "a b",
    "a\tb",
    "%n",
    "$HOME",
    "${HOME}",
    'a"b',
    "a'b",
    "a\\b",
    "a;b",
    "a|b",
    "a`b`",
    "a#b",
    "-v",
    "",
    "a\x00b",
    "å",
    "a\u2028b",
)

# What options of SkyPilot do not take, with the beginning of what is said.
WRONG: list[tuple[str, Any, str]] = [
    ("enable", 1, "is not true or false"),
    ("enable", "yes", "is not true or false"),
    ("webUI.port", 0, "is not a port, 1 to 65535"),
    ("webUI.port", 65536, "is not a port, 1 to 65535"),
    ("webUI.port", "8080", "is not a port, 1 to 65535"),
    ("webUI.port", True, "is not a port, 1 to 65535"),
    ("webUI.port", None, "is not a port, 1 to 65535"),
    ("cluster.autoStop", 0, "is not a whole number, 1 to 525600"),
    ("cluster.autoStop", -5, "is not a whole number, 1 to 525600"),
    ("cluster.autoStop", "an hour", "is not a whole number, 1 to 525600"),
    ("cluster.autoStop", 1.5, "is not a whole number, 1 to 525600"),
    ("cluster.autoStop", 525_601, "is not a whole number, 1 to 525600"),
    ("cluster.refreshMinutes", 10**12, "is not a whole number, 1 to 525600"),
    ("logsKeepDays", 10**12, "is not a whole number, 1 to 36500"),
    ("webUI.host", "192.168.0.1", "is not one of 127.0.0.1, localhost, 0.0.0.0, ::1, ::"),
    ("webUI.host", ["::"], "is not one of"),
    ("monitoring.logLevel", "info", "is not one of DEBUG, INFO"),
    ("configDir", "var/lib/skypilot", "is not an absolute path"),
    ("configDir", "./config", "is not an absolute path"),
    ("configDir", "~/config", "is not an absolute path"),
    ("configDir", "/var/lib/../../etc", "is not an absolute path"),
    ("configDir", "/var/lib/./x", "is not an absolute path"),
    ("configDir", "/var//lib", "is not an absolute path"),
    ("configDir", "/var/lib/sky/", "is not an absolute path"),
    ("configDir", "/", "is not an absolute path"),
    ("stateDir", "/srv/a:b", "is not an absolute path"),
    ("configDir", 5, "is not an absolute path"),
    ("administrators", "alice", "is not a list of words"),
    ("administrators", ["alice", 5], "is not a list of words"),
    ("cloudCredentials", {"aws": "creds"}, "is not a table of absolute paths"),
    ("cloudCredentials", {"ibm": "/run/x"}, "has 'ibm', which is none of aws, gcp, azure"),
    ("cloudCredentials", ["/run/x"], "is not a table of absolute paths"),
    ("config", "a: b", "is not a table"),
    ("config", {"a": float("nan")}, "is not a table of texts, numbers"),
    ("config", {"a": [{"b": object()}]}, "is not a table of texts, numbers"),
    ("extraEnvironment", ["A=b"], "is not a text of lines"),
    ("extraEnvironment", "A=b\rB=c", "is not a text of lines"),
    ("extraEnvironment", "A=\x1b[0m", "is not a text of lines"),
    ("webUI.prot", 1, "is no option"),
    ("port", 1, "is no option"),
    ("webUI", 8080, "is no option"),
]

SERVERS: Mapping[str, Any] = {"monitoring": {"enable": True}}
AWAY: Mapping[str, Any] = {"enableWebUI": False, "endpoint": "http://far.example:1234"}
PEM = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"

# What is taken, and breaks what must hold (or gives a warning), with the beginning of the sentence.
BROKEN: list[tuple[str, Mapping[str, Any], str]] = [
    ("skypilot", {"user": "root"}, "user is root: SkyPilot needs no rights"),
    ("skypilot", {"user": "Sky"}, "user is Sky: a name has small letters"),
    ("skypilot", {"user": "a/b"}, "user is a/b: a name has small letters"),
    ("skypilot", {"user": "0"}, "user is 0: a name has small letters"),
    ("skypilot", {"group": "a:b"}, "group is a:b: a name has small letters"),
    *(
        (name, {"group": group}, f"group is {group}, which may do more than")
        for name in ("skypilot", "haversack")
        for group in ("root", "shadow", "docker", "staff", "adm", "systemd-journal", "microk8s")
    ),
    ("skypilot", {"administrators": ["alice", "ALL"]}, "administrators holds what is no name of a user"),
    ("skypilot", {"administrators": ["alice,bob"]}, "administrators holds what is no name of a user"),
    ("skypilot", {"stateDir": "/var"}, "stateDir is /var, which others use too"),
    ("skypilot", {"stateDir": "/nix/var/sky"}, "stateDir is /nix/var/sky, which others use too"),
    ("skypilot", {"configDir": "/etc/cron.d"}, "configDir is /etc/cron.d, which others use too"),
    ("skypilot", {"configDir": "/etc/ssh"}, "configDir is /etc/ssh, which others use too"),
    *(
        ("skypilot", {"logsDir": place}, f"logsDir is {place}, which others use too")
        for place in (
            *("/var/log/journal", "/var/log/nginx", "/var/spool/cron", "/lib/systemd", "/sbin/x"),
            *("/var/lib/haversack", "/var/lib/haversack/store"),
            *("/var/backups", "/var/www", "/var/local", "/var/named", "/var/named/data", "/var/www/html"),
            *("/var/lib/pgsql", "/var/lib/NetworkManager", "/var/lib/rancher", "/var/log/exim/main"),
        )
    ),
    ("haversack", {"store": "/var/log/skypilot/store"}, "store is /var/log/skypilot/store, which others"),
    *(
        ("skypilot", {folder: place, "package": PACKAGE}, f"{folder} is {place}, where what it runs lies")
        for folder, place in (
            ("stateDir", "/srv/sky/package"),
            ("configDir", "/srv/sky/package/config"),
            ("logsDir", "/srv/sky"),
            ("cacheDir", "/srv/sky/package"),
        )
    ),
    *(
        ("skypilot", {folder: place}, f"{folder} is {place}, which SkyPilot has for itself")
        for folder, place in (
            ("configDir", "/var/lib/skypilot/.sky"),
            ("logsDir", "/var/lib/skypilot/.sky"),
            ("logsDir", "/var/lib/skypilot/sky_logs"),
            ("cacheDir", "/var/lib/skypilot/.cache"),
        )
    ),
    *(
        ("skypilot", {folder: "/var/log/skypilot/x"}, f"{folder} is /var/log/skypilot/x, in logsDir, where")
        for folder in ("stateDir", "configDir", "cacheDir", "caFile", "catalogs")
    ),
    (
        "skypilot",
        {"cloudCredentials": {"gcp": "/run/gcp", "aws": "/var/log/skypilot/aws"}},
        "cloudCredentials has a file in logsDir, where",
    ),
    *(
        ("haversack", {"host": host}, f"host is {host}: write an address")
        for host in ("0.0.0.0:8090", "mirror/x", "http://0.0.0.0", "999.1.1.1", "1.2.3", "a..b", "a.b-")
    ),
    ("haversack", {"metrics": {"host": "256.0.0.1"}}, "metrics.host is 256.0.0.1: write an address"),
    *(
        ("skypilot", {"monitoring": {"host": host}}, f"monitoring.host is {host}: write an address")
        for host in ("0.0.0.0/0", "http://x", "::1/128")
    ),
    ("skypilot", {"logsDir": "/var/log"}, "logsDir is /var/log, which others use too"),
    ("skypilot", {"cacheDir": "/var/cache"}, "cacheDir is /var/cache, which others use too"),
    ("skypilot", {"configDir": "/var/lib/skypilot"}, "stateDir and configDir are both /var/lib/skypilot"),
    ("skypilot", {"logsDir": "/var/lib/skypilot"}, "stateDir and logsDir are both /var/lib/skypilot"),
    ("skypilot", {"cacheDir": "/var/lib/skypilot"}, "stateDir and cacheDir are both /var/lib/skypilot"),
    ("skypilot", {"configDir": "/var/log/skypilot"}, "configDir and logsDir are both /var/log/skypilot"),
    ("skypilot", {"configDir": "/var/cache/skypilot"}, "configDir and cacheDir are both"),
    ("skypilot", {"logsDir": "/var/cache/skypilot"}, "logsDir and cacheDir are both /var/cache/skypilot"),
    ("skypilot", {"stateDir": "/home/sky"}, "stateDir is /home/sky: the service sees neither homes"),
    ("skypilot", {"configDir": "/root/sky"}, "configDir is /root/sky: the service sees neither homes"),
    ("skypilot", {"logsDir": "/tmp/sky"}, "logsDir is /tmp/sky: the service sees neither homes"),
    ("skypilot", {"cacheDir": "/var/tmp/sky"}, "cacheDir is /var/tmp/sky: the service sees neither homes"),
    ("skypilot", {"package": "/home/alice/venv"}, "package is /home/alice/venv: the service sees neither"),
    ("skypilot", {"caFile": "/root/ca.pem"}, "caFile is /root/ca.pem: the service sees neither homes"),
    ("skypilot", {"catalogs": "/tmp/catalogs"}, "catalogs is /tmp/catalogs: the service sees neither"),
    ("skypilot", {"webUI": {"port": 80}}, "webUI.port is 80: ports below 1024 belong to root"),
    (
        "skypilot",
        {"monitoring": {"enable": True, "metricsPort": 99}},
        "monitoring.metricsPort is 99: ports below 1024",
    ),
    (
        "skypilot",
        {"monitoring": {"enable": True, "serverPort": 99}},
        "monitoring.serverPort is 99: ports below 1024",
    ),
    (
        "skypilot",
        merged(SERVERS, {"webUI": {"port": 9090}}),
        "webUI.port and monitoring.metricsPort are both 9090: two servers",
    ),
    (
        "skypilot",
        merged(SERVERS, {"webUI": {"port": 46581}}),
        "webUI.port and monitoring.serverPort are both 46581: two servers",
    ),
    (
        "skypilot",
        {"monitoring": {"enable": True, "metricsPort": 46581}},
        "monitoring.metricsPort and monitoring.serverPort are both 46581",
    ),
    ("skypilot", {"enableWebUI": False}, "there is no API server: set enableWebUI, or say in endpoint"),
    ("skypilot", {"endpoint": "http://far.example"}, "endpoint names a server on another machine"),
    (
        "skypilot",
        merged(AWAY, {"endpoint": "far.example:1"}),
        "endpoint is no address of a server: write one",
    ),
    (
        "skypilot",
        merged(AWAY, {"endpoint": "http://me:pw@far.example"}),
        "endpoint is no address of a server: write one",
    ),
    *(
        ("skypilot", merged(AWAY, {"endpoint": wrong}), "endpoint is no address of a server: write one")
        for wrong in (
            "http://x:99999",
            "http://x:0",
            "http://x:",
            "http://fd00::1:80",
            "http://[fd00::1",
            "http://[a]",
        )
    ),
    ("skypilot", {"proxy": "http://p:65536"}, "proxy is no address of a proxy: write one like"),
    ("skypilot", {"mirror": "mirror.example"}, "mirror is no address of a server: write one like"),
    ("skypilot", {"mirror": "https://me:pw@mirror.example"}, "mirror is no address of a server: write one"),
    ("skypilot", {"mirror": "ftp://mirror.example"}, "mirror is no address of a server: write one"),
    ("skypilot", {"mirror": "https://mirror.example//"}, "mirror is no address of a server: write one"),
    *(
        ("skypilot", {"proxy": proxy}, "proxy is no address of a proxy: write one like")
        for proxy in (
            "proxy.example:3128",
            "http://proxy.example",
            "http://me:pw@proxy.example:1",
            "socks5://p:1",
        )
    ),
    (
        "skypilot",
        {"proxy": "http://proxy.example:1", "noProxy": "localhost,10.127.0.0.1,.svc"},
        "noProxy lacks 127.0.0.1, where",
    ),
    *(
        ("skypilot", {"extraEnvironment": line}, "extraEnvironment holds a line that is not `export")
        for line in (
            "no assignment",
            "export A",
            "A=$HOME",
            "A=`id`",
            'A="$(id)"',
            "A=b # why",
            "A=b; B=c",
            "A=b c",
            "A=b\\",
            'A="b',
            "A='b'c",
            "export KUBECONFIG=~/kube",
            "A=/x:~/y",
            "A=~",
            'A="b"c',
            "1A=b",
            "A =b",
            "exportA = b",
            "set -e",
            "source /etc/profile",
        )
    ),
    *(
        ("skypilot", {"extraEnvironment": line}, "extraEnvironment holds a secret")
        for line in (
            "export AWS_SECRET_ACCESS_KEY=abc",
            "A=b\nexport AWS_ACCESS_KEY_ID=abc\nC=d",
            "WANDB_API_KEY=abc",
            "HF_TOKEN=abc",
            "DB_PASSWORD='x'",
            "export HTTPS_PROXY=http://me:pw@proxy.example:3128",
            "A=AKIAABCDEFGHIJKLMNOP",
            "SSHPASS=hunter2",
            "export MYSQL_PWD=x",
            "hf_token='x'",
            "AZURE_STORAGE_KEY=abc",
            "PGPASS=abc",
            "export NPM_AUTH=abc",
        )
    ),
    *(
        ("skypilot", given, "extraEnvironment sets a variable that the service sets by itself")
        for given in (
            {"extraEnvironment": "A=b\nexport SKYPILOT_API_SERVER_ENDPOINT=http://other.example"},
            {"extraEnvironment": "SKYPILOT_DISABLE_LOCAL_API_SERVER=0"},
            {"extraEnvironment": " HOME=/srv/sky"},
            {"extraEnvironment": "PATH=/opt/bin"},
            {"extraEnvironment": "AWS_CONFIG_FILE=/etc/aws", "cloudCredentials": {"aws": "/run/aws"}},
            {"extraEnvironment": "PYTHONPATH=/x", "cluster": {"defaultRegion": "eu-west-1"}},
        )
    ),
    *(
        ("skypilot", {"config": config}, "config holds a secret, which everybody on this machine could read")
        for config in (
            {"password": "x"},
            {"aws": {"secret_access_key": "x"}},
            {"db": "postgresql://me:pw@db.example/sky"},
            {"api_server": {"service_account_token": "sky_x"}},
            {"a": [{"b": [{"apiKey": "x"}]}]},
            {"a": {"tokens": ["x", "y"]}},
            {"a": {"passwd": 1234}},
            {"a": PEM},
            {"a": ["x", f"lines\nbefore\n{PEM}"]},
            {"kubernetes": {"pod_config": {"env": [{"name": "WANDB_API_KEY", "value": "x"}]}}},
            {"a": "the key is AKIAABCDEFGHIJKLMNOP."},
            {"aws": {"ssh_proxy_command": "sshpass -p hunter2 ssh -W %h:%p me@gate"}},
            {"aws": {"ssh_proxy_command": {"us-west-2": "ncat --proxy-auth\tme:hunter2 %h %p"}}},
            {"docker": {"run_options": ["-e", "HF_TOKEN=x"]}},
            {"kubernetes": {"pod_config": {"env": [{"name": "AZURE_STORAGE_KEY", "value": "x"}]}}},
            {"kubernetes": {"pod_config": {"env": [{"name": "DB_PASS", "value": "x"}]}}},
            {"kubernetes": {"pod_config": {"env": [{"name": "PASS_PHRASE", "value": "x"}]}}},
            {"kubernetes": {"pod_config": {"env": [{"name": "H", "value": f"hf_{'aB3' * 11}"}]}}},
            {"kubernetes": {"pod_config": {"env": [{"name": "G", "value": f"ghp_{'aB3' * 12}"}]}}},
            {"a": "DefaultEndpointsProtocol=https;AccountName=x;AccountKey=abc=="},
            {"max_tokens": "x"},
        )
    ),
    (
        "skypilot",
        {"config": {"admin_policy": "x.Y"}, "cluster": {"defaultRegion": "eu-west-1"}},
        "config.admin_policy excludes cluster.defaultInstanceType and cluster.defaultRegion",
    ),
    ("haversack", {"user": "root"}, "user is root: serving needs no rights"),
    ("haversack", {"user": "A"}, "user is A: a name has small letters"),
    ("haversack", {"group": "A"}, "group is A: a name has small letters"),
    ("haversack", {"administrators": ["A"]}, "administrators holds what is no name of a user"),
    ("haversack", {"store": "/srv"}, "store is /srv, which others use too"),
    ("haversack", {"store": "/home/store"}, "store is /home/store: the service sees neither homes"),
    ("haversack", {"package": "/root/venv"}, "package is /root/venv: the service sees neither homes"),
    ("haversack", {"port": 443}, "port is 443: ports below 1024 belong to root"),
    ("haversack", {"metrics": {"port": 80}}, "metrics.port is 80: ports below 1024 belong to root"),
    ("haversack", {"metrics": {"port": 8090}}, "port and metrics.port are both 8090: two servers"),
    ("haversack", {"tls": {"certificate": "/etc/ssl/a.pem"}}, "tls.certificate needs tls.key"),
    ("haversack", {"tls": {"key": "/etc/ssl/a.key"}}, "tls.key needs tls.certificate"),
]

WARNED: list[tuple[str, Mapping[str, Any], str]] = [
    ("skypilot", {"webUI": {"openFirewall": True}}, "webUI.openFirewall opens port 8080, where nothing but"),
    (
        "skypilot",
        {"monitoring": {"enable": True, "openFirewall": True, "host": "127.0.0.5"}},
        "monitoring.openFirewall opens port 9090, where nothing but",
    ),
    (
        "skypilot",
        {"webUI": {"host": "0.0.0.0"}},
        "the API server listens at 0.0.0.0 and asks nobody for a password",
    ),
    (
        "skypilot",
        {"cloudCredentials": {"gcp": "/run/gcp"}},
        "cloudCredentials.gcp is not all that SkyPilot needs",
    ),
    (
        "skypilot",
        {"cloudCredentials": {"azure": "/run/azure"}},
        "cloudCredentials.azure is read by nothing in",
    ),
    (
        "skypilot",
        {"enableCluster": False, "cluster": {"autoStop": 60}},
        "cluster.autoStop stops nothing without enableCluster",
    ),
    (
        "skypilot",
        merged(SERVERS, {"webUI": {"host": "::"}}),
        "monitoring leaves out the API server's own metrics, which it would give at :: to whoever asks",
    ),
    ("haversack", {"openFirewall": True}, "openFirewall opens port 8090, where nothing but this machine"),
]

# Commands by which machines are reached, and whether a password stands in them.
COMMANDS = [
    ("nc -X connect -x http://me:hunter2@proxy:3128 %h %p", True),
    ("ncat --proxy p:3128 --proxy-type http --proxy-auth me:hunter2 %h %p", True),
    ("ncat --proxy-auth=me:hunter2 %h %p", True),
    ("proxytunnel -p proxy:3128 -P me:hunter2 -d %h:%p", True),
    ("proxytunnel -p proxy:3128 -Pme:hunter2 -d %h:%p", True),
    ("socat - PROXY:proxy:%h:%p,proxyport=3128,proxyauth=me:hunter2", True),
    ("sshpass -v -p hunter2 ssh -W %h:%p gate", True),
    ("sshpass -phunter2 ssh -W %h:%p gate", True),
    ("SSHPASS=hunter2 sshpass -e ssh -W %h:%p gate", True),
    ("HTTP_PROXY_PASSWORD=hunter2 connect -H proxy:3128 %h %p", True),
    ("curl -u me:hunter2 https://h.example/x", True),
    ("curl -fsSu 'me:hunter2' https://h.example/x", True),
    ("docker login -u me -p hunter2 r.example", True),
    ("podman login r.example -u me -phunter2", True),
    ("az login --service-principal -u app --tenant t -p hunter2", True),
    ("curl -H 'Authorization: Bearer eyJhbGciOi' https://h.example", True),
    ("curl -H 'Authorization: Bearer '$TOKEN https://h.example", False),
    ("curl -H 'Accept: a; q=1' 'https://h.example/?a=1&b=2' -u me:hunter2", True),
    ('sh -c "curl -H \\"Accept: text\\" -u me:hunter2 https://h.example"', True),
    ("curl -d it\\'s -u me:hunter2 https://h.example", True),
    ("curl -fs https://h.example/x | nc -u 10.0.0.1:53 %p", False),
    ("docker login r.example && ssh -p 2222 -W %h:%p gate", False),
    ("SSH_PRIVATE_KEY=/run/key nc %h %p", False),
    ('env VAULT_TOKEN="~/.vault/token" nc %h %p', False),
    ("DB_PASS=/run/pass nc %h %p", False),
    ("VAULT_TOKEN=hunter2/x nc %h %p", True),
    ("curl -u me:$PASS -o out https://h.example:8443/x", False),
    ("docker login -u me --password-stdin r.example", False),
    ("docker login -u me -p $PASS r.example", False),
    ("az login --service-principal -u app --tenant t -p @/run/secret", False),
    ("PGPASSFILE=/run/pg BYPASS=1 compass=x run", False),
    ("ssh -W [%h]:%p -p 2222 -i ~/.ssh/gate me@gate.example.org", False),
    ("sshpass -e ssh -p 2222 -W %h:%p gate", False),
    ("sshpass -p $GATE ssh -W %h:%p gate", False),
    ("nc -X connect -x proxy:3128 %h %p", False),
    ('ncat --proxy-auth "$(cat ~/.proxy)" %h %p', False),
    ("ncat --proxy-auth me:$PASS %h %p", False),
    ("proxytunnel -p proxy:3128 -F ~/.proxy -d %h:%p", False),
    ("corkscrew proxy 3128 %h %p ~/.ssh/proxy-auth", False),
]
