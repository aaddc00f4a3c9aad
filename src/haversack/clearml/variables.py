"""The variables of containers and pods that run tasks, and the settings of an agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ONLY_THIS = (
    "PIP_INDEX_URL comes first: PIP_EXTRA_INDEX_URL alone leaves the public index in its place, which is asked",
    "for every package: slow where packets are dropped, and open to a package of the same name where they are not.",
)
"""Why both variables hold the same address, in two lines."""


def of_tasks(
    index: str, host: str | None, assets: Mapping[str, str], *, agent_in_image: bool
) -> dict[str, str]:
    """What a task is told: the only index, the assets by the variables that name them, and what not to ask for.

    ``host`` is the name of a server without TLS.  CLEARML_AGENT_SKIP_CONTAINER_APT keeps a pod from apt,
    CLEARML_AGENT_NO_UPDATE from installing the agent, which must be in the image then
    (``clearml_agent/glue/k8s.py``); the pytorch resolver would ask a server of its own
    (``helper/package/pytorch.py``).
    """
    found = {
        "PIP_INDEX_URL": index,
        "PIP_EXTRA_INDEX_URL": index,
        **({"PIP_TRUSTED_HOST": host} if host else {}),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_DEFAULT_INDEX": index,
        "UV_PYTHON_DOWNLOADS": "never",
        **dict(sorted(assets.items())),
        "CLEARML_AGENT_SKIP_CONTAINER_APT": "1",
        "CLEARML_AGENT_PACKAGE_PYTORCH_RESOLVE": "none",
    }
    return {**found, "CLEARML_AGENT_NO_UPDATE": "1"} if agent_in_image else found


def docker_arguments(variables: Mapping[str, str]) -> list[str]:
    """The variables as words for docker: ``-e`` and its value are two, or docker takes both for a name."""
    return [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]


def agent(variables: Mapping[str, str], image: str | None) -> dict[str, Any]:
    """The section ``agent`` of a ``clearml.conf`` (``backend_api/config/default/agent.conf``)."""
    return {
        "extra_docker_arguments": docker_arguments(variables),
        "docker_install_opencv_libs": False,
        "package_manager": {"pip_version": "", "pytorch_resolve": "none"},
        **({"default_docker": {"image": image}} if image else {}),
    }


def entries(variables: Mapping[str, str]) -> list[dict[str, str]]:
    """The variables as Kubernetes lists them."""
    return [{"name": name, "value": value} for name, value in variables.items()]
