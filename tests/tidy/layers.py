"""What each folder of server/ may use. The table is the architecture; test_layers.py checks it.

`base` splits in two CMake targets: `base` has no LibTorch, `base_torch` (device, device_memory,
page_tensor, torch_status) has. `residency` splits likewise: its state machine has no LibTorch; and
`jobs`: its database and files have none.
"""

# Folder -> folders it may include. Downwards only; no cycles.
MAY_INCLUDE = {
    "base": set(),
    "telemetry": {"base"},
    "security": {"base"},
    "admission": {"telemetry", "base"},
    "linalg": {"base"},
    "tokenization": {"base"},
    "checkpoint": {"base"},
    "operators": {"linalg", "base"},
    "ess": {"operators", "linalg", "base"},
    "models": {"operators", "linalg", "checkpoint", "tokenization", "base"},
    "residency": {"models", "operators", "checkpoint", "tokenization", "telemetry", "base"},
    "pipeline": {
        "residency",
        "models",
        "operators",
        "ess",
        "tokenization",
        "telemetry",
        "base",
    },
    "jobs": {
        "pipeline",
        "residency",
        "admission",
        "models",
        "operators",
        "ess",
        "telemetry",
        "base",
    },
    "rpc": {
        "jobs",
        "pipeline",
        "residency",
        "admission",
        "models",
        "operators",
        "ess",
        "security",
        "telemetry",
        "base",
    },
    "inference": {
        "rpc",
        "pipeline",
        "residency",
        "admission",
        "models",
        "ess",
        "telemetry",
        "base",
    },
    "app": {
        "inference",
        "rpc",
        "jobs",
        "pipeline",
        "residency",
        "admission",
        "models",
        "ess",
        "security",
        "telemetry",
        "base",
    },
}

# Folders that must not see LibTorch, not even through a header.
TORCH_FREE = {"telemetry", "security", "admission", "tokenization"}

# Headers of a third party -> the only folders that may include them.
RESERVED_HEADERS = {
    "prometheus/": {"telemetry"},
    "grpc": {"rpc", "inference", "app"},
    "ess/v1/": {"rpc", "app"},
    "inference/": {"inference"},
    "google/protobuf/": {"rpc", "inference", "app"},
    "hwy/": {"linalg"},
    "openssl/": {"base", "security"},
    "sqlite3": {"jobs"},
}
