"""The bytes of files, through Django's storage named `files`. Nothing is held in memory whole.

A file's place follows from its row's ids, so whoever has the row can find, replace or remove the
content, and content without a row cannot be.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any
from uuid import UUID

from django.core.files import File
from django.core.files.storage import storages

from meterplane.kernel.invariant import ensure


def name(tenant_id: UUID, file_id: UUID) -> str:
    """Where the content of a file is, below the storage's root."""
    return f"{tenant_id}/{file_id.hex}"


def write(tenant_id: UUID, file_id: UUID, content: "File[bytes]") -> None:
    """Store the content of a file, in place of what a crashed attempt may have left."""
    wanted = name(tenant_id, file_id)
    storage = storages["files"]
    storage.delete(wanted)
    ensure(storage.save(wanted, content) == wanted, "nobody else writes this file")


def remove(tenant_id: UUID, file_id: UUID) -> None:
    """Remove the content, if there is any."""
    storages["files"].delete(name(tenant_id, file_id))


@contextmanager
def opened(tenant_id: UUID, file_id: UUID) -> Iterator[IO[Any]]:
    """The content, to read and to seek in. Raises FileNotFoundError."""
    with storages["files"].open(name(tenant_id, file_id), "rb") as content:
        yield content
