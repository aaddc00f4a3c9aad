"""Overrides for the charts of both flavours.

The public charts and the enterprise ones have other keys for the same thing, and no chart refuses a key that it
does not know: what is written here is held to :mod:`haversack.clearml.charts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haversack.clearml.variables import entries

COMMUNITY, ENTERPRISE = "community", "enterprise"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the charts are told.

    ``hub`` is where images of Docker Hub are at the site, as ``registry.example.org/docker.io``; ``secret`` the
    name of a pull secret; ``image`` what tasks run in that name no other.
    """

    queues: Sequence[str]
    variables: Mapping[str, str]
    secret: str | None = None
    hub: str | None = None
    image: str | None = None


def overrides(flavor: str, wanted: Wanted) -> dict[str, dict[str, Any]]:
    """The overrides of each chart of a flavour, by the chart's name; charts with nothing to say are left out."""
    made = _community(wanted) if flavor == COMMUNITY else _enterprise(wanted)
    return {chart: values for chart, values in made.items() if values}


def _community(wanted: Wanted) -> dict[str, dict[str, Any]]:
    """The public charts: one set of variables for all queues, whose names are one text."""
    common: dict[str, Any] = {"global": {"imageRegistry": wanted.hub}} if wanted.hub else {}
    secret: dict[str, Any] = (
        {"imageCredentials": {"enabled": True, "existingSecret": wanted.secret}} if wanted.secret else {}
    )
    glue = {
        **({"defaultContainerImage": wanted.image} if wanted.image else {}),
        "queue": ",".join(wanted.queues),
        "basePodTemplate": {"env": entries(wanted.variables)},
    }
    return {
        "clearml-agent": {**common, **secret, "agentk8sglue": glue},
        "clearml": {**common, **secret},
        # It has no key for a registry: its images are named one by one.
        "clearml-serving": {**secret, **_serving(wanted.hub)},
    }


def _serving(hub: str | None) -> dict[str, Any]:
    if not hub:
        return {}
    parts = ("statistics", "inference", "triton")
    return {
        f"clearml_serving_{part}": {"image": {"repository": f"{hub}/allegroai/clearml-serving-{part}"}}
        for part in parts
    }


def _enterprise(wanted: Wanted) -> dict[str, dict[str, Any]]:
    """The charts of the private repository, as far as ClearML's documentation tells of them."""
    common: dict[str, Any] = {"global": {"imageRegistry": wanted.hub}} if wanted.hub else {}
    named = [{"name": wanted.secret}]
    template = {"env": entries(wanted.variables)}
    glue = {
        "airGappedSupport": True,
        **({"defaultContainerImage": wanted.image} if wanted.image else {}),
        "basePodTemplate": template,
        "queues": {queue: {"templateOverrides": template} for queue in wanted.queues},
    }
    agent = {"imageCredentials": {"extraImagePullSecrets": named}} if wanted.secret else {}
    others = {"imageCredentials": {"existingImagePullSecrets": named}} if wanted.secret else {}
    return {
        "clearml-enterprise-agent": {**common, **agent, "agentk8sglue": glue},
        "clearml-enterprise": {**common, **others},
        "clearml-enterprise-app-gateway": {**common, **others},
    }
