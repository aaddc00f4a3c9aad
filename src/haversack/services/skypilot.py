"""SkyPilot as a service: its API server with the dashboard, and three small programs beside it.

The options have the names of the guide of SkyPilot's published NixOS module; what that module gets wrong is mended
here, and said in docs/adr/0031-services.md.
"""

from __future__ import annotations

from haversack.services.description import Assertion, Config, Line, Option, Service, Unit
from haversack.services.hardening import HARDENED, LOOKING, PERSISTING, RESTARTED
from haversack.services.terms import (
    Clean,
    Each,
    Given,
    Has,
    Matches,
    Not,
    On,
    Opt,
    Place,
    Same,
    Some,
    Term,
    Test,
    When,
    both,
    join,
)

# What `sky api start --host` takes (sky/client/cli/command.py, 0.14.1).
_HOSTS = ("127.0.0.1", "localhost", "0.0.0.0", "::1", "::")  # noqa: S104
_LOOPBACK = r"127\.[0-9.]+|localhost|::1"

OPTIONS = {
    "enable": Option("bool", "Whether to run SkyPilot as a service.", False),
    "package": Option(
        "package",
        "SkyPilot: a package of nixpkgs, or the prefix of an environment that haversack installed.",
        example="/opt/haversack/skypilot",
    ),
    "user": Option("word", "The user that runs it; made if this is the default.", "skypilot"),
    "group": Option("word", "The group of that user; made if this is the default.", "skypilot"),
    "stateDir": Option(
        "path", "Home of the service: SkyPilot's database, keys and catalogs.", "/var/lib/skypilot"
    ),
    "configDir": Option("path", "Where its configuration lies.", "/var/lib/skypilot/config"),
    "logsDir": Option("path", "Where logs of requests and jobs lie.", "/var/log/skypilot"),
    "logsKeepDays": Option("positive", "After how many days logs are removed.", 30),
    "cacheDir": Option("path", "Where caches and the state of clusters lie.", "/var/cache/skypilot"),
    "config": Option(
        "free",
        "SkyPilot's own configuration, as in ~/.sky/config.yaml. Everybody on this machine can read it: no secrets.",
        {},
        example={"allowed_clouds": ["aws"], "aws": {"vpc_name": "private-vpc", "use_internal_ips": True}},
    ),
    "cloudCredentials": Option(
        "paths",
        "Files with credentials by cloud, which only root needs to read; the service gets copies of its own.",
        {},
        choices=("aws", "gcp", "azure"),
        example={"aws": "/run/secrets/aws-credentials", "gcp": "/run/secrets/gcp-service-account.json"},
    ),
    "extraEnvironment": Option(
        "lines",
        "More variables of the service, each a line `export NAME=value`. Everybody can read them.",
        "",
        example="export AWS_PROFILE=skypilot",
    ),
    "endpoint": Option(
        "word",
        "Address of an API server on another machine, for the timers and for logins here.",
        nullable=True,
        example="http://skypilot.site.example:8080",
    ),
    "mirror": Option(
        "word",
        "Address of this site's mirror (`haversack serve`), from where the server takes packages.",
        nullable=True,
        example="https://mirror.site.example",
    ),
    "caFile": Option(
        "path",
        "Certificates (PEM) to trust for the mirror, instead of the system's.",
        nullable=True,
        example="/etc/ssl/site-ca.pem",
    ),
    "catalogs": Option(
        "path",
        "Folder with SkyPilot's catalogs (`v8/aws/vms.csv`), which it then never fetches.",
        nullable=True,
        example="/etc/skypilot/catalogs",
    ),
    "administrators": Option(
        "words",
        "Users who may start, stop, restart and look at these services with sudo.",
        (),
        example=("alice",),
    ),
    "systemdServices": Option(
        "bool", "Whether there are services; without them only users, folders and configuration.", True
    ),
    "enableWebUI": Option(
        "bool", "Whether to run the API server of SkyPilot with its dashboard on this machine.", True
    ),
    "webUI.host": Option("enum", "The address it listens at.", "127.0.0.1", choices=_HOSTS),
    "webUI.port": Option("port", "Its port.", 8080),
    "webUI.openFirewall": Option("bool", "Whether to open that port in the firewall.", False),
    "enableCluster": Option("bool", "Whether the state of clusters is asked for and kept.", True),
    "cluster.refreshMinutes": Option("positive", "Minutes between two looks at the clusters.", 5),
    "cluster.autoStop": Option(
        "positive",
        "Minutes of idleness after which clusters stop, where nobody set that or set another time; a cloud that cannot stop tears them down.",
        nullable=True,
        example=60,
    ),
    "cluster.defaultInstanceType": Option(
        "word", "Instance type of tasks that ask for no size.", nullable=True, example="m5.large"
    ),
    "cluster.defaultRegion": Option(
        "word", "Region of tasks that name none.", nullable=True, example="us-west-2"
    ),
    "monitoring.enable": Option("bool", "Whether to give metrics for Prometheus.", False),
    "monitoring.host": Option("word", "The address metrics are given at.", "127.0.0.1"),
    "monitoring.metricsPort": Option("port", "The port metrics are given at.", 9090),
    "monitoring.serverPort": Option(
        "port", "The port at which the API server gives its own metrics to those.", 46581
    ),
    "monitoring.openFirewall": Option("bool", "Whether to open the port of metrics in the firewall.", False),
    "monitoring.logLevel": Option(
        "enum", "What is logged.", "INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    ),
}

TABLES = {
    "webUI": "The API server and its dashboard.",
    "cluster": "What holds for clusters.",
    "monitoring": "Metrics.",
}

_SERVER = both(On("systemdServices"), On("enableWebUI"))
_ASKING = both(On("systemdServices"), On("enableCluster"))
_STOPPING = both(On("systemdServices"), On("enableCluster"), Given("cluster.autoStop"))
_MONITOR = both(On("systemdServices"), On("monitoring.enable"))
_DEFAULTS = Some((Given("cluster.defaultInstanceType"), Given("cluster.defaultRegion")))

# The address of a server that listens at that host, as a client beside it writes it.
_NEAR: tuple[Term, ...] = (
    When(Matches("webUI.host", "::1?"), "[::1]"),
    When(Not(Matches("webUI.host", "::1?")), "127.0.0.1"),
)
_ENDPOINT: tuple[Term, ...] = (
    When(On("enableWebUI"), join("http://", *_NEAR, ":", Opt("webUI.port"))),
    When(Not(On("enableWebUI")), Opt("endpoint")),
)


def _differ(one: str, other: str, when: Test) -> Assertion:
    message = f"{one} and {other} are both {{{one}}}: two servers cannot share a port"
    return Assertion(Some((Not(when), Not(Same(Opt(one), Opt(other))))), message)


ASSERTIONS = (
    Assertion(
        Not(Same(Opt("user"), "root")), "user is root: SkyPilot needs no rights, name a user of its own"
    ),
    _differ("webUI.port", "monitoring.metricsPort", both(On("enableWebUI"), On("monitoring.enable"))),
    _differ("webUI.port", "monitoring.serverPort", both(On("enableWebUI"), On("monitoring.enable"))),
    _differ("monitoring.metricsPort", "monitoring.serverPort", On("monitoring.enable")),
    Assertion(
        Some((Not(On("systemdServices")), On("enableWebUI"), Given("endpoint"))),
        "there is no API server: set enableWebUI, or say in endpoint where another machine runs one",
    ),
    Assertion(
        Not(both(On("enableWebUI"), Given("endpoint"))),
        "endpoint names a server on another machine, and enableWebUI runs one here: leave one of them out",
    ),
    Assertion(
        Some((Not(Given("endpoint")), Matches("endpoint", "https?://[^/@]+(/.*)?"))),
        "endpoint is {endpoint}: write an address like http://skypilot.site.example:8080, without a user or password",
    ),
    Assertion(
        Some((Not(Given("mirror")), Matches("mirror", "https?://[^/@]+(/.*)?"))),
        "mirror is {mirror}: write an address like https://mirror.site.example, without a user or password",
    ),
    Assertion(
        Matches("extraEnvironment", "[ ]*((export +)?[A-Za-z_][A-Za-z0-9_]*=.*|#.*)?"),
        "extraEnvironment holds a line that is not `export NAME=value`: it is read by systemd, not by a shell",
    ),
    Assertion(
        Not(
            Matches("extraEnvironment", "[ ]*(export +)?[A-Z_]*(SECRET|PASSWORD|TOKEN|ACCESS_KEY)[A-Z_]*=.*")
        ),
        "extraEnvironment holds a secret, which everybody on this machine could read: name its file in cloudCredentials",
    ),
    Assertion(
        Clean("config"),
        "config holds a secret, which everybody on this machine could read: name its file in cloudCredentials, or leave it out",
    ),
    Assertion(
        Not(both(_DEFAULTS, Has("config", "admin_policy"))),
        "config.admin_policy excludes cluster.defaultInstanceType and cluster.defaultRegion, which are given to tasks by such a policy",
    ),
    Assertion(
        Not(both(On("webUI.openFirewall"), Matches("webUI.host", _LOOPBACK))),
        "webUI.openFirewall opens port {webUI.port}, where nothing but this machine is listened to: webUI.host is {webUI.host}",
        block=False,
    ),
    Assertion(
        Not(both(On("monitoring.openFirewall"), Matches("monitoring.host", _LOOPBACK))),
        "monitoring.openFirewall opens port {monitoring.metricsPort}, where nothing but this machine is listened to: monitoring.host is {monitoring.host}",
        block=False,
    ),
    Assertion(
        Some((Not(On("enableWebUI")), Matches("webUI.host", _LOOPBACK))),
        "the API server listens at {webUI.host} and asks nobody for a password: whoever reaches its port runs commands with your credentials",
        block=False,
    ),
)


def _every(**more: Term) -> dict[str, Term]:
    """Variables of each unit."""
    return {
        "HOME": Opt("stateDir"),
        "XDG_CACHE_HOME": Opt("cacheDir"),
        "SKYPILOT_GLOBAL_CONFIG": join(Opt("configDir"), "/config.yaml"),
        "SKYPILOT_API_SERVER_ENDPOINT": join(*_ENDPOINT),
        # A client that finds no server would start one, hidden in its own unit.
        "SKYPILOT_DISABLE_LOCAL_API_SERVER": 1,
        "SKYPILOT_DISABLE_USAGE_COLLECTION": 1,
        "DO_NOT_TRACK": 1,
        "SCARF_NO_ANALYTICS": 1,
        "PYTHONDONTWRITEBYTECODE": 1,
        **more,
    }


_CA = When(Given("caFile"), Opt("caFile"))

# What an API server needs beyond what every unit has.
_SERVING: dict[str, Term] = {
    # It builds a wheel of itself with pip, which would ask an index for what is installed (0: the option is off).
    "PIP_NO_BUILD_ISOLATION": 0,
    "UV_DEFAULT_INDEX": When(Given("mirror"), join(Opt("mirror"), "/pypi/simple/")),
    "PIP_INDEX_URL": When(Given("mirror"), join(Opt("mirror"), "/pypi/simple/")),
    "SSL_CERT_FILE": _CA,
    "REQUESTS_CA_BUNDLE": _CA,
    "PIP_CERT": _CA,
    "PYTHONPATH": When(_DEFAULTS, Place("programs")),
    "SITE_DEFAULT_REGION": When(Given("cluster.defaultRegion"), Opt("cluster.defaultRegion")),
    "SITE_DEFAULT_INSTANCE_TYPE": When(
        Given("cluster.defaultInstanceType"), Opt("cluster.defaultInstanceType")
    ),
    # %d is where systemd puts what LoadCredential= names (systemd.unit(5)).
    "AWS_SHARED_CREDENTIALS_FILE": When(Has("cloudCredentials", "aws"), "%d/aws"),
    "GOOGLE_APPLICATION_CREDENTIALS": When(Has("cloudCredentials", "gcp"), "%d/gcp"),
    "AZURE_AUTH_LOCATION": When(Has("cloudCredentials", "azure"), "%d/azure"),
}


def _program(name: str, *words: Term) -> Term:
    return join(Place("python"), " ", Place("programs"), f"/{name}", *words)


_USER: dict[str, Term] = {"User": Opt("user"), "Group": Opt("group"), "WorkingDirectory": Opt("stateDir")}
_STATE = join(Opt("cacheDir"), "/clusters.json")
_WRITES: tuple[Term, ...] = (Opt("stateDir"), Opt("configDir"), Opt("logsDir"), Opt("cacheDir"))

UNITS = (
    Unit(
        "skypilot-web-ui",
        "SkyPilot API server and dashboard",
        _SERVER,
        after=("network-online.target",),
        wants=("network-online.target",),
        unit=PERSISTING,
        environment=_every(**_SERVING, SKYPILOT_DEBUG=When(Same(Opt("monitoring.logLevel"), "DEBUG"), 1)),
        service={
            "Type": "exec",
            "ExecStart": _program(
                *("server.py", " --host ", Opt("webUI.host"), " --port ", Opt("webUI.port")),
                When(On("monitoring.enable"), join(" --metrics-port ", Opt("monitoring.serverPort"))),
                When(Given("catalogs"), join(" --catalogs ", Opt("catalogs"))),
            ),
            **_USER,
            "LoadCredential": (Each("cloudCredentials", between=":"),),
            **RESTARTED,
            # Its workers answer SIGTERM with megabytes of log; the main process ends them itself.
            "KillMode": "mixed",
            "TimeoutStopSec": 60,
            **HARDENED,
            "ReadWritePaths": _WRITES,
        },
    ),
    Unit(
        "skypilot-cluster-manager",
        "Look at the clusters of SkyPilot and keep what is seen",
        _ASKING,
        after=("skypilot-web-ui.service",),
        environment=_every(),
        service={
            "Type": "oneshot",
            "ExecStart": _program("clusters.py", " --state ", _STATE, " --timeout 240"),
            **_USER,
            "TimeoutStartSec": 300,
            **HARDENED,
            "ReadWritePaths": _WRITES,
        },
        # Monotonic: a clock that jumps changes nothing.
        timer={
            "OnActiveSec": "2min",
            "OnUnitInactiveSec": join(Opt("cluster.refreshMinutes"), "min"),
            "AccuracySec": "10s",
        },
    ),
    Unit(
        "skypilot-autostop",
        "Let idle clusters of SkyPilot stop",
        _STOPPING,
        after=("skypilot-web-ui.service",),
        environment=_every(),
        service={
            "Type": "oneshot",
            "ExecStart": _program(
                "autostop.py", " --idle-minutes ", Opt("cluster.autoStop"), " --timeout 240"
            ),
            **_USER,
            "TimeoutStartSec": 300,
            **HARDENED,
            "ReadWritePaths": _WRITES,
        },
        timer={"OnActiveSec": "3min", "OnUnitInactiveSec": "5min", "AccuracySec": "10s"},
    ),
    Unit(
        "skypilot-monitor",
        "Metrics of SkyPilot for Prometheus",
        _MONITOR,
        after=("network-online.target", "skypilot-web-ui.service"),
        wants=("network-online.target",),
        unit=PERSISTING,
        environment=_every(),
        service={
            "Type": "exec",
            "ExecStart": _program(
                *("monitor.py", " --host ", Opt("monitoring.host"), " --port "),
                *(Opt("monitoring.metricsPort"), " --state ", _STATE, " --server ", *_ENDPOINT),
                When(
                    On("enableWebUI"),
                    join(" --server-metrics http://", *_NEAR, ":", Opt("monitoring.serverPort"), "/metrics"),
                ),
                *(" --disk ", Opt("stateDir"), " --disk ", Opt("logsDir"), " --disk ", Opt("cacheDir")),
                *(" --log-level ", Opt("monitoring.logLevel")),
            ),
            **_USER,
            **RESTARTED,
            "TimeoutStopSec": 20,
            **LOOKING,
        },
    ),
)

SERVICE = Service(
    "skypilot",
    "SkyPilot",
    Opt("stateDir"),
    OPTIONS,
    TABLES,
    ASSERTIONS,
    UNITS,
    tmpfiles=(
        *(
            Line(join("d '", Opt(path), f"' {mode} ", Opt("user"), " ", Opt("group"), " ", age))
            for path, mode, age in (
                ("stateDir", "0700", "-"),
                ("configDir", "0750", "-"),
                ("cacheDir", "0750", "-"),
                ("logsDir", "0750", join(Opt("logsKeepDays"), "d")),
            )
        ),
        Line(join("L+ '", Opt("configDir"), "/config.yaml' - - - - ", Place("etc"), "/config.yaml")),
        # SkyPilot writes to ~/sky_logs, and cannot be told another place.
        Line(join("L+ '", Opt("stateDir"), "/sky_logs' - - - - ", Opt("logsDir"))),
    ),
    config=Config("config.yaml", "config", {"admin_policy": When(_DEFAULTS, "site_defaults.SiteDefaults")}),
    variables="extraEnvironment",
    ports=(
        ("webUI.port", both(_SERVER, On("webUI.openFirewall"))),
        ("monitoring.metricsPort", both(_MONITOR, On("monitoring.openFirewall"))),
    ),
    logins={
        "SKYPILOT_API_SERVER_ENDPOINT": join(*_ENDPOINT),
        "SKYPILOT_DISABLE_USAGE_COLLECTION": 1,
    },
    programs="skypilot",
    tools=("openssh", "rsync", "awscli2", "ssm-session-manager-plugin", "kubectl"),
    administrators="administrators",
)
