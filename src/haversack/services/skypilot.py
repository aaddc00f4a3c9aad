"""SkyPilot as a service: its API server with the dashboard, and three small programs beside it."""

from __future__ import annotations

from haversack.services import haversack
from haversack.services.assertions import unless
from haversack.services.description import Assertion, Config, Line, Listening, Service, Unit
from haversack.services.hardening import HARDENED, LOOKING, PERSISTING, RESTARTED
from haversack.services.skypilot_options import (
    ASKING,
    ASSERTIONS,
    DEFAULTS,
    ENDPOINT,
    FOLDERS,
    MEASURED,
    MONITOR,
    NEAR,
    OPTIONS,
    SERVER,
    STOPPING,
    TABLES,
)
from haversack.services.terms import (
    ALWAYS,
    Each,
    Given,
    Has,
    Holds,
    Matches,
    Named,
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


def _every(**more: Term) -> dict[str, Term]:
    """Variables of each unit."""
    return {
        "HOME": Opt("stateDir"),
        "XDG_CACHE_HOME": Opt("cacheDir"),
        "SKYPILOT_GLOBAL_CONFIG": join(Opt("configDir"), "/config.yaml"),
        "SKYPILOT_API_SERVER_ENDPOINT": ENDPOINT,
        # OpenSSH runs ProxyCommand with it, and the user's own may be nologin.
        "SHELL": "/bin/sh",
        # A client that finds no server would start one, hidden in its own unit.
        "SKYPILOT_DISABLE_LOCAL_API_SERVER": 1,
        "SKYPILOT_DISABLE_USAGE_COLLECTION": 1,
        "DO_NOT_TRACK": 1,
        "SCARF_NO_ANALYTICS": 1,
        "PYTHONDONTWRITEBYTECODE": 1,
        **more,
    }


_CA = When(Given("caFile"), Opt("caFile"))
# Servers take // for another place than /.
_INDEX = Named(
    "index",
    When(Matches("mirror", ".*/"), join(Opt("mirror"), "pypi/simple/"), join(Opt("mirror"), "/pypi/simple/")),
)

# What an API server needs beyond what every unit has.
_SERVING: dict[str, Term] = {
    # What is under way at a stop has this long before it is cancelled (sky/server/uvicorn.py); with its default of 60
    # systemd would kill it first.
    "SKYPILOT_GRACE_PERIOD_SECONDS": 40,
    # It builds a wheel of itself with pip, which would ask an index for what is installed (0: the option is off).
    "PIP_NO_BUILD_ISOLATION": 0,
    "UV_DEFAULT_INDEX": When(Given("mirror"), _INDEX),
    "PIP_INDEX_URL": When(Given("mirror"), _INDEX),
    # Not REQUESTS_CA_BUNDLE: botocore reads it too (botocore/endpoint.py), and AWS has no certificate of the site.
    "SSL_CERT_FILE": _CA,
    "PIP_CERT": _CA,
    # Programs disagree on whether capitals or small letters count.
    **dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), When(Given("proxy"), Opt("proxy"))
    ),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), When(Given("proxy"), Opt("noProxy"))),
    "PYTHONPATH": When(DEFAULTS, Place("programs")),
    "SITE_DEFAULT_REGION": When(Given("cluster.defaultRegion"), Opt("cluster.defaultRegion")),
    "SITE_DEFAULT_INSTANCE_TYPE": When(
        Given("cluster.defaultInstanceType"), Opt("cluster.defaultInstanceType")
    ),
    # %d is where systemd puts what LoadCredential= names (systemd.unit(5)).
    "AWS_SHARED_CREDENTIALS_FILE": When(Has("cloudCredentials", "aws"), "%d/aws"),
    # SkyPilot itself looks for the file there, and says without it that AWS is disabled (sky/clouds/aws.py,
    # _get_credentials_path).
    "AWS_CONFIG_FILE": When(Has("cloudCredentials", "aws"), "%d/aws"),
    "GOOGLE_APPLICATION_CREDENTIALS": When(Has("cloudCredentials", "gcp"), "%d/gcp"),
    # SDKs of Azure have read it; SkyPilot 0.14.1 asks `az` alone (sky/adaptors/azure.py), of which people are warned.
    "AZURE_AUTH_LOCATION": When(Has("cloudCredentials", "azure"), "%d/azure"),
}


def _program(name: str, *words: Term) -> Term:
    return join(Place("python"), " ", Place("programs"), f"/{name}", *words)


_USER: dict[str, Term] = {"User": Opt("user"), "Group": Opt("group"), "WorkingDirectory": Opt("stateDir")}
_STATE = join(Opt("cacheDir"), "/clusters.json")
_STOPPED = join(Opt("cacheDir"), "/autostop.json")
_REQUESTS = join(Opt("logsDir"), "/requests")
_WRITES: tuple[Term, ...] = (Opt("stateDir"), Opt("configDir"), Opt("logsDir"), Opt("cacheDir"))

UNITS = (
    Unit(
        "skypilot-web-ui",
        "SkyPilot API server and dashboard",
        SERVER,
        after=("network-online.target",),
        wants=("network-online.target",),
        unit=PERSISTING,
        environment=_every(**_SERVING, SKYPILOT_DEBUG=When(Same(Opt("monitoring.logLevel"), "DEBUG"), 1)),
        service={
            "Type": "exec",
            "ExecStart": _program(
                *("server.py", " --host ", Opt("webUI.host"), " --port ", Opt("webUI.port")),
                When(MEASURED, join(" --metrics-port ", Opt("monitoring.serverPort"))),
                When(Given("catalogs"), join(" --catalogs ", Opt("catalogs"))),
                *(" --logs ", _REQUESTS),
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
        ASKING,
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
        STOPPING,
        after=("skypilot-web-ui.service",),
        environment=_every(),
        service={
            "Type": "oneshot",
            "ExecStart": _program(
                *("autostop.py", " --idle-minutes ", Opt("cluster.autoStop"), " --timeout 240"),
                *(" --state ", _STOPPED),
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
        MONITOR,
        after=("network-online.target", "skypilot-web-ui.service"),
        wants=("network-online.target",),
        unit=PERSISTING,
        environment=_every(),
        service={
            "Type": "exec",
            "ExecStart": _program(
                *("monitor.py", " --host ", Opt("monitoring.host"), " --port "),
                *(Opt("monitoring.metricsPort"), " --server ", ENDPOINT),
                # What no unit writes is not waited for.
                When(ASKING, join(" --state ", _STATE)),
                When(STOPPING, join(" --autostop-state ", _STOPPED)),
                When(
                    MEASURED,
                    join(" --server-metrics http://", NEAR, ":", Opt("monitoring.serverPort"), "/metrics"),
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


def _own_variables() -> tuple[Assertion, ...]:
    """No line of ``extraEnvironment``, which wins (``EnvironmentFile=`` of systemd.exec(5)), replaces what units set."""
    found: dict[Test, set[str]] = {ALWAYS: {"PATH"}}
    for unit in UNITS:
        for name, term in unit.environment.items():
            found.setdefault(term.test if isinstance(term, When) else ALWAYS, set()).add(name)
    said = "extraEnvironment sets a variable that the service sets by itself: use the option for it, or leave it out"
    return tuple(
        Assertion(
            unless(test, Not(Holds("extraEnvironment", f" *(export +)?({'|'.join(sorted(names))})=.*"))), said
        )
        for test, names in found.items()
    )


_ANSWERED = Some((SERVER, Given("endpoint")))

SERVICE = Service(
    "skypilot",
    "SkyPilot",
    Opt("stateDir"),
    OPTIONS,
    TABLES,
    (*ASSERTIONS, *_own_variables()),
    UNITS,
    tmpfiles=(
        *(
            Line(join("d '", place, f"' {mode} ", Opt("user"), " ", Opt("group"), " ", age))
            for place, mode, age in (
                (Opt("stateDir"), "0700", "-"),
                (Opt("configDir"), "0750", "-"),
                (Opt("cacheDir"), "0750", "-"),
                (Opt("logsDir"), "0750", join(Opt("logsKeepDays"), "d")),
                # By itself, or it would be removed with the logs while it is empty.
                (_REQUESTS, "0750", join(Opt("logsKeepDays"), "d")),
            )
        ),
        # Not L+, which removes what is there already: a folder with somebody's logs, a file written by hand.
        Line(join("L '", Opt("configDir"), "/config.yaml' - - - - ", Place("etc"), "/config.yaml")),
        # SkyPilot writes to ~/sky_logs, and cannot be told another place.
        Line(join("L '", Opt("stateDir"), "/sky_logs' - - - - ", Opt("logsDir"))),
    ),
    config=Config(
        "config.yaml",
        "config",
        {"admin_policy": When(DEFAULTS, "site_defaults.SiteDefaults")},
        # Keys of the guide, which SkyPilot's schema refuses (sky/utils/schemas.py, 0.14.1).
        {
            "cloud": "name clouds in config.allowed_clouds, and the region in cluster.defaultRegion",
            "spot": "ask for spot machines in tasks (use_spot)",
            "cluster": "write cluster.defaultInstanceType and cluster.defaultRegion beside config",
        },
    ),
    variables="extraEnvironment",
    listens=(
        Listening("webUI.port", "skypilot-web-ui", SERVER, "webUI.host"),
        Listening("monitoring.serverPort", "skypilot-web-ui", MEASURED, "webUI.host"),
        Listening("monitoring.metricsPort", "skypilot-monitor", MONITOR, "monitoring.host"),
    ),
    beside=haversack.SERVICE,
    ports=(
        ("webUI.port", both(SERVER, On("webUI.openFirewall"))),
        ("monitoring.metricsPort", both(MONITOR, On("monitoring.openFirewall"))),
    ),
    logins={
        "SKYPILOT_API_SERVER_ENDPOINT": When(_ANSWERED, ENDPOINT),
        # A client starts one of its own for whoever logs in, where the endpoint is its default one and nobody answers.
        "SKYPILOT_DISABLE_LOCAL_API_SERVER": When(_ANSWERED, "1"),
        "SKYPILOT_DISABLE_USAGE_COLLECTION": 1,
    },
    folders=FOLDERS,
    programs="skypilot",
    commands=("sky",),
    # The last two `sky check` starts before it enables Kubernetes, and wants an nc that knows -h.  It runs commands
    # with /bin/bash (sky/utils/command_runner.py, 0.14.1).
    tools=(
        "bash",
        "openssh",
        "rsync",
        "awscli2",
        "ssm-session-manager-plugin",
        "kubectl",
        "socat",
        "netcat-openbsd",
    ),
    clouds=(
        ("google-cloud-sdk", Has("cloudCredentials", "gcp")),
        ("azure-cli", Has("cloudCredentials", "azure")),
    ),
    extras=("cloudCredentials", "config"),
    administrators="administrators",
)
