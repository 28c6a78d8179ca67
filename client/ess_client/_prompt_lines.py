"""Prompts of a job as JSON lines, kept so that they can be sent more than once."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator

from ess_client._requests import PromptSpec, prompt_fields
from ess_client.errors import InvalidArgument

PIECE_BYTES = 1 << 19  # Half the limit of a message.
LONGEST_LINE = (1 << 20) - 64  # The message has a few bytes beside it.
IN_MEMORY_BYTES = 8 << 20  # With more, a temporary file.


class PromptLines:
    """Takes every prompt of an iterable once, checks it, and writes its line. Close it."""

    def __init__(self, prompts: Iterable[PromptSpec]) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115
        try:
            self._write(prompts)
        except BaseException:
            self.close()
            raise

    def pieces(self) -> Iterator[bytes]:
        """Whole lines, of PIECE_BYTES together unless one alone is longer."""
        self._file.seek(0)
        piece = bytearray()
        for line in self._file:
            if piece and len(piece) + len(line) > PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
            piece += line
        if piece:
            yield bytes(piece)

    def close(self) -> None:
        self._file.close()

    def _write(self, prompts: Iterable[PromptSpec]) -> None:
        count = 0
        for index, spec in enumerate(prompts):
            line = json.dumps(prompt_fields(spec, index), ensure_ascii=False).encode() + b"\n"
            if len(line) > LONGEST_LINE:
                raise InvalidArgument(
                    f"prompt {index} has {len(line)} bytes as a line of JSON; "
                    f"the limit is {LONGEST_LINE}"
                )
            self._file.write(line)
            count += 1
        if count == 0:
            raise InvalidArgument("prompts is empty; a job has at least one prompt")
