"""The options of SkyPilot as a service, and what must hold of them.

They have the names of the guide of SkyPilot's published NixOS module; what that module gets wrong is mended here, and
said in docs/adr/0031-services.md.
"""

from __future__ import annotations

from haversack.services.assertions import (
    beside_what_runs,
    differ,
    host,
    named_people,
    own_folders,
    seen,
    unless,
    unprivileged,
)
from haversack.services.description import Assertion, Option
from haversack.services.terms import (
    Begins,
    Below,
    Called,
    Clean,
    Given,
    Has,
    Holds,
    Matches,
    Named,
    Not,
    On,
    Opt,
    Some,
    When,
    both,
    join,
)

# What `sky api start --host` takes (sky/client/cli/command.py, 0.14.1).
_HOSTS = ("127.0.0.1", "localhost", "0.0.0.0", "::1", "::")  # noqa: S104
_LOOPBACK = r"127\.[0-9.]+|localhost|::1"
_PORT = "([1-9][0-9]?[0-9]?[0-9]?|[1-5][0-9][0-9][0-9][0-9]|6[0-4][0-9][0-9][0-9]|65[0-4][0-9][0-9]|655[0-2][0-9]|6553[0-5])"
_NAMED = r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]*])"
_PROXY = f"https?://{_NAMED}:{_PORT}/?"
_ADDRESS = f"https?://{_NAMED}(:{_PORT})?(/[^/@]+)*/?"
# Values that mean the same to a shell and to systemd (EnvironmentFile= of systemd.exec(5)).  A shell reads ~ as a home
# at the beginning and after colons.
_BARE = r"""[^"'\\$`;&|<>() :"""
_VALUE = rf"""("[^"\\$`]*"|'[^'\\]*'|({_BARE}~]{_BARE}]*)?(:({_BARE}~]{_BARE}]*)?)*)"""
_LINE = f" *((export +)?[A-Za-z_][A-Za-z0-9_]*={_VALUE} *|#.*)?"
_HIDDEN = " *(export +)?[A-Za-z0-9_]*(SECRET|PASSWORD|PASSWD|TOKEN|(ACCESS|API|PRIVATE|SECRET)_KEY)(_ID)?=.+"

OPTIONS = {
    "enable": Option("bool", "Whether to run SkyPilot as a service.", False),
    "package": Option(
        "package",
        "SkyPilot: a package of nixpkgs, or the prefix of an environment that haversack installed.",
        example="/opt/skypilot",
    ),
    "user": Option("word", "The user that runs it; made if this is the default.", "skypilot"),
    "group": Option("word", "The group of that user; made if this is the default.", "skypilot"),
    "stateDir": Option(
        "path", "Home of the service: SkyPilot's database, keys and catalogs.", "/var/lib/skypilot"
    ),
    "configDir": Option("path", "Where its configuration lies.", "/var/lib/skypilot/config"),
    "logsDir": Option("path", "Where logs of requests and jobs lie.", "/var/log/skypilot"),
    "logsKeepDays": Option("positive", "After how many days logs are removed.", 30, most=36_500),
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
        secret=True,
        example={"aws": "/run/secrets/aws-credentials", "gcp": "/run/secrets/gcp-service-account.json"},
    ),
    "extraEnvironment": Option(
        "lines",
        "More variables of the service, each a line `export NAME=value`. Everybody can read them.",
        "",
        example="export AWS_PROFILE=skypilot",
    ),
    "endpoint": Option(
        "url",
        "Address of an API server on another machine, for the timers and for logins here.",
        nullable=True,
        example="http://skypilot.site.example:8080",
    ),
    "mirror": Option(
        "url",
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
    "proxy": Option(
        "url",
        "Proxy by which the server reaches clouds.",
        nullable=True,
        example="http://proxy.site.example:3128",
    ),
    "noProxy": Option(
        "word",
        "What it reaches without that proxy, with commas between.",
        # What rendered pods ask no proxy for, either.
        "localhost,127.0.0.1,::1,169.254.169.254,.svc,.cluster.local",
        example="localhost,127.0.0.1,10.0.0.0/8,.svc,.site.example",
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
        "port",
        "The port at which the API server gives its own metrics to those; there are none where webUI.host is not loopback.",
        46581,
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

SERVER = Called("runsServer", both(On("systemdServices"), On("enableWebUI")))
ASKING = Called("asksClusters", both(On("systemdServices"), On("enableCluster")))
STOPPING = Called("stopsClusters", both(ASKING, Given("cluster.autoStop")))
MONITOR = Called("givesMetrics", both(On("systemdServices"), On("monitoring.enable")))
# SkyPilot gives its own metrics, to anybody who asks, at the host that it listens at (sky/server/server.py, 0.14.1).
MEASURED = Called(
    "measuresServer", both(SERVER, On("monitoring.enable"), Matches("webUI.host", _LOOPBACK, "loopback"))
)
DEFAULTS = Called("hasDefaults", Some((Given("cluster.defaultInstanceType"), Given("cluster.defaultRegion"))))

# The address of a server that listens at that host, as a client beside it writes it.
NEAR = Named("near", When(Matches("webUI.host", "::1?"), "[::1]", "127.0.0.1"))
ENDPOINT = Named(
    "endpoint", When(SERVER, join("http://", NEAR, ":", Opt("webUI.port")), join(Opt("endpoint")))
)

FOLDERS = ("stateDir", "configDir", "logsDir", "cacheDir")

ASSERTIONS = (
    *named_people("user", "group", "administrators", of="SkyPilot"),
    *own_folders(*FOLDERS, beside="haversack"),
    *beside_what_runs(*FOLDERS),
    *(
        Assertion(
            Not(
                Some(
                    (
                        Begins(Opt(path), join(Opt("stateDir"), "/.")),
                        Begins(join(Opt(path), "/"), join(Opt("stateDir"), "/sky_logs/")),
                    )
                )
            ),
            f"{path} is {{{path}}}, which SkyPilot has for itself: name a folder of its own",
        )
        for path in ("configDir", "logsDir", "cacheDir")
    ),
    *(
        Assertion(
            Not(Below(path, "logsDir")),
            f"{path} is {{{path}}}, in logsDir, where what is old is removed: name a place beside it",
        )
        for path in ("stateDir", "configDir", "cacheDir", "caFile", "catalogs")
    ),
    Assertion(
        Not(Below("cloudCredentials", "logsDir")),
        "cloudCredentials has a file in logsDir, where what is old is removed: name a place beside it",
    ),
    *seen(*FOLDERS, "package", "caFile", "catalogs"),
    host("monitoring.host"),
    unprivileged("webUI.port", On("enableWebUI")),
    unprivileged("monitoring.metricsPort", On("monitoring.enable")),
    unprivileged("monitoring.serverPort", MEASURED),
    differ("webUI.port", "monitoring.metricsPort", both(On("enableWebUI"), On("monitoring.enable"))),
    differ("webUI.port", "monitoring.serverPort", MEASURED),
    differ("monitoring.metricsPort", "monitoring.serverPort", MEASURED),
    Assertion(
        unless(On("systemdServices"), Some((On("enableWebUI"), Given("endpoint")))),
        "there is no API server: set enableWebUI, or say in endpoint where another machine runs one",
    ),
    Assertion(
        Not(both(On("enableWebUI"), Given("endpoint"))),
        "endpoint names a server on another machine, and enableWebUI runs one here: leave one of them out",
    ),
    Assertion(
        unless(Given("endpoint"), Matches("endpoint", _ADDRESS, "address")),
        "endpoint is no address of a server: write one like http://skypilot.site.example:8080, without a user or password",
    ),
    Assertion(
        unless(Given("mirror"), Matches("mirror", _ADDRESS, "address")),
        "mirror is no address of a server: write one like https://mirror.site.example, without a user or password",
    ),
    Assertion(
        unless(Given("proxy"), Matches("proxy", _PROXY, "proxyAddress")),
        "proxy is no address of a proxy: write one like http://proxy.site.example:3128, without a user or password",
    ),
    Assertion(
        unless(Given("proxy"), Matches("noProxy", r"(.*,)?127\.0\.0\.1(,.*)?", "pastLoopback")),
        "noProxy lacks 127.0.0.1, where the parts of the server ask each other: add it",
    ),
    Assertion(
        Matches("extraEnvironment", _LINE, "assignment"),
        "extraEnvironment holds a line that is not `export NAME=value` with one word or a text in quotes: no shell reads it, and $, `, \\ and ~ mean nothing",
    ),
    Assertion(
        both(Not(Holds("extraEnvironment", _HIDDEN, "secretVariable")), Clean("extraEnvironment")),
        "extraEnvironment holds a secret, which everybody on this machine could read: name its file in cloudCredentials",
    ),
    Assertion(
        Clean("config"),
        "config holds a secret, which everybody on this machine could read: name its file in cloudCredentials, or leave it out",
    ),
    Assertion(
        Not(both(DEFAULTS, Has("config", "admin_policy"))),
        "config.admin_policy excludes cluster.defaultInstanceType and cluster.defaultRegion, which are given to tasks by such a policy",
    ),
    Assertion(
        Not(both(SERVER, On("webUI.openFirewall"), Matches("webUI.host", _LOOPBACK, "loopback"))),
        "webUI.openFirewall opens port {webUI.port}, where nothing but this machine is listened to: webUI.host is {webUI.host}",
        block=False,
    ),
    Assertion(
        Not(both(MONITOR, On("monitoring.openFirewall"), Matches("monitoring.host", _LOOPBACK, "loopback"))),
        "monitoring.openFirewall opens port {monitoring.metricsPort}, where nothing but this machine is listened to: monitoring.host is {monitoring.host}",
        block=False,
    ),
    Assertion(
        unless(SERVER, Matches("webUI.host", _LOOPBACK, "loopback")),
        "the API server listens at {webUI.host} and asks nobody for a password: whoever reaches its port runs commands with your credentials",
        block=False,
    ),
    # `gcloud auth list` (sky/clouds/gcp.py), `az account` (sky/adaptors/azure.py, AzureCliCredential), both of 0.14.1.
    Assertion(
        Not(both(SERVER, Has("cloudCredentials", "gcp"))),
        "cloudCredentials.gcp is not all that SkyPilot needs: it asks gcloud who is active. As {user}, with HOME={stateDir}, say once: gcloud auth activate-service-account --key-file FILE",
        block=False,
    ),
    Assertion(
        Not(both(SERVER, Has("cloudCredentials", "azure"))),
        "cloudCredentials.azure is read by nothing in SkyPilot: it asks az, which has logins of its own. As {user}, with HOME={stateDir}, say once: az login --service-principal",
        block=False,
    ),
    Assertion(
        Not(both(On("systemdServices"), Given("cluster.autoStop"), Not(On("enableCluster")))),
        "cluster.autoStop stops nothing without enableCluster: set that too, or leave autoStop out",
        block=False,
    ),
    Assertion(
        Not(both(SERVER, MONITOR, Not(MEASURED))),
        "monitoring leaves out the API server's own metrics, which it would give at {webUI.host} to whoever asks: let webUI.host be 127.0.0.1, behind a proxy",
        block=False,
    ),
)
