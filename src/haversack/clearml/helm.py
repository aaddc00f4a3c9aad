"""Overrides for the charts of both flavours.

The public charts and the enterprise ones have other keys for the same thing, and no chart refuses a key that it
does not know: what is written here is held to :mod:`haversack.clearml.charts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haversack.clearml.charts import CHARTS, COMMUNITY, below
from haversack.clearml.images import asked_of
from haversack.clearml.pulls import PULLS
from haversack.clearml.variables import entries, of_agents, of_pods


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the charts are told.

    ``registry`` is the site's, in which an image has its whole name, as ``registry.example.org/docker.io/…``;
    ``secret`` the name of a pull secret; ``image`` what tasks run in that name no other.
    """

    queues: Sequence[str]
    variables: Mapping[str, str]
    registry: str
    secret: str | None = None
    image: str | None = None

    @property
    def hub(self) -> str:
        """Where the images of Docker Hub are, as charts take it: a registry without the rest of a name."""
        return f"{self.registry}/docker.io"

    @property
    def named(self) -> list[dict[str, str]]:
        """The pull secret as Kubernetes lists it."""
        return [{"name": self.secret}] if self.secret else []


def overrides(flavor: str, wanted: Wanted) -> dict[str, dict[str, Any]]:
    """The overrides of each chart of a flavour, by the chart's name."""
    return _community(wanted) if flavor == COMMUNITY else _enterprise(wanted)


def _community(wanted: Wanted) -> dict[str, dict[str, Any]]:
    """The public charts: one set of variables for all queues, whose names are one text."""
    secret = {"imageCredentials": {"enabled": True, "existingSecret": wanted.secret}} if wanted.secret else {}
    glue = {
        **({"defaultContainerImage": wanted.image} if wanted.image else {}),
        "queue": ",".join(wanted.queues),
        "extraEnvs": entries(of_agents(wanted.variables)),
        "basePodTemplate": {"env": entries(of_pods(wanted.variables))},
    }
    # What it brings along goes by keys of its own: redis and mongodb by the global ones, elasticsearch by none.
    elastic = {"image": f"{wanted.registry}/docker.elastic.co/elasticsearch/elasticsearch"}
    shared = {"imagePullSecrets": [wanted.secret]} if wanted.secret else {}
    server = {
        "global": {"imageRegistry": wanted.hub, **shared},
        **secret,
        "elasticsearch": {**elastic, **({"imagePullSecrets": wanted.named} if wanted.secret else {})},
    }
    return {
        "clearml-agent": {"global": {"imageRegistry": wanted.hub}, **secret, "agentk8sglue": glue},
        "clearml": server,
        "clearml-serving": _serving(wanted, secret, shared),
    }


_PROMETHEUS = ("alertmanager", "kube-state-metrics", "prometheus-node-exporter", "prometheus-pushgateway")
"""What prometheus brings along, each with pull secrets of its own."""


def _serving(wanted: Wanted, secret: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Of all its images only kafka's and zookeeper's hear of a global registry; grafana hears of global secrets."""
    made: dict[str, Any] = {"global": {"imageRegistry": wanted.hub, **shared}, **secret}
    for pull in PULLS["clearml-serving"]:
        known: Mapping[str, Any] = CHARTS["clearml-serving"].keys
        for part in pull.path:
            known = below(known, part) or {}
        if "registry" in known:
            continue
        name = asked_of(pull.image.rpartition(":")[0], wanted.registry)
        table = made
        for part in pull.path[:-1]:
            table = table.setdefault(part, {})
        table[pull.path[-1]] = {"repository": name} if known else name
    if wanted.secret:
        prometheus = made["prometheus"]
        for table in (prometheus, *(prometheus[name] for name in _PROMETHEUS)):
            table["imagePullSecrets"] = wanted.named
    return made


def _enterprise(wanted: Wanted) -> dict[str, dict[str, Any]]:
    """The charts of the private repository, as far as ClearML's documentation tells of them."""
    common: dict[str, Any] = {"global": {"imageRegistry": wanted.hub}}
    template = {"env": entries(of_pods(wanted.variables))}
    glue = {
        "airGappedSupport": True,
        **({"defaultContainerImage": wanted.image} if wanted.image else {}),
        "extraEnvs": entries(of_agents(wanted.variables)),
        "basePodTemplate": template,
        "queues": {queue: {"templateOverrides": template} for queue in wanted.queues},
    }
    agent = {"imageCredentials": {"extraImagePullSecrets": wanted.named}} if wanted.secret else {}
    others = {"imageCredentials": {"existingImagePullSecrets": wanted.named}} if wanted.secret else {}
    return {
        "clearml-enterprise-agent": {**common, **agent, "agentk8sglue": glue},
        "clearml-enterprise": {**common, **others},
        "clearml-enterprise-app-gateway": {**common, **others},
    }
