"""A bucket of an S3-compatible store: put, read back, delete, and what went wrong in a sentence.

An object is there whole or not at all: a put that is cut leaves what was there before. Endpoints
are an operator's word and may be in a private network; link-local addresses, where clouds keep the
credentials of machines, are refused whatever name leads there, each time anew.
"""

import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any
from urllib.parse import urlsplit

from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.ids import uuid7
from meterplane.metering.exports.limits import (
    ATTEMPTS_PER_CALL,
    BLOCK_BYTES,
    CONNECT_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
)
from meterplane.metering.exports.sealing import unseal
from meterplane.metering.models import ExportDestination

# Amazon's over IPv6, which is not link-local.
_METADATA = ipaddress.ip_address("fd00:ec2::254")
# What a store says, and what an operator can do about it; the first that is found.
_SENTENCES = (
    ("NO_SUCH_BUCKET", "There is no bucket {bucket!r} at {endpoint}."),
    ("bucket does not exist", "There is no bucket {bucket!r} at {endpoint}."),
    ("INVALID_ACCESS_KEY_ID", "{endpoint} does not know the access key id."),
    ("INVALID_CLIENT_TOKEN_ID", "{endpoint} does not know the access key id."),
    ("SIGNATURE_DOES_NOT_MATCH", "The secret is not that of the access key id."),
    ("ACCESS_DENIED", "The access key may not write to {bucket!r}."),
    ("NETWORK_CONNECTION", "{endpoint} cannot be reached."),
    ("curlCode: 7", "{endpoint} cannot be reached."),
    ("curlCode: 6", "The name of {endpoint} cannot be resolved."),
    ("curlCode: 28", "{endpoint} did not answer in time."),
    ("curlCode: 60", "The certificate of {endpoint} cannot be trusted."),
)


class Bucket:
    """An open bucket. Raises `WorldError` `bucket_failed` from every method."""

    def __init__(self, destination: ExportDestination) -> None:
        self._to = destination
        self._files = _filesystem(destination)

    def put(self, key: str, source: IO[bytes]) -> None:
        """Store what is left to read of `source` under `key`, in place of what was there."""
        with self._in_words(), self._files.open_output_stream(self._path(key)) as target:
            while block := source.read(BLOCK_BYTES):
                target.write(block)

    def get(self, key: str) -> bytes:
        """A small object."""
        with self._in_words(), self._files.open_input_stream(self._path(key)) as source:
            content: bytes = source.read()
        return content

    def probe(self) -> None:
        """Write a small object, read it back, delete it."""
        key = "/".join(filter(None, (self._to.prefix, f".meterplane-probe-{uuid7()}")))
        with self._in_words():
            path = self._path(key)
            with self._files.open_output_stream(path) as target:
                target.write(b"meterplane")
            with self._files.open_input_stream(path) as source:
                content = source.read()
            self._files.delete_file(path)
        if content != b"meterplane":
            raise WorldError("bucket_failed", f"{self._where()} gives back other bytes.")

    def _path(self, key: str) -> str:
        return f"{self._to.bucket}/{key}"

    def _where(self) -> str:
        return self._to.endpoint or f"Amazon S3 in {self._to.region}"

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except OSError as failed:  # all of Arrow's are
            raise WorldError("bucket_failed", self._sentence(str(failed))) from failed

    def _sentence(self, said: str) -> str:
        for sign, sentence in _SENTENCES:
            if sign in said:
                return sentence.format(bucket=self._to.bucket, endpoint=self._where())
        return f"{self._where()} failed: {said[:300]}"


def check_endpoint(endpoint: str) -> None:
    """Raises `CallerError` `endpoint_refused`. Empty is Amazon's own of the region."""
    if not endpoint:
        return
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise CallerError(
            "endpoint_refused",
            "An endpoint is https://host or http://host:port, without a path.",
            field="endpoint",
        )
    if parts.username or parts.query or parts.fragment:
        raise CallerError("endpoint_refused", "An endpoint holds no credentials.", field="endpoint")
    for address in _addresses(parts.hostname):
        if address.is_link_local or address.is_multicast or address == _METADATA:
            raise CallerError(
                "endpoint_refused",
                f"{parts.hostname} leads to {address}, which is link-local; nothing is sent there.",
                field="endpoint",
            )


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Where a name leads now; empty if nowhere, which connecting tells better."""
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        return []
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    mapped = [getattr(address, "ipv4_mapped", None) for address in addresses]
    return [inner or outer for inner, outer in zip(mapped, addresses, strict=True)]


def _filesystem(to: ExportDestination) -> Any:
    from pyarrow.fs import (  # type: ignore[import-untyped]  # loads Amazon's library: only here
        AwsStandardS3RetryStrategy,
        S3FileSystem,
    )

    try:
        check_endpoint(to.endpoint)
    except CallerError as refused:
        raise WorldError(refused.code, refused.message) from None
    parts = urlsplit(to.endpoint)
    place = {"endpoint_override": parts.netloc, "scheme": parts.scheme} if to.endpoint else {}
    return S3FileSystem(
        access_key=to.access_key_id,
        secret_key=_secret(to),
        region=to.region,
        force_virtual_addressing=not to.path_style,
        allow_bucket_creation=False,
        background_writes=True,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS_PER_CALL),
        **place,
    )


def _secret(to: ExportDestination) -> str:
    if not to.secret_env:
        return unseal(to.secret_sealed)
    secret = os.environ.get(to.secret_env, "")
    if not secret:
        raise WorldError(
            "secret_missing", f"The worker's environment has no {to.secret_env}; set it."
        )
    return secret
