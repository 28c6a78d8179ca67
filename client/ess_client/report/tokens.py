"""Tokens as axis labels, and which of them separate sentences, lines or turns."""

from __future__ import annotations

import re
import unicodedata

MAX_LABEL = 14
_SPECIAL = re.compile(r"<[|/]?[\w|/ ]+[|]?>|\[[A-Z]+\]")
_SENTENCE_ENDS = frozenset(".!?;。！？")  # noqa: RUF001


def label(token: str, limit: int = MAX_LABEL) -> str:
    """Short, on one line and visible: newlines and lone spaces get a sign of their own."""
    text = token.replace("▁", " ").replace("\r", "").replace("\n", "⏎").replace("\t", "⇥")
    text = text.strip() or ("␣" if text else "")
    text = "".join("·" if unicodedata.category(c)[0] == "C" else c for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def is_separator(token: str) -> bool:
    """Ends of sentences, line breaks, and special tokens such as <|im_end|> or [SEP]."""
    text = token.replace("▁", " ").strip(" ")
    if _SPECIAL.fullmatch(text) or "\n" in text:
        return True
    return (
        bool(text)
        and all(c in _SENTENCE_ENDS or c in "\"')" for c in text)
        and text[0] not in ("\"')")
    )
