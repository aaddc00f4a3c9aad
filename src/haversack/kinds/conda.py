"""``kind = "conda"``: environments of conda packages, with wheels on top where a ``pip:`` section asks."""

from __future__ import annotations

from collections.abc import Sequence

from haversack.conda.linked import Linked
from haversack.formats.schema import Key, KindKeys
from haversack.kinds import Locked
from haversack.model.lock import Lock, LockedEnvironment
from haversack.model.site import Environment, Site
from haversack.model.target import Target
from haversack.ports import Outside


def _included(data: bytes, name: str) -> Sequence[tuple[str, str]]:
    """The requirements files that the pip section of an ``environment.yml`` takes in."""
    # The reader of YAML is slow to load, and most declarations need none.
    from haversack.formats import environmentyml

    return environmentyml.included(data, name)


class Conda(Linked):
    """Packages solved for the target's virtual packages, proven by the same solver, linked by rattler."""

    name = "conda"
    artifacts = ("conda", "wheel")
    keys = KindKeys(
        "An environment of conda packages.",
        {
            "file": Key(
                "file",
                "An environment.yml, an @EXPLICIT specification file, or a conda-lock.yml (version 1).",
                includes=_included,
            ),
            "prefix": Key(
                "place", "A conda environment on this machine, whose very packages are wanted elsewhere."
            ),
            "archive": Key("file", "An archive that pixi-pack made."),
            "channels": Key(
                "strings",
                "Channels, the first one preferred: names of [channel] tables, of public channels, or addresses.",
                only_with=("file",),
            ),
            "channel-priority": Key(
                "string",
                "strict (the default): a package comes from the first channel that has it; disabled: from any.",
                choices=("strict", "disabled"),
            ),
            "categories": Key("strings", "Categories of a conda-lock.yml; main without this key."),
            "link-scripts": Key(
                "strings", "Packages whose post-link script may run when the environment is installed."
            ),
            "build": Key(
                "boolean", "Build a wheel from a source distribution where there is none.", default=False
            ),
            "exclude-newer": Key(
                "date", "Ignore packages uploaded after this day or moment; overrides the site's."
            ),
        },
        one_of=("file", "prefix", "archive"),
    )

    def lock(
        self, site: Site, environment: Environment, target: Target, held: Lock | None, out: Outside
    ) -> Locked:
        """See :class:`haversack.kinds.Kind`."""
        from haversack.conda import locking

        order = locking.Order(site, environment, target, held)
        settings = environment.settings
        if "prefix" in settings:
            found = locking.from_prefix(site.root / settings["prefix"], order, out)
        elif "archive" in settings:
            found = locking.from_archive(settings["archive"], order, out)
        else:
            found = locking.from_file(settings["file"], order, out)
        kept = locking.kept(settings, found.variables)
        locked = LockedEnvironment(
            environment.name, target.name, self.name, found.roots, environment.check, kept
        )
        return Locked(locked, tuple(found.artifacts), tuple(found.findings))


KIND = Conda()
