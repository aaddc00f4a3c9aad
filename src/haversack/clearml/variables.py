"""The variables of containers and pods that run tasks, and the settings of an agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ONLY_THIS = (
    "PIP_INDEX_URL comes first: PIP_EXTRA_INDEX_URL alone leaves the public index in its place, which is asked",
    "for every package: slow where packets are dropped, and open to a package of the same name where they are not.",
)
"""Why both variables hold the same address, in two lines."""
VAULT = (
    "All of it acts in agents that log in as a user whom the vault is for, from their next start; where",
    "CLEARML_AGENT_EXTRA_DOCKER_ARGS is set on the machine, that is taken instead of extra_docker_arguments.",
    "Of the vault of a task's owner, agents started with --use-owner-token hand docker the section environment;",
    "the agent in the container, which is the owner's then, takes environment and package_manager. Other agents take",
    "nothing of it. Pods of tasks read no docker arguments: there too environment and package_manager act.",
)
"""What of a vault acts where (clearml-agent 3.0.3, ``commands/worker.py`` and ``glue/k8s.py``)."""


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


def of_pods(variables: Mapping[str, str]) -> dict[str, str]:
    """What a pod that runs a task is told beside that: to leave pip as it is.

    The agent in it has no ``clearml.conf`` of ours, and would install pips of its own defaults, which nobody locked.
    Variables with that beginning are settings, written in HOCON (``backend_config/config.py``).
    """
    return {**variables, "CLEARML_AGENT__AGENT__PACKAGE_MANAGER__PIP_VERSION": '""'}


def of_agents(variables: Mapping[str, str]) -> dict[str, str]:
    """What the pod of the agent itself is told: to run the agent of its image, and where pip asks if it must.

    Without, its entry point installs the newest one at every start (``docker/k8s-glue/build-resources/entrypoint.sh``
    of clearml-agent).
    """
    found = {name: value for name, value in variables.items() if name.startswith("PIP_")}
    return {**found, "CLEARML_AGENT_NO_UPDATE": "1"}


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
