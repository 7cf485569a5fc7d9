"""A download that broke off goes on where it was, if it is still the same file."""

import asyncio

import pytest
from django.db import connection
from django.test import AsyncRequestFactory, RequestFactory

from meterplane.kernel.errors import CallerError
from meterplane.metering.exports.query import stored_query
from meterplane.metering.exports.serve import file_response, streamed
from meterplane.metering.exports.stream import csv_blocks
from tests.metering.exports.written import asked, content_of, take_in, worked
from tests.metering.segments import settle

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def done(organisation):
    take_in([settle(organisation) for _ in range(30)])
    return worked(asked(organisation.id))


def ask(export, **headers):
    request = RequestFactory().get(
        "/", headers={n.replace("_", "-"): v for n, v in headers.items()}
    )
    return file_response(request, export, "acme")


def test_the_whole_file_says_what_it_is(done):
    answer = ask(done)
    data = answer.getvalue()
    assert (answer.status_code, data) == (200, content_of(done))
    assert answer["ETag"] == f'"{done.sha256}"'
    assert answer["Accept-Ranges"] == "bytes"
    assert answer["Content-Length"] == str(len(data)) == str(done.bytes)
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert 'filename="acme-events-' in answer["Content-Disposition"]


def test_a_part_of_it_is_that_part(done):
    data = content_of(done)
    for asked_for, first, last in (
        ("bytes=0-0", 0, 0),
        ("bytes=100-199", 100, 199),
        ("bytes=700-", 700, len(data) - 1),
        ("bytes=-50", len(data) - 50, len(data) - 1),
        ("bytes=10-999999999", 10, len(data) - 1),
    ):
        answer = ask(done, range=asked_for)
        assert answer.status_code == 206
        assert answer.getvalue() == data[first : last + 1]
        assert answer["Content-Range"] == f"bytes {first}-{last}/{len(data)}"
        assert answer["Content-Length"] == str(last + 1 - first)


def test_other_ranges_get_the_whole_and_those_outside_are_refused_with_the_size(done):
    for asked_for in ("bytes=5-3", "lines=1-2", "bytes=0-1,5-6", "bytes=-", ""):
        assert ask(done, range=asked_for).status_code == 200
    for asked_for in ("bytes=99999999-", "bytes=-0", f"bytes={done.bytes}-"):
        answer = ask(done, range=asked_for)
        assert answer.status_code == 416
        assert answer["Content-Range"] == f"bytes */{done.bytes}"


def test_a_download_goes_on_only_with_the_file_it_began_with(done):
    ours, other = f'"{done.sha256}"', '"0"'
    assert ask(done, range="bytes=9-", if_range=ours).status_code == 206
    assert ask(done, range="bytes=9-", if_range=other).status_code == 200


def test_under_asgi_blocks_leave_as_they_are_made(done, organisation):
    """Django would collect a plain iterator before it sent its first byte."""
    request = AsyncRequestFactory().get("/")
    made = []

    def blocks():
        for block in csv_blocks(organisation.id, stored_query(done.query)):
            made.append(block)
            yield block
        connection.close()  # the request's own thread has its own

    async def read(response):
        return [(block, len(made)) async for block in response.streaming_content]

    got = asyncio.run(read(streamed(request, blocks())))
    assert b"".join(block for block, _ in got) == content_of(done)
    assert [so_far for _, so_far in got] == list(range(1, len(made) + 1))
    answer = file_response(request, done, "acme")
    assert b"".join(block for block, _ in asyncio.run(read(answer))) == content_of(done)


def test_there_is_no_file_before_it_is_done(organisation):
    with pytest.raises(CallerError, match="once it is done"):
        ask(asked(organisation.id))
