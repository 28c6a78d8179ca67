"""Generates ess_client/_proto from ../proto before setuptools looks for packages.

Runs for every kind of install, in milliseconds when nothing changed. A source distribution holds
the generated files and no ../proto. The generated code refuses older run-time libraries than the
generator's, so the lower bounds of grpcio and protobuf are read from it.
"""

import hashlib
import re
import shutil
from importlib import metadata
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent
PROTO_ROOT = HERE.parent / "proto"
GENERATED = HERE / "ess_client" / "_proto"
STAMP = GENERATED / "stamp"
RULES = "2"  # Raised when the rules of `generate` change.


def fingerprint(protos: list[Path]) -> str:
    digest = hashlib.sha256(f"{RULES} {metadata.version('grpcio-tools')}".encode())
    for proto in protos:
        digest.update(proto.name.encode() + b"\0" + proto.read_bytes())
    return digest.hexdigest()


def generate(protos: list[Path]) -> None:
    import grpc_tools
    from grpc_tools import protoc

    shutil.rmtree(GENERATED, ignore_errors=True)
    GENERATED.mkdir(parents=True)
    names = [str(proto.relative_to(PROTO_ROOT)) for proto in protos]
    include = Path(grpc_tools.__file__).parent / "_proto"
    command = ["protoc", f"-I{PROTO_ROOT}", f"-I{include}"]
    command += [f"--python_out={GENERATED}", f"--pyi_out={GENERATED}", *names]
    services = [name for name, proto in zip(names, protos, strict=True) if has_service(proto)]
    grpc_command = [*command[:3], f"--grpc_python_out={GENERATED}", *services]
    if protoc.main(command) != 0 or protoc.main(grpc_command) != 0:
        raise SystemExit("protoc failed on ../proto")
    for path in GENERATED.rglob("*.py*"):
        # protoc imports `ess.v1` from the top level; ours lives inside the package.
        text = path.read_text()
        path.write_text(re.sub(r"^from ess\.", "from ess_client._proto.ess.", text, flags=re.M))
    for folder in (GENERATED, GENERATED / "ess", GENERATED / "ess" / "v1"):
        (folder / "__init__.py").write_text("")


def has_service(proto: Path) -> bool:
    return re.search(r"^service ", proto.read_text(), flags=re.M) is not None


def generated_version(path: Path, pattern: str) -> str:
    found = re.search(pattern, path.read_text(), flags=re.M)
    if found is None:
        raise SystemExit(f"{path.name} does not say which version made it")
    return found.group(1)


sources = sorted(PROTO_ROOT.glob("ess/v1/*.proto"))
if sources:
    wanted = fingerprint(sources)
    if not STAMP.exists() or STAMP.read_text() != wanted:
        generate(sources)
        STAMP.write_text(wanted)
elif not GENERATED.exists():
    raise SystemExit("neither ../proto nor generated code: install from a checkout")

version_1 = GENERATED / "ess" / "v1"
protobuf = generated_version(version_1 / "profiler_pb2.py", r"^# Protobuf Python Version: (\S+)")
grpcio = generated_version(
    version_1 / "profiler_pb2_grpc.py", r"^GRPC_GENERATED_VERSION = ['\"]([^'\"]+)"
)

setup(
    install_requires=[
        f"grpcio>={grpcio}",
        f"protobuf>={protobuf}",
        "numpy>=1.24",
        "pandas>=2.0",
        "xarray>=2023.6",
        "safetensors>=0.4",
        "typer>=0.19",
        "rich>=13",
        "matplotlib>=3.7",
        "jinja2>=3.1",
        "tomli>=2; python_version < '3.11'",
    ]
)
