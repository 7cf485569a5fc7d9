"""Our message classes are the protocol's, field by field, as tritonclient has them."""

import pytest
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import service_pb2 as pb

from meterplane.gateway.config import ConfigInvalid
from meterplane.gateway.kserve_grpc.config import from_environment
from meterplane.gateway.kserve_grpc.messages import CLASSES, ModelInferRequest, read
from meterplane.kernel.errors import CallerError
from tests.gateway_grpc.tensors import floats, message

# Messages of the protocol that Triton keeps inside another.
NESTED = {
    "TensorMetadata": "ModelMetadataResponse",
    "InferInputTensor": "ModelInferRequest",
    "InferRequestedOutputTensor": "ModelInferRequest",
    "InferOutputTensor": "ModelInferResponse",
}
# Fields of Triton's that we do not speak; what is not listed anywhere is an error.
UNSPOKEN: dict[str, set[str]] = {}


def theirs(name):
    outer = NESTED.get(name)
    return getattr(getattr(pb, outer), name) if outer else getattr(pb, name)


def shape_of(field: FieldDescriptor) -> tuple[object, ...]:
    kind = field.message_type.name if field.message_type is not None else ""
    entry = field.message_type is not None and field.message_type.GetOptions().map_entry
    return (field.name, field.number, field.type, field.is_repeated, "map" if entry else kind)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_field_has_the_protocols_number_and_type(name):
    ours = {shape_of(field) for field in CLASSES[name].DESCRIPTOR.fields}
    assert ours == {
        shape_of(field)
        for field in theirs(name).DESCRIPTOR.fields
        if field.name not in UNSPOKEN.get(name, ())
    }
    assert [each.name for each in CLASSES[name].DESCRIPTOR.oneofs] == [
        each.name for each in theirs(name).DESCRIPTOR.oneofs
    ]


def test_maps_have_the_protocols_keys_and_values():
    for name, made in CLASSES.items():
        for field in made.DESCRIPTOR.fields:
            if field.message_type is None or not field.message_type.GetOptions().map_entry:
                continue
            other = theirs(name).DESCRIPTOR.fields_by_name[field.name]
            assert [shape_of(each) for each in field.message_type.fields] == [
                shape_of(each) for each in other.message_type.fields
            ]


def test_a_field_that_is_not_ours_is_not_passed_on():
    asked = message("identity", floats(1, 2), id="7").SerializeToString()
    unknown = b"\xfa\x3e\x05hello"  # field 1007, a string
    assert read(ModelInferRequest, asked + unknown).SerializeToString() == asked


def test_what_is_no_message_is_the_callers_fault():
    with pytest.raises(CallerError) as refused:
        read(ModelInferRequest, b"\xff\xff")
    assert refused.value.status == 400


def test_every_wrong_variable_is_named_at_once():
    with pytest.raises(ConfigInvalid) as invalid:
        from_environment(
            {"GATEWAY_GRPC_PORT": "0", "TRITON_GRPC_URLS": "http://x:1", "JOURNAL_DIR": ""}
        )
    told = str(invalid.value)
    for name in ("GATEWAY_GRPC_PORT", "TRITON_GRPC_URLS", "JOURNAL_DIR", "API_KEY_PEPPER"):
        assert name in told


def test_the_worker_has_a_journal_of_its_own_unless_told_otherwise():
    env = {
        "GATEWAY_DATABASE_URL": "postgresql://x/y",
        "ADMISSION_REDIS_URL": "redis://x",
        "TRITON_URLS": "http://x:1",
        "TRITON_GRPC_URLS": "x:1, [::1]:2",
        "API_KEY_PEPPER": "ab" * 32,
        "JOURNAL_DIR": "j",
    }
    config = from_environment(env)
    assert (config.gateway.worker, config.port, config.servers) == (
        "grpc-1",
        8702,
        ["x:1", "[::1]:2"],
    )
    assert from_environment(env | {"GATEWAY_WORKER": "w"}).gateway.worker == "w"
