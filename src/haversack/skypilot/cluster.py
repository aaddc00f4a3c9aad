"""A cluster of Kubernetes as SkyPilot's pods find it, as far as kubectl tells; reading alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from haversack.formats.hosts import is_here
from haversack.model.finding import Finding, unknown, unready
from haversack.skypilot import proxies
from haversack.skypilot.asking import Refused, refused

Ask = Callable[..., Any]
"""``ask("get", "secret", …)`` gives what kubectl says, or :class:`Refused`."""


def look(kubernetes: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
    """All answers by the names of the questions, those of each context below its name."""
    known = ask("config", "get-contexts", "-o", "name")
    seen: dict[str, Any] = {"known": known, "contexts": {}}
    if isinstance(known, Refused):
        return seen
    wanted = kubernetes.get("contexts")
    if wanted is None:
        current = ask("config", "current-context")
        wanted = [] if isinstance(current, Refused) else [current.strip()]
    for context in [context for context in wanted if context in known.split()]:
        at = ("--context", context, "--request-timeout", "20s")
        answers = {"service": ask(*at, "get", "service", "kubernetes", "-n", "default", "-o", "json")}
        answers["its address"] = ask("config", "view", "--minify", "--context", context, "-o", "json")
        for secret in secrets(kubernetes):
            answers[f"secret {secret}"] = ask(*at, "get", "secret", secret, "-o", "name")
        seen["contexts"][context] = answers
    return seen


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
            if isinstance(answer, Refused) and "NotFound" in answer.reason:
                yield unready(subject, "is not in the namespace of the context", "make it there")
            elif isinstance(answer, Refused):
                yield refused(subject, answer)
        if {"proxy", "proxy_secret"} & kubernetes.keys():
            yield from _past_the_proxy(context, exempt, answers)


def _past_the_proxy(context: str, exempt: Sequence[str], answers: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether pods and SkyPilot's own server get to the API server of Kubernetes without the proxy."""
    service, told = answers["service"], answers["its address"]
    if not isinstance(service, Refused) and not proxies.covers(exempt, service["spec"]["clusterIP"]):
        said = f"is {service['spec']['clusterIP']}, which NO_PROXY does not hold: pods would ask the proxy for it"
        yield unready(f"{context}: API server", said, "add the services' network to cidrs")
    if isinstance(told, Refused):
        return
    for one in told.get("clusters") or ():
        host = proxies.host_of(one["cluster"]["server"])
        if not is_here(host) and not proxies.covers(exempt, host):
            said = f"is {host} here, which NO_PROXY does not hold: whether the proxy leads SkyPilot's server there is not known"
            yield unknown(f"{context}: API server", said, "add it to no_proxy, unless the proxy leads there")
