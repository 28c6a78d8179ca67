"""grpcurl, which knows our services by reflection only."""

import base64
import json
import subprocess

import numpy as np
import pytest

from .inference import pack_bytes
from .server_process import ROOT

GRPCURL = ROOT / ".venv" / "bin" / "grpcurl"  # tools/setup builds it where there is Go.
SERVICE = "inference.GRPCInferenceService"

pytestmark = pytest.mark.skipif(
    not GRPCURL.exists(), reason="there is no grpcurl; tools/setup builds it where there is Go"
)


def grpcurl(server, *arguments, data=None):
    """Exit code, and what was printed."""
    command = [GRPCURL, "-plaintext", *(["-d", json.dumps(data)] if data is not None else [])]
    done = subprocess.run(
        [*command, server.address, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def call(server, method, data):
    code, out, err = grpcurl(server, f"{SERVICE}/{method}", data=data)
    assert code == 0, err
    return json.loads(out)


def ess_of(answer):
    names = [output["name"] for output in answer["outputs"]]
    place = names.index("ESS")
    raw = base64.b64decode(answer["raw_output_contents"][place])
    shape = [int(size) for size in answer["outputs"][place]["shape"]]
    return np.frombuffer(raw, dtype=np.float32).reshape(shape)


TYPED = {
    "model_name": "tiny-llama",
    "id": "by hand",
    "inputs": [
        {
            "name": "TOKENS",
            "datatype": "INT64",
            "shape": [1, 4],
            "contents": {"int64_contents": [5, 6, 7, 8]},
        }
    ],
}


def test_it_lists_and_describes_the_service(server):
    code, out, _ = grpcurl(server, "list")
    assert code == 0
    assert SERVICE in out.split()
    code, out, _ = grpcurl(server, "describe", SERVICE)
    assert code == 0
    assert "rpc ModelInfer (" in out


def test_typed_and_raw_contents_get_the_same_answer(server):
    typed = call(server, "ModelInfer", TYPED)
    raw = base64.b64encode(np.array([5, 6, 7, 8], dtype=np.int64).tobytes()).decode()
    without = [{key: value for key, value in TYPED["inputs"][0].items() if key != "contents"}]
    answered = call(server, "ModelInfer", {**TYPED, "inputs": without, "raw_input_contents": [raw]})

    assert typed["id"] == answered["id"] == "by hand"
    assert typed["model_version"] == "1"
    assert ess_of(typed).shape == (1, 2, 3, 4, 4)
    assert ess_of(typed).tobytes() == ess_of(answered).tobytes()


@pytest.mark.parametrize("raw", [False, True])
def test_texts_typed_and_raw(server, raw):
    text = b"the quick brown fox"
    tensor = {"name": "TEXT", "datatype": "BYTES", "shape": [1]}
    request = {"model_name": "tiny-llama", "inputs": [tensor]}
    request["parameters"] = {"layers": {"string_param": "0"}, "certify": {"bool_param": True}}
    if raw:
        request["raw_input_contents"] = [base64.b64encode(pack_bytes([text])).decode()]
    else:
        tensor["contents"] = {"bytes_contents": [base64.b64encode(text).decode()]}
    assert ess_of(call(server, "ModelInfer", request)).shape[2] == 1


def test_a_stream_is_answered_layer_by_layer(server):
    code, out, err = grpcurl(server, f"{SERVICE}/ModelStreamInfer", data=TYPED)
    assert code == 0, err
    decoder, answers, rest = json.JSONDecoder(), [], out.strip()
    while rest:
        answer, end = decoder.raw_decode(rest)
        answers.append(answer["infer_response"])
        rest = rest[end:].strip()
    finals = [
        answer["parameters"]["triton_final_response"].get("bool_param", False) for answer in answers
    ]
    assert finals == [False, False, True]


def test_an_error_has_its_code_and_text(server):
    bad = {**TYPED, "parameters": {"layer": {"string_param": "0"}}}
    code, _, err = grpcurl(server, f"{SERVICE}/ModelInfer", data=bad)
    assert code != 0
    assert "Code: InvalidArgument" in err
    assert "did you mean 'layers'?" in err


@pytest.mark.parametrize(
    ("method", "data", "field"),
    [
        ("ServerLive", {}, "live"),
        ("ServerReady", {}, "ready"),
        ("ModelReady", {"name": "tiny-llama"}, "ready"),
        ("ServerMetadata", {}, "extensions"),
        ("ModelMetadata", {"name": "tiny-llama"}, "inputs"),
        ("ModelConfig", {"name": "tiny-llama"}, "config"),
        ("ModelStatistics", {}, "model_stats"),
        ("RepositoryIndex", {}, "models"),
    ],
)
def test_what_the_server_says_of_itself(server, method, data, field):
    assert call(server, method, data)[field]
