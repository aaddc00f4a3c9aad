"""SkyPilot: clusters on AWS and Kubernetes that never ask the internet.

What its versions know and want is in :mod:`haversack.skypilot`; docs/platforms/skypilot.md goes through it from
nothing to a first job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from haversack.errors import UsageError
from haversack.formats import yaml
from haversack.formats.schema import Key
from haversack.model.finding import Finding, unknown, unready
from haversack.model.site import Environment, Site
from haversack.model.target import ANY
from haversack.platforms import Order, Rendered, of_registry, unreachable
from haversack.ports import Inside
from haversack.skypilot import (
    amazon,
    asking,
    carried,
    catalogs,
    cluster,
    config,
    pulls,
    schema,
    shell,
    versions,
)
from haversack.skypilot.carried import NODES, SERVER
from haversack.skypilot.machines import CA
from haversack.skypilot.settings import KEYS, faults

# Asked for a version, each does nothing else; socat and nc as SkyPilot itself asks them.
_HARMLESS = {"ssh": "-V", "kubectl": "help", "socat": "-V", "nc": "-h"}
_NODES = ("linux-x86_64-glibc2.31-py310",)


class SkyPilot:
    """SkyPilot: clusters on AWS and Kubernetes that never ask the internet."""

    name = "skypilot"
    keys = KEYS
    looks: Mapping[str, Key] = {name: carried.ASKS[name] for name in ("base_url", "registry")}
    asks: Mapping[str, Key] = carried.ASKS

    def validate(self, settings: Mapping[str, Any], site: Site) -> list[Finding]:
        """See :class:`haversack.platforms.Platform`."""
        return list(faults(settings))

    def needs(self, settings: Mapping[str, Any], site: Site) -> tuple[Environment, ...]:
        """See :class:`haversack.platforms.Platform`: the server, what nodes install, catalogs, the image of pods."""
        version = settings["version"]
        clouds = [name for name in ("aws", "kubernetes") if name in settings]
        found = []
        # Without any target it is for the machine that locks, as every environment is.
        targets = tuple(settings.get("targets") or (target.name for target in site.targets))
        # The server builds a wheel of itself for the nodes, with these.
        lines = (f"skypilot[{','.join(clouds)}]=={version}", "pip", "setuptools", "wheel")
        found.append(Environment(SERVER, "pip", targets, None, {"lines": lines, "build": True}))
        if config.mirrors(settings):
            needed = (*versions.on_nodes(version), f"skypilot[{','.join((*clouds, 'remote'))}]=={version}")
            nodes = tuple(settings.get("nodes", _NODES))
            found.append(Environment(NODES, "pip", nodes, None, {"lines": needed, "build": True}))
        if tables := catalogs.tables(settings):
            base = f"{settings.get('catalogs', catalogs.SOURCE).rstrip('/')}/{versions.catalogs(version)}"
            items = tuple({"url": f"{base}/{t}.csv", "name": catalogs.filename(t)} for t in tables)
            found.append(Environment("files", "file", (ANY.name,), None, {"items": items}))
        if image := settings.get("kubernetes", {}).get("image"):
            found.append(Environment("images", "image", (ANY.name,), None, {"items": ({"ref": image},)}))
        return tuple(found)

    def render(self, order: Order, inside: Inside) -> Rendered:
        """See :class:`haversack.platforms.Platform`: the configuration, catalogs, and a script that puts both in place."""
        if order.command:
            raise UsageError("SkyPilot takes no command", remedy="leave it out, with what stands before it")
        settings, pods = order.settings, order.settings.get("kubernetes", {})
        absent = carried.missing(settings, order.content)
        # Of a declaration nothing is there yet, and its files are looked at, not used.
        findings = [
            *faults(settings),
            *(absent if order.crossed else (replace(f, blocking=False) for f in absent)),
        ]
        served, ca = carried.served(order.content, order.name, order.asked)
        if served is None and carried.is_needed(settings):
            raise UsageError(
                "nodes must be told where the store is served", remedy="say --base-url https://HOST"
            )
        mirror = carried.mirror(served, ca, settings) if served else None
        if served and carried.is_asked(settings, order.asked):
            findings += unreachable(served.base)
        findings += of_registry(order.asked) if carried.takes_images(settings) else []
        findings += carried.trusted(settings, ca)
        head = f"# {order.origin}\n"
        made = config.config(settings, mirror)
        if order.crossed:
            findings += schema.judge(made, settings["version"], SERVER, inside)
        python = schema.installed(inside, SERVER) if order.crossed else None
        programs = python.parent if python else None
        files = {
            "config.yaml": f"{head}# For ~/.sky/config.yaml of the API server; seed.sh puts it there.\n".encode()
            + yaml.dump(made),
            "env.sh": shell.server(order.origin, pods, config.exempt(pods, mirror), programs),
            "client.sh": shell.client(order.origin, settings.get("endpoint"), programs),
        }
        if ca and pods.get("mirror"):
            files["configmap.yaml"] = config.configmap(order.origin, ca)
        if ca:
            files[CA] = (head + ca).encode()
        registry = order.asked.get("registry")
        found, more = carried.files_of_catalogs(settings, order.content, served, registry, inside.store)
        tables = {f"catalogs/{path}": data for path, data in found.items()}
        files |= tables
        files["seed.sh"] = shell.seed(order.origin, sorted(tables))
        return Rendered(dict(sorted(files.items())), (*findings, *more))

    def preflight(self, order: Order, inside: Inside) -> list[Finding]:
        """See :class:`haversack.platforms.Platform`."""
        settings = order.settings
        wanted = ["ssh", "rsync"]
        findings = [*carried.missing(settings, order.content), *_images(order, inside)]
        findings += schema.judge(config.config(settings, None), settings["version"], SERVER, inside)
        if (aws := settings.get("aws")) is not None:
            aws = amazon.of(settings["version"], aws)
            own = _own("aws", inside)
            wanted += [own, *(["session-manager-plugin"] if amazon.through_ssm(aws) else [])]
            findings += _amazon(aws, inside, own)
        if (kubernetes := settings.get("kubernetes")) is not None:
            # The last two it wants of every machine that enables Kubernetes (sky/provision/kubernetes/utils.py,
            # check_port_forward_mode_dependencies, which sky/clouds/kubernetes.py calls first).
            wanted += ["kubectl", "socat", "nc"]
            seen = cluster.look(kubernetes, lambda *words: asking.say(inside.run, ["kubectl", *words]))
            findings += cluster.judge(kubernetes, config.exempt(kubernetes, None), seen)
        said = "is not on this machine, or does not start"
        remedy = "install it where the API server runs"
        findings += [
            unready(Path(program).name, said, remedy)
            for program in wanted
            if not asking.has(inside.run, program, _HARMLESS.get(program, "--version"))
        ]
        said = "are not asked: whether their images have uv and SkyPilot's runtime, and whether they reach the mirror or the proxy"
        return [*findings, unknown("nodes", said, "launch one: sky launch --cpus 2 'uv pip list'")]


def _own(program: str, inside: Inside) -> str:
    """A program as the shell of ``env.sh`` finds it: the one that was installed with SkyPilot, or the machine's."""
    python = schema.installed(inside, SERVER)
    held = python.parent / program if python else None
    return str(held) if held and held.is_file() else program


def _images(order: Order, inside: Inside) -> list[Finding]:
    """Whether pods' images are where they are asked of, and whether pods get there."""
    settings, asked = order.settings, order.asked
    served, _ = carried.served(order.content, order.name, asked)
    findings = unreachable(served.base) if served and carried.is_asked(settings, asked) else []
    findings += of_registry(asked) if carried.takes_images(settings) else []
    registry = asked.get("registry") or (served.host if served else "") or None
    _, more = carried.files_of_catalogs(settings, order.content, served, registry, inside.store)
    names = carried.images_of_pods(settings, order.content, inside.store)
    if names and registry is None:
        said = "are not asked for: nobody says where nodes get them"
        findings.append(unknown("images of pods", said, "haversack doctor skypilot --base-url https://HOST"))
    elif names and registry is not None:
        scheme = "http" if served and served.plain and registry == served.host else "https"
        seen = pulls.look(names, registry, scheme, lambda *words: asking.ask(inside.run, words))
        findings += pulls.judge(registry, seen)
        # By whatever way it came there.
        more = [finding for finding in more if seen.get(finding.subject) != 200]
    return [*findings, *more]


def _amazon(aws: Mapping[str, Any], inside: Inside, program: str) -> list[Finding]:
    """What AWS tells whoever asks with the credentials that are found here, by its program."""

    def ask(region: str | None, *words: str) -> Any:
        at = ("--region", region) if region else ()
        return asking.ask(inside.run, [program, *words, *at, "--output", "json"], amazon.ENVIRON)

    regions = aws.get("regions") or (None,)
    # A VPC's endpoint serves the host of its region, and not the one that is asked where nobody names any.
    who = ask(regions[0], "sts", "get-caller-identity")
    if isinstance(who, asking.Refused):
        return [asking.refused("AWS", who)]
    findings = []
    for region in regions:
        seen = amazon.look(aws, partial(ask, region))
        findings += [f for f in amazon.judge(aws, region or "AWS", seen) if f not in findings]
    said = "is not asked: whether these credentials may start sessions, and whether agents of machines answer"
    return [*findings, unknown("Systems Manager", said, "aws ssm describe-instance-information")]


PLATFORM = SkyPilot()
