"""Whether a values file says what its chart will hear, and whether its images are at the site."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from haversack.clearml.charts import CHARTS, FREE, Chart
from haversack.images.reference import Reference
from haversack.model.finding import Finding

_SECRETS = ("extraImagePullSecrets", "existingImagePullSecrets")
_HUB = "docker.io"
_IMAGES = ("image", "defaultContainerImage")


def keys(values: Any, chart: Chart, file: str) -> list[Finding]:
    """A finding for every key that the chart does not know, and for values of a form that it cannot take.

    Of a chart that is known in part a key may be good that is not known here; one that the chart of the other
    flavour has is not.
    """
    if values is None:
        return []
    if not isinstance(values, Mapping):
        return [_wrong(file, "is no table of values", "write keys and values")]
    return list(_keys(values, chart.keys, chart, (), file))


def _keys(
    values: Mapping[str, Any], tree: Mapping[str, Any], chart: Chart, path: tuple[str, ...], file: str
) -> Iterator[Finding]:
    for key, value in values.items():
        here = (*path, key)
        at = f"{file}: {'.'.join(here)}"
        if key not in tree:
            yield _unknown(key, tree, chart, here, at)
            continue
        below = tree[key]
        if key in _SECRETS:
            if not isinstance(value, list) or not all(
                isinstance(i, Mapping) and set(i) == {"name"} for i in value
            ):
                yield _wrong(at, "is no list of tables with a name", "write: [{name: THE-SECRET}]")
        elif below == FREE:
            continue
        elif isinstance(value, Mapping) and below:
            yield from _keys(value, below, chart, here, file)
        elif isinstance(value, Mapping | list) and not below:
            yield _wrong(at, "is one value to the chart, and a list or a table here", _single(key))
        elif below and value is not None and not isinstance(value, Mapping):
            yield _wrong(at, "is a table to the chart, and one value here", f"known are {', '.join(below)}")


def _single(key: str) -> str:
    return 'write the names in one text: "gpu,cpu"' if key == "queue" else "write one value"


def _unknown(key: str, tree: Mapping[str, Any], chart: Chart, path: tuple[str, ...], at: str) -> Finding:
    other = CHARTS.get(chart.other or "")
    if other and _knows(other.keys, path):
        said = f"is a key of {other.name} ({other.flavor}); {chart.name} ({chart.flavor}) ignores it"
        return _wrong(at, said, f'use {chart.name}\'s own key, or declare flavor = "{other.flavor}"')
    near = difflib.get_close_matches(key, tree, 1)
    remedy = f"{near[0]}?" if near else f"known here are {', '.join(sorted(tree))}"
    if chart.complete:
        return _wrong(at, f"is no key of {chart.name} {chart.version}, which ignores it", remedy)
    said = f"is not among the keys of {chart.name} that are documented"
    return Finding("values-key", at, said, f"look it up: helm show values; {remedy}", blocking=False)


def _knows(tree: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    for key in path:
        if tree == FREE:
            return True
        if key not in tree:
            return False
        tree = tree[key]
    return True


def _wrong(at: str, said: str, remedy: str) -> Finding:
    return Finding("values-key", at, said, remedy)


def images(values: Any) -> dict[tuple[str, ...], str]:
    """The images that a values file names, each by the path of its key, as a chart would put them together.

    An image stands in one text (its tag perhaps beside it, as ``imageTag``), or as a ``repository`` with a ``tag`` and
    a ``registry``, which otherwise is ``global.imageRegistry``.  A name without a host is one of Docker Hub.
    """
    told = values.get("global") if isinstance(values, Mapping) else None
    registry = told.get("imageRegistry") if isinstance(told, Mapping) else None
    return dict(_images(values, (), registry if isinstance(registry, str) else ""))


def _images(value: Any, path: tuple[str, ...], registry: str) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _images(item, (*path, str(number)), registry)
    if not isinstance(value, Mapping):
        return
    repository, own = value.get("repository"), value.get("registry")
    if isinstance(repository, str) and repository:
        host = own if isinstance(own, str) and own else registry
        yield path, _tagged(_whole("/".join(part for part in (host, repository) if part)), value.get("tag"))
    for key, item in value.items():
        if key in _IMAGES and isinstance(item, str) and item:
            yield (*path, key), _tagged(_whole(item), value.get("imageTag"))
        else:
            yield from _images(item, (*path, key), registry)


def _tagged(name: str, tag: Any) -> str:
    return f"{name}:{tag}" if isinstance(tag, str | int | float) and tag != "" else name


def _whole(image: str) -> str:
    """The name of an image with its host, as docker completes it."""
    first, slash, _ = image.partition("/")
    has_host = slash and ("." in first or ":" in first or first == "localhost")
    return image if has_host else f"{_HUB}/{image if slash else f'library/{image}'}"


def at_site(image: str, registry: str) -> str:
    """What an image is called in the site's registry: its whole name behind the registry's.

    A name that is the site's already stays, and so does one without a tag.  Raises :class:`ValueError` for what is no name.
    """
    if image.startswith(f"{registry}/"):
        return image
    reference = Reference.parse(_whole(image))
    name = reference.name if reference.digest or _is_tagged(image) else reference.repository
    host, _, rest = name.partition("/")
    return f"{registry}/{host.replace(':', '_')}/{rest}"


def _is_tagged(image: str) -> bool:
    return ":" in image.rpartition("/")[2]


def absent(values: Any, registry: str, held: Collection[str], file: str) -> list[Finding]:
    """A finding for every image of a values file that is not from the site's registry, or not in the snapshot.

    ``held`` are the names of the snapshot's images, as they are outside.  A name without a tag leaves it to the chart.
    """
    findings = []
    carried = {at_site(name, registry) for name in held}
    untagged = {name.rpartition(":")[0] for name in carried}
    for path, image in images(values).items():
        at = f"{file}: {'.'.join(path)}"
        try:
            wanted = at_site(image, registry)
        except ValueError as problem:
            findings.append(Finding("values-image", at, f"{image} {problem}", "correct the name"))
            continue
        if wanted != image:
            findings.append(
                Finding("values-image", at, f"{image} is not asked of {registry}", f"write {wanted}")
            )
        if wanted not in carried and (_is_tagged(image) or wanted not in untagged):
            said = f"{image} is not in the snapshot"
            findings.append(
                Finding("values-image", at, said, "declare it in [[image]], and bring a snapshot")
            )
    return findings


def overrides(values: Any, registry: str, chart: Chart, file: str) -> tuple[dict[str, Any], list[Finding]]:
    """Values that ask the site's registry for each image of a values file, and nothing else.

    Helm replaces a list whole, so an image within one is a finding.
    """
    made: dict[str, Any] = {}
    findings = []
    for path, image in images(values).items():
        at = f"{file}: {'.'.join(path)}"
        try:
            name = at_site(image, registry)
        except ValueError as problem:
            findings.append(Finding("values-image", at, f"{image} {problem}", "correct the name"))
            continue
        table, known, there = made, chart.keys, values
        for part in path[:-1]:
            there = there[part] if isinstance(there, Mapping) else None
            table, known = table.setdefault(part, {}), known.get(part, {})
        if not isinstance(there, Mapping):
            said = f"{image} stands in a list, which cannot be overridden in part"
            findings.append(Finding("values-image", at, said, f"write {name} there", blocking=False))
            continue
        last = path[-1]
        if isinstance(there[last], str):
            table[last] = name.rpartition(":")[0] if "imageTag" in there and last == "image" else name
            continue
        repository, _, tag = name.rpartition(":") if _is_tagged(name) else (name, "", "")
        told = {"tag": tag} if tag else {}
        host, _, rest = repository.removeprefix(f"{registry}/").partition("/")
        if "registry" in known.get(last, {}):
            table[last] = {"registry": f"{registry}/{host}", "repository": rest, **told}
        else:
            table[last] = {"repository": repository, **told}
    return _without_empty(made), findings


def _without_empty(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table without the tables in it that hold nothing."""
    whole = {key: _without_empty(item) if isinstance(item, Mapping) else item for key, item in table.items()}
    return {key: item for key, item in whole.items() if item != {}}
