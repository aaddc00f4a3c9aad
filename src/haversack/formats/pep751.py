"""PEP 751 lock files for other tools, with addresses or paths of wheels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from haversack.model.artifact import Artifact, hex_of
from haversack.model.target import Target


def write(wheels: Iterable[Artifact], target: Target, locate: Callable[[Artifact], tuple[str, str]]) -> bytes:
    """The lock of one target: equal wheels, equal bytes.

    ``locate`` gives the key under which PEP 751 has the place of a wheel, ``url`` or ``path`` (relative to
    the lock), and the place.  The lock says for which system and which Python it is.
    """
    markers = target.markers()
    where = " and ".join(f"{key} == '{markers[key]}'" for key in ("sys_platform", "platform_machine"))
    lines = [
        'lock-version = "1.0"',
        f"environments = [{json.dumps(where)}]",
        f'requires-python = "=={target.python_short}.*"',
        'created-by = "haversack"',
    ]
    for wheel in sorted(wheels, key=lambda w: (w.name, w.filename)):
        key, place = locate(wheel)
        told = [f"name = {json.dumps(wheel.filename)}", f"{key} = {json.dumps(place)}"]
        told += [f"size = {wheel.size}"] if wheel.size is not None else []
        told.append(f"hashes = {{ sha256 = {json.dumps(hex_of(wheel.digest))} }}")
        lines += ["", "[[packages]]", f"name = {json.dumps(wheel.name)}"]
        lines += [f"version = {json.dumps(wheel.version)}", f"wheels = [{{ {', '.join(told)} }}]"]
    return ("\n".join(lines) + "\n").encode()
