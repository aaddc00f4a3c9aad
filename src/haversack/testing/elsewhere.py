"""Files from elsewhere and programs, without elsewhere and without programs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from haversack.errors import FetchError, IntegrityError, NotFoundError, ToolError
from haversack.model.artifact import Digest, digest_of, hex_of
from haversack.ports import Completed, Manifest, Run


class MemoryFetch:
    """A :class:`haversack.ports.Fetch` over bytes by URL; ``fetched`` lists what was asked for."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self.fetched: list[str] = []

    def size(self, url: str) -> int | None:
        """See the protocol; ``None`` too for a URL that nobody serves."""
        data = self._files.get(url)
        return None if data is None else len(data)

    def get(
        self, url: str, digest: Digest, dest: Path, on_bytes: Callable[[int], None], size: int | None = None
    ) -> int:
        """See the protocol."""
        data = self._asked(url)
        if size is not None and len(data) > size:
            dest.unlink(missing_ok=True)
            raise IntegrityError(f"has more than the {size} bytes that it should be", where=_redacted(url))
        if hashlib.sha256(data).hexdigest() != hex_of(digest):
            raise IntegrityError("sent other bytes than were locked", where=_redacted(url))
        dest.write_bytes(data)
        on_bytes(len(data))
        return len(data)

    def take(self, url: str, dest: Path, on_bytes: Callable[[int], None]) -> Digest:
        """See the protocol."""
        data = self._asked(url)
        dest.write_bytes(data)
        on_bytes(len(data))
        return digest_of(data)

    def _asked(self, url: str) -> bytes:
        self.fetched.append(url)
        if url not in self._files:
            raise FetchError(
                "is not there", where=_redacted(url), remedy="see whether the index still has it"
            )
        return self._files[url]


def _redacted(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class MemoryRegistries:
    """A :class:`haversack.ports.Registries` over manifests by ``repository:tag`` and ``repository@digest``.

    What has a tag is found by its digest too; ``about`` are the referrers of digests.
    """

    def __init__(
        self, manifests: Mapping[str, Manifest], about: Mapping[Digest, Sequence[Digest]] | None = None
    ) -> None:
        self._manifests = dict(manifests)
        for name, manifest in manifests.items():
            repository = name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
            self._manifests[f"{repository}@{digest_of(manifest.data)}"] = manifest
        self._about = dict(about or {})

    def manifest(self, repository: str, reference: str) -> Manifest:
        """See the protocol."""
        name = f"{repository}{'@' if reference.startswith('sha256:') else ':'}{reference}"
        if name not in self._manifests:
            raise NotFoundError("its registry has no such image", where=name)
        return self._manifests[name]

    def referrers(self, repository: str, digest: Digest) -> tuple[Digest, ...]:
        """See the protocol."""
        return tuple(self._about.get(digest, ()))


class ScriptedRun:
    """A :class:`haversack.ports.Run` that answers from a script and remembers what it was asked.

    ``answers`` maps the first words of an argv to (exit code, output, errors); the longest match counts.
    What none matches goes to ``otherwise``, or raises ``ToolError`` as a program that is missing does.
    ``calls`` are (argv, caged).
    """

    def __init__(
        self,
        answers: Mapping[tuple[str, ...], tuple[int, str, str]],
        *,
        otherwise: Run | None = None,
        cage: str = "",
    ) -> None:
        self._answers = answers
        self._otherwise = otherwise
        self._cage = cage
        self.calls: list[tuple[tuple[str, ...], bool]] = []

    def __call__(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        caged: bool = False,
    ) -> Completed:
        """See the protocol."""
        words = tuple(map(str, argv))
        self.calls.append((words, caged))
        if caged and self._cage:
            raise ToolError(f"the network cannot be taken away here: {self._cage}")
        for length in range(len(words), 0, -1):
            if answer := self._answers.get(words[:length]):
                return Completed(words, *answer)
        if self._otherwise is None:
            raise ToolError("cannot be started: no such program", where=words[0], remedy="install it")
        return self._otherwise(argv, env=env, cwd=cwd, caged=caged)

    def cage(self) -> str:
        """See the protocol."""
        return self._cage
