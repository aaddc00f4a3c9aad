"""What must hold of the options of any service."""

from __future__ import annotations

from itertools import combinations

from haversack.services.description import Assertion
from haversack.services.terms import ALWAYS, AtLeast, Begins, Matches, Not, Opt, Place, Same, Some, Test, join

# Names that every tool takes for a user's and nothing else: useradd(8), sudoers(5), whose ALL is in capitals.
_NAME = "[a-z_][a-z0-9_-]{0,30}"
_LOGIN = "[a-z_][a-z0-9_.-]*"
# Folders that a system shares: a service that owned one, with modes of its own, would break the others.
# Of what lies one folder deeper, what a service's own modes or a purge by age would break most.
_OTHERS = (
    "AccountsService|NetworkManager|acme|alertmanager|apache2|apt|audit|bluetooth|calico|ceph|chrony|cilium|cloud|cni|consul"
    "|containerd|containers|cups|dbus|dhcp|dnf|docker|dovecot|dpkg|elasticsearch|etcd|exim|exim4|fail2ban|flatpak|gdm3"
    "|gitlab|grafana|haproxy|httpd|incus|influxdb|iscsi|jenkins|journal|k0s|k3s|kafka|kubelet|kubernetes|libvirt|logrotate"
    "|longhorn|lxc|lxd|machines|mariadb|minio|mongodb|munge|mysql|named|nfs|nginx|nixos|nixos-containers|nomad|ntp|openvpn"
    "|pam|pgsql|pods|polkit-1|postfix|postgresql|private|prometheus|puppet|rabbitmq|rancher|redis|rpm|rpm-state|rsyslog"
    "|samba|selinux|slurm|slurm-llnl|snapd|squid|ssh|sss|sssd|sudo|sysstat|systemd|tailscale|tftpboot|tor|tuned|ucf|unbound"
    "|vault|yum"
)
_SHARED = (
    r"/[^/]+|/var/[^/]+|/var/(run|spool|mail|named)/.*|/var/www/html(/.*)?"
    r"|/(usr|boot|dev|proc|sys|run|nix|etc|bin|sbin|lib|lib32|lib64|libx32)/.*"
    f"|/var/(lib|log|cache)/({_OTHERS})(/.*)?|/opt/haversack(/.*)?"
)
# Groups that may do or read more than what they are for: their members are as good as root.
_STRONG = (
    "root|adm|admin|disk|docker|incus-admin|kmem|kvm|libvirt|lxd|mem|microk8s|nixbld|podman|shadow|staff|sudo"
    "|systemd-journal|wheel"
)
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
# An address of IPv4, one of IPv6, or a name (RFC 1123, section 2.1), whose last part is no number.
_HOST = (
    rf"({_OCTET}\.){{3}}{_OCTET}|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*"
    rf"|({_LABEL}\.)*[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?"
)
UNSEEN = "/(home|root|run/user|tmp|var/tmp)(/.*)?"
"""What services do not see (ProtectHome=, PrivateTmp= of systemd.exec(5))."""


def unless(test: Test, then: Test) -> Test:
    """Whether ``then`` holds, or the other does not."""
    return then if test == ALWAYS else Some((Not(test), then))


def differ(one: str, other: str, when: Test = ALWAYS) -> Assertion:
    """Two ports of this machine differ."""
    message = f"{one} and {other} are both {{{one}}}: two servers cannot share a port"
    return Assertion(unless(when, Not(Same(Opt(one), Opt(other)))), message)


def unprivileged(port: str, when: Test = ALWAYS) -> Assertion:
    """A port can be listened at without rights (ip(7), net.ipv4.ip_unprivileged_port_start)."""
    return Assertion(
        unless(when, AtLeast(port, 1024)),
        f"{port} is {{{port}}}: ports below 1024 belong to root, put a proxy or a rule of the firewall before it",
    )


def named_people(user: str, group: str, administrators: str, of: str) -> tuple[Assertion, ...]:
    """The names of users and groups are names, and the service is not root's."""
    return (
        Assertion(
            Not(Same(Opt(user), "root")), f"{user} is root: {of} needs no rights, name a user of its own"
        ),
        Assertion(
            Not(Matches(group, _STRONG, "strongGroup")),
            f"{group} is {{{group}}}, which may do more than {of} needs: name a group of its own",
        ),
        *(
            Assertion(
                Matches(path, _NAME, "userName"),
                f"{path} is {{{path}}}: a name has small letters, digits, _ and - only",
            )
            for path in (user, group)
        ),
        Assertion(
            Matches(administrators, _LOGIN),
            f"{administrators} holds what is no name of a user: small letters, digits, _, - and dots only",
        ),
    )


def host(path: str) -> Assertion:
    """What is listened at is an address or a name, and nothing more."""
    return Assertion(
        Matches(path, _HOST, "hostAddress"),
        f"{path} is {{{path}}}: write an address, as 127.0.0.1, 0.0.0.0 or ::, or a name, without a port",
    )


def own_folders(*paths: str, beside: str) -> tuple[Assertion, ...]:
    """Folders that a service owns are its alone, none is of the service ``beside`` it, and no two are one."""
    shared = f"{_SHARED}|/var/(lib|log|cache)/{beside}(/.*)?"
    alone = (
        Assertion(
            Not(Matches(path, shared, "sharedFolder")),
            f"{path} is {{{path}}}, which others use too: name a folder of its own, as in /var/lib",
        )
        for path in paths
    )
    apart = (
        Assertion(
            Not(Same(Opt(one), Opt(other))), f"{one} and {other} are both {{{one}}}: name a folder for each"
        )
        for one, other in combinations(paths, 2)
    )
    return (*alone, *apart)


def beside_what_runs(*paths: str) -> tuple[Assertion, ...]:
    """Folders that a service owns are neither what it runs, nor around or in that."""
    package = Place("package")
    return tuple(
        Assertion(
            Not(
                Some(
                    (
                        Same(Opt(path), package),
                        Begins(Opt(path), join(package, "/")),
                        Begins(package, join(Opt(path), "/")),
                    )
                )
            ),
            f"{path} is {{{path}}}, where what it runs lies, which would be the service's own: name another folder",
        )
        for path in paths
    )


def seen(*paths: str) -> tuple[Assertion, ...]:
    """Files and folders that a service needs lie where it sees them."""
    return tuple(
        Assertion(
            Not(Matches(path, UNSEEN, "unseenPlace")),
            f"{path} is {{{path}}}: the service sees neither homes nor /tmp, name another place",
        )
        for path in paths
    )
