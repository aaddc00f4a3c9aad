"""A store in S3 where things go wrong: keys, servers that go away, objects that change, writers that meet."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urljoin

import pytest
from obstore import sign

from haversack.errors import FetchError, IntegrityError, NotFoundError, StoreError
from haversack.model.artifact import digest_of, hex_of
from haversack.model.bucket import Bucket, bucket_of
from haversack.model.ledger import check_chain
from haversack.ports.blobcache import BlobCache
from haversack.ports.fetch import HttpFetch
from haversack.ports.s3 import S3Store
from haversack.ports.s3client import connect, signed
from haversack.ports.s3fetch import S3Fetch
from haversack.ports.s3ledger import S3Ledger
from haversack.ports.s3upload import PART
from haversack.testing import FixedClock
from tests.support import s3, tiny
from tests.support.site import Lab
from tests.support.wheels import make_wheel

LARGE = random.Random(5).randbytes(3 * PART + 1000)


@pytest.fixture(scope="module", autouse=True)
def own_network() -> Iterator[None]:
    """What steers clients of S3 on this machine does not steer these."""
    with pytest.MonkeyPatch.context() as patch:
        s3.scrub(patch)
        yield


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Server]:
    """A server that knows conditions."""
    with s3.moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Server]:
    """A server that checks signatures."""
    with s3.rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.mark.parametrize(
    "changes", [{"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE00000002"}, {"AWS_SECRET_ACCESS_KEY": "WRONG" * 8}]
)
def test_wrong_keys_are_told_without_being_told(
    rclone: s3.Server, tmp_path: Path, changes: dict[str, str]
) -> None:
    """A wrong key or secret is a refusal that names the bucket and the server's code, and neither key nor secret."""
    bucket = rclone.bucket()
    with pytest.raises(StoreError, match=r"refused.*(InvalidAccessKeyId|SignatureDoesNotMatch)") as caught:
        rclone.store(bucket, tmp_path, retries=6, **changes)
    problem = caught.value
    told = f"{problem} {problem.remedy} {problem.__cause__} {problem.__context__}"
    assert bucket.name in told
    for word in (s3.KEY, s3.SECRET, *changes.values()):
        assert word not in told


def test_a_bucket_that_is_none_and_a_server_that_is_none_are_told_apart(
    rclone: s3.Server, tmp_path: Path
) -> None:
    """No bucket, no server and no store are three errors, each with its own remedy."""
    with pytest.raises(StoreError, match="no such bucket"):
        rclone.store(Bucket("absent", "store"), tmp_path)
    with pytest.raises(StoreError, match="cannot be reached"):
        rclone.store(
            Bucket("absent", ""), tmp_path, retries=0, AWS_ENDPOINT_URL=f"http://127.0.0.1:{s3.free_port()}"
        )
    with pytest.raises(StoreError, match="there is no store here"):
        S3Store(rclone.bucket(), rclone.environ(), BlobCache(tmp_path, 1))


def test_keys_come_from_variables_or_a_profile(rclone: s3.Server, tmp_path: Path) -> None:
    """Variables win over `~/.aws`; a profile without keys and no keys at all say what to do."""
    bucket = rclone.bucket()
    rclone.store(bucket, tmp_path / "cache")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        f"[default]\naws_access_key_id = {s3.KEY}\naws_secret_access_key = {s3.SECRET}\n"
        "[other]\naws_access_key_id = AKIDEXAMPLE00000009\naws_secret_access_key = other-secret-other\n"
    )
    (tmp_path / ".aws" / "config").write_text(
        f"[default]\nendpoint_url = {rclone.endpoint}\n[profile roles]\nrole_arn = x\n"
    )
    environ = {"HOME": str(tmp_path)}
    assert connect(bucket, environ).head("oci-layout")["size"]
    keys = {"AWS_ACCESS_KEY_ID": s3.KEY, "AWS_SECRET_ACCESS_KEY": s3.SECRET}
    there = {"AWS_ENDPOINT_URL_S3": rclone.endpoint, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    assert connect(bucket, {**environ, **there, **keys, "AWS_PROFILE": "other"}).head("oci-layout")["size"]
    with pytest.raises(StoreError, match="profile roles holds no keys"):
        connect(bucket, {**environ, "AWS_PROFILE": "roles"})
    with pytest.raises(StoreError, match="there are no keys"):
        connect(bucket, {"HOME": "/nowhere", "AWS_ENDPOINT_URL": rclone.endpoint})
    (tmp_path / ".aws" / "credentials").write_text("aws_secret_access_key = SECRET\n")
    with pytest.raises(StoreError) as caught:
        connect(bucket, environ)
    assert "SECRET" not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"


def test_a_certificate_is_trusted_only_when_it_is_named(tmp_path: Path) -> None:
    """A server with a certificate of the site's own is refused until AWS_CA_BUNDLE names it."""
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *(
                "-keyout",
                tmp_path / "key.pem",
                "-out",
                tmp_path / "cert.pem",
                "-days",
                "2",
                "-subj",
                "/CN=s3",
            ),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        ],
        check=True,
        capture_output=True,
    )
    with s3.rclone(tmp_path / "s3", "--cert", tmp_path / "cert.pem", "--key", tmp_path / "key.pem") as server:
        bucket = Bucket("lab", "")
        with pytest.raises(StoreError, match=r"certificate is not trusted \(UnknownIssuer\)"):
            server.store(bucket, tmp_path / "cache", retries=0)
        with pytest.raises(StoreError, match="no such bucket"):
            server.store(bucket, tmp_path / "cache", AWS_CA_BUNDLE=str(tmp_path / "cert.pem"))
        with pytest.raises(StoreError, match="cannot be read"):
            server.store(bucket, tmp_path / "cache", AWS_CA_BUNDLE=str(tmp_path / "absent.pem"))


@pytest.mark.parametrize("name", ["moto", "rclone"])
def test_a_large_blob_goes_in_parts(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Parts make no object before the last; whoever makes the chunks may ask the store meanwhile."""
    server: s3.Server = request.getfixturevalue(name)
    store = server.store(server.bucket(), tmp_path)
    digest, other = digest_of(LARGE), server.store(store.bucket, tmp_path)
    seen: list[int | None] = []

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(LARGE), 1 << 20):
            seen.append(other.size(digest))
            yield LARGE[start : start + (1 << 20)]

    assert store.add(digest, chunks()) == len(LARGE)
    assert set(seen) == {None}
    assert store.path(digest).read_bytes() == LARGE
    with other.open(digest) as file:
        assert file.read() == LARGE


def test_other_bytes_leave_no_parts_behind(moto: s3.Server, tmp_path: Path) -> None:
    """Where a large blob turns out to be another, or its source fails, the server is told to drop its parts."""
    store = moto.store(moto.bucket(), tmp_path)
    with pytest.raises(IntegrityError):
        store.add(digest_of(b"other"), [LARGE, b"!"])

    def failing() -> Iterator[bytes]:
        yield LARGE
        yield LARGE
        raise LookupError("the stick was pulled")

    with pytest.raises(LookupError):
        store.add(digest_of(LARGE), failing())
    assert list(store.blobs()) == []
    log = (moto.folder / "server.log").read_text()
    assert log.count(f"POST /{store.bucket.name}/site/store/blobs/sha256/") >= 2  # uploads were begun
    assert log.count(f"DELETE /{store.bucket.name}/site/store/blobs/sha256/") >= 2  # and thrown away


def test_a_server_that_dies_in_an_upload_is_an_error_and_leaves_no_blob(tmp_path: Path) -> None:
    """The upload ends with an error in seconds; a server that comes back has no such blob and takes it."""
    digest = digest_of(LARGE)
    with s3.rclone(tmp_path) as server:
        bucket = server.bucket()
        store = server.store(bucket, tmp_path / "cache", retries=1)

        def chunks() -> Iterator[bytes]:
            yield LARGE[: 2 * PART]
            server.process.kill()
            server.process.wait()
            yield LARGE[2 * PART :]

        with pytest.raises(StoreError, match="adding a blob"):
            store.add(digest, chunks())
        with pytest.raises(StoreError, match="cannot be reached"):
            store.index()
    with s3.rclone(tmp_path) as server:
        again = server.store(bucket, tmp_path / "cache")
        assert list(again.blobs()) == []
        assert again.add(digest, [LARGE]) == len(LARGE)


def test_an_object_that_changed_is_never_handed_out(rclone: s3.Server, tmp_path: Path) -> None:
    """Other bytes of the same size raise where they are read; no copy of them is kept."""
    store = rclone.store(rclone.bucket(), tmp_path)
    digest = digest_of(b"one")
    store.add(digest, [b"one"])
    rclone.put(store.bucket, f"blobs/sha256/{hex_of(digest)}", b"two")
    with store.open(digest) as file, pytest.raises(IntegrityError, match="not what its name says"):
        file.read()
    with pytest.raises(IntegrityError):
        store.path(digest)
    assert list(tmp_path.iterdir()) == []
    connect(store.bucket, rclone.environ()).delete(f"blobs/sha256/{hex_of(digest)}")
    with pytest.raises(NotFoundError):
        store.path(digest)
    assert store.size(digest) is None


def test_doctor_finds_and_drops_what_rots_in_a_bucket(rclone: s3.Server, tmp_path: Path) -> None:
    """A damaged object is told by its place in the bucket, dropped, and brought back by the bundle."""
    bundle = tiny.tiny_bundle(tmp_path / "tiny", padding=1000)
    bucket = rclone.bucket()
    env = rclone.environ(XDG_STATE_HOME=str(tmp_path / "state"), XDG_CACHE_HOME=str(tmp_path / "cache"))

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return tiny.haversack(*words, "--store", str(bucket), store=tmp_path / "none", env=env)

    assert run("receive", bundle.bundle).returncode == 0
    wheel = next(bundle.wheels.glob("alpha*")).read_bytes()
    key = f"blobs/sha256/{hex_of(digest_of(wheel))}"
    rclone.put(bucket, key, wheel[:-1] + b"!")
    found = run("doctor", "--read-all")
    assert found.returncode == 13, found.stdout + found.stderr
    assert f"{bucket}/{key}" in found.stderr
    assert run("doctor", "--drop-damaged").returncode == 13
    assert run("receive", bundle.bundle).returncode == 0
    done = run("doctor", "--read-all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "free: the storage does not say" in done.stdout
    copy = tmp_path / "cache" / "haversack" / "blobs" / hex_of(digest_of(b"copy"))
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(b"rotten")
    for words in (("--read-all",), ("--drop-damaged",)):
        done = run("doctor", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert str(copy) in done.stderr
    assert not copy.exists()


def test_a_store_copied_from_disk_is_one(tmp_path: Path) -> None:
    """What lies on disk as a store is one when its files are put into a bucket, with its snapshots and ledger."""
    bundle = tiny.tiny_bundle(tmp_path / "tiny")
    assert tiny.haversack("receive", bundle.bundle, store=tmp_path / "disk").returncode == 0
    shutil.copytree(tmp_path / "disk", tmp_path / "s3" / "buckets" / "lab" / "site")
    with s3.rclone(tmp_path / "s3") as server:
        env = server.environ(XDG_STATE_HOME=str(tmp_path / "state"), XDG_CACHE_HOME=str(tmp_path / "cache"))
        for words in (
            ("snapshots",),
            ("audit", "verify"),
            ("doctor", "--read-all"),
            ("receive", bundle.bundle),
        ):
            done = tiny.haversack(*words, "--store", "s3://lab/site", store=tmp_path / "none", env=env)
            assert done.returncode == 0, done.stdout + done.stderr
        assert (
            "1 entries"
            in tiny.haversack("audit", "verify", "--store", "s3://lab/site/", store=tmp_path, env=env).stdout
        )


def test_two_writers_never_both_win(rclone: s3.Server, tmp_path: Path) -> None:
    """Writers that come at once on a server without conditions: one at a time holds the store, none is lost."""
    bucket = rclone.bucket()
    rclone.store(bucket, tmp_path / "cache")
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom tests.support.s3 import *\n"
        "store = S3Store(Bucket(*sys.argv[1:3]), os.environ, BlobCache(Path(sys.argv[3]), 1))\n"
        "won = 0\n"
        "while won < 3:\n"
        "    try:\n"
        "        with store.exclusive():\n"
        "            one = store.read('inside', 'x')\n"
        "            assert not one, one\n"
        "            store.write('inside', sys.argv[4].encode(), 'x')\n"
        "            time.sleep(0.05)\n"
        "            assert store.read('inside', 'x') == sys.argv[4].encode()\n"
        "            store.write('inside', b'', 'x')\n"
        "        won += 1\n"
        "    except StoreError as problem:\n"
        "        assert 'in use by process' in str(problem), problem\n"
    ).replace("import *", "import *\nfrom haversack.errors import StoreError")
    env = {**os.environ, **rclone.environ(), "PYTHONPATH": str(Path.cwd())}
    argv = [str(s3.PROGRAMS / "python"), "-c", script, bucket.name, bucket.path, str(tmp_path)]
    both = [subprocess.Popen([*argv, name], env=env) for name in ("a", "b", "c")]
    assert [process.wait() for process in both] == [0, 0, 0]


def test_the_lease_of_a_dead_writer_is_taken_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    """By the server's clock: a lease of ten minutes ago holds nobody up, one of a minute ago does."""
    place = tmp_path / "buckets" / "lab" / "haversack" / "locks" / "store"
    place.mkdir(parents=True)
    for name, age in (("dead", 600), ("living", 60)):
        (place / name).write_text(f"process 7 of {name}")
        os.utime(place / name, (time.time() - age,) * 2)
    (place.parents[2] / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (place.parents[2] / "index.json").write_text('{"manifests":[],"schemaVersion":2}')
    with s3.rclone(tmp_path) as server:
        store = server.store(Bucket("lab", ""), tmp_path / "cache")
        with pytest.raises(StoreError, match="in use by process 7 of living"), store.exclusive():
            pass
        assert [path.name for path in place.iterdir()] == ["living"]
        connect(store.bucket, server.environ()).delete("haversack/locks/store/living")
        with store.exclusive():
            pass
        assert list(place.iterdir()) == [] if place.exists() else True


def test_a_lost_lease_stops_the_act_before_anything_is_published(moto: s3.Server, tmp_path: Path) -> None:
    """Whoever's lease was taken neither publishes nor removes; the index and the blobs stay."""
    store = moto.store(moto.bucket(), tmp_path)
    before = store.index()
    store.add(digest_of(b"one"), [b"one"])
    with store.exclusive():
        client = connect(store.bucket, moto.environ())
        (page,) = client.list("haversack/locks/store/")
        client.delete([entry["path"] for entry in page])
        for act in (
            lambda: store.publish({**before, "annotations": {}}),
            lambda: store.remove(digest_of(b"one")),
        ):
            with pytest.raises(StoreError, match="right to write was lost"):
                act()
    assert store.index() == before
    assert store.size(digest_of(b"one")) == 3


def test_a_holder_renews_its_lease(moto: s3.Server, tmp_path: Path) -> None:
    """The object of a lease is put anew while the store is held, and goes in the end."""
    from haversack.ports.s3lease import Lease

    client = connect(moto.bucket(), moto.environ())
    with Lease(client, "store", "here", refresh=0.1).held(0):
        (page,) = client.list("haversack/locks/store/")
        first = page[0]["last_modified"]
        due = time.monotonic() + 10
        while client.head(page[0]["path"])["last_modified"] == first:
            assert time.monotonic() < due
            time.sleep(0.05)
    assert [entry for page in client.list("haversack/locks/") for entry in page] == []


def test_an_index_that_somebody_else_replaced_is_not_overwritten(moto: s3.Server, tmp_path: Path) -> None:
    """Where the server knows conditions, even a writer without a lease is noticed before it is undone."""
    store = moto.store(moto.bucket(), tmp_path)
    with store.exclusive():
        theirs = {**store.index(), "annotations": {"from": "somebody else"}}
        moto.put(store.bucket, "index.json", json.dumps(theirs).encode())
        with pytest.raises(StoreError, match="412"):
            store.publish(store.index() | {"annotations": {}})
    assert store.index() == theirs


def test_many_questions_become_one(moto: s3.Server, tmp_path: Path) -> None:
    """Sizes of a thousand blobs, held or not, cost a listing and not a thousand requests."""
    store = moto.store(moto.bucket(), tmp_path)
    held = {digest_of(bytes([n])): bytes([n]) for n in range(100)}
    for digest, data in held.items():
        store.add(digest, [data])
    other = moto.store(store.bucket, tmp_path)
    log = moto.folder / "server.log"
    before = log.read_text().count("HEAD /")
    assert all(other.size(digest) == 1 for digest in held)
    assert all(other.size(digest_of(b"absent %d" % n)) is None for n in range(1000))
    assert log.read_text().count("HEAD /") - before < 50
    # What comes with a new index is seen, however fresh the listing is.
    late = digest_of(b"late")
    assert other.size(late) is None
    store.add(late, [b"late"])
    other.index()
    assert other.size(late) == 4


def test_copies_of_blobs_stay_within_bounds(tmp_path: Path) -> None:
    """The copies that were not asked for longest go first; those of the last hour stay, whatever the bound."""
    cache = BlobCache(tmp_path, 10_000)
    digests = [digest_of(bytes([n]) * 4000) for n in range(5)]
    for n, digest in enumerate(digests):
        place = cache.get(digest, lambda n=n: [bytes([n]) * 4000])  # type: ignore[misc]
        old = time.time() - 7200 + n
        os.utime(place, (old, old))
    assert cache.get(digests[3], lambda: pytest.fail("it is there")).exists()
    cache.get(digest_of(b"new"), lambda: [b"new"])
    assert not (tmp_path / hex_of(digests[0])).exists()
    assert (tmp_path / hex_of(digests[3])).exists()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000
    with pytest.raises(IntegrityError):
        cache.get(digest_of(b"right"), lambda: [b"wrong"])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_nobody_was_lent_makes_room_at_once(tmp_path: Path) -> None:
    """Files that are opened where they are brought stay within the limit, also when all come within a moment."""
    cache = BlobCache(tmp_path, 10_000)
    lent = cache.get(digest_of(b"lent"), lambda: [b"lent"])
    opened = []
    for n in range(20):
        data = bytes([n]) * 4000
        if n % 2:
            cache.get(digest_of(data), lambda data=data: [data], watch=lambda *_: None)  # type: ignore[misc]
        else:
            opened.append(cache.open(digest_of(data), lambda data=data: [data]))  # type: ignore[misc]
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000
    for n, file in enumerate(opened):
        with file:
            assert file.read() == bytes([2 * n]) * 4000
    assert lent.read_bytes() == b"lent"
    large = bytes(30_000)
    with cache.open(digest_of(large), lambda: [large]) as file:
        assert file.read() == large


def test_a_copy_that_rotted_is_brought_anew(rclone: s3.Server, tmp_path: Path) -> None:
    """What others left in the cache is hashed before it is lent, and doctor finds and drops what is wrong there."""
    store = rclone.store(rclone.bucket(), tmp_path / "cache")
    digest = digest_of(b"right")
    store.add(digest, [b"right"])
    place = store.path(digest)
    place.chmod(0o644)
    place.write_bytes(b"wrong")
    assert rclone.store(store.bucket, tmp_path / "cache").path(digest).read_bytes() == b"right"
    place.chmod(0o644)
    place.write_bytes(b"wrong")
    again = rclone.store(store.bucket, tmp_path / "cache")
    assert list(again.copies()) == [digest]
    assert again.forget(digest)
    assert not place.exists()


def test_an_export_from_a_bucket_shares_nothing_with_the_cache(rclone: s3.Server, tmp_path: Path) -> None:
    """An export is of files of its own: the cache keeps its limit, and no copy in it is taken for the store's."""
    bundle = tiny.tiny_bundle(tmp_path / "tiny", padding=1000)
    words = ("--store", str(rclone.bucket()))
    env = rclone.environ(XDG_STATE_HOME=str(tmp_path / "state"), XDG_CACHE_HOME=str(tmp_path / "cache"))
    none = tmp_path / "none"
    assert tiny.haversack("receive", bundle.bundle, *words, store=none, env=env).returncode == 0
    done = tiny.haversack("serve", "--export", tmp_path / "www", "--json", *words, store=none, env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["shared"] == 0
    assert all(path.stat().st_nlink == 1 for path in (tmp_path / "cache" / "haversack" / "blobs").iterdir())
    wheel = next(bundle.wheels.glob("alpha*"))
    found = [path for path in (tmp_path / "www").rglob(wheel.name) if path.is_file()]
    assert found
    assert all(path.read_bytes() == wheel.read_bytes() for path in found)


def test_a_ledger_is_recorded_while_the_store_is_held(rclone: s3.Server, tmp_path: Path) -> None:
    """Installs go on while a bundle is received: the ledger has a lease of its own."""
    store = rclone.store(rclone.bucket(), tmp_path)
    ledger = S3Ledger(store, FixedClock())
    with store.exclusive():
        ledger.append("receive", "one", {})
        S3Ledger(rclone.store(store.bucket, tmp_path), FixedClock()).append("install", "two", {})
    assert check_chain(ledger.lines(), ledger.head()) == []
    assert [line.entry.act for line in ledger.lines() if line.entry] == ["receive", "install"]


def test_a_file_in_a_bucket_is_fetched_without_telling_the_signature(
    rclone: s3.Server, tmp_path: Path
) -> None:
    """Wrong keys and absent files are told by the s3:// URL; no signature stands in any text."""
    http = HttpFetch(lambda _: None, attempts=1, timeout=5)
    bucket = rclone.bucket("x.deb")
    wrong = rclone.environ(AWS_SECRET_ACCESS_KEY="WRONG" * 8)
    for environ, said in ((wrong, "403"), (rclone.environ(), "404")):
        with pytest.raises(FetchError, match=said) as caught:
            S3Fetch(http, environ).get(str(bucket), digest_of(b"x"), tmp_path / "x", lambda _: None)
        assert str(caught.value).startswith(f"{bucket}: ")
        assert "X-Amz" not in f"{caught.value} {caught.value.remedy}"


def test_a_file_in_a_public_bucket_is_fetched_by_nobody(moto: s3.Server, tmp_path: Path) -> None:
    """With AWS_SKIP_SIGNATURE no keys are looked for and nothing is signed; what is not public stays refused."""
    http = HttpFetch(lambda _: None, attempts=1, timeout=5)
    bucket = moto.bucket("a b+c/x%.deb")
    url = sign(connect(Bucket(bucket.name, ""), moto.environ()), "PUT", bucket.path, timedelta(minutes=1))
    fields = {"x-amz-acl": "public-read", "Content-Type": "application/octet-stream"}
    public = urllib.request.Request(url, b"x", fields, method="PUT")
    with s3.direct().open(public, timeout=10):
        """Put."""
    environ = {"AWS_ENDPOINT_URL": moto.endpoint, "AWS_SKIP_SIGNATURE": "true", "HOME": str(tmp_path)}
    fetch = S3Fetch(http, environ)
    assert fetch.size(str(bucket)) == 1
    assert fetch.get(str(bucket), digest_of(b"x"), tmp_path / "x", lambda _: None) == 1
    assert fetch.take(str(bucket), tmp_path / "y", lambda _: None) == digest_of(b"x")
    assert "?" not in signed(bucket, environ, "GET")
    there = signed(Bucket("models", "x"), {"AWS_SKIP_SIGNATURE": "1", "HOME": "/nowhere"}, "GET")
    assert there == "https://s3.us-east-1.amazonaws.com/models/x"
    moto.put(Bucket(bucket.name, ""), "own", b"x")
    with pytest.raises(FetchError, match="403"):
        fetch.get(f"s3://{bucket.name}/own", digest_of(b"x"), tmp_path / "z", lambda _: None)


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3://a b/c",
        "s3://key:secret@bucket/x",
        "s3://bucket/../x",
        "s3://bucket/a//b",
        "s3://bucket/a?x",
    ],
)
def test_what_names_no_bucket_is_refused(url: str) -> None:
    """A URL with keys, a query, dots or no bucket is none of a store's."""
    with pytest.raises(ValueError):
        bucket_of(url)


def test_a_bucket_and_its_path_are_read() -> None:
    """Slashes at the end, and capitals of the scheme, do not matter."""
    assert bucket_of("S3://my.bucket/a/b/") == Bucket("my.bucket", "a/b")
    assert str(bucket_of("s3://my.bucket/")) == "s3://my.bucket"


def served(env: dict[str, str], project: str, tmp_path: Path) -> list[bytes]:
    """The wheels of a project as a server over the store hands them out; its cache is empty at first."""
    argv = tiny.command("serve", "--listen", "127.0.0.1:0")
    whole = {**tiny.environ(tmp_path / "none"), **env, "XDG_CACHE_HOME": str(tmp_path / "cache-of-server")}
    with subprocess.Popen(argv, env=whole, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
        try:
            assert server.stderr is not None
            address = server.stderr.readline().decode().split()[-1]
            page = f"{address.rstrip('/')}/pypi/simple/{project}/"
            with s3.direct().open(page) as answer:
                links = re.findall(r'href="([^"#]+\.whl)', answer.read().decode())
            found = []
            for link in links:
                with s3.direct().open(urljoin(page, link)) as answer:
                    found.append(answer.read())
        finally:
            server.kill()
    return found


def test_whoever_may_only_read_installs_and_keeps_his_own_record(moto: s3.Server, tmp_path: Path) -> None:
    """With keys that may not write, installs work and are recorded in the user's folder; receiving is refused."""
    bundle = tiny.tiny_bundle(tmp_path / "tiny")
    bucket = str(moto.bucket())
    env = moto.environ(XDG_STATE_HOME=str(tmp_path / "state"), XDG_CACHE_HOME=str(tmp_path / "cache"))
    env |= {"HAVERSACK_STORE": bucket}
    received = tiny.haversack("receive", bundle.bundle, store=tmp_path, env=env)
    assert received.returncode == 0, received.stderr
    with s3.for_readers(moto) as endpoint:
        env |= {"AWS_ENDPOINT_URL": endpoint}
        for words in (("install", "lab", "--to", tmp_path / "env"), ("audit", "verify"), ("snapshots",)):
            done = tiny.haversack(*words, store=tmp_path, env=env)
            assert done.returncode == 0, done.stdout + done.stderr
        assert '"act":"install"' in (tmp_path / "state" / "haversack" / "ledger.jsonl").read_text()
        done = tiny.haversack("receive", bundle.bundle, store=tmp_path, env=env)
        assert done.returncode == 13
        assert "refused (403 Forbidden AccessDenied)" in done.stderr


def test_a_site_is_packed_from_a_bucket(rclone: s3.Server, tmp_path: Path) -> None:
    """Outside, the store and a declared file lie in buckets: lock, pack and verify, and the file crosses."""
    bucket, file = rclone.bucket(), rclone.bucket("drivers/tool_1_amd64.bin")
    rclone.put(Bucket(file.name, ""), file.path, b"a driver" * 1000)
    env = rclone.environ(XDG_STATE_HOME=str(tmp_path / "state"), XDG_CACHE_HOME=str(tmp_path / "cache"))
    env |= {"HAVERSACK_STORE": str(bucket)}
    with Lab(tmp_path / "lab") as lab:
        make_wheel(lab.wheels, "demo", "1.0")
        lab.declare("demo", more=f'[[file]]\nurl = "{file}"\n')
        lab.told("lock", env=env)
        text = (lab.root / "haversack.lock").read_text()
        assert str(file) in text
        assert "X-Amz" not in text
        for words in (
            ("pack", "-o", tmp_path / "bundle"),
            ("verify", tmp_path / "bundle"),
            ("audit", "verify"),
        ):
            lab.told(*words, env=env)
    assert rclone.store(bucket, tmp_path / "own").size(digest_of(b"a driver" * 1000)) == 8000


def test_a_site_lives_in_a_bucket(rclone: s3.Server, tmp_path: Path) -> None:
    """Receive twice at once, install, switch, diff, prune, export and audit over ``s3://``, as on disk."""
    first = tiny.tiny_bundle(tmp_path / "first")
    more = tiny.tiny_bundle(tmp_path / "more", names=("alpha==1.1", "beta"), base=first, name="2026-12")
    store = str(rclone.bucket())
    env = rclone.environ(XDG_STATE_HOME=str(tmp_path / "state"), XDG_CACHE_HOME=str(tmp_path / "cache"))
    env |= {"HAVERSACK_STORE": store}

    def run(*words: str | Path, code: int = 0) -> str:
        done = tiny.haversack(*words, store=tmp_path / "none", env=env)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "there is no store here" in run("snapshots", code=13)
    run("verify", first.bundle)
    receive = [*tiny.command("receive", first.bundle)]
    whole = {**tiny.environ(tmp_path / "none"), **env}
    both = [
        subprocess.Popen(receive, env=whole, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    told = [process.communicate()[1].decode() for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes, told
    assert set(codes) <= {0, 13}, told
    run("verify", more.bundle)
    run("receive", more.bundle)
    assert "alpha 1.0 -> 1.1" in run("diff", "2026-11", "2026-12")
    run("use", "2026-11")
    run("install", "lab", "--to", tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    asked = [str(python), "-c", "import alpha, importlib.metadata as m; print(m.version('alpha'))"]
    assert subprocess.run(asked, capture_output=True, text=True).stdout == "1.0\n"
    run("serve", "--export", tmp_path / "export")
    wheel = next(first.wheels.glob("alpha*")).read_bytes()
    assert any(path.is_file() and path.read_bytes() == wheel for path in (tmp_path / "export").rglob("*.whl"))
    assert wheel in served(env, "alpha", tmp_path)
    run("use", "2026-12")
    run("prune", "--keep", "1")
    run("install", "lab", "--to", tmp_path / "env")
    assert subprocess.run(asked, capture_output=True, text=True).stdout == "1.1\n"
    run("doctor", "--read-all")
    run("audit", "verify")
    assert json.loads(run("receipt"))
    left = connect(bucket_of(store), rclone.environ())
    assert [entry["path"] for page in left.list("haversack/locks/") for entry in page] == []
    assert not (tmp_path / "none").exists()
