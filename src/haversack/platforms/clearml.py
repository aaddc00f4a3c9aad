"""ClearML: agents, charts and sessions that find everything at the site.

What they want to be told is in :mod:`haversack.clearml`; docs/platforms/clearml.md goes through it from nothing to
a first session.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from haversack.clearml import helm, images, linting, pulls, session, variables
from haversack.clearml.charts import CHARTS, COMMUNITY, ENTERPRISE
from haversack.clients import Served, address
from haversack.errors import NotFoundError, UsageError
from haversack.formats import hocon, pullsecret
from haversack.formats.schema import Key, KindKeys
from haversack.images.inside import carried, declared, holds, repinned
from haversack.images.reference import PATTERN
from haversack.model.finding import Finding, unknown
from haversack.model.site import Environment, Site
from haversack.model.target import ANY
from haversack.platforms import Order, Rendered, of_registry, unreachable
from haversack.ports import Inside

APPS = "clearml-apps"
"""The environment of the Python packages that applications install in their containers."""
_HELM, _CONF, _VAULT = "helm", "agent-conf", "vault"
# What a requirements file would take beside them, as an index or an address, may hold a password, and the lock
# tells all settings.
_PACKAGE = r"(?!.*\s-)[A-Za-z0-9][^@/\\#$\x00-\x1f\x7f]*"
_REGISTRY = r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?(?:/[a-z0-9._-]+)*"


class ClearML:
    """ClearML: charts, agents and sessions that find everything at the site."""

    name = "clearml"
    keys = KindKeys(
        "ClearML agents, and the interactive sessions that they run.",
        {
            "flavor": Key(
                "string",
                "Whose charts and server they are: the public ones or the enterprise ones, whose keys differ.",
                required=True,
                choices=(COMMUNITY, ENTERPRISE),
            ),
            "session": Key(
                "string",
                "Version of clearml-session, which says the versions of its assets.",
                required=True,
                pattern=r"[0-9]+(?:\.[0-9]+){1,2}",
                expects="a version like 0.17.0",
            ),
            "queues": Key(
                "strings",
                "Queues that agents serve; without the key default.",
                pattern=r"[^,\x00-\x1f\x7f]+",
                expects="the name of a queue, without a comma",
            ),
            "deliver": Key(
                "strings",
                "What to render: overrides for helm, clearml.conf for agents on machines, the Administrator Vault of an enterprise server; without the key all that the flavor has.",
                choices=(_HELM, _CONF, _VAULT),
            ),
            "targets": Key(
                "strings",
                "Targets of the containers, whose packages are locked; without the key every target of the declaration.",
            ),
            "packages": Key(
                "strings",
                "Python packages to lock instead of those of ClearML's guide.",
                pattern=_PACKAGE,
                expects="a name with versions, extras and a marker, without options, URLs and variables",
            ),
            "registry_secret": Key(
                "string",
                "Name of the Kubernetes secret with which images are pulled.",
                pattern=pullsecret.NAME,
                expects=pullsecret.NAME_SAYS,
            ),
            "image": Key(
                "string",
                "Image of tasks that name none; it is carried.",
                pattern=PATTERN,
                expects="the name of an image with its host, like docker.io/library/python:3.11-slim",
            ),
            "agent_in_image": Key(
                "boolean",
                "The images of tasks hold clearml-agent, and no pod installs it.",
                default=False,
            ),
            "assets": Key(
                KindKeys(
                    "Assets from other places than the known ones of the session's version.",
                    {asset.key: Key("source", f"Address of {asset.says}.") for asset in session.ASSETS},
                ),
                "Assets from other places than the known ones of the session's version.",
            ),
        },
    )
    looks: Mapping[str, Key] = {
        "values": Key("string", "A values file, whose images are written anew for the registry."),
        "chart": Key(
            "string",
            "The chart that the values file is for (default: the one of its first lines or its name, else the agent's).",
            choices=tuple(CHARTS),
        ),
        "registry": Key(
            "string",
            "The site's registry as pods name it (default: the host of the base URL).",
            pattern=_REGISTRY,
            expects="a host, or a host and a path",
        ),
    }
    asks: Mapping[str, Key] = {
        "base_url": Key("string", "Where the store, or an export of it, is served."),
        "dated": Key(
            "boolean", "Point at /@NAME/ of the snapshot instead of at what is current.", default=False
        ),
        **looks,
    }

    def validate(self, settings: Mapping[str, Any], site: Site) -> list[Finding]:
        """See :class:`haversack.platforms.Platform`."""
        findings = [_setting(f"assets.{key}", said, remedy) for key, said, remedy in session.faults(settings)]
        if settings["flavor"] == COMMUNITY and _VAULT in settings.get("deliver", ()):
            said = "a vault is of enterprise servers; a community server ignores it"
            findings.append(_setting("deliver", said, 'leave "vault" out'))
        return findings

    def needs(self, settings: Mapping[str, Any], site: Site) -> tuple[Environment, ...]:
        """See :class:`haversack.platforms.Platform`: assets as files, packages for every target, the image."""
        wrong = {key for key, _, _ in session.faults(settings)}
        items = tuple(
            {"url": url, "name": session.name_of(url)}
            for key, url in sorted(session.chosen(settings).items())
            if key not in wrong
        )
        lines = tuple(settings.get("packages") or session.requirements(settings["session"]))
        optional = () if "packages" in settings else session.OPTIONAL
        found = []
        if items:
            found.append(Environment("files", "file", (ANY.name,), None, {"items": items}))
        # Without any target it is for the machine that locks, as every environment is.
        targets = tuple(settings.get("targets") or (target.name for target in site.targets))
        wanted = {"lines": lines, "optional": optional, "build": True}
        check = None if "packages" in settings else session.CHECK
        found.append(Environment(APPS, "pip", targets, check, wanted))
        if "image" in settings:
            item = {"ref": settings["image"]}
            found.append(Environment("images", "image", (ANY.name,), None, {"items": (item,)}))
        return tuple(found)

    def render(self, order: Order, inside: Inside) -> Rendered:
        """See :class:`haversack.platforms.Platform`: a file for each road that is declared."""
        asked, settings = order.asked, order.settings
        # Slow to load, and every command asks which platforms there are.
        from haversack.formats import yaml

        if order.command:
            raise UsageError("ClearML takes no command", remedy="leave it out, with what stands before it")
        if "base_url" not in asked:
            raise UsageError(
                "pods must be told where the store is served", remedy="say --base-url https://HOST"
            )
        base = address(asked["base_url"])
        absent = _carried(order)
        findings = [
            *unreachable(base),
            *of_registry(asked),
            *(absent if order.crossed else (replace(finding, blocking=False) for finding in absent)),
            *_pulled(order),
        ]
        served = Served(order.content, order.name, f"{base}/@{order.name}" if asked.get("dated") else base)
        registry = asked.get("registry") or urlsplit(base).netloc
        told = _variables(settings, served)
        files: dict[str, bytes] = {}
        if "registry" in asked and "image" in settings:
            wanted_image = declared(settings["image"])
            findings += repinned(order.content, wanted_image, wanted_image)
        roads = _roads(settings)
        if _HELM in roads:
            queues = settings.get("queues") or ("default",)
            image = _image(order, pulls.OF_PODS if settings["flavor"] == COMMUNITY else None, registry)
            wanted = helm.Wanted(queues, told, registry, settings.get("registry_secret"), image)
            for chart, values in helm.overrides(settings["flavor"], wanted).items():
                why = variables.ONLY_THIS if "agentk8sglue" in values else ()
                command = f"helm upgrade --install NAME {chart} -f {chart}-values.yaml"
                head = _head(order, command, *why)
                files[f"helm/{chart}-values.yaml"] = head + yaml.dump(values)
        image = _image(order, pulls.OF_AGENTS, registry)
        agent = {"agent": variables.agent(told, image), "environment": told}
        if _CONF in roads:
            more = (
                "Append it to the clearml.conf of an agent on a machine: what stands later in the file wins."
            )
            files["clearml.conf"] = _head(order, more, *variables.ONLY_THIS) + hocon.dump(agent)
        if _VAULT in roads:
            more = "Paste it into the Administrator Vault: Settings, Administrator Vaults, of the group of users."
            files["vault.conf"] = _head(order, more, *variables.VAULT, *variables.ONLY_THIS) + hocon.dump(
                agent
            )
            said = (
                "acts in agents that log in as a user whom the vault is for, and for owners of tasks in part"
            )
            remedy = (
                "restart those agents; start others with --use-owner-token; the file says what acts where"
            )
            findings.append(Finding("platform-setting", "vault.conf", said, remedy, blocking=False))
        if secret := settings.get("registry_secret"):
            files["pull-secret.sh"] = _pull_secret(order, secret, registry.partition("/")[0])
        singles: frozenset[str] = frozenset()
        if "values" in asked:
            values, chart = _values(asked, settings)
            made, more_findings = images.overrides(values, registry, CHARTS[chart], asked["values"])
            findings += more_findings
            if "registry" in asked:
                findings += images.pinned(values, order.content, CHARTS[chart], asked["values"])
            head = _head(order, f"The images of {Path(asked['values']).name}, asked of {registry}.")
            singles = frozenset({name := f"helm/{chart}-images.yaml"})
            files[name] = head + yaml.dump(made)
        return Rendered(dict(sorted(files.items())), tuple(findings), singles=singles)

    def preflight(self, order: Order, inside: Inside) -> list[Finding]:
        """See :class:`haversack.platforms.Platform`: a values file, or what the snapshot and this machine have."""
        if "values" in order.asked:
            values, chart = _values(order.asked, order.settings)
            file = order.asked["values"]
            findings = [*of_registry(order.asked), *linting.keys(values, CHARTS[chart], file)]
            if registry := order.asked.get("registry"):
                held = carried(order.content)
                findings += images.absent(values, registry, held, CHARTS[chart], file)
                findings += images.pinned(values, order.content, CHARTS[chart], file)
            return findings
        if order.asked.keys() & self.looks.keys():
            raise UsageError("there is no values file to look at", remedy="name it: --values FILE")
        said = "are not asked: the queues, the server, and whether the pull secret is in each namespace"
        return [
            *_carried(order),
            *_pulled(order),
            unknown("the cluster", said, "see: kubectl get secrets -A; clearml-agent list"),
        ]


def _roads(settings: Mapping[str, Any]) -> tuple[str, ...]:
    of_flavor = (_HELM, _CONF) if settings["flavor"] == COMMUNITY else (_HELM, _CONF, _VAULT)
    return tuple(settings.get("deliver") or of_flavor)


def _setting(key: str, said: str, remedy: str) -> Finding:
    return Finding("platform-setting", f"platform.clearml.{key}", said, remedy)


def _head(order: Order, *more: str) -> bytes:
    return "".join(f"# {line}\n" for line in (order.origin, *more)).encode()


def _variables(settings: Mapping[str, Any], served: Served) -> dict[str, str]:
    """What tasks are told, with each asset where the mirror has it."""
    urls = session.chosen(settings)
    assets = {
        asset.variable: f"{served.base}/files/{quote(session.name_of(urls[asset.key]))}"
        for asset in session.ASSETS
        if asset.variable and asset.key in urls
    }
    host = served.hostname if served.plain else None
    in_image = bool(settings.get("agent_in_image"))
    return variables.of_tasks(served.index, host, assets, agent_in_image=in_image)


def _carried(order: Order) -> list[Finding]:
    """A finding for each thing that the snapshot should hold for ClearML, and does not."""
    held = {a.filename for e in order.content.environments if e.locked.kind == "file" for a in e.artifacts}
    wanted = [session.name_of(url) for url in session.chosen(order.settings).values()]
    missing = [name for name in sorted(wanted) if name not in held]
    if not any(e.locked.name == APPS for e in order.content.environments):
        missing.append(APPS)
    if "image" in order.settings:
        image = declared(order.settings["image"])
        missing += [] if holds(carried(order.content), image) else [image]
    said = "is not in the snapshot"
    return [Finding("platform-unready", name, said, "lock and pack it outside") for name in missing]


def _image(order: Order, default: str | None, registry: str) -> str | None:
    """What tasks run that name no image, at the site: what is declared, or the default if the snapshot has it.

    Otherwise nothing is said: rendered files win over a person's own, which may name a good one.
    """
    if "image" in order.settings:
        return images.asked_of(declared(order.settings["image"]), registry)
    return images.asked_of(default, registry) if default in carried(order.content) else None


def _pulled(order: Order) -> list[Finding]:
    """Notes of what charts and agents pull by themselves that did not cross."""
    settings, held, roads = order.settings, carried(order.content), _roads(order.settings)
    found = pulls.lacking(settings["flavor"], held) if _HELM in roads else []
    if "image" not in settings and _HELM in roads:
        default = pulls.OF_PODS if settings["flavor"] == COMMUNITY else None
        found += pulls.unnamed(default, held, "pods of tasks that name no image")
    if "image" not in settings and {_CONF, _VAULT} & set(roads):
        found += pulls.unnamed(pulls.OF_AGENTS, held, "agents with docker, for tasks that name no image,")
    return found


def _values(asked: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Any, str]:
    """A values file, and the chart that it is for: the one named, the one that it tells of itself, or the agent's."""
    from haversack.formats import yaml

    file = Path(asked["values"])
    agents = {COMMUNITY: "clearml-agent", ENTERPRISE: "clearml-enterprise-agent"}
    try:
        data = file.read_bytes()
    except OSError as problem:
        raise NotFoundError(f"cannot be read: {problem.strerror}", where=str(file)) from problem
    chart = asked.get("chart") or linting.chart_of(file.name, data) or agents[settings["flavor"]]
    return yaml.load(data, str(file), as_helm=True), chart


def _pull_secret(order: Order, name: str, server: str) -> bytes:
    """A script that makes the secret; the password is in a file that only its owner reads, and in no other."""
    lines = [
        "#!/bin/sh",
        f"# {order.origin}",
        f"# Makes the secret {name} in a namespace; every namespace that pulls images needs it:",
        "#   NAMESPACE=clearml REGISTRY_USER=NAME PASSWORD_FILE=FILE sh pull-secret.sh",
        "# Other users of this machine see the words of kubectl; this shows them no password, and makes the same:",
        f"#   haversack render pull-secret {name} --server {server} --username NAME --password-file FILE -n NAMESPACE \\",
        "#       | kubectl apply -f -",
        "set -eu",
        'password="$(cat "${PASSWORD_FILE:?}")"',
        # A step of its own: a pipe would hide that it failed.
        f'secret="$(kubectl create secret docker-registry {name} \\',
        '    --namespace "${NAMESPACE:?}" \\',
        f"    --docker-server {shlex.quote(server)} \\",
        '    --docker-username "${REGISTRY_USER:?}" \\',
        '    --docker-password "$password" \\',
        '    --dry-run=client -o yaml)"',
        "printf '%s\\n' \"$secret\" | kubectl apply -f -",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


PLATFORM = ClearML()
