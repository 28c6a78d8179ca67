"""A server whose limits keep every request cheap: what hostile requests are sent to."""

from pathlib import Path

from tests.end_to_end import tiny_models

# At most these take part in an answer, whatever a request says.
LIMITS = """
max_prompt_tokens: 48
max_prompts: 32
max_reference_work: 2e8
max_result_bytes: 4000000
max_operator_length: 48
max_operator_batch: 64
max_operator_bytes: 1000000
max_uploaded_bytes: 16000000
max_running_profiles: 2
threads: 2
max_job_prompts: 32
max_job_prompt_bytes: 100000
max_job_result_bytes: 4000000
max_queued_jobs: 8
job_retention_bytes: 40000000
"""


def make_models(root: Path) -> None:
    tiny_models.make_llama(root / "tiny-llama", num_hidden_layers=2)
    tiny_models.make_falcon_h1(root / "tiny-falcon-h1")


def write_config(folder: Path, model_root: Path) -> Path:
    path = folder / "server.textproto"
    path.write_text(f'model_root: "{model_root}"\nprompt_root: "{model_root}"\n{LIMITS}')
    return path
