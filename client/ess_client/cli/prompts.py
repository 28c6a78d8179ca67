"""Inputs of the command line: --prompt, --prompts FILE.jsonl, --token-ids, or --gaussian."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from ess_client.errors import InvalidArgument


def gather_inputs(
    texts: list[str], file: str | None, token_ids: list[str], gaussian: str | None
) -> dict[str, Any]:
    """The arguments `prompts` or `gaussian` of Client.profile."""
    if gaussian is None:
        return {"prompts": gather_prompts(texts, file, token_ids)}
    if texts or file is not None or token_ids:
        raise InvalidArgument("--gaussian stands in place of prompts; give one of the two")
    return {"gaussian": _parse_gaussian(gaussian)}


def gather_prompts(texts: list[str], file: str | None, token_ids: list[str]) -> list[Any]:
    """All prompts in one list, for Client.profile. "-" as FILE is standard input."""
    prompts = list(iterate_prompts(texts, file, token_ids))
    if not prompts:
        raise InvalidArgument("no prompts: give --prompt, --prompts, --token-ids or --gaussian")
    return prompts


def iterate_prompts(texts: list[str], file: str | None, token_ids: list[str]) -> Iterator[Any]:
    """The same one by one, without holding the file's."""
    yield from texts
    if file == "-":
        yield from read_json_lines(sys.stdin, "standard input")
    elif file is not None:
        with open(file, encoding="utf-8") as opened:
            yield from read_json_lines(opened, file)
    for ids in token_ids:
        yield {"token_ids": _parse_ids(ids)}


def read_json_lines(lines: Iterable[str], name: str) -> Iterator[Any]:
    """One {"text": ...} or {"token_ids": [...]} per line, with an optional "id"."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            prompt = json.loads(line)
        except ValueError as error:
            raise InvalidArgument(f"{name}, line {number}: not JSON: {error}") from None
        if not isinstance(prompt, dict) or ("text" in prompt) == ("token_ids" in prompt):
            raise InvalidArgument(f"{name}, line {number}: needs text or token_ids, and not both")
        yield prompt


def _parse_gaussian(text: str) -> dict[str, int]:
    fields = [part.partition("=") for part in text.split(",")]
    try:
        return {name.strip(): int(value) for name, _, value in fields}
    except ValueError:
        raise InvalidArgument(
            f"--gaussian '{text}' is not like count=8,length=512,seed=0"
        ) from None


def _parse_ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidArgument(f"--token-ids '{text}' is not like 1,2,3") from None
