"""Files through the real web process and the OpenAI client."""

import http.client as http_client
from datetime import timedelta

import httpx2 as httpx
import openai
import pytest

from meterplane.batches import identifiers, store
from meterplane.batches.limits import FILE_LIFE
from meterplane.batches.models import StoredFile
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.keys import issue_key, revoke_key
from tenants.onboard import create_project
from tenants.scoping import system_scope, tenant_scope
from tenants.standing import set_standing
from tests.batches.conftest import jsonl, request_line, stored_files

pytestmark = pytest.mark.django_db(transaction=True)

CONTENT = jsonl(request_line("a"), request_line("b"))


def test_a_file_is_uploaded_read_back_and_deleted_with_its_content(client):
    made = client.files.create(file=("in.jsonl", CONTENT), purpose="batch")
    assert (made.object, made.bytes, made.filename, made.purpose, made.status) == (
        "file", len(CONTENT), "in.jsonl", "batch", "processed",
    )  # fmt: skip
    assert made.expires_at == made.created_at + FILE_LIFE.total_seconds()
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == CONTENT
    on_disk = [path for path in stored_files() if path.name == made.id.removeprefix("file-")]
    assert [path.stat().st_mode & 0o777 for path in on_disk] == [0o600]
    gone = client.files.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "file", True)
    assert not on_disk[0].exists()
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(made.id)


def test_a_large_file_goes_in_and_out_unaltered(client, web):
    content = jsonl(*(request_line(str(number), "x" * 1000) for number in range(20_000)))
    assert len(content) > 20_000_000
    made = client.files.create(file=("large.jsonl", content), purpose="batch")
    assert client.files.content(made.id).read() == content


def test_a_list_is_paged_in_both_orders_and_by_purpose(client):
    ids = [client.files.create(file=("f", CONTENT), purpose="batch").id for _ in range(5)]
    assert [file.id for file in client.files.list()] == ids[::-1]
    assert [file.id for file in client.files.list(limit=2)] == ids[::-1]
    page = client.files.list(limit=2, order="asc")
    assert ([file.id for file in page.data], page.has_more) == (ids[:2], True)
    page = client.files.list(limit=2, order="asc", after=ids[2])
    assert ([file.id for file in page.data], page.has_more) == (ids[3:], False)
    client.files.delete(ids[1])
    assert [file.id for file in client.files.list(after=ids[1], order="asc")] == ids[2:]
    assert list(client.files.list(purpose="batch_output")) == []
    assert list(client.files.list(purpose="nonsense\0")) == []


def test_every_purpose_but_batch_is_refused_by_name(client):
    for purpose in ("assistants", "fine-tune", "vision", "batch_output", "nonsense"):
        with pytest.raises(openai.BadRequestError, match=purpose) as refused:
            client.files.create(file=("f", CONTENT), purpose=purpose)
        assert (refused.value.param, refused.value.code) == ("purpose", "purpose_not_offered")


def test_an_expiry_can_be_asked_for(client):
    made = client.files.create(
        file=("f", CONTENT),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert made.expires_at == made.created_at + 3600
    with pytest.raises(openai.BadRequestError, match="3600"):
        client.files.create(
            file=("f", CONTENT),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 60},
        )


BAD_UPLOADS = [
    ({"files": {"file": ("f", b"x")}}, 400, "purpose"),
    ({"files": {"purpose": (None, "batch")}}, 400, "file"),
    ({"files": {"purpose": (None, "batch"), "file": (None, "text")}}, 400, "file"),
    ({"files": [("purpose", (None, "batch")), ("file", ("a", b"")), ("file", ("b", b""))]}, 400,
     "file"),
    ({"files": {"purpose": (None, "batch"), "file": ("f", b""), "extra": (None, "1")}}, 400,
     "extra"),
    ({"json": {"purpose": "batch"}}, 400, None),
    ({"content": b"--x\r\nbroken", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
     400, "purpose"),
    ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, None),
    ({"headers": {"Content-Type": "multipart/form-data; boundary=" + "x" * 300}}, 400, None),
]  # fmt: skip


@pytest.mark.parametrize(("request_parts", "status", "param"), BAD_UPLOADS)
def test_a_bad_upload_is_told_what_is_wrong(http, request_parts, status, param):
    answer = http.post("/v1/files", **request_parts)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (
        status, param, "invalid_request_error",
    )  # fmt: skip
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]


def test_a_file_name_is_only_a_name(client):
    made = client.files.create(file=("../../etc/pass\x01wd.jsonl", CONTENT), purpose="batch")
    assert "/" not in made.filename
    assert made.filename.endswith("wd.jsonl")


def test_more_than_200_mb_are_refused_before_they_arrive(web, organisation):
    def endless():
        yield b"--x\r\nContent-Disposition: form-data; name=file; filename=f\r\n\r\n"
        for _ in range(300):
            yield b"x" * 1024 * 1024

    headers = {
        "Authorization": f"Bearer {organisation.secret}",
        "Content-Type": "multipart/form-data; boundary=x",
    }
    declared = http_client.HTTPConnection(web.removeprefix("http://"))
    declared.request("POST", "/v1/files", headers=headers | {"Content-Length": "999999999"})
    assert declared.getresponse().status == 413
    declared.close()
    with httpx.Client(base_url=web, headers=headers, timeout=60) as http:
        try:
            answer = http.post("/v1/files", content=endless())
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "request_too_large"
        except httpx.WriteError:
            pass  # it closed the connection while we were still talking
    assert stored_files() == []


@pytest.mark.parametrize("secret", ["-", "sk-nothing", "mp_live_" + "0" * 49, "mp_live_\xe9"])
def test_nobody_uploads_without_a_key(web, organisation, secret):
    upload = {"purpose": (None, "batch"), "file": ("f", b"x")}
    answer = httpx.post(
        f"{web}/v1/files", files=upload, headers={"Authorization": f"Bearer {secret}".encode()}
    )
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert answer.headers["x-request-id"]


def test_a_revoked_key_and_a_suspended_organisation_are_refused(client, client_of, organisation):
    client.files.create(file=("f", CONTENT), purpose="batch")
    other = issue_key(tenant_id=organisation.id, project_id=organisation.project_id, name="another")
    revoke_key(tenant_id=organisation.id, key_id=organisation.key_id)
    with pytest.raises(openai.AuthenticationError):
        client.files.list()
    second = client_of(organisation, other.secret)
    assert len(list(second.files.list())) == 1
    set_standing(tenant_id=organisation.id, standing="suspended", reason="unpaid")
    with pytest.raises(openai.PermissionDeniedError, match="unpaid") as refused:
        second.files.list()
    assert refused.value.code == "account_suspended"


def test_another_tenants_file_is_as_missing_as_one_that_never_was(client_of, onboard):
    acme, globex = onboard("acme"), onboard("globex")
    theirs = client_of(globex).files.create(file=("f", CONTENT), purpose="batch").id
    never = identifiers.shown(identifiers.FILE, uuid7())
    client = client_of(acme)
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        told = []
        for file_id in (theirs, never):
            with pytest.raises(openai.NotFoundError) as missing:
                ask(file_id)
            told.append(str(missing.value).replace(file_id, "ID"))
        assert told[0] == told[1]
    assert list(client.files.list()) == []
    assert client_of(globex).files.content(theirs).read() == CONTENT


def test_another_project_of_the_same_tenant_sees_none_of_it(client, client_of, organisation):
    mine = client.files.create(file=("f", CONTENT), purpose="batch").id
    project = create_project(tenant_id=organisation.id, slug="second", name="Second")
    key = issue_key(tenant_id=organisation.id, project_id=project.id, name="its key")
    second = client_of(organisation, key.secret)
    assert list(second.files.list()) == []
    with pytest.raises(openai.NotFoundError):
        second.files.retrieve(mine)


def test_malformed_ids_paths_and_queries_are_refused_in_shape(http):
    for path, status in [
        ("/v1/files/nothing", 404),
        ("/v1/files/file-" + "Z" * 32, 404),
        ("/v1/files/file-" + "0" * 32 + "/contents", 404),
        ("/v1/batches/batch_%00", 404),
        ("/v1/nothing", 404),
        ("/v1/files?limit=0", 400),
        ("/v1/files?limit=ten", 400),
        ("/v1/files?limit=10001", 400),
        ("/v1/files?order=up", 400),
        ("/v1/files?after=batch_1", 400),
        ("/v1/files?colour=red", 400),
        ("/v1/batches?limit=101", 400),
    ]:
        answer = http.get(path)
        assert answer.status_code == status, path
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"]
    put = http.put("/v1/files")
    assert (put.status_code, put.headers["allow"]) == (405, "GET, POST")


def test_the_gateways_request_id_is_kept(http):
    given = str(uuid7())
    assert http.get("/v1/files", headers={"x-request-id": given}).headers["x-request-id"] == given
    made = http.get("/v1/files", headers={"x-request-id": "<script>"}).headers["x-request-id"]
    assert len(made) == 36


def test_an_expired_file_is_gone_for_everyone_and_the_sweep_removes_it(client, organisation):
    made = client.files.create(file=("f", CONTENT), purpose="batch")
    client.files.create(file=("g", CONTENT), purpose="batch")
    with tenant_scope(organisation.id):
        StoredFile.objects.filter(filename="f").update(expires_at=clock.now())
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)
    assert [file.filename for file in client.files.list()] == ["g"]
    assert store.purge_leftovers() == 1
    assert store.purge_leftovers() == 0
    with tenant_scope(organisation.id):
        assert StoredFile.objects.count() == 1
    assert not [path for path in stored_files() if path.name == made.id.removeprefix("file-")]


def test_what_a_crash_left_of_an_upload_or_a_deletion_is_found(client, organisation):
    for name in ("half", "going", "kept"):
        client.files.create(file=(name, CONTENT), purpose="batch")
    now = clock.now()
    with tenant_scope(organisation.id):
        StoredFile.objects.filter(filename="half").update(
            state="arriving", created_at=now - timedelta(hours=2)
        )
        StoredFile.objects.filter(filename="going").update(state="leaving")
    assert [file.filename for file in client.files.list()] == ["kept"]
    assert store.purge_leftovers() == 2
    with system_scope("test"):
        assert [row.filename for row in StoredFile.objects.all()] == ["kept"]


def test_an_organisation_has_room_for_so_much(client, monkeypatch, organisation, web):
    monkeypatch.setattr(store, "BYTES_PER_ORGANISATION_MAX", len(CONTENT) + 1)
    from django.core.files.base import ContentFile

    from meterplane.kernel.errors import CallerError
    from tenants.callers import Caller

    caller = Caller(organisation.id, organisation.project_id, organisation.key_id)
    store.store_file(caller, ContentFile(CONTENT), filename="a", life=FILE_LIFE)
    with pytest.raises(CallerError, match="delete some") as full:
        store.store_file(caller, ContentFile(CONTENT), filename="b", life=FILE_LIFE)
    assert full.value.code == "storage_full"
