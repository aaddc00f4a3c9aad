"""Give tasks the site's region and type of machine where they name none: an admin policy of SkyPilot.

Named in its configuration as ``admin_policy: site_defaults.SiteDefaults``, with this folder in ``PYTHONPATH``;
SITE_DEFAULT_REGION and SITE_DEFAULT_INSTANCE_TYPE say what is given, each of them alone or both.  A task that says
anything of its own is left as it is, and so is one for a cluster that there is already.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import sky

log = logging.getLogger("sky.site_defaults")
_LAUNCHES = ("launch", "jobs.launch", "serve.up", "serve.update", "optimize", "validate")
"""Requests that choose machines; ``exec`` asks whether an existing cluster is large enough (sky/execution.py)."""


def given(resources: Any, region: str | None, machine: str | None) -> Any:
    """Resources with what they do not say themselves; the same object where nothing is to be given.

    A region is given where neither cloud's region nor zone is named, and only to a cloud that has it; a type of
    machine where nothing of instance, cores, memory or accelerators is said, and only to a cloud that has that.
    """
    found = resources
    if region and resources.region is None and resources.zone is None:
        found = _tried(found, region=region)
    sizes = (resources.instance_type, resources.cpus, resources.memory, resources.accelerators)
    if machine and all(size is None for size in sizes):
        found = _tried(found, instance_type=machine)
    return found


def _tried(resources: Any, **named: str) -> Any:
    """A copy, if SkyPilot takes it: it raises ``ValueError`` for a region or machine that a cloud has not."""
    try:
        copy = resources.copy(**named)
        copy.validate()
    except ValueError as problem:
        log.warning("The site's default %s is not for this task: %s", named, str(problem).partition("\n")[0])
        return resources
    return copy


class SiteDefaults(sky.AdminPolicy):  # type: ignore[misc]
    """What SkyPilot asks about every request, before it is done."""

    @classmethod
    def validate_and_mutate(cls, user_request: Any) -> Any:
        """The request, with the site's defaults in the resources of its task."""
        task, config = user_request.task, user_request.skypilot_config
        name = getattr(user_request, "request_name", "launch")
        if str(getattr(name, "value", name)) in _LAUNCHES and not _exists(user_request):
            region = os.environ.get("SITE_DEFAULT_REGION") or None
            machine = os.environ.get("SITE_DEFAULT_INSTANCE_TYPE") or None
            asked = task.resources
            found = [given(one, region, machine) for one in asked]
            if any(new is not old for new, old in zip(found, asked, strict=True)):
                task.set_resources(type(asked)(found))
        return sky.MutatedUserRequest(task=task, skypilot_config=config)


def _exists(user_request: Any) -> bool:
    """Whether the task goes to a cluster that there is: that one has its region and machine."""
    options = user_request.request_options
    name = getattr(options, "cluster_name", None)
    if not name or user_request.at_client_side:
        return False
    from sky import global_user_state

    return global_user_state.get_cluster_from_name(name) is not None
