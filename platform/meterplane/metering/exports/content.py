"""The bytes of exports, through Django's storage named `files`. Nothing is held in memory whole.

A file's place follows from the export's id, so whoever has the row can find, replace or remove its
files, and what a killed worker left is replaced by the next.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any
from uuid import UUID

from django.core.files import File
from django.core.files.storage import storages

from meterplane.kernel.failpoints import failpoint
from meterplane.kernel.invariant import ensure
from meterplane.metering.exports.limits import BLOCK_BYTES


def store(export_id: UUID, number: int, write: Callable[[IO[bytes]], object]) -> tuple[str, int]:
    """Have `write` make part `number`, or the whole file for 0. Its SHA-256 and size in bytes."""
    with tempfile.TemporaryFile() as scratch:
        write(scratch)
        size_bytes = scratch.tell()
        scratch.seek(0)
        digest = hashlib.file_digest(scratch, "sha256").hexdigest()
        scratch.seek(0)
        name, storage = _name(export_id, number), storages["files"]
        storage.delete(name)
        failpoint("export.content.before_save")
        ensure(storage.save(name, File(scratch)) == name, "nobody else writes this file")
    return digest, size_bytes


@contextmanager
def opened(export_id: UUID, number: int = 0) -> Iterator[IO[Any]]:
    """A part, or the whole file, to read and to seek in. Raises FileNotFoundError."""
    with storages["files"].open(_name(export_id, number), "rb") as content:
        yield content


def digest_of(export_id: UUID, number: int) -> str:
    """The SHA-256 of what is stored; empty if nothing is."""
    try:
        with opened(export_id, number) as content:
            digest = hashlib.sha256()
            while block := content.read(BLOCK_BYTES):
                digest.update(block)
            return digest.hexdigest()
    except FileNotFoundError:
        return ""


def remove(export_id: UUID, *, parts_only: bool = False) -> None:
    """Remove the files of an export, if there are any."""
    storage, folder = storages["files"], _folder(export_id)
    try:
        _, names = storage.listdir(folder)
    except FileNotFoundError:
        return
    whole = _name(export_id, 0)
    for name in names:
        if not (parts_only and f"{folder}/{name}" == whole):
            storage.delete(f"{folder}/{name}")
    if not parts_only:
        storage.delete(folder)  # a folder that is empty goes, too


def _folder(export_id: UUID) -> str:
    return f"exports/{export_id.hex}"


def _name(export_id: UUID, number: int) -> str:
    return f"{_folder(export_id)}/{f'part-{number:05d}' if number else 'whole'}"
