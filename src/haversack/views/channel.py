"""The conda packages of a snapshot as channels: ``<host>/<path of the channel>/<subdir>/…``, and all as one.

A channel is written from the records of the lock.  To index the packages anew would undo what the channel
corrected in its records since, and stamp the time of the day into them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from haversack.formats import repodata
from haversack.formats.canonical import Fields, canonical
from haversack.model.artifact import Artifact
from haversack.model.finding import Finding
from haversack.model.snapshot import Snapshot
from haversack.views import FILE, JSON, Page, place_of, safe

PREFIX = "conda"
LOCAL = "local"
"""Where channels lie that were a folder: nobody asks for those by a host."""
MERGED = "_merged"
"""The channel that holds those of all.  No host is called so: names of hosts have no ``_`` (RFC 952)."""
ZST = "application/zstd"
INDEXES = ("current_repodata.json", "repodata.json", "repodata.json.zst")
"""What stands in every subdir beside packages.  Shards (CEP 16) do not: a client that asks goes on without."""


class Channels:
    """Every channel that a snapshot's packages came from, with only those packages, and one of them all.

    Each channel has ``noarch``, without which no solve begins, and the subdir of every target, so that an
    answer there is empty instead of an error.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        subdirs = {"noarch", *(environment.target.subdir for environment in snapshot.environments)}
        found: dict[str, dict[str, dict[str, Artifact]]] = {}
        self._findings: dict[str, Finding] = {}
        for environment in snapshot.environments:
            for artifact in environment.artifacts:
                if artifact.kind != "conda":
                    continue
                facts = Fields(dict(artifact.facts), artifact.filename)
                channel = found.setdefault(facts.text("channel"), {subdir: {} for subdir in subdirs})
                files = channel.setdefault(facts.text("subdir"), {})
                held = files.get(artifact.filename)
                if held is None or held == artifact:
                    files[artifact.filename] = artifact
                else:
                    files[artifact.filename] = self._choose(held, artifact, facts.text("channel"))
        self.folders: Mapping[str, str] = _folders(found)
        """The folder of each channel in this view, by the channel's canonical URL."""
        self._subdirs = {
            f"{self.folders[channel]}/{safe(subdir)}": (subdir, files)
            for channel, all_files in found.items()
            for subdir, files in all_files.items()
        }
        for subdir, files in self._merged(found).items():
            self._subdirs[f"{MERGED}/{safe(subdir)}"] = subdir, files
        self._written: dict[str, bytes] = {}

    def _merged(
        self, found: Mapping[str, Mapping[str, Mapping[str, Artifact]]]
    ) -> dict[str, dict[str, Artifact]]:
        """The files of all channels by subdir; of one name in two of them, that of the first channel by URL.

        In which order a site prefers its channels is not in a snapshot, and may differ between environments.
        """
        merged: dict[str, dict[str, Artifact]] = {}
        for channel in self.folders:
            for subdir, files in found[channel].items():
                whole = merged.setdefault(subdir, {})
                for name, artifact in files.items():
                    held = whole.setdefault(name, artifact)
                    if held.digest != artifact.digest:
                        subject = f"{MERGED}/{subdir}: {name}"
                        told = f"is {held.digest} in one channel and {artifact.digest} in another; {held.digest} is shown"
                        remedy = "nothing, if clients are given the channels themselves"
                        self._findings[subject] = Finding("name-clash", subject, told, remedy, blocking=False)
        return merged

    def _choose(self, one: Artifact, other: Artifact, channel: str) -> Artifact:
        """Which of two artifacts of one name to show; a difference of their bytes is worth a finding."""
        kept = max(one, other, key=_age)
        if one.digest != other.digest:
            subject = f"{channel}: {kept.filename}"
            told = f"is {one.digest} in one environment and {other.digest} in another; {kept.digest} is shown"
            remedy = "lock both again, so that they agree"
            self._findings[subject] = Finding("name-clash", subject, told, remedy, blocking=False)
        return kept

    def paths(self) -> Iterator[str]:
        """See the protocol."""
        found = [
            f"{folder}/{name}"
            for folder, (_, files) in self._subdirs.items()
            for names in (files, INDEXES)
            for name in names
        ]
        yield from sorted(found)

    def get(self, path: str) -> Page | None:
        """See the protocol.  Raises ``IntegrityError`` for a record that is none."""
        folder, _, name = path.rpartition("/")
        subdir, files = self._subdirs.get(folder, ("", {}))
        if artifact := files.get(name):
            return Page(FILE, artifact.size or 0, blob=artifact.digest)
        if not subdir or name not in INDEXES:
            return None
        data = self._written.get(folder)
        if data is None:
            data = repodata.write(subdir, map(repodata.record_of, files.values()))
            self._written[folder] = data
        if name.endswith(".zst"):
            data = repodata.zstd_stored(data)
        return Page(ZST if name.endswith(".zst") else JSON, len(data), data)

    def findings(self) -> list[Finding]:
        """See the protocol."""
        return list(self._findings.values())


def _age(artifact: Artifact) -> tuple[int, int, str, bytes]:
    """What is greater for the newer of two files of one name, or of two records of one file.

    Where times do not tell, anything that is the same in every order of the environments will do.
    """
    record: dict[str, Any] = artifact.facts.get("record") or {}

    def moment(key: str) -> int:
        value = record.get(key)
        return value if isinstance(value, int) else 0

    return moment("timestamp"), moment("indexed_timestamp"), artifact.digest, canonical(dict(artifact.facts))


def _folders(channels: Mapping[str, Any]) -> dict[str, str]:
    """A folder for each channel; two that would share one are told apart by a digest of the later one."""
    taken: dict[str, str] = {}
    found: dict[str, str] = {}
    # https first: where both are, it is the one people mean.
    for channel in sorted(channels, key=lambda url: (not url.startswith("https:"), url)):
        folder = "/".join(_place(channel))
        if taken.setdefault(folder.casefold(), channel) != channel:
            folder += "-" + hashlib.sha256(channel.encode()).hexdigest()[:16]
        found[channel] = folder
    return found


def _place(channel: str) -> tuple[str, ...]:
    if channel.startswith(("https://", "http://")):
        return place_of(channel)
    return LOCAL, safe(unquote(urlsplit(channel).path.rstrip("/").rpartition("/")[2]))


VIEW = Channels
