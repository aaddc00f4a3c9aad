"""The site's mirror as a service: ``haversack serve`` over a store, with the same care."""

from __future__ import annotations

from haversack.services.assertions import (
    differ,
    host,
    named_people,
    own_folders,
    seen,
    unless,
    unprivileged,
)
from haversack.services.description import Assertion, Line, Listening, Option, Service, Unit
from haversack.services.hardening import HARDENED, PERSISTING, RESTARTED
from haversack.services.terms import Given, Matches, Named, Not, On, Opt, Place, Term, When, both, join

OPTIONS = {
    "enable": Option("bool", "Whether to serve the site's store.", False),
    "package": Option(
        "package", "haversack: a package, or the prefix it was installed to.", example="/opt/haversack"
    ),
    "user": Option("word", "The user that serves; made if this is the default.", "haversack"),
    "group": Option("word", "The group of that user; made if this is the default.", "haversack"),
    "store": Option("path", "The store to serve; nothing is written to it.", "/var/lib/haversack/store"),
    "host": Option("word", "The address it listens at.", "127.0.0.1"),
    "port": Option("port", "Its port.", 8090),
    "openFirewall": Option("bool", "Whether to open that port in the firewall.", False),
    "tls.certificate": Option(
        "path",
        "Certificate of this machine (PEM, with its chain); only root needs to read it.",
        nullable=True,
        example="/etc/ssl/mirror.pem",
    ),
    "tls.key": Option(
        "path",
        "Key of the certificate; only root needs to read it.",
        nullable=True,
        secret=True,
        example="/run/secrets/mirror.key",
    ),
    "auth": Option(
        "path",
        "File with users and rules (`haversack auth`); only root needs to read it.",
        nullable=True,
        secret=True,
        example="/run/secrets/haversack-users.toml",
    ),
    "metrics.host": Option("word", "The address metrics are given at.", "127.0.0.1"),
    "metrics.port": Option(
        "port", "A port of their own for metrics; without it there are none.", nullable=True, example=9091
    ),
    "administrators": Option(
        "words", "Users who may start, stop, restart and look at it with sudo.", (), example=("alice",)
    ),
}

TABLES = {"tls": "What it speaks TLS with.", "metrics": "Metrics for Prometheus."}

ASSERTIONS = (
    *named_people("user", "group", "administrators", of="serving"),
    *own_folders("store", beside="skypilot"),
    *seen("store", "package"),
    host("host"),
    host("metrics.host"),
    unprivileged("port"),
    unprivileged("metrics.port"),
    Assertion(unless(Given("tls.certificate"), Given("tls.key")), "tls.certificate needs tls.key"),
    Assertion(unless(Given("tls.key"), Given("tls.certificate")), "tls.key needs tls.certificate"),
    differ("port", "metrics.port"),
    Assertion(
        Not(both(On("openFirewall"), Matches("host", r"127\.[0-9.]+|localhost|::1"))),
        "openFirewall opens port {port}, where nothing but this machine is listened to: host is {host}",
        block=False,
    ),
)


def _bracketed(name: str, path: str) -> Term:
    """An address as it stands before a port (RFC 3986, section 3.2.2)."""
    return Named(name, When(Matches(path, ".*:.*"), join("[", Opt(path), "]"), Opt(path)))


UNITS = (
    Unit(
        "haversack",
        "The site's mirror, served by haversack",
        after=("network-online.target",),
        wants=("network-online.target",),
        unit=PERSISTING,
        environment={"HOME": Opt("store"), "PYTHONDONTWRITEBYTECODE": 1},
        service={
            "Type": "exec",
            "ExecStart": join(
                *(Place("package"), "/bin/haversack serve --store ", Opt("store")),
                *(" --listen ", _bracketed("host", "host"), ":", Opt("port")),
                # %d is where systemd puts what LoadCredential= names (systemd.unit(5)).
                When(Given("tls.certificate"), " --tls-cert %d/tls-certificate"),
                When(Given("tls.key"), " --tls-key %d/tls-key"),
                When(Given("auth"), " --auth %d/auth"),
                When(
                    Given("metrics.port"),
                    join(
                        " --metrics-listen ",
                        _bracketed("metricsHost", "metrics.host"),
                        ":",
                        Opt("metrics.port"),
                    ),
                ),
            ),
            # It reads certificate and users anew: the unit's copies, which systemd (252) makes at a start alone.
            "ExecReload": join(Place("kill"), " -HUP $MAINPID"),
            "User": Opt("user"),
            "Group": Opt("group"),
            "LoadCredential": (
                When(Given("tls.certificate"), join("tls-certificate:", Opt("tls.certificate"))),
                When(Given("tls.key"), join("tls-key:", Opt("tls.key"))),
                When(Given("auth"), join("auth:", Opt("auth"))),
            ),
            **RESTARTED,
            # Downloads under way have 30 s.
            "TimeoutStopSec": 45,
            "LimitNOFILE": 65536,
            **HARDENED,
            "MemoryDenyWriteExecute": "yes",
        },
    ),
)

SERVICE = Service(
    "haversack",
    "haversack mirror",
    Opt("store"),
    OPTIONS,
    TABLES,
    ASSERTIONS,
    UNITS,
    tmpfiles=(Line(join("d '", Opt("store"), "' 0755 - - -")),),
    listens=(
        Listening("port", "haversack", host="host"),
        Listening("metrics.port", "haversack", host="metrics.host"),
    ),
    ports=(("port", On("openFirewall")),),
    folders=("store",),
    commands=("haversack",),
    administrators="administrators",
)
