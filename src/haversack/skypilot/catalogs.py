"""SkyPilot's catalogs: tables of machines, prices and images that it otherwise fetches from the internet.

A table without a file ``.meta/….md5`` beside it counts as somebody's own, and is never fetched anew
(``sky/catalog/common.py``).  The columns are those of its catalogs v7 and v8.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from haversack.images.reference import Reference
from haversack.skypilot import versions

SOURCE = "https://raw.githubusercontent.com/skypilot-org/skypilot-catalog/master/catalogs"
"""Where SkyPilot looks for them."""
_IMAGES = ("Tag", "Region", "OS", "OSVersion", "ImageId", "CreationDate")


def of_aws(*, images: bool) -> tuple[str, ...]:
    """The tables that AWS needs; that of its images unless the site has its own."""
    return ("instance_quota_mapping", "vms", *(("images",) if images else ()))


def filename(table: str) -> str:
    """What a table of AWS is called among the files that cross."""
    return f"skypilot-aws-{table}.csv"


def of_regions(data: bytes, regions: Sequence[str]) -> bytes:
    """The rows of a table that are about these regions; all of them without any, or without such a column.

    Raises :class:`ValueError` for what is no table.
    """
    rows = csv.reader(io.StringIO(data.decode("utf-8-sig")), strict=True)
    try:
        head = next(rows, None)
        if not head or len(head) < 2:
            raise ValueError("is no table with commas")
        if not regions or "Region" not in head:
            return data
        column = head.index("Region")
        return _table(head, (row for row in rows if row[column : column + 1] and row[column] in regions))
    except csv.Error as problem:
        raise ValueError(f"is no table with commas: {problem}") from problem


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


def at_site(image: str, registry: str) -> str:
    """What an image is called in the site's registry: its whole name behind the registry's."""
    host, _, rest = Reference.parse(image).name.partition("/")
    return f"{registry}/{host.replace(':', '_')}/{rest}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue().encode()
