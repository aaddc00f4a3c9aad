"""Whether a values file says what its chart will hear."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from haversack.clearml.charts import CHARTS, FREE, Chart, below
from haversack.model.finding import Finding

_MISSPELT = 0.9
"""How much like a known key an unknown one is to be taken for it where not all keys are known, of 1."""
_PULL = "imagepullsecret"
_SECRETS = ("extraImagePullSecrets", "existingImagePullSecrets")
_LISTS = {"env", "extraEnvs", "extraEnvironment", "extraPythonPackages", "initContainers", "volumes", "volumeMounts",
          "fileMounts", "additionalVolumes", "additionalVolumeMounts", "additionalClusterRoleBindings",
          "additionalRoleBindings", "tolerations", "hostAliases"}  # fmt: skip
"""What ClearML's own charts go through, or put into a list of a pod as it is."""
_TABLES = {"resources", "nodeSelector", "affinity", "labels", "annotations", "podAnnotations", "svcAnnotations",
           "deploymentAnnotations", "serviceAccountAnnotations", "podSecurityContext", "containerSecurityContext",
           "additionalConfigs"}  # fmt: skip
"""What they put into a table of a pod as it is."""
_ENVS = ("env", "extraEnvs", "extraEnvironment")


def chart_of(name: str, data: bytes) -> str | None:
    """The chart that a values file is for, as helm's command line in the comment at its head has it, or as its own name
    begins (``clearml-serving-values.yaml``); ``None`` where neither tells.
    """
    text = data.decode("utf-8", "replace").lstrip("\ufeff")
    for line in itertools.takewhile(lambda line: line.startswith("#"), text.splitlines()):
        _, _, told = line.partition(" helm ")
        words = told.split()
        # What stands behind an option is its value, but for the one of `helm upgrade --install NAME CHART`.
        free = [
            word
            for before, word in itertools.pairwise(words)
            if not word.startswith("-") and (not before.startswith("-") or before in ("--install", "-i"))
        ]
        if words[:1] in (["upgrade"], ["install"], ["template"]) and len(free) > 1:
            chart = next((w for w in free if "/" in w), free[-1]).rpartition("/")[2]
            if chart in CHARTS:
                return chart
    named = re.fullmatch(r"(.+?)(?:[-.](?:values|images))?\.ya?ml", name)
    return named[1] if named and named[1] in CHARTS else None


def keys(values: Any, chart: Chart, file: str) -> list[Finding]:
    """A finding for every key that the chart does not know, and for values of a form that it cannot take.

    Of a chart that is known in part a key may be good that is not known here; one that the chart of the other
    flavour has is not.
    """
    if values is None:
        return []
    if not isinstance(values, Mapping):
        return [_wrong(file, "is no table of values", "write keys and values")]
    return [*_keys(values, chart.keys, chart, (), file), *_credentials(values, chart, file)]


def _credentials(values: Mapping[str, Any], chart: Chart, file: str) -> Iterator[Finding]:
    """A finding for a pull secret that no pod gets: the public charts name it only where ``enabled`` is true."""
    told = values.get("imageCredentials")
    if (
        not chart.complete
        or not isinstance(told, Mapping)
        or not told.get("existingSecret")
        or told.get("enabled")
    ):
        return
    said = "is in no pod while imageCredentials.enabled is not true"
    at = f"{file}: imageCredentials.existingSecret"
    # Who writes that it is off may mean it.
    yield Finding(
        "values-key", at, said, "write beside it: enabled: true", blocking=told.get("enabled") is None
    )


def _keys(
    values: Mapping[str, Any], tree: Mapping[str, Any], chart: Chart, path: tuple[str, ...], file: str
) -> Iterator[Finding]:
    for key, value in values.items():
        here = (*path, key)
        at = f"{file}: {'.'.join(here)}"
        known = below(tree, key)
        if known is None:
            yield _unknown(key, tree, chart, here, at)
            continue
        if key in _SECRETS:
            if not isinstance(value, list) or not all(
                isinstance(i, Mapping) and set(i) == {"name"} for i in value
            ):
                yield _wrong(at, "is no list of tables with a name", "write: [{name: THE-SECRET}]")
        elif known == FREE:
            if path and path[0] not in (*chart.brings, "global"):
                yield from _form(key, value, at)
        elif isinstance(value, Mapping) and known:
            yield from _keys(value, known, chart, here, file)
        elif isinstance(value, Mapping | list) and not known:
            yield _wrong(at, "is one value to the chart, and a list or a table here", _single(key))
        elif known and value is not None and not isinstance(value, Mapping):
            yield _wrong(at, "is a table to the chart, and one value here", f"known are {', '.join(known)}")


def _form(key: str, value: Any, at: str) -> Iterator[Finding]:
    """A finding for what goes into a pod as it is, and that Kubernetes could not take there; nothing empty is put there."""
    if key in _LISTS and value and not isinstance(value, list):
        remedy = "write: [{name: NAME, value: TEXT}]" if key in _ENVS else "write a list"
        yield _wrong(at, f"is a list to the chart, and {_called(value)} here", remedy)
    elif key in _TABLES and value and not isinstance(value, Mapping):
        yield _wrong(at, f"is a table to the chart, and {_called(value)} here", "write keys and values")


def _called(value: Any) -> str:
    return "a table" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else "one value"


def _single(key: str) -> str:
    return 'write the names in one text: "gpu,cpu"' if key == "queue" else "write one value"


def _unknown(key: str, tree: Mapping[str, Any], chart: Chart, path: tuple[str, ...], at: str) -> Finding:
    other = CHARTS.get(chart.other or "")
    if other and _knows(other.keys, path):
        said = f"is a key of {other.name} ({other.flavor}); {chart.name} ({chart.flavor}) ignores it"
        return _wrong(at, said, f'use {chart.name}\'s own key, or declare flavor = "{other.flavor}"')
    near = difflib.get_close_matches(key, tree, 1)
    # An s too much or too little is no other word, however short it is.
    misspelt = difflib.get_close_matches(key, tree, 1, _MISSPELT) or [
        k for k in tree if k.rstrip("s") == key.rstrip("s")
    ]
    remedy = f"{near[0]}?" if near else f"known here are {', '.join(sorted(tree))}"
    if key.casefold().startswith(_PULL) and not misspelt:
        remedy = f"pull secrets are named once, in imageCredentials.{_place_of_secrets(chart)}"
    if chart.complete:
        return _wrong(at, f"is no key of {chart.name} {chart.version}, which ignores it", remedy)
    said = f"is not among the keys of {chart.name} that are documented, and what is below is not checked"
    look = f"look it up: helm show values; {remedy}"
    return Finding("values-key", at, said, look, blocking=bool(misspelt))


def _place_of_secrets(chart: Chart) -> str:
    """The key below ``imageCredentials`` by which a chart's pods, those of tasks too, get pull secrets."""
    known = chart.keys["imageCredentials"]
    return next((key for key in _SECRETS if key in known), "existingSecret, with enabled: true")


def _knows(tree: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    known: Mapping[str, Any] | None = tree
    for key in path:
        known = None if known is None else below(known, key)
    return known is not None


def _wrong(at: str, said: str, remedy: str) -> Finding:
    return Finding("values-key", at, said, remedy)
