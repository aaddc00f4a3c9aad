"""A cluster of Kubernetes as SkyPilot's pods find it, as far as kubectl tells; reading alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from haversack.formats.hosts import is_here
from haversack.model.finding import Finding, unknown, unready
from haversack.skypilot import config, proxies
from haversack.skypilot.asking import Refused, refused

Ask = Callable[..., str | Refused]
"""``ask("get", "secret", …)`` gives what kubectl says as it stands, or :class:`Refused`."""
_CONFIGMAP = f"ConfigMap {config.VOLUME}"


def look(kubernetes: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
    """All answers by the names of the questions, those of each context below its name."""
    known = ask("config", "get-contexts", "-o", "name")
    seen: dict[str, Any] = {"known": known, "contexts": {}}
    if isinstance(known, Refused):
        return seen
    wanted = kubernetes.get("contexts")
    if wanted is None:
        current = ask("config", "current-context")
        # Other programs may say something before: one that stands for kubectl, one that logs in.
        wanted = [] if isinstance(current, Refused) else current.strip().splitlines()[-1:]
    there = [line.strip() for line in known.splitlines()]
    for context in [context for context in wanted if context in there]:
        at = ("--context", context, "--request-timeout", "20s")
        service = ask(*at, "get", "service", "kubernetes", "-n", "default", "-o", "json")
        told = ask("config", "view", "--minify", "--context", context, "-o", "json")
        answers: dict[str, Any] = {
            "service": _taken(service, lambda found: str(found["spec"]["clusterIP"])),
            "its address": _taken(
                told, lambda found: [str(one["cluster"]["server"]) for one in found["clusters"] or ()]
            ),
        }
        for kind, name in _needed(kubernetes):
            answers[f"{kind} {name}"] = ask(*at, "get", kind.lower().replace(" ", ""), name, "-o", "name")
        seen["contexts"][context] = answers
    return seen


def _taken(answer: str | Refused, what: Callable[[Any], Any]) -> Any:
    """What is asked of an answer in JSON, which begins a line of its own; :class:`Refused` where it is not there."""
    if isinstance(answer, Refused):
        return answer
    begins = re.search(r"^\{", answer, re.MULTILINE)
    try:
        return what(json.JSONDecoder().raw_decode(answer, begins.start() if begins else 0)[0])
    except (ValueError, LookupError, TypeError):
        return Refused("kubectl answers with no JSON, or with some that does not tell it")


def _needed(kubernetes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What pods name in the namespace of their context, each by its kind."""
    for secret in secrets(kubernetes):
        yield "secret", secret
    if "remote_identity" in kubernetes:
        yield "service account", kubernetes["remote_identity"]
    if kubernetes.get("mirror"):
        yield "ConfigMap", config.VOLUME


def secrets(kubernetes: Mapping[str, Any]) -> list[str]:
    """The secrets that pods name."""
    proxy = [kubernetes["proxy_secret"]] if "proxy_secret" in kubernetes else []
    return [*kubernetes.get("image_pull_secrets", ()), *proxy]


def judge(kubernetes: Mapping[str, Any], exempt: Sequence[str], seen: Mapping[str, Any]) -> Iterator[Finding]:
    """What will fail, and what nobody could tell; ``exempt`` is ``NO_PROXY`` of pods.  Pure."""
    if isinstance(seen["known"], Refused):
        yield refused("contexts", seen["known"])
        return
    for context in kubernetes.get("contexts", ()):
        if context not in seen["contexts"]:
            said = "is no context of kubectl here"
            yield unready(f"context {context}", said, "see: kubectl config get-contexts")
    if not seen["contexts"] and "contexts" not in kubernetes:
        yield unready("contexts", "kubectl has no current one here", "give the server a kubeconfig")
    for context, answers in seen["contexts"].items():
        for name, answer in answers.items():
            subject = f"{context}: {name}"
            if isinstance(answer, Refused) and "NotFound" in answer.reason and name == _CONFIGMAP:
                said = "is not in the namespace of the context, and whether pods want it is not known: they do where it was rendered with --ca"
                yield unknown(subject, said, "kubectl apply -f configmap.yaml, if that was rendered")
            elif isinstance(answer, Refused) and "NotFound" in answer.reason:
                yield unready(subject, "is not in the namespace of the context", "make it there")
            elif isinstance(answer, Refused):
                yield refused(subject, answer)
        if {"proxy", "proxy_secret"} & kubernetes.keys():
            yield from _past_the_proxy(context, exempt, answers)


def _past_the_proxy(context: str, exempt: Sequence[str], answers: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether pods and SkyPilot's own server get to the API server of Kubernetes without the proxy."""
    service, told = answers["service"], answers["its address"]
    if not isinstance(service, Refused) and not proxies.covers(exempt, service):
        said = f"is {service}, which NO_PROXY does not hold: pods would ask the proxy for it"
        yield unready(f"{context}: API server", said, "add the services' network to cidrs")
    if isinstance(told, Refused):
        return
    for server in told:
        host = proxies.host_of(server)
        if not is_here(host) and not proxies.covers(exempt, host):
            said = f"is {host} here, which NO_PROXY does not hold: whether the proxy leads SkyPilot's server there is not known"
            yield unknown(f"{context}: API server", said, "add it to no_proxy, unless the proxy leads there")
