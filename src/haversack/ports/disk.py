"""A store on disk: an OCI image layout with a folder of haversack's own beside the blobs.

    oci-layout  index.json  blobs/sha256/<hex>          what the OCI image layout says
    haversack/lock  staging/  state/  ledger.jsonl …    what it does not know

Blobs arrive in ``staging/`` and are renamed into ``blobs/`` only after a ``syncfs``, a batch at a time:
whatever lies under a blob's name is what the name says, after a kill and after a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

from haversack.errors import FormatError, IntegrityError, NotFoundError, StoreError
from haversack.formats import oci
from haversack.formats.canonical import canonical, parse
from haversack.model.artifact import Digest, hex_of, is_digest
from haversack.ports import Seal, Watch
from haversack.ports.durable import drop_unfinished, explained, replace, sync_filesystem, sync_folder

try:
    import fcntl
except ImportError:  # Windows, where the outside may run
    fcntl = None  # type: ignore[assignment]

CHUNK = 1 << 20
# A batch is made durable with one sync; a kill loses at most this much of the work of a receive.
_BATCH_BYTES = 1 << 28
_BATCH_BLOBS = 512
_PATIENCE = 0.5  # seconds
_FICLONE = 0x40049409  # linux/fs.h


class Checked(io.RawIOBase):
    """A reader that hashes what it passes on and raises where the end of other bytes is reached."""

    def __init__(self, file: io.RawIOBase, digest: Digest, where: str) -> None:
        super().__init__()
        self._file, self._digest, self._where = file, digest, where
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; at the end compare digests."""
        count = self._file.readinto(buffer) or 0
        self._hash.update(memoryview(buffer)[:count])
        if not count and len(buffer) and self._hash.hexdigest() != hex_of(self._digest):
            raise IntegrityError(
                "is not what its name says",
                where=self._where,
                remedy="receive the bundle again, or restore the store",
            )
        return count

    def close(self) -> None:
        """Close the file below too."""
        self._file.close()
        super().close()


class DiskStore:
    """The store at ``root``; see :class:`haversack.ports.Store` for what each method promises."""

    def __init__(self, root: Path, *, create: bool = False) -> None:
        self.root = root.absolute()
        self._own = self.root / "haversack"
        self._staging = self._own / "staging"
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._staged: dict[Digest, tuple[Path, int]] = {}
        self._staged_bytes = 0
        with explained(self.root, "opening the store"):
            absent = not (self.root / "oci-layout").exists()
        if create and absent:
            self._create()
        with explained(self.root, "opening the store"):
            if not (self.root / "oci-layout").is_file():
                raise StoreError(
                    "there is no store here",
                    where=str(self.root),
                    remedy="give --store or set HAVERSACK_STORE",
                )
            layout = parse((self.root / "oci-layout").read_bytes(), str(self.root / "oci-layout"), StoreError)
        if not isinstance(layout, dict) or layout.get("imageLayoutVersion") != "1.0.0":
            raise FormatError(
                "is of another OCI layout version than 1.0.0", where=str(self.root / "oci-layout")
            )

    def _create(self) -> None:
        with explained(self.root, "making the store"):
            for folder in (self.root / "blobs" / "sha256", self._staging, self._own / "state"):
                folder.mkdir(parents=True, exist_ok=True)
            with (self._own / "lock").open("ab") as file:
                # Whoever makes it at the same moment may have received a snapshot already.
                while not _alone(file) and not (self.root / "oci-layout").exists():
                    time.sleep(0.01)
                if (self.root / "oci-layout").exists():
                    return
                if not (self.root / "index.json").exists():
                    replace(self.root / "index.json", canonical(oci.empty_index()))
                # Last, since it is what makes the folder a store.
                replace(self.root / "oci-layout", oci.LAYOUT_FILE)

    def __str__(self) -> str:
        return str(self.root)

    def _place(self, digest: Digest) -> Path:
        return self.root / "blobs" / "sha256" / hex_of(digest)

    def size(self, digest: Digest) -> int | None:
        """See the protocol."""
        with self._lock:
            staged = self._staged.get(digest)
        if staged:
            return staged[1]
        try:
            status = self._place(digest).lstat()
        except FileNotFoundError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def at_hand(self, digest: Digest) -> Path:
        """See the protocol: everything is here."""
        return self.path(digest)

    def copies(self) -> None:
        """See the protocol: blobs are files of its own."""

    def forget(self, digest: Digest) -> bool:
        """See the protocol: there is no copy."""
        return False

    def peek(self, digest: Digest) -> BinaryIO:
        """See the protocol."""
        return self.path(digest).open("rb")

    def path(self, digest: Digest, *, watch: Watch | None = None) -> Path:
        """See the protocol; nothing is brought here, so ``watch`` is told nothing."""
        with self._lock:
            staged = self._staged.get(digest)
        # It settles at its place before it is no longer counted as staged: where the first look misses it,
        # the second does not.
        for place in (*([staged[0]] if staged else []), self._place(digest)):
            # A link under a blob's name would lead out of the store.
            if place.is_file() and not place.is_symlink():
                return place
        raise NotFoundError(f"the store does not hold {digest}", where=str(self.root))

    def open(self, digest: Digest) -> BinaryIO:
        """See the protocol."""
        place = self.path(digest)
        with explained(place, "reading a blob"):
            raw = Checked(place.open("rb", buffering=0), digest, str(place))
        return io.BufferedReader(raw, CHUNK)

    def add(
        self,
        digest: Digest,
        chunks: Iterable[bytes],
        *,
        linkable: Path | None = None,
        seal: Seal | None = None,
    ) -> int:
        """See the protocol."""
        present = self.size(digest)
        if present is not None:
            return present
        with explained(self.root, "adding a blob"):
            descriptor, name = tempfile.mkstemp(prefix=hex_of(digest)[:16] + "-", dir=self._staging)
            temporary = Path(name)
            try:
                with os.fdopen(descriptor, "wb", buffering=0) as file:
                    shared = self._share(linkable, temporary, file.fileno()) if linkable else None
                    if shared is None:
                        size = pour(chunks, file, digest)
                    elif shared == seal:
                        size = seal.size
                    else:
                        size = pour(read_chunks(temporary), None, digest)
                # A copy of blocks is a file of our own, which was made for its owner alone.
                if shared is None or temporary.lstat().st_nlink == 1:
                    temporary.chmod(0o444)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        with self._lock:
            if digest in self._staged:
                temporary.unlink()
                return size
            self._staged[digest] = (temporary, size)
            self._staged_bytes += size
            full = self._staged_bytes >= _BATCH_BYTES or len(self._staged) >= _BATCH_BLOBS
        # While one thread waits for the disk, the others go on and fill the next batch.
        if full and not self._settling.locked():
            self._settle()
        return size

    def _share(self, source: Path, temporary: Path, descriptor: int) -> Seal | None:
        """Give ``temporary`` the bytes of ``source`` without a copy, if that is possible and safe.

        A reflink always is.  A hard link shares the file itself, so only a file that nobody else may write
        is linked; what is then read and hashed is the link, so the name cannot be swapped in between.  Tells
        how the file that was shared stood once it was, or ``None`` where none is.
        """
        if fcntl is not None and hasattr(fcntl, "ioctl"):
            with contextlib.suppress(OSError), source.open("rb") as file:
                fcntl.ioctl(descriptor, _FICLONE, file.fileno())
                return Seal.of(os.fstat(file.fileno()))
        status = source.lstat()
        mine = os.name != "nt" and status.st_uid == os.geteuid()
        if not stat.S_ISREG(status.st_mode) or not mine or status.st_mode & 0o022:
            return None
        aside = temporary.with_name(temporary.name + ".link")
        try:
            os.link(source, aside)
        except OSError as problem:
            # Another file system, or one without hard links: the bytes are copied instead.
            if problem.errno in {
                errno.EXDEV,
                errno.EPERM,
                errno.EMLINK,
                errno.EOPNOTSUPP,
                errno.ENOSYS,
                errno.EACCES,
            }:
                return None
            raise
        aside.replace(temporary)
        return Seal.of(temporary.lstat())

    def _settle(self) -> None:
        """Make the staged blobs durable and give them their names."""
        with self._settling, explained(self.root, "making blobs durable"):
            with self._lock:
                batch = dict(self._staged)
            if not batch:
                return
            sync_filesystem(self._staging)
            for digest, (temporary, _) in batch.items():
                temporary.replace(self._place(digest))
            sync_folder(self.root / "blobs" / "sha256")
            with self._lock:
                for digest, (_, size) in batch.items():
                    del self._staged[digest]
                    self._staged_bytes -= size

    def remove(self, digest: Digest) -> int:
        """See the protocol."""
        self._settle()
        with explained(self.root, "removing a blob"):
            size = self.size(digest)
            if size is None:
                return 0
            self._place(digest).unlink()
            return size

    def blobs(self) -> Iterator[tuple[Digest, int]]:
        """See the protocol."""
        self._settle()
        with explained(self.root, "listing blobs"), os.scandir(self.root / "blobs" / "sha256") as entries:
            # Whatever else lies there, an operating system put there: it is not ours to list or to prune.
            found = sorted(
                (f"sha256:{entry.name}", entry.stat().st_size)
                for entry in entries
                if is_digest(f"sha256:{entry.name}")
            )
        yield from found

    def free(self) -> int:
        """See the protocol."""
        return shutil.disk_usage(self.root).free

    def index(self) -> dict[str, Any]:
        """See the protocol."""
        place = self.root / "index.json"
        with explained(place, "reading the index"):
            value = parse(place.read_bytes(), str(place), StoreError)
        if not isinstance(value, dict) or not isinstance(value.get("manifests"), list):
            raise StoreError("is not an OCI index", where=str(place), remedy="restore it from a backup")
        return value

    def publish(self, index: Mapping[str, Any]) -> None:
        """See the protocol."""
        self._settle()
        with explained(self.root, "publishing the index"):
            replace(self.root / "index.json", canonical(index))

    def read_state(self, name: str) -> bytes | None:
        """See the protocol."""
        place = self._own / "state" / name
        with explained(place, "reading"):
            return place.read_bytes() if place.is_file() else None

    def write_state(self, name: str, data: bytes) -> None:
        """See the protocol."""
        place = self._own / "state" / name
        with explained(place, "writing"):
            place.parent.mkdir(parents=True, exist_ok=True)
            replace(place, data)

    def _states(self) -> list[Path]:
        """The folder of haversack's own small files, and those in it."""
        top = self._own / "state"
        return [top, *(path for path in top.iterdir() if path.is_dir())]

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """See the protocol."""
        with contextlib.ExitStack() as stack:
            with explained(self.root, "locking the store"):
                file = stack.enter_context((self._own / "lock").open("a+b", buffering=0))
                # A killed writer's threads can outlive its process for a moment, and with them its lock.
                patience = time.monotonic() + _PATIENCE
                while not (alone := _alone(file)) and time.monotonic() < patience:
                    time.sleep(0.02)
                if not alone:
                    file.seek(0)
                    holder = file.read(200).decode(errors="replace").strip() or "another process"
                    raise StoreError(
                        f"is in use by {holder}",
                        where=str(self.root),
                        remedy="wait for it to end, then run this again",
                    )
                file.truncate(0)
                file.write(f"process {os.getpid()}\n".encode())
                # Only now is it sure that nobody works in there: these are leftovers of a killed act.
                for leftover in self._staging.iterdir():
                    leftover.unlink()
                for folder in (self.root, *self._states()):
                    drop_unfinished(folder)
            try:
                yield
                self._settle()
            finally:
                with self._lock:
                    for temporary, _ in self._staged.values():
                        temporary.unlink(missing_ok=True)
                    self._staged.clear()
                    self._staged_bytes = 0


def _alone(file: IO[bytes]) -> bool:
    """Take the lock that an open file is, unless somebody else has it."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def pour(chunks: Iterable[bytes], file: BinaryIO | io.RawIOBase | None, digest: Digest) -> int:
    """Hash the chunks while writing them to ``file``; return their size or raise ``IntegrityError``."""
    state, size = hashlib.sha256(), 0
    for chunk in chunks:
        state.update(chunk)
        size += len(chunk)
        rest = memoryview(chunk)
        while file is not None and rest:
            written = file.write(rest)
            assert written
            rest = rest[written:]
    if state.hexdigest() != hex_of(digest):
        raise IntegrityError("the bytes are not those that the digest names", where=digest)
    return size


def read_chunks(path: Path) -> Iterator[bytes]:
    """A file's bytes, a mebibyte at a time."""
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            yield chunk
