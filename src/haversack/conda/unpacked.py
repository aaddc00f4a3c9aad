"""rattler's cache of unpacked packages, filled by rattler itself: its layout moves with its version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rattler import Client, Subdir
from rattler.exceptions import InstallerError
from rattler.install import install

from haversack.conda import engine
from haversack.conda.engine import Record
from haversack.errors import ToolError


def fill(files: Sequence[tuple[Record, Path]], cache: Path, scratch: Path, subdir: str) -> None:
    """Put the package files of some records, hashed before, into the cache at ``cache``.

    The interface has no call for it but an installation, which goes to ``scratch`` and is of no use
    afterwards; no link script runs.  Nothing stands in the cache of where the files lay.  Raises ``ToolError``.
    """
    local = engine.to_rattler({**record, "url": path.absolute().as_uri()} for record, path in files)
    try:
        with engine.guarded("unpacking packages"):
            engine.run(
                install(
                    local,
                    target_prefix=scratch.absolute(),
                    cache_dir=cache.absolute(),
                    platform=Subdir(subdir),
                    execute_link_scripts=False,
                    show_progress=False,
                    # It knows no login of the machine's; every address is a file's.
                    client=Client(),
                )
            )
    except InstallerError as problem:
        raise ToolError(f"packages cannot be unpacked: {problem}", where="rattler") from problem
