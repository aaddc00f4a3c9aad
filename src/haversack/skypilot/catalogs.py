"""SkyPilot's catalogs: tables of machines, prices and images that it otherwise fetches from the internet.

A table without a file ``.meta/….md5`` beside it counts as somebody's own, and is never fetched anew
(``sky/catalog/common.py``).  The columns are those of its catalogs v7 and v8.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from haversack.images.inside import at_site
from haversack.skypilot import versions

SOURCE = "https://raw.githubusercontent.com/skypilot-org/skypilot-catalog/master/catalogs"
"""Where SkyPilot looks for them."""
_SHORTER = ("A10", "H20", "L40")
"""Accelerators that AWS has not, and that SkyPilot would take for those of AWS in whose names theirs stand."""
_IMAGES = ("Tag", "Region", "OS", "OSVersion", "ImageId", "CreationDate")


def tables(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The tables that must cross, as ``aws/vms``; of images only where the site has none of its own."""
    found = []
    if "aws" in settings:
        found += ["aws/instance_quota_mapping", "aws/vms"]
        found += [] if "ami" in settings["aws"] else ["aws/images"]
    if "kubernetes" in settings and "image" not in settings["kubernetes"]:
        # It asks for it at each launch, also where pods have a way out and the server has none.
        found.append("kubernetes/images")
    return tuple(found)


def filename(table: str) -> str:
    """What a table is called among the files that cross."""
    return f"skypilot-{table.replace('/', '-')}.csv"


def of_regions(data: bytes, regions: Sequence[str]) -> bytes:
    """The rows of a table that are about these regions; all of them without any, or without such a column.

    Raises :class:`ValueError` for what is no table.
    """
    head, rows = _read(data)
    if not regions or "Region" not in head:
        return data
    column = head.index("Region")
    return _table(head, (row for row in rows if row[column : column + 1] and row[column] in regions))


def strange_regions(data: bytes, regions: Sequence[str]) -> dict[str, list[str]]:
    """The regions of which a table has no row, each with those of it that are written most alike.

    None without a column of regions.  Raises :class:`ValueError` for what is no table.
    """
    head, rows = _read(data)
    if "Region" not in head:
        return {}
    column = head.index("Region")
    there = sorted({row[column] for row in rows if row[column : column + 1]})
    return {region: difflib.get_close_matches(region, there) for region in regions if region not in there}


def accelerators(machines: bytes | None) -> bytes:
    """The table of accelerators' names: those of AWS's table of machines, where there is one.

    SkyPilot reads it for every task that asks for an accelerator, on any cloud (``canonicalize_accelerator_name`` of
    ``sky/utils/accelerator_registry.py``), and asks Kubernetes for a name that is in none of its rows.  Raises
    :class:`ValueError` for what is no table.
    """
    head, rows = _read(machines) if machines is not None else ([], [])
    column = head.index("AcceleratorName") if "AcceleratorName" in head else len(head)
    names = {name for row in rows for name in row[column : column + 1] if name}
    told = {name: "[]" for name in _SHORTER if names} | dict.fromkeys(names, "['AWS']")
    return _table(("AcceleratorName", "Clouds"), sorted(told.items()))


def of_pods(data: bytes, version: str, registry: str | None) -> tuple[bytes, tuple[str, ...]]:
    """The rows of SkyPilot's images of pods that a version asks for, and what those images are called outside.

    With a registry they are asked of it.  Raises :class:`ValueError` for what is no table, or has no such rows.
    """
    head, rows = _read(data)
    try:
        tag, image = head.index("Tag"), head.index("ImageId")
    except ValueError:
        raise ValueError("has no columns Tag and ImageId") from None
    wanted = versions.pod_images(version)
    found = {row[tag]: row for row in rows if len(row) == len(head) and row[tag] in wanted}
    if lacking := [name for name in wanted if name not in found]:
        raise ValueError(f"has no row for {', '.join(lacking)}, which SkyPilot {version} asks for")
    names = tuple(found[name][image] for name in wanted)
    if registry:
        for row in found.values():
            row[image] = at_site(row[image], registry)
    return _table(head, (found[name] for name in wanted)), names


def _read(data: bytes) -> tuple[list[str], list[list[str]]]:
    try:
        head, *rows = csv.reader(io.StringIO(data.decode("utf-8-sig")), strict=True)
    except (csv.Error, ValueError) as problem:
        raise ValueError(f"is no table with commas: {problem}") from problem
    if len(head) < 2:
        raise ValueError("is no table with commas")
    return head, rows


def machine_images(version: str, region: str, ami: str) -> bytes:
    """The images of AWS where all nodes have one of the site."""
    rows = (
        [tag, region, "ubuntu", "22.04", ami, "20200101", ami] for tag in versions.machine_images(version)
    )
    return _table((*_IMAGES, "BaseImageId"), rows)


def pod_images(version: str, image: str) -> bytes:
    """The images of Kubernetes where all pods have one."""
    rows = ([tag, "", "ubuntu", "22.04", image, "20200101"] for tag in versions.pod_images(version))
    return _table(_IMAGES, rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue().encode()
