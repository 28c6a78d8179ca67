#!/usr/bin/env python3
"""What TLS and tokens cost: a profile of 64 MiB from two servers in turns, one of them
plain, one with TLS and an access file. The engine works while the answer is on its way, as in use;
tls_stream_benchmark has the transport alone.

A ratio within one run. Needs build/bin/ess_server.
"""

import sys
import tempfile
import time
from pathlib import Path

import grpc

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ess_client._proto.ess.v1 import profiler_pb2  # noqa: E402
from tests.end_to_end import tiny_models  # noqa: E402
from tests.end_to_end.certificates import Authority, secure_channel, tls_flags  # noqa: E402
from tests.end_to_end.server_process import ServerProcess  # noqa: E402
from tests.end_to_end.tokens import AccessFile, bearer  # noqa: E402

PROMPTS, TOKENS, LAYERS, HEADS = 256, 64, 32, 32  # 64 MiB of values.
ROUNDS = 4
LIMIT = 1.15


def request():
    made = profiler_pb2.ProfileRequest(model="tiny")
    for prompt in range(PROMPTS):
        ids = [(7 * prompt + 3 * i * i) % tiny_models.VOCABULARY for i in range(TOKENS)]
        made.prompts.add(id=str(prompt)).token_ids.ids.extend(ids)
    made.measures.add().frobenius_norm.SetInParent()
    return made.SerializeToString()


def seconds_of(channel, message, metadata):
    """Of one call, and its bytes. Nothing is decoded: only the way is measured."""
    stub = channel.unary_stream("/ess.v1.EssProfiler/Profile")
    start = time.perf_counter()
    size = sum(len(answer) for answer in stub(message, metadata=metadata, timeout=600))
    return time.perf_counter() - start, size


def main():
    message = request()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shape = {"hidden_size": 64, "num_attention_heads": HEADS, "num_key_value_heads": HEADS}
        tiny_models.make_llama(root / "models" / "tiny", num_hidden_layers=LAYERS, **shape)
        authority = Authority(root / "authority")
        access = AccessFile(root / "access", alice="user")
        models = f"--model_root={root / 'models'}"
        with (
            ServerProcess(models) as plain,
            ServerProcess(models, access.flag, *tls_flags(authority.issue_server())) as locked,
            grpc.insecure_channel(plain.address) as plain_channel,
            secure_channel(locked.address, authority) as locked_channel,
        ):
            ways = ((plain_channel, []), (locked_channel, bearer(access.tokens["alice"])))
            times = ([], [])
            for _ in range(1 + ROUNDS):
                for way, (channel, metadata) in enumerate(ways):
                    seconds, size = seconds_of(channel, message, metadata)
                    times[way].append(seconds)
    fastest = [min(seconds[1:]) for seconds in times]  # Without the loads.
    ratio = fastest[1] / fastest[0]
    print(f"a profile of {size / 2**20:.0f} MiB, fastest of {ROUNDS} rounds in turns")
    for name, seconds in zip(("plain", "TLS and a token"), fastest, strict=True):
        print(f"{name:20} {seconds:6.2f} s  {size / 2**20 / seconds:6.0f} MiB/s")
    verdict = "ok" if ratio <= LIMIT else "MISSED"
    print(f"TLS and tokens take {ratio:.2f}x the time (at most {LIMIT}x)  {verdict}")


if __name__ == "__main__":
    main()
