"""The images that a values file names, and whether the site has them.

Who wins where both an image and ``global.imageRegistry`` name a registry was read from the charts' templates: in
ClearML's own the image's, in Bitnami's the global one; charts whose images have no ``registry`` hear of neither.
So was what pins them: ``digest`` stands for the tag (Bitnami's, Prometheus'), ``sha`` beside it (Grafana's).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from haversack.clearml.charts import FREE, Chart, below
from haversack.images.inside import Held, as_path, at_site, holds, is_tagged, repinned, repository
from haversack.model.finding import Finding
from haversack.model.snapshot import Snapshot

_HUB = "docker.io"
_IMAGES = ("image", "defaultContainerImage")
_GLOBAL_WINS = ("redis", "mongodb", "kafka")
_WHOLE_SHA = "prometheus-node-exporter"
"""The one chart that wants ``sha256:`` written in ``sha``; others put it before."""


@dataclass(frozen=True, slots=True)
class _Image:
    """An image of a values file: the path of its key, its whole name, and the registry that it stands behind.

    ``registry`` is ``None`` where the chart takes none beside the name.
    """

    path: tuple[str, ...]
    name: str
    registry: str | None


def images(values: Any, chart: Chart) -> dict[tuple[str, ...], str]:
    """The images that a values file names, each by the path of its key, as the chart would put them together.

    An image stands in one text (its tag perhaps beside it, as ``imageTag``), or as a ``repository`` with a ``tag``, what
    pins it, and a ``registry``, which otherwise is ``global.imageRegistry``.  A name without a host is one of Docker Hub.
    """
    return {image.path: image.name for image in _all(values, chart)}


def _all(values: Any, chart: Chart) -> Iterator[_Image]:
    told = _told(values, chart)
    # A table that nobody knows hears of it only in a chart whose tables are not all known.
    return _images(values, (), chart.keys, told, "" if chart.complete else told)


def _told(values: Any, chart: Chart) -> str:
    """The registry that is told to a chart and to those below it; that of its own values where a file says none."""
    told = values.get("global") if isinstance(values, Mapping) else None
    registry = told.get("imageRegistry") if isinstance(told, Mapping) else None
    return registry if isinstance(registry, str) else chart.registry


def _images(
    value: Any, path: tuple[str, ...], known: Mapping[str, Any], told: str, elsewhere: str
) -> Iterator[_Image]:
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _images(item, (*path, str(number)), FREE, told, elsewhere)
    if not isinstance(value, Mapping):
        return
    repository = value.get("repository")
    if isinstance(repository, str) and repository:
        own = value.get("registry")
        if "repository" not in known:
            registry = (own if isinstance(own, str) else "") or elsewhere or None
        else:
            registry = _registry(own, path, told) if "registry" in known else None
        name = "/".join(part for part in (registry, repository) if part)
        yield _Image(path, _pinned(_whole(name), value, path, known), registry)
    for key, item in value.items():
        if key in _IMAGES and isinstance(item, str) and item:
            yield _Image((*path, key), _tagged(_whole(item), value.get("imageTag")), None)
        else:
            yield from _images(item, (*path, key), below(known, key) or FREE, told, elsewhere)


def _registry(own: Any, path: tuple[str, ...], told: str) -> str:
    own = own if isinstance(own, str) else ""
    return (told or own) if path[0] in _GLOBAL_WINS else (own or told)


def _pinned(name: str, value: Mapping[str, Any], path: tuple[str, ...], known: Mapping[str, Any]) -> str:
    """A name with its tag and digest, as the chart puts them behind it; of a table that is not known, as Bitnami's do."""
    digest = value.get("digest") if "digest" in known or "repository" not in known else None
    if isinstance(digest, str) and digest:
        return f"{name}@{digest}"
    tagged = _tagged(name, value.get("tag"))
    sha = value.get("sha") if "sha" in known else None
    if sha is None or sha == "":
        return tagged
    return f"{tagged}@{sha}" if _WHOLE_SHA in path else f"{tagged}@sha256:{sha}"


def _tagged(name: str, tag: Any) -> str:
    return f"{name}:{tag}" if isinstance(tag, str | int | float) and tag != "" else name


def _whole(image: str) -> str:
    """The name of an image with its host, as docker completes it."""
    first, slash, _ = image.partition("/")
    has_host = slash and ("." in first or ":" in first or first == "localhost")
    return image if has_host else f"{_HUB}/{image if slash else f'library/{image}'}"


def asked_of(image: str, registry: str) -> str:
    """What an image of a values file is called in the site's registry, with the digest that pins it.

    A name that is the site's already stays, and so does one without a tag.  Raises :class:`ValueError` for what is no name.
    """
    if image.startswith(f"{registry}/"):
        return image
    whole = _whole(image)
    name = at_site(whole, registry)
    return name if is_tagged(whole) or "@" in whole else repository(name)


def absent(values: Any, registry: str, held: Held, chart: Chart, file: str) -> list[Finding]:
    """A finding for every image of a values file that is not from the site's registry, or not in the snapshot.

    A name without a tag leaves it to the chart.
    """
    findings = []
    for path, image in images(values, chart).items():
        at = _place(file, path)
        try:
            wanted = asked_of(image, registry)
        except ValueError as problem:
            findings.append(Finding("values-image", at, f"{image} {problem}", "correct the name"))
            continue
        if wanted != image:
            findings.append(
                Finding("values-image", at, f"{image} is not asked of {registry}", f"write {wanted}")
            )
        if not holds(held, wanted, lambda name: asked_of(name, registry)):
            said = f"{image} is not in the snapshot"
            findings.append(
                Finding("values-image", at, said, "declare it in [[image]], and bring a snapshot")
            )
    return findings


def pinned(values: Any, content: Snapshot, chart: Chart, file: str) -> list[Finding]:
    """A note for every image of a values file that ``haversack push`` puts into the registry under another digest."""
    return [
        finding
        for path, image in images(values, chart).items()
        for finding in repinned(content, image, _place(file, path))
    ]


def _place(file: str, path: tuple[str, ...]) -> str:
    return f"{file}: {'.'.join(path)}" if path else file


def overrides(values: Any, registry: str, chart: Chart, file: str) -> tuple[dict[str, Any], list[Finding]]:
    """Values that ask the site's registry for each image of a values file, and nothing else.

    Merged over the file they give its images at the site: what a chart reads beside a name is written beside it.
    Helm replaces a list whole, so an image within one is a finding.
    """
    made: dict[str, Any] = {}
    findings = []
    told = _told(values, chart)
    for image in _all(values, chart):
        at = _place(file, image.path)
        try:
            name = asked_of(image.name, registry)
        except ValueError as problem:
            findings.append(Finding("values-image", at, f"{image.name} {problem}", "correct the name"))
            continue
        there, lists = values, False
        for part in image.path:
            lists = lists or isinstance(there, list)
            there = there[int(part)] if isinstance(there, list) else there[part]
        if lists:
            said = f"{image.name} stands in a list, which cannot be overridden in part"
            findings.append(Finding("values-image", at, said, f"write {name} there", blocking=False))
        elif isinstance(there, Mapping):
            _table(made, image.path).update(_override(image, name, registry, there))
            if image.registry and told:
                made["global"] = {"imageRegistry": _base(told, registry)}
        else:
            beside = _at(values, image.path[:-1]).get("imageTag")
            _table(made, image.path[:-1])[image.path[-1]] = name if beside is None else repository(name)
    return made, findings


def _override(image: _Image, name: str, registry: str, there: Mapping[str, Any]) -> dict[str, str]:
    """The keys of an image that is told in a table; its registry stands apart where the chart puts one before it.

    What pins it in a key of its own stays there.
    """
    in_name = "@" in str(there["repository"])
    called = name if in_name else repository(name)
    tag = "" if in_name else name.partition("@")[0].removeprefix(called).removeprefix(":")
    told = {"tag": tag} if tag else {}
    if not image.registry:
        return {"repository": called, **told}
    base = _base(image.registry, registry)
    return {"registry": base, "repository": called.removeprefix(f"{base}/"), **told}


def _base(host: str, registry: str) -> str:
    """A registry, perhaps with a path, as it is at the site."""
    return host if f"{host}/".startswith(f"{registry}/") else f"{registry}/{as_path(host)}"


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        values = values[part]
    return values


def _table(made: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for part in path:
        made = made.setdefault(part, {})
    return made
