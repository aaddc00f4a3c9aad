"""Where objects lie in an object storage that speaks S3: a bucket and what its keys begin with."""

from __future__ import annotations

import re
from dataclasses import dataclass

SCHEME = "s3://"
# Amazon's rules for names, and the capitals and underscores that its oldest buckets and other servers have.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket and a path in it: ``s3://bucket/prefix``; the path is ``""`` for the whole bucket."""

    name: str
    path: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}/{self.path}".removesuffix("/")


def bucket_of(url: str) -> Bucket:
    """The bucket and path that an ``s3://`` URL names.  Raises ``ValueError`` saying what is wrong with it."""
    if url[: len(SCHEME)].lower() != SCHEME:
        raise ValueError("is not an s3:// URL")
    name, _, path = url[len(SCHEME) :].partition("/")
    if "@" in name or ":" in name:
        raise ValueError("names more than a bucket; keys and the endpoint belong into AWS_… variables")
    if not _BUCKET.fullmatch(name):
        raise ValueError("names no bucket: s3://BUCKET/PATH")
    if re.search(r"[?#]", path):
        raise ValueError("has a query or a fragment")
    path = path.strip("/")
    if any(part in {"", ".", ".."} for part in path.split("/")) and path:
        raise ValueError("has an empty part, or one of dots, in its path")
    return Bucket(name, path)
