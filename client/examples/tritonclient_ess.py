"""ESS of a model by the Open Inference Protocol: python tritonclient_ess.py [HOST:PORT [MODEL]]"""

import sys

import numpy as np
import tritonclient.grpc as triton

address, model = [*sys.argv[1:], *["127.0.0.1:8001", "smollm2-135m"][len(sys.argv) - 1 :]]
text = triton.InferInput("TEXT", [1], "BYTES")
text.set_data_from_numpy(np.array(["The capital of France is Paris."], dtype=np.object_))
with triton.InferenceServerClient(address) as client:
    result = client.infer(model, [text], parameters={"measures": "tolerance:1e-3"})
ess = result.as_numpy("ESS")  # [prompts, measures, layers, heads, positions], NaN where absent
for layer, mean in zip(result.as_numpy("LAYER"), np.nanmean(ess[0, 0], axis=(1, 2)), strict=True):
    print(f"layer {layer.decode()}: mean ESS {mean:.2f} over {ess.shape[3]} heads")
