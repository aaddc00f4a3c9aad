"""``~/.sky/config.yaml`` of what a site declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from haversack.formats import yaml
from haversack.skypilot import machines, proxies, versions
from haversack.skypilot.machines import CA, HOME, Mirror

VOLUME = "haversack"
"""The volume, and the ConfigMap, that holds what pods are told in files."""


def config(settings: Mapping[str, Any], mirror: Mirror | None) -> dict[str, Any]:
    """The configuration of all that ``[platform.skypilot]`` declares; without a mirror nothing points at one."""
    aws, kubernetes = settings.get("aws"), settings.get("kubernetes")
    found: dict[str, Any] = {
        "allowed_clouds": [name for name in ("aws", "kubernetes") if settings.get(name) is not None]
    }
    if aws is not None:
        found["aws"] = _aws(aws, mirror)
    if kubernetes is not None:
        found["kubernetes"] = _kubernetes(settings["version"], kubernetes, mirror)
    if mirrors(settings) and "provision.install_conda" not in versions.lacking(
        settings["version"], ["provision.install_conda"]
    ):
        # Its installer comes from the internet.
        found["provision"] = {"install_conda": False}
    return found


def configmap(origin: str, ca: str) -> bytes:
    """The certificates as pods mount them."""
    content = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": VOLUME},
        "data": {CA: ca},
    }
    head = f"# {origin}\n# In the namespace of SkyPilot's pods: kubectl apply -f configmap.yaml\n"
    return head.encode() + yaml.dump(content)


def mirrors(settings: Mapping[str, Any]) -> bool:
    """Whether nodes of any cloud take everything from this site."""
    return any((settings.get(cloud) or {}).get("mirror") for cloud in ("aws", "kubernetes"))


def options(settings: Mapping[str, Any]) -> list[str]:
    """The options of SkyPilot that what is declared needs of its version."""
    found = []
    for key in settings.get("aws") or {}:
        found += [f"aws.{key}"] if f"aws.{key}" in versions.OPTIONS else []
    aws = settings.get("aws") or {}
    if aws.get("mirror") or "apt_mirror" in aws:
        found.append("aws.post_provision_runcmd")
    if "apt_mirrors" in (settings.get("kubernetes") or {}):
        found.append("kubernetes.apt_mirrors")
    return found


def _aws(aws: Mapping[str, Any], mirror: Mirror | None) -> dict[str, Any]:
    names = (
        *("vpc_name", "vpc_names", "subnet_names", "security_group_name", "use_internal_ips", "use_ssm"),
        *("ssh_proxy_command", "remote_identity", "disk_encrypted"),
    )
    found = {name: _list(aws[name]) for name in names if name in aws}
    run = machines.commands(mirror) if aws.get("mirror") and mirror else []
    run += [machines.apt(aws["apt_mirror"])] if "apt_mirror" in aws else []
    if run:
        found["post_provision_runcmd"] = run
    return found


def exempt(kubernetes: Mapping[str, Any], mirror: Mirror | None) -> tuple[str, ...]:
    """``NO_PROXY`` of pods behind a proxy."""
    own = [kubernetes.get("api_server", ""), mirror.host if mirror else ""]
    return proxies.completed(kubernetes.get("no_proxy", ()), kubernetes.get("cidrs", ()), own)


def _kubernetes(version: str, kubernetes: Mapping[str, Any], mirror: Mirror | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "contexts" in kubernetes:
        found["allowed_contexts"] = list(kubernetes["contexts"])
    if "remote_identity" in kubernetes:
        found["remote_identity"] = kubernetes["remote_identity"]
    if "apt_mirrors" in kubernetes:
        found["apt_mirrors"] = list(kubernetes["apt_mirrors"])
    elif kubernetes.get("mirror") and not versions.lacking(version, ["kubernetes.apt_mirrors"]):
        # Otherwise it tries mirrors on the internet for what an image lacks.
        found["apt_mirrors"] = []
    if pod := _pod(kubernetes, mirror):
        found["pod_config"] = pod
    return found


def _pod(kubernetes: Mapping[str, Any], mirror: Mirror | None) -> dict[str, Any]:
    """What SkyPilot merges into each pod: containers and variables by their names, all other lists whole."""
    env: list[dict[str, object]] = []
    proxy, secret = kubernetes.get("proxy"), kubernetes.get("proxy_secret")
    if proxy or secret:
        env += proxies.variables(proxy, secret, exempt(kubernetes, mirror))
    spec: dict[str, Any] = {}
    container: dict[str, Any] = {"name": versions.CONTAINER}
    if kubernetes.get("mirror") and mirror:
        env += [{"name": name, "value": value} for name, value in sorted(mirror.variables.items())]
        if mirror.ca:
            container["volumeMounts"] = [{"name": VOLUME, "mountPath": HOME, "readOnly": True}]
            spec["volumes"] = [{"name": VOLUME, "configMap": {"name": VOLUME}}]
    if env:
        spec["containers"] = [{"name": container.pop("name"), "env": env, **container}]
    if names := kubernetes.get("image_pull_secrets"):
        spec["imagePullSecrets"] = [{"name": name} for name in names]
    return {"spec": spec} if spec else {}


def _list(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
