"""A machine with systemd that runs SkyPilot and the site's mirror as services.

The services are described in :mod:`haversack.services`, for NixOS too; what is declared here are the same options.
docs/platforms/systemd.md goes from nothing to a dashboard.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from haversack.errors import UsageError
from haversack.formats.schema import Key, KindKeys
from haversack.model.finding import Finding, unknown
from haversack.model.site import Environment, Site
from haversack.model.snapshot import Snapshot
from haversack.model.target import ANY
from haversack.platforms import KIND, Order, Rendered, of_registry, unreachable
from haversack.ports import Inside
from haversack.services import haversack, skypilot, text, together
from haversack.services.declared import faults, keys_of, values
from haversack.services.description import Service
from haversack.services.machine import look
from haversack.services.values import Values
from haversack.skypilot import carried, config, known, schema
from haversack.skypilot import settings as settings_of

SERVICES: Mapping[str, Service] = {"skypilot": skypilot.SERVICE, "haversack": haversack.SERVICE}
"""The services by the names of their tables."""
PREFIX = "/opt/skypilot"
"""Where ``haversack install skypilot-service`` puts SkyPilot: not below /opt/haversack, which bootstrap.sh replaces."""
SERVER = carried.SERVER
"""The environment that is put there."""
_TOOL = "/opt/haversack"


class Systemd:
    """Units, users, folders and configuration of services, for any machine with systemd."""

    name = "systemd"
    keys = KindKeys(
        "Services of a machine with systemd.",
        {name: Key(keys_of(service), f"{service.description}.") for name, service in SERVICES.items()},
    )
    asks: Mapping[str, Key] = carried.ASKS
    looks: Mapping[str, Key] = {}

    def validate(self, settings: Mapping[str, Any], site: Site) -> list[Finding]:
        """See :class:`haversack.platforms.Platform`."""
        subject = f"{KIND}.{self.name}"
        if not settings:
            said, remedy = "names no service", f"add [{subject}.skypilot] or [{subject}.haversack]"
            return [Finding("platform-setting", subject, said, remedy)]
        base = next((e.settings for e in site.environments if e.name == f"{KIND}.skypilot"), None)
        names = {environment.name: environment for environment in site.environments}
        ours = settings.get("skypilot")
        found = list(_wrong(settings, base))
        if ours is not None and "package" not in ours and base is None and carried.SERVER not in names:
            said = "is not given, and nothing brings SkyPilot: neither [platform.skypilot] nor [env.skypilot] is declared"
            remedy = "declare [platform.skypilot], or write the prefix of an installed SkyPilot"
            found.append(Finding("platform-setting", f"{subject}.skypilot.package", said, remedy))
        # What `needs` of [platform.skypilot] adds has lines; an environment that is declared is taken instead.
        added = carried.SERVER not in names or "lines" in names[carried.SERVER].settings
        if ours is not None and base is not None and "package" not in ours and added:
            found += together.unused(values(SERVICES["skypilot"], ours, PREFIX), base)
        return found

    def needs(self, settings: Mapping[str, Any], site: Site) -> tuple[Environment, ...]:
        """See :class:`haversack.platforms.Platform`: ``[platform.skypilot]`` brings what is run."""
        return ()

    def render(self, order: Order, inside: Inside) -> Rendered:
        """See :class:`haversack.platforms.Platform`: a tree that mirrors ``/``."""
        if order.command:
            raise UsageError("systemd takes no command", remedy="leave it out, with what stands before it")
        effective, files, findings = completed(order, inside)
        for name in effective:
            files |= tree(name, effective, order.origin)
        return Rendered(dict(sorted(files.items())), (*findings, *_closed(effective)))

    def preflight(self, order: Order, inside: Inside) -> list[Finding]:
        """See :class:`haversack.platforms.Platform`."""
        findings: list[Finding] = []
        try:
            effective, more, findings = completed(order, inside)
        except UsageError as problem:
            # What was said to `install` stands in no snapshot.
            told = unknown(f"{KIND}.systemd.skypilot.mirror", problem.message, problem.remedy)
            given = {n: {"package": _package(n, order), **table} for n, table in order.settings.items()}
            effective, more, findings = given, None, [told, *_wrong(given, None)]
        version = (_skypilot(order.content) or {}).get("version")
        if any(finding.blocking for finding in findings):
            return findings
        for name in effective:
            made = tree(name, effective, order.origin)
            if more is None:
                made.pop("etc/skypilot/config.yaml", None)
            elif name == "skypilot":
                made |= more
            of = version if name == "skypilot" else None
            found = valued(name, effective)
            findings += look(SERVICES[name], found, made, of, inside.run, Path("/"))
            findings += refused(order, found, inside) if name == "skypilot" else []
        said = "is not asked: whether other machines reach these ports"
        remedy = "ask from one of them: curl http://HOST:PORT/api/health"
        every = [*findings, *_closed(effective), unknown("network", said, remedy)]
        return list(dict.fromkeys(every))


def valued(name: str, settings: Mapping[str, Any]) -> Values:
    """The options of a service of settings that :func:`completed` gave."""
    return values(SERVICES[name], settings[name], PREFIX)


def tree(name: str, settings: Mapping[str, Any], origin: str) -> dict[str, bytes]:
    """The files of a service by their paths below ``/``, its small programs included; none where it is turned off."""
    service, found = SERVICES[name], valued(name, settings)
    if not found.options["enable"]:
        return {}
    files = {path: content.encode() for path, content in text.files(service, found, origin).items()}
    if service.programs:
        folder = resources.files("haversack") / "data" / service.programs
        for program in folder.iterdir():
            if program.name.endswith(".py"):
                place = f"{found.places['programs']}/{program.name}".removeprefix("/")
                files[place] = f"# {origin}\n".encode() + program.read_bytes()
    return files


def completed(order: Order, inside: Inside) -> tuple[dict[str, Any], dict[str, bytes], list[Finding]]:
    """The settings with what the snapshot and the mirror add to them, the files of that, and what is wrong.

    Of SkyPilot's configuration the table's own keys win over those of ``[platform.skypilot]``.  Raises
    ``UsageError`` where nodes must be told where the mirror is, and nobody says so.
    """
    settings = {name: {"package": _package(name, order), **table} for name, table in order.settings.items()}
    asked, files, findings = dict(order.asked), dict[str, bytes](), list[Finding]()
    base = _skypilot(order.content)
    if (ours := settings.get("skypilot")) is None:
        return settings, files, list(_wrong(settings, None))
    if "mirror" in ours:
        asked.setdefault("base_url", ours["mirror"])
    if base is not None and config.mirrors(base) and "ca" not in asked and "caFile" in ours:
        # Nodes are given the certificates themselves, which lie where the service reads them.
        if Path(ours["caFile"]).is_file():
            asked["ca"] = ours["caFile"]
        else:
            said, remedy = f"{ours['caFile']} is not here, and nodes are not given it", "say --ca FILE"
            findings.append(unknown(f"{KIND}.systemd.skypilot.caFile", said, remedy))
    served, ca = carried.served(order.content, order.name, asked)
    if served is not None:
        findings += unreachable(served.base) if base and carried.is_asked(base, asked) else []
        ours.setdefault("mirror", served.base)
    if ca:
        files["etc/skypilot/ca.pem"] = f"# {order.origin}\n{ca}".encode()
        ours.setdefault("caFile", "/etc/skypilot/ca.pem")
    if base is not None:
        if served is None and carried.is_needed(base):
            remedy = "say --base-url https://HOST, or write mirror in [platform.systemd.skypilot]"
            raise UsageError("nodes must be told where the store is served", remedy=remedy)
        mirror = carried.mirror(served, ca, base) if served else None
        findings += of_registry(asked) if carried.takes_images(base) else []
        findings += carried.trusted(base, ca)
        ours["config"] = joined(config.config(base, mirror), ours.get("config", {}))
        pods = base.get("kubernetes", {})
        if "proxy" in pods and "proxy" not in ours:
            # The server asks by the way that pods have; what it reaches past it is said where pods' is.
            ours["proxy"] = pods["proxy"]
            ours.setdefault("noProxy", ",".join(config.exempt(pods, mirror)))
        elif "proxy_secret" in pods and "proxy" not in ours:
            said = f"is not given to the server: its URL holds a password, and stands in the secret {pods['proxy_secret']} alone"
            remedy = "systemctl edit skypilot-web-ui, and add EnvironmentFile=FILE, with HTTPS_PROXY=URL and NO_PROXY in a file that only root reads"
            findings.append(unknown(f"{KIND}.systemd.skypilot.proxy", said, remedy))
        # Of a snapshot `lock` has judged it; what is declared may hold a secret, or mean nothing.
        findings += [] if order.crossed else [f for f in settings_of.faults(base) if f.blocking]
        registry = asked.get("registry")
        tables, more = carried.files_of_catalogs(base, order.content, served, registry, inside.store)
        files |= {f"etc/skypilot/catalogs/{path}": data for path, data in tables.items()}
        absent = carried.missing(base, order.content)
        # Of a declaration nothing is there yet, and its files are looked at, not used.
        findings += [*more, *(absent if order.crossed else (replace(f, blocking=False) for f in absent))]
        if tables:
            ours.setdefault("catalogs", "/etc/skypilot/catalogs")
    return settings, files if ours["enable"] else {}, [*findings, *_wrong(settings, base)]


def refused(order: Order, found: Values, inside: Inside, python: Path | None = None) -> list[Finding]:
    """What the SkyPilot of the service says against its configuration: that of its package, or of ``python``.

    Where there is none yet, one that was installed elsewhere is asked, if the site declares which version it is.  What
    another package has is run whatever its version, and so its word counts.
    """
    base = _skypilot(order.content)
    own = python or Path(found.places["python"])
    there = os.access(own, os.X_OK)
    if not found.options["enable"] or (base is None and not there):
        return []
    content = text.config(SERVICES["skypilot"], found)
    another = there and found.places["package"] != PREFIX
    version = base["version"] if base and not another else None
    remedy = "" if version else "correct [platform.systemd.skypilot.config]"
    told = schema.judge(content, version, carried.SERVER, inside, own if there else None)
    return [replace(one, remedy=remedy) if remedy and one.blocking else one for one in told]


def joined(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two tables as one, key by key; a list is not a table, and taken whole."""
    found = dict(below)
    for key, value in above.items():
        held = found.get(key)
        if isinstance(held, Mapping) and isinstance(value, Mapping):
            found[key] = joined(held, value)
        else:
            found[key] = value
    return found


def _skypilot(content: Snapshot) -> Mapping[str, Any] | None:
    """What ``[platform.skypilot]`` says, where it is in the snapshot."""
    held = content.environment(f"{KIND}.skypilot", ANY.name)
    return held.locked.settings if held else None


def _package(name: str, order: Order) -> str:
    """What a service runs where its table does not say: this very haversack, unless nothing has crossed yet."""
    if name == "skypilot":
        return PREFIX
    return sys.prefix if order.crossed and Path(sys.prefix, "bin", "haversack").exists() else _TOOL


def _wrong(settings: Mapping[str, Any], base: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Everything that is wrong with the settings by themselves."""
    for name, table in settings.items():
        yield from faults(SERVICES[name], table, f"{KIND}.systemd.{name}", PREFIX)
    ours = settings.get("skypilot", {}).get("config")
    if isinstance(ours, Mapping):
        version = base["version"] if base else None
        for key, said, remedy, certain in known.refused(ours, version):
            subject = f"{KIND}.systemd.skypilot.config.{key}"
            yield Finding("platform-setting", subject, said, remedy, blocking=certain)
    services = {
        name: (SERVICES[name], values(SERVICES[name], table, PREFIX)) for name, table in settings.items()
    }
    yield from together.shared(services)
    # Another prefix has a SkyPilot of its own.
    if base is not None and "skypilot" in services and services["skypilot"][1].places["package"] == PREFIX:
        yield from together.fitting(services["skypilot"][1], base)


def _closed(settings: Mapping[str, Any]) -> Iterator[Finding]:
    """That nothing here opens a firewall: what does is the machine's own."""
    for name in settings:
        found = valued(name, settings)
        for path, test in SERVICES[name].ports if found.options["enable"] else ():
            if found.test(test):
                port = found.options[path]
                said = f"is to be reached from elsewhere, and no file here opens port {port} of a firewall"
                remedy = f"ufw allow {port}/tcp, or: firewall-cmd --permanent --add-port={port}/tcp && firewall-cmd --reload"
                yield Finding(
                    "platform-setting", f"{KIND}.systemd.{name}.{path}", said, remedy, blocking=False
                )


PLATFORM = Systemd()
