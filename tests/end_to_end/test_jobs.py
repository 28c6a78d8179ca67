"""Jobs through the real server, with plain stubs."""

import hashlib
import json
import time

import numpy as np
import pytest
from grpc import StatusCode
from safetensors.numpy import load

from ess_client import Client, load_profile

from .job_calls import (
    FAILED,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    JobCalls,
    error_of,
    json_lines,
)
from .server_process import ServerProcess

TEXTS = ["the quick brown fox", "the dog sleeps.", "fox; dog"]
MEASURES = ["tolerance:1e-3", "entropy", "singular_values:2"]


@pytest.fixture(scope="module")
def server(model_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "prompts").mkdir()
    (folder / "prompts" / "texts.jsonl").write_bytes(json_lines(TEXTS))
    (folder / "prompts" / "link.jsonl").symlink_to(folder / "prompts" / "texts.jsonl")
    config = folder / "server.textproto"
    config.write_text(f'prompt_root: "{folder}/prompts" max_job_prompts: 3000')
    with ServerProcess(
        f"--config={config}", f"--model_root={model_root}", f"--state_dir={folder}/state"
    ) as process:
        yield process


@pytest.fixture
def jobs(server):
    with JobCalls(server.address) as calls:
        yield calls


def header(path):
    data = path.read_bytes()
    return data[8 : 8 + int.from_bytes(data[:8], "little")].rstrip()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"measures": MEASURES},
        {"measures": ["tolerance:1e-3"], "certify": True, "horizon": 3},
        {"reduce": "heads"},
        {"reduce": "positions", "layers": "0,2", "heads": "1-2"},
        {"positions": "0-2:2"},
    ],
    ids=["defaults", "measures", "certify", "heads", "positions", "selection"],
)
def test_a_result_has_the_tensors_and_the_manifest_of_a_saved_profile(
    server, jobs, client_of, tmp_path, fields
):
    from ess_client._requests import index_message, layer_message, options_message

    options = options_message(
        fields.get("horizon"), fields.get("certify", False), fields.get("reduce")
    )
    selections = {
        "layers": layer_message(fields.get("layers")),
        "heads": index_message(fields.get("heads"), "heads"),
        "positions": index_message(fields.get("positions"), "positions"),
    }
    client_of(server).profile("tiny-llama", prompts=TEXTS, **fields).save(tmp_path / "saved")

    job = jobs.submit(prompts=TEXTS, measures=fields.get("measures"), options=options, **selections)
    done = jobs.end(job.id)
    (tmp_path / "fetched").write_bytes(jobs.result(job.id))

    assert done.state == SUCCEEDED, done.error_message
    saved, fetched = (load((tmp_path / name).read_bytes()) for name in ("saved", "fetched"))
    assert set(saved) == set(fetched)
    for name, values in saved.items():
        assert values.dtype == fetched[name].dtype, name
        assert values.shape == fetched[name].shape, name
        assert values.tobytes() == fetched[name].tobytes(), name
    # The header, too, but for the spaces behind it.
    assert header(tmp_path / "saved") == header(tmp_path / "fetched")
    assert load_profile(tmp_path / "fetched").prompt_ids == ["0", "1", "2"]


@pytest.fixture
def client_of():
    clients = []

    def connect(server):
        clients.append(Client(server.address, timeout=120))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def test_a_job_goes_from_queued_to_succeeded_and_is_all_there(jobs):
    before = time.time()

    job = jobs.submit(prompts=[[1, 2, 3], {"id": "named", "token_ids": [4]}], labels={"a": "b"})
    seen = list(jobs.watch(job.id))

    assert job.state == QUEUED
    assert job.prompts_total == 2
    states = [message.state for message in seen]
    assert states == sorted(states)
    assert set(states) <= {QUEUED, RUNNING, SUCCEEDED}
    last = seen[-1]
    assert last.state == SUCCEEDED
    assert (last.progress, last.prompts_done, last.error_code) == (1, 2, "")
    assert before - 1 < last.submitted_at <= last.started_at <= last.finished_at
    assert last.specification.labels == {"a": "b"}
    assert last == jobs.get(job.id)
    messages = jobs.fetch(job.id)
    data = b"".join(message.data for message in messages)
    assert len(data) == last.result_bytes == messages[0].total_bytes
    assert hashlib.sha256(data).hexdigest() == last.result_sha256 == messages[0].sha256


def test_pieces_of_lines_may_be_cut_anywhere(jobs):
    lines = json_lines(TEXTS)
    pieces = [lines[i : i + 7] for i in range(0, len(lines), 7)]

    first = jobs.end(jobs.submit(lines=pieces).id)
    second = jobs.end(jobs.submit(lines=lines.strip()).id)

    assert first.prompts_total == 3
    assert first.result_sha256 == second.result_sha256


def test_a_result_is_fetched_from_any_byte_on(jobs):
    job = jobs.end(jobs.submit(prompts=[[5] * 300] * 60).id)
    whole = jobs.result(job.id)

    assert len(whole) > 1 << 20
    for offset in (0, 1, 512 << 10, len(whole) - 1, len(whole)):
        messages = jobs.fetch(job.id, offset)
        assert b"".join(m.data for m in messages) == whole[offset:]
        assert messages[0].offset == offset
        assert max(m.ByteSize() for m in messages) <= 1 << 20
    for offset in (-1, len(whole) + 1):
        code, text = error_of(jobs.fetch, job.id, offset)
        assert code == StatusCode.INVALID_ARGUMENT
        assert str(len(whole)) in text


def test_a_prompts_file_is_read_from_its_folder_and_from_nowhere_else(jobs):
    job = jobs.end(jobs.submit(prompts_file="texts.jsonl").id)

    assert job.state == SUCCEEDED
    assert job.prompts_total == 3
    for path in ("../server.textproto", "/etc/passwd", "link.jsonl", "", "."):
        if path:
            code, text = error_of(jobs.submit, prompts_file=path)
            assert code == StatusCode.INVALID_ARGUMENT
            assert text.startswith("prompts_file: ")
    code, _ = error_of(jobs.submit, prompts_file="absent.jsonl")
    assert code == StatusCode.NOT_FOUND
    code, _ = error_of(jobs.submit, prompts_file="texts.jsonl", prompts=TEXTS)
    assert code == StatusCode.INVALID_ARGUMENT


def test_an_idempotency_key_names_one_job(jobs):
    first = jobs.submit(prompts=TEXTS, idempotency_key="k1")
    # The same prompts, spelled otherwise.
    spaced = b"\n".join(
        json.dumps({"text": t}, indent=None, separators=(" , ", " : ")).encode() for t in TEXTS
    )
    again = jobs.submit(lines=spaced, idempotency_key="k1")
    after_its_end = jobs.end(first.id)

    assert again.id == first.id
    assert jobs.submit(prompts=TEXTS, idempotency_key="k1").id == after_its_end.id
    for changed in ({"prompts": TEXTS[:2]}, {"prompts": TEXTS, "labels": {"a": "b"}}):
        code, text = error_of(jobs.submit, idempotency_key="k1", **changed)
        assert code == StatusCode.ALREADY_EXISTS
        assert first.id in text
    jobs.delete(first.id)
    assert jobs.submit(prompts=TEXTS[:1], idempotency_key="k1").id != first.id


def test_jobs_are_listed_newest_first_in_pages(jobs):
    ids = [jobs.submit(prompts=[[1]], labels={"n": str(n)}).id for n in range(5)]
    jobs.end(ids[-1])

    first = jobs.list(page_size=2)
    second = jobs.list(page_size=2, page_token=first.next_page_token)

    assert [job.id for job in [*first.jobs, *second.jobs]] == ids[:0:-1]
    everything, token = [], ""
    while True:
        page = jobs.list(page_size=3, page_token=token)
        everything += page.jobs
        if not (token := page.next_page_token):
            break
    assert len({job.id for job in everything}) == len(everything) >= 5
    assert all(job.state == SUCCEEDED for job in jobs.list(state=SUCCEEDED).jobs)
    assert not jobs.list(state=FAILED, page_size=1).next_page_token
    for fields in ({"page_size": -1}, {"page_size": 1001}, {"page_token": "x"}, {"state": 9}):
        assert error_of(jobs.list, **fields)[0] == StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"lines": []}, StatusCode.INVALID_ARGUMENT, "prompts: there are none"),
        ({"lines": b"\n \n"}, StatusCode.INVALID_ARGUMENT, "prompts: there are none"),
        ({"lines": b"{}"}, StatusCode.INVALID_ARGUMENT, "line 1: neither text nor token_ids"),
        ({"lines": b'{"text": "a"}\nx'}, StatusCode.INVALID_ARGUMENT, "line 2: not JSON"),
        ({"lines": b'{"text": "\xff"}'}, StatusCode.INVALID_ARGUMENT, "line 1: not JSON in UTF-8"),
        ({"lines": b'{"text": 3}'}, StatusCode.INVALID_ARGUMENT, "line 1: text is no string"),
        ({"lines": b'{"token_ids": [1.5]}'}, StatusCode.INVALID_ARGUMENT, "token_ids[0]"),
        ({"lines": b'{"txt": "a"}'}, StatusCode.INVALID_ARGUMENT, "unknown field 'txt'"),
        ({"prompts": [{"id": "1", "text": "a"}, "b"]}, StatusCode.INVALID_ARGUMENT, "'1' is the"),
        ({"lines": [b"x" * 600_000] * 2}, StatusCode.INVALID_ARGUMENT, "1048576 bytes"),
        ({"prompts": [[1]] * 3001}, StatusCode.INVALID_ARGUMENT, "max_job_prompts"),
        ({"prompts": TEXTS, "model": "absent"}, StatusCode.NOT_FOUND, "absent"),
        ({"prompts": TEXTS, "model": ""}, StatusCode.INVALID_ARGUMENT, "model"),
        ({"prompts": TEXTS, "priority": 9}, StatusCode.INVALID_ARGUMENT, "priority: 9"),
        (
            {"prompts": TEXTS, "idempotency_key": "k" * 129},
            StatusCode.INVALID_ARGUMENT,
            "idempotency_key: 129 bytes; the limit is 128",
        ),
        (
            {"prompts": TEXTS, "labels": {str(i): "" for i in range(17)}},
            StatusCode.INVALID_ARGUMENT,
            "labels: 17",
        ),
        ({"prompts": TEXTS, "labels": {"": "a"}}, StatusCode.INVALID_ARGUMENT, "labels"),
    ],
)
def test_a_bad_submission_is_refused_with_the_reason(jobs, fields, code, words):
    found, text = error_of(jobs.submit, **fields)

    assert found == code
    assert words in text


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"prompts": [[1], [300]]}, "INVALID_ARGUMENT", "token id 300"),
        ({"prompts": [[1] * 600]}, "INVALID_ARGUMENT", "600 tokens"),
        ({"prompts": [[1]], "measures": ["causal"]}, "INVALID_ARGUMENT", "causal"),
        ({"prompts": TEXTS, "model": "no-tokenizer"}, "FAILED_PRECONDITION", "tokenizer"),
    ],
)
def test_what_only_the_model_can_tell_fails_the_job_with_the_reason(jobs, fields, code, words):
    job = jobs.end(jobs.submit(**fields).id)

    assert job.state == FAILED
    assert job.error_code == code
    assert words in job.error_message
    assert error_of(jobs.fetch, job.id)[0] == StatusCode.FAILED_PRECONDITION


def test_an_unknown_id_is_not_found_and_an_empty_one_invalid(jobs):
    for call in (jobs.get, jobs.cancel, jobs.delete, jobs.watch, jobs.fetch):
        assert error_of(call, "0123")[0] == StatusCode.NOT_FOUND
        assert error_of(call, "")[0] == StatusCode.INVALID_ARGUMENT


def test_without_a_state_folder_every_call_says_so(model_root):
    with ServerProcess(f"--model_root={model_root}") as plain, JobCalls(plain.address) as jobs:
        for call in (jobs.get, jobs.cancel, jobs.delete, jobs.watch, jobs.fetch):
            code, text = error_of(call, "0123")
            assert code == StatusCode.FAILED_PRECONDITION
            assert "state_dir" in text
        assert error_of(jobs.submit, prompts=TEXTS)[0] == StatusCode.FAILED_PRECONDITION
        assert error_of(jobs.list)[0] == StatusCode.FAILED_PRECONDITION


def test_many_groups_of_prompts_give_what_one_call_gives(server, jobs, client_of, tmp_path):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 300, rng.integers(1, 40)).tolist() for _ in range(700)]
    whole = [
        client_of(server).profile("tiny-llama", token_ids=prompts[first : first + 256])
        for first in range(0, 700, 256)
    ]

    job = jobs.end(jobs.submit(prompts=prompts).id)
    (tmp_path / "job").write_bytes(jobs.result(job.id))

    profile = load_profile(tmp_path / "job")
    for name in profile.layer_names:
        for measure, values in profile.layer(name).ess.items():
            parts = [part.layer(name).ess[measure] for part in whole]
            assert values.shape[0] == 700
            row = 0
            for part in parts:
                width = part.shape[2]
                rows = values[row : row + len(part)]
                assert np.array_equal(rows[:, :, :width], part, equal_nan=True)
                assert np.isnan(rows[:, :, width:]).all()
                row += len(part)
