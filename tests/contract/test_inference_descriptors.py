"""Our descriptors of the Open Inference Protocol against the table of its facts, and the clients'.

A slip in a name, a number or a type would break every public client, and no compiler says so.
"""

from pathlib import Path

import grpc_tools
import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet
from grpc_tools import protoc
from tritonclient.grpc import model_config_pb2, service_pb2

from tests.end_to_end.server_process import ROOT

# Message -> "number name type", "*" in front of repeated fields, maps as KEY>VALUE.
TABLE = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 live bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 ready bool",
    "ModelReadyRequest": "1 name string, 2 version string",
    "ModelReadyResponse": "1 ready bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "1 name string, 2 version string, 3 extensions *string",
    "ModelMetadataRequest": "1 name string, 2 version string",
    "ModelMetadataResponse": "1 name string, 2 versions *string, 3 platform string,"
    " 4 inputs *TensorMetadata, 5 outputs *TensorMetadata, 6 properties string>string",
    "ModelMetadataResponse.TensorMetadata": "1 name string, 2 datatype string, 3 shape *int64",
    "InferParameter": "1 bool_param bool, 2 int64_param int64, 3 string_param string,"
    " 4 double_param double, 5 uint64_param uint64",
    "InferTensorContents": "1 bool_contents *bool, 2 int_contents *int32, 3 int64_contents *int64,"
    " 4 uint_contents *uint32, 5 uint64_contents *uint64, 6 fp32_contents *float,"
    " 7 fp64_contents *double, 8 bytes_contents *bytes",
    "ModelInferRequest": "1 model_name string, 2 model_version string, 3 id string,"
    " 4 parameters string>InferParameter, 5 inputs *InferInputTensor,"
    " 6 outputs *InferRequestedOutputTensor, 7 raw_input_contents *bytes",
    "ModelInferRequest.InferInputTensor": "1 name string, 2 datatype string, 3 shape *int64,"
    " 4 parameters string>InferParameter, 5 contents InferTensorContents",
    "ModelInferRequest.InferRequestedOutputTensor": "1 name string,"
    " 2 parameters string>InferParameter",
    "ModelInferResponse": "1 model_name string, 2 model_version string, 3 id string,"
    " 4 parameters string>InferParameter, 5 outputs *InferOutputTensor,"
    " 6 raw_output_contents *bytes",
    "ModelInferResponse.InferOutputTensor": "1 name string, 2 datatype string, 3 shape *int64,"
    " 4 parameters string>InferParameter, 5 contents InferTensorContents",
    "ModelStreamInferResponse": "1 error_message string, 2 infer_response ModelInferResponse",
    "ModelConfigRequest": "1 name string, 2 version string",
    "ModelConfigResponse": "1 config ModelConfig",
    "ModelStatisticsRequest": "1 name string, 2 version string",
    "ModelStatisticsResponse": "1 model_stats *ModelStatistics",
    "ModelStatistics": "1 name string, 2 version string, 3 last_inference uint64,"
    " 4 inference_count uint64, 5 execution_count uint64, 6 inference_stats InferStatistics,"
    " 7 batch_stats *InferBatchStatistics, 8 memory_usage *MemoryUsage,"
    " 9 response_stats string>InferResponseStatistics",
    "InferStatistics": "1 success StatisticDuration, 2 fail StatisticDuration,"
    " 3 queue StatisticDuration, 4 compute_input StatisticDuration,"
    " 5 compute_infer StatisticDuration, 6 compute_output StatisticDuration,"
    " 7 cache_hit StatisticDuration, 8 cache_miss StatisticDuration",
    "StatisticDuration": "1 count uint64, 2 ns uint64",
    "MemoryUsage": "1 type string, 2 id int64, 3 byte_size uint64",
    "InferBatchStatistics": "1 batch_size uint64, 2 compute_input StatisticDuration,"
    " 3 compute_infer StatisticDuration, 4 compute_output StatisticDuration",
    "RepositoryIndexRequest": "1 repository_name string, 2 ready bool",
    "RepositoryIndexResponse": "1 models *ModelIndex",
    "RepositoryIndexResponse.ModelIndex": "1 name string, 2 version string, 3 state string,"
    " 4 reason string",
    "RepositoryModelLoadRequest": "1 repository_name string, 2 model_name string,"
    " 3 parameters string>ModelRepositoryParameter",
    "RepositoryModelUnloadRequest": "1 repository_name string, 2 model_name string,"
    " 3 parameters string>ModelRepositoryParameter",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadResponse": "",
    "ModelRepositoryParameter": "1 bool_param bool, 2 int64_param int64, 3 string_param string,"
    " 4 bytes_param bytes",
}
METHODS = [
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "ModelStreamInfer",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
]
# Of the protocol itself; Triton's copy does not have it.
ONLY_OURS = {("ModelMetadataResponse", 6)}


def types():
    kinds = FieldDescriptorProto.Type.items()
    return {number: name.removeprefix("TYPE_").lower() for name, number in kinds}


TYPE_NAMES = types()


def all_messages(messages, prefix=""):
    """Qualified name -> message, without the entries of maps."""
    found = {}
    for message in messages:
        name = prefix + message.name
        if not message.options.map_entry:
            found[name] = message
            found.update(all_messages(message.nested_type, name + "."))
    return found


def maps_of(message):
    return {entry.name: entry for entry in message.nested_type if entry.options.map_entry}


def type_of(field, maps):
    if field.type != FieldDescriptorProto.TYPE_MESSAGE:
        if field.type == FieldDescriptorProto.TYPE_ENUM:
            return field.type_name.rsplit(".", 1)[-1]
        return TYPE_NAMES[field.type]
    name = field.type_name.rsplit(".", 1)[-1]
    if name in maps:
        key, value = maps[name].field
        return f"{type_of(key, {})}>{type_of(value, {})}"
    return name


def described(message):
    """A message as the table has it."""
    maps = maps_of(message)
    parts = []
    for field in sorted(message.field, key=lambda field: field.number):
        kind = type_of(field, maps)
        repeated = field.label == FieldDescriptorProto.LABEL_REPEATED and ">" not in kind
        parts.append(f"{field.number} {field.name} {'*' if repeated else ''}{kind}")
    return ", ".join(parts)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """Our files as descriptors, read without being registered: tritonclient's are."""
    path = tmp_path_factory.mktemp("descriptors") / "set"
    include = Path(grpc_tools.__file__).parent / "_proto"
    command = ["protoc", f"-I{ROOT / 'proto'}", f"-I{include}", f"--descriptor_set_out={path}"]
    files = ["inference/model_config.proto", "inference/grpc_service.proto"]
    assert protoc.main([*command, *files]) == 0
    return list(FileDescriptorSet.FromString(path.read_bytes()).file)


@pytest.fixture(scope="module")
def messages(ours):
    found = {}
    for file in ours:
        found.update(all_messages(file.message_type))
    return found


@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_message_has_the_fields_of_the_table(messages, name):
    assert described(messages[name]) == TABLE[name]


def test_the_service_is_found_under_its_path(ours):
    (service,) = ours[1].service
    assert f"{ours[1].package}.{service.name}" == "inference.GRPCInferenceService"
    assert [method.name for method in service.method] == METHODS
    for method in service.method:
        streams = method.name == "ModelStreamInfer"
        assert method.client_streaming == method.server_streaming == streams
        answer = "ModelStreamInferResponse" if streams else f"{method.name}Response"
        request = "ModelInferRequest" if streams else f"{method.name}Request"
        assert method.input_type == f".inference.{request}"
        assert method.output_type == f".inference.{answer}"


def test_every_field_is_one_of_tritonclient_by_name_number_and_type(messages, ours):
    theirs = {}
    for module in (service_pb2, model_config_pb2):
        file = type(ours[0])()
        module.DESCRIPTOR.CopyToProto(file)
        theirs.update(all_messages(file.message_type))
    for name, message in messages.items():
        maps, their_maps = maps_of(message), maps_of(theirs[name])
        their_fields = {field.number: field for field in theirs[name].field}
        for field in message.field:
            if (name, field.number) in ONLY_OURS:
                continue
            other = their_fields[field.number]
            assert (field.name, field.label, type_of(field, maps)) == (
                other.name,
                other.label,
                type_of(other, their_maps),
            ), name


def test_the_types_of_model_config_have_tritons_numbers(ours):
    (enum,) = ours[0].enum_type
    ours_by_name = {value.name: value.number for value in enum.value}
    assert ours_by_name == dict(model_config_pb2.DataType.items())
