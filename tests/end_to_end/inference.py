"""Messages of the Open Inference Protocol, by hand, and their answers as arrays.

The types are those of tritonclient, since two copies of them cannot live in one process.
"""

import contextlib
import struct

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

DTYPES = {"FP32": np.float32, "INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_}


@contextlib.contextmanager
def connected(server):
    """A stub of the service. Nothing but gRPC and the messages."""
    with grpc.insecure_channel(
        server.address, options=[("grpc.max_receive_message_length", -1)]
    ) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def pack_bytes(texts):
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def unpack_bytes(raw):
    texts = []
    while raw:
        (length,) = struct.unpack_from("<I", raw)
        texts.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return texts


def set_parameters(message, parameters):
    """As the Python client does: the field follows from the Python type."""
    for name, value in parameters.items():
        kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
        setattr(message.parameters[name], kinds[type(value)], value)


def tokens_request(tokens, model="tiny-llama", outputs=(), lengths=None, **parameters):
    """Raw INT64 tokens, with these parameters."""
    tokens = np.asarray(tokens, dtype=np.int64)
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="TOKENS", datatype="INT64", shape=tokens.shape)
    request.raw_input_contents.append(tokens.tobytes())
    if lengths is not None:
        request.inputs.add(name="LENGTHS", datatype="INT32", shape=[len(lengths)])
        request.raw_input_contents.append(np.asarray(lengths, dtype=np.int32).tobytes())
    for output in outputs:
        request.outputs.add(name=output)
    set_parameters(request, parameters)
    return request


def text_request(texts, model="tiny-llama", **parameters):
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="TEXT", datatype="BYTES", shape=[len(texts)])
    request.raw_input_contents.append(pack_bytes([text.encode() for text in texts]))
    set_parameters(request, parameters)
    return request


def tensors(answer):
    """Name -> array, or list of strings. Checks what every answer promises."""
    assert len(answer.outputs) == len(answer.raw_output_contents)
    found = {}
    for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
        assert not output.HasField("contents"), "answers are raw"
        if output.datatype == "BYTES":
            found[output.name] = unpack_bytes(raw)
            assert list(output.shape) == [len(found[output.name])]
        else:
            array = np.frombuffer(raw, dtype=DTYPES[output.datatype])
            found[output.name] = array.reshape(list(output.shape))
    return found


def parameter(answer, name):
    """The value of a parameter of an answer; None when it is not there."""
    if name not in answer.parameters:
        return None
    value = answer.parameters[name]
    return getattr(value, value.WhichOneof("parameter_choice"))


def assert_same_bits(found, expected):
    found, expected = np.ascontiguousarray(found), np.ascontiguousarray(expected)
    assert found.dtype == expected.dtype == np.float32
    assert found.shape == expected.shape
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    numbers = ~np.isnan(expected)
    assert found[numbers].tobytes() == expected[numbers].tobytes()
