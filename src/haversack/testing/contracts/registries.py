"""What :class:`haversack.ports.Registries` promises."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from haversack.errors import NotFoundError
from haversack.model.artifact import Digest, digest_of
from haversack.ports import Registries
from haversack.testing.contracts.refused import refused


@dataclass(frozen=True, slots=True)
class RegistriesBench:
    """Registries under test: ``repository`` has one image, ``digest``, by ``tag``, which nothing refers to."""

    registries: Registries
    repository: str
    tag: str
    digest: Digest


class RegistriesContract:
    """Tests of registries; they take a fixture ``bench`` (a :class:`RegistriesBench`)."""

    def test_a_tag_and_a_digest_mean_the_same(self, bench: RegistriesBench) -> None:
        """The manifest of a tag is, byte for byte, that of the digest that it means."""
        by_tag = bench.registries.manifest(bench.repository, bench.tag)
        assert digest_of(by_tag.data) == bench.digest
        assert bench.registries.manifest(bench.repository, bench.digest) == by_tag
        assert by_tag.media_type.startswith("application/vnd.")

    def test_what_is_not_there_is_told(self, bench: RegistriesBench) -> None:
        """A tag or digest that nobody has raises ``NotFoundError``, which names the repository."""
        for reference in ("absent", digest_of(b"absent")):
            problem = refused(
                NotFoundError, functools.partial(bench.registries.manifest, bench.repository, reference)
            )
            assert bench.repository in str(problem)

    def test_nothing_refers_to_it(self, bench: RegistriesBench) -> None:
        """An image without signatures has no referrers, whether the registry lists them or not."""
        assert bench.registries.referrers(bench.repository, bench.digest) == ()
