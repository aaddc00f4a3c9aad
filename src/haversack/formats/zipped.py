"""Zip files from strangers: their directory held against their members, and members inflated in chunks.

A zip file says everything twice: in its directory, and again in front of each member.  Two readers that
believe different halves unpack different files.  Here both must agree, every byte must belong to
somebody, and nothing is inflated beyond what it declares.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

CHUNK = 1024 * 1024
"""Bytes inflated at a time: enough for zlib and hashlib to work without the interpreter lock."""
PACKED_CHUNK = 256 * 1024
"""Bytes read at a time; less than :data:`CHUNK`, because zlib copies what it has not consumed yet."""
DIRECTORY_LIMIT = 32 * 1024 * 1024
"""Bytes a zip directory may have; the wheels with the most files (20,000) need a tenth of it."""
DESCRIPTOR_LIMIT = 24
"""Bytes of the longest data descriptor (signed, zip64) that may follow a member."""

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_END_RECORD_SIZE = 22
_UNREADABLE = 0x1 | 0x20 | 0x40 | 0x2000  # encrypted, a patch, strongly encrypted, directory encrypted
_HAS_DESCRIPTOR = 0x8
_IS_UTF8 = 0x800
_IN_ZIP64 = 0xFFFFFFFF


class BrokenZipError(Exception):
    """The archive, or one member of it, cannot be read to its end; becomes a finding."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Window:
    """The file as :mod:`zipfile` may see it, which would read a directory of whatever size it claims."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = file.seek(0, io.SEEK_END)

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def read(self, count: int = -1) -> bytes:
        if count > DIRECTORY_LIMIT:
            raise zipfile.BadZipFile(f"its directory says it has {count} bytes")
        return self.file.read(count)


def directory(file: BinaryIO) -> tuple[list[tuple[zipfile.ZipInfo, int]], int]:
    """Members in order of their place, each with where it has to end, and the size of the file."""
    window = _Window(file)
    try:
        with zipfile.ZipFile(window) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.header_offset)
            begin, comment = archive.start_dir, archive.comment
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
        raise BrokenZipError("wheel-invalid", f"it is not a readable zip file: {error}") from error
    file.seek(window.size - _END_RECORD_SIZE - len(comment))
    if file.read(4) != b"PK\x05\x06":
        raise BrokenZipError("wheel-invalid", "bytes follow the end of the zip file")
    limits = [*(min(member.header_offset, begin) for member in members[1:]), begin]
    return list(zip(members, limits, strict=False)), window.size


def content(file: BinaryIO, member: zipfile.ZipInfo, limit: int) -> Iterator[bytes]:
    """What a member holds, in chunks; ``limit`` is where it has to end.  Raises :class:`BrokenZipError`."""
    if not 0 <= member.header_offset <= limit:
        raise BrokenZipError("wheel-invalid", "the directory points out of the file")
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise BrokenZipError("wheel-invalid", "the directory points at something that is no member")
    _, _, flags, method, _, _, crc, packed, unpacked, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    name = file.read(name_length).decode("utf-8" if flags & _IS_UTF8 else "cp437", "replace")
    if (flags | member.flag_bits) & _UNREADABLE:
        raise BrokenZipError("wheel-invalid", "it is encrypted")
    stated: tuple[object, ...] = (name, method)
    meant: tuple[object, ...] = (member.orig_filename, member.compress_type)
    if not flags & _HAS_DESCRIPTOR and _IN_ZIP64 not in (packed, unpacked):
        stated += (crc, packed, unpacked)
        meant += (member.CRC, member.compress_size, member.file_size)
    if stated != meant:
        raise BrokenZipError(
            "wheel-invalid", "the directory and the member's own header say different things"
        )
    place = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    spare = limit - place - member.compress_size
    if spare < 0:
        raise BrokenZipError("wheel-bomb", "it overlaps what follows it")
    if spare > (DESCRIPTOR_LIMIT if flags & _HAS_DESCRIPTOR else 0):
        raise BrokenZipError("wheel-invalid", "bytes that no member owns follow it")
    file.seek(place)
    if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BrokenZipError(
            "wheel-invalid", f"it is compressed by method {method}, which not all installers read"
        )
    size = check = 0
    for chunk in _unpacked(file, member.compress_size, deflated=method == zipfile.ZIP_DEFLATED):
        size += len(chunk)
        if size > member.file_size:
            raise BrokenZipError(
                "wheel-bomb", f"it unpacks to more than the {member.file_size} bytes it declares"
            )
        check = zlib.crc32(chunk, check)
        yield chunk
    if (size, check) != (member.file_size, member.CRC):
        raise BrokenZipError("wheel-invalid", "it is damaged: its size or check sum is wrong")


def _unpacked(file: BinaryIO, left: int, *, deflated: bool) -> Iterator[bytes]:
    """The next ``left`` bytes of the file, inflated if they are deflated."""
    if not deflated:
        while left and (data := file.read(min(left, CHUNK))):
            left -= len(data)
            yield data
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    packed = b""
    while not inflater.eof:
        if not packed:
            packed = file.read(min(left, PACKED_CHUNK))
            left -= len(packed)
        try:
            data = inflater.decompress(packed, CHUNK)
        except zlib.error as error:
            raise BrokenZipError("wheel-invalid", f"it is damaged: {error}") from error
        if not data and not packed:
            raise BrokenZipError("wheel-invalid", "it is cut short")
        packed = inflater.unconsumed_tail
        yield data
    if left or inflater.unused_data:
        raise BrokenZipError("wheel-invalid", "bytes that nobody reads follow its content")
