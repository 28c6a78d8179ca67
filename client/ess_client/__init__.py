"""Python client of the ESS Profiler: the effective state-size of sequence models.

from ess_client import Client
with Client("127.0.0.1:8001") as client:
    profile = client.profile("smollm2-135m", prompts=["The capital of France is"])
print(profile)
"""

from importlib.metadata import version as _version

from ess_client._operator_stream import OperatorsResult
from ess_client._secrets import SecretWarning
from ess_client._stream import Progress
from ess_client.async_client import AsyncClient
from ess_client.client import Client
from ess_client.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    EssError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Unknown,
)
from ess_client.estimate import Estimate
from ess_client.jobs import AsyncJob, Job, JobStatus
from ess_client.measures import Measure, canonical_measure, parse_measure
from ess_client.models import LayerInfo, ModelInfo, ServerInfo, StateSize
from ess_client.operators import (
    BandedOperator,
    Convolution,
    DeltaRecurrence,
    DenseOperator,
    DiagonalPlusRankOne,
    DiagonalRecurrence,
    GeneralRecurrence,
    Operator,
)
from ess_client.profile import LayerResult, Profile, Prompt
from ess_client.storage import load_profile

__version__ = _version("ess-client")

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "AsyncJob",
    "BandedOperator",
    "Cancelled",
    "Client",
    "Convolution",
    "DataLoss",
    "DeadlineExceeded",
    "DeltaRecurrence",
    "DenseOperator",
    "DiagonalPlusRankOne",
    "DiagonalRecurrence",
    "EssError",
    "Estimate",
    "FailedPrecondition",
    "GeneralRecurrence",
    "Internal",
    "InvalidArgument",
    "Job",
    "JobStatus",
    "LayerInfo",
    "LayerResult",
    "Measure",
    "ModelInfo",
    "NotFound",
    "Operator",
    "OperatorsResult",
    "OutOfRange",
    "PermissionDenied",
    "Profile",
    "Progress",
    "Prompt",
    "ResourceExhausted",
    "SecretWarning",
    "ServerInfo",
    "StateSize",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "canonical_measure",
    "load_profile",
    "parse_measure",
]
