"""``[platform.NAME]``: what a site runs its jobs with, carried as settings and nothing else.

Such an environment has no artifacts and is not installed: the inside renders the platform's configuration
from what stands in the snapshot (docs/platforms/).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from haversack.errors import UsageError
from haversack.formats.schema import KindKeys
from haversack.kinds import Locked
from haversack.model.artifact import Artifact, Facts
from haversack.model.finding import Finding
from haversack.model.lock import Lock, LockedEnvironment
from haversack.model.site import Environment, Site
from haversack.model.snapshot import SnapshotEnvironment
from haversack.model.target import Target
from haversack.platforms import KIND as NAME
from haversack.platforms import platforms
from haversack.ports import Inside, Outside, Store


class OfPlatform:
    """The settings of a platform, beside the environments that it runs."""

    name = NAME
    artifacts = ()
    relocatable = True
    keys = KindKeys(
        "What jobs are run with; the name says which platform it is.",
        {},
        stands="chosen",
        choices={name: platform.keys for name, platform in platforms().items()},
    )

    def lock(
        self, site: Site, environment: Environment, target: Target, held: Lock | None, out: Outside
    ) -> Locked:
        """See :class:`haversack.kinds.Kind`: what was declared is the answer."""
        platform = platforms()[environment.name.removeprefix(f"{NAME}.")]
        settings = _plain(environment.settings)
        locked = LockedEnvironment(environment.name, target.name, self.name, settings=settings)
        return Locked(locked, (), tuple(platform.validate(environment.settings, site)))

    def inspect(self, artifact: Artifact, file: BinaryIO) -> tuple[Facts, list[Finding]]:
        """See :class:`haversack.kinds.Kind`; no artifact is of this kind."""
        raise NotImplementedError(artifact.kind)

    def prove(self, environment: SnapshotEnvironment) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`: nothing is needed."""
        return []

    def borrows(self, environment: SnapshotEnvironment, inside: Inside) -> str | None:
        """See :class:`haversack.kinds.Kind`."""
        return None

    def install(
        self,
        environment: SnapshotEnvironment,
        prefix: Path,
        python: Path | None,
        inside: Inside,
        *,
        home: Path,
        compile_bytecode: bool,
    ) -> None:
        """See :class:`haversack.kinds.Kind`.  Raises ``UsageError``: a platform is rendered."""
        name = environment.locked.name.removeprefix(f"{NAME}.")
        raise UsageError(f"{name} is a platform, which is not installed", remedy=f"haversack render {name}")

    def settle(self, environment: SnapshotEnvironment, prefix: Path, inside: Inside) -> None:
        """See :class:`haversack.kinds.Kind`."""

    def check(
        self, environment: SnapshotEnvironment, prefix: Path, inside: Inside, *, caged: bool
    ) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`."""
        return []

    def drift(self, environment: SnapshotEnvironment, prefix: Path, store: Store) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`."""
        return []


def _plain(value: Any) -> Any:
    """A setting as JSON gives it back."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value


KIND = OfPlatform()
