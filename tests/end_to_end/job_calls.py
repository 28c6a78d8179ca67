"""The calls about jobs with generated stubs, as a client in any language makes them."""

import json

import grpc

from ess_client._proto.ess.v1 import jobs_pb2, profiler_pb2_grpc
from ess_client._requests import measure_message
from ess_client.measures import parse_measures

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = (
    jobs_pb2.JOB_STATE_QUEUED,
    jobs_pb2.JOB_STATE_RUNNING,
    jobs_pb2.JOB_STATE_SUCCEEDED,
    jobs_pb2.JOB_STATE_FAILED,
    jobs_pb2.JOB_STATE_CANCELLED,
)
PIECE = 256 << 10
ENDED = {SUCCEEDED, FAILED, CANCELLED}


def json_lines(prompts) -> bytes:
    """Prompts as texts, lists of token ids, or whole objects."""
    kinds = {str: "text", list: "token_ids"}
    entries = [p if isinstance(p, dict) else {kinds[type(p)]: p} for p in prompts]
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


class JobCalls:
    """`with JobCalls(server.address) as jobs:`."""

    def __init__(self, address, timeout=60):
        self.address, self.timeout = address, timeout

    def __enter__(self):
        self.channel = grpc.insecure_channel(self.address)
        self.stub = profiler_pb2_grpc.EssProfilerStub(self.channel)
        return self

    def __exit__(self, *exception):
        self.channel.close()

    def submit(self, model="tiny-llama", prompts=None, lines=None, measures=(), **fields):
        """`lines`: bytes, or a list of pieces of them, instead of prompts."""
        pieces = json_lines(prompts) if prompts is not None else lines or []
        if isinstance(pieces, bytes):
            pieces = [pieces[i : i + PIECE] for i in range(0, len(pieces), PIECE)]
        specification = jobs_pb2.JobSpecification(
            model=model, measures=map(measure_message, parse_measures(measures)), **fields
        )
        messages = [jobs_pb2.SubmitJobRequest(specification=specification)]
        messages += [
            jobs_pb2.SubmitJobRequest(prompts=jobs_pb2.JobPrompts(json_lines=piece))
            for piece in pieces
        ]
        return self.stub.SubmitJob(iter(messages), timeout=self.timeout)

    def get(self, job_id):
        return self.stub.GetJob(jobs_pb2.GetJobRequest(id=job_id), timeout=self.timeout)

    def list(self, **fields):
        return self.stub.ListJobs(jobs_pb2.ListJobsRequest(**fields), timeout=self.timeout)

    def cancel(self, job_id):
        return self.stub.CancelJob(jobs_pb2.CancelJobRequest(id=job_id), timeout=self.timeout)

    def delete(self, job_id):
        return self.stub.DeleteJob(jobs_pb2.DeleteJobRequest(id=job_id), timeout=self.timeout)

    def watch(self, job_id):
        return self.stub.WatchJob(jobs_pb2.WatchJobRequest(id=job_id), timeout=self.timeout)

    def end(self, job_id):
        """The job, once it has ended."""
        return list(self.watch(job_id))[-1]

    def fetch(self, job_id, offset=0):
        request = jobs_pb2.FetchJobResultRequest(id=job_id, offset=offset)
        return list(self.stub.FetchJobResult(request, timeout=self.timeout))

    def result(self, job_id):
        return b"".join(message.data for message in self.fetch(job_id))


def error_of(call, *arguments, **fields):
    """Code and text of a call that fails."""
    try:
        answer = call(*arguments, **fields)
        list(answer) if hasattr(answer, "__next__") else None
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("the call did not fail")
