"""The server's tokenizer against transformers' fast tokenizers: those of SmolLM2 and Gemma 3, ones
made by hand, and ones trained here."""

import json
import random
import subprocess
from pathlib import Path

import pytest
import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build" / "bin" / "tokenize"

HANDMADE = [
    "",
    " ",
    "   three spaces, then\ttabs\t\tand\n\nnewlines\r\n",
    "The capital of France is",
    "Hello, world! It's 2024, isn't it? We've 1,234,567.89 reasons.",
    "naïve café résumé — “quoted” … ½ ²",
    "👩‍👩‍👧‍👦 family 🏳️‍🌈 flags 🇩🇪🇯🇵 😀😀😀",
    "العربية: مرحبا بالعالم ١٢٣",
    "עברית שלום עולם",
    "日本語の文章。漢字とカタカナ",
    "한국어 문장입니다",
    "हिन्दी में लिखा हुआ",
    "ไทย ภาษาไทยไม่มีเว้นวรรค",
    "Tiếng Việt có dấu; e\u0301 decomposed; A\u030a",
    "def f(x: int) -> int:\n    return x ** 2  # square\n",
    '{"key": [1, 2.5e-3, null], "s": "\\n\\u00e9"}',
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|>",
    "a<|endoftext|>b <|im_end|>",
    "<|im_end",
    "<repo_name>x<file_sep>y",
    "<s>a</s> <unk> <bos>b<eos><start_of_turn>user\n",
    "\0",
    "a\0b\0\0c",
    "\ufeffbyte order mark",
    "\u200bzero\u200bwidth\u00a0no-break",
    "\U0001f9ff\U000e0041\U0010ffff private \ue000",
    "ſ'ſ 'S 'LL can'T",
    "x" * 3000,
    "ab " * 2000,
    "é" * 1001,
    "!?" * 500,
    "0" * 257,
]
ALPHABETS = [
    "abcdefgh ijklm nopqrst uvwxyz ETAOIN", "0123456789 .,-+", " \t\n\r\u00a0\u3000",
    "éüßñçøåŁžşğ", "αβγδεζ ΑΒΓ", "абвгд АБВ", "漢字仮名交じり文", "مرحبا بالعالم", "🙂🚀🎉❤️👍🏽",
    "{}[]()<>|=+-*/\\\"'`~!@#$%^&;:_", "\u0301\u0308\u200d\ufe0f\u0000\u007f\u0085",
]  # fmt: skip


def strings() -> list[str]:
    generator = random.Random(0)
    made = list(HANDMADE)
    while len(made) < 230:
        pieces = generator.sample(ALPHABETS, generator.randint(1, 4))
        letters = "".join(pieces)
        made.append("".join(generator.choices(letters, k=generator.randint(1, 120))))
    return made


def ours(folder: Path, texts: list[str], add_special_tokens: bool) -> list[dict]:
    requests = [
        json.dumps({"text": text, "add_special_tokens": add_special_tokens}) for text in texts
    ]
    done = subprocess.run(
        [PROGRAM, folder],
        input="\n".join(requests),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.rstrip("\n").split("\n")]


def assert_equal_ids(folder: Path, add_special_tokens: bool) -> None:
    texts = strings()
    public = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    answers = ours(folder, texts, add_special_tokens)
    assert len(answers) == len(texts) > 200
    for text, answer in zip(texts, answers, strict=True):
        expected = public(text, add_special_tokens=add_special_tokens)["input_ids"]
        assert answer["ids"] == expected, repr(text[:80])
        assert len(answer["texts"]) == len(expected)


@pytest.fixture(scope="module")
def demo_folder() -> Path:
    made = subprocess.run(
        [ROOT / ".venv/bin/python", ROOT / "tools/make_demo_model"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.strip())


@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_the_demo_model_s_ids_equal_the_public_ones(demo_folder, add_special_tokens):
    assert_equal_ids(demo_folder, add_special_tokens)


@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_gemma_3_s_ids_equal_the_public_ones(gemma3, add_special_tokens):
    assert_equal_ids(gemma3, add_special_tokens)


def test_the_demo_model_s_token_texts_spell_the_prompt(demo_folder):
    texts = [text for text in strings() if text.isascii()]
    assert len(texts) > 10
    for text, answer in zip(texts, ours(demo_folder, texts, False), strict=True):
        assert "".join(answer["texts"]) == text


def sentencepiece_like() -> tokenizers.Tokenizer:
    """Llama-2-like: byte fallback, Metaspace, begin token by template."""
    vocabulary = sentencepiece_vocabulary("▁abcdefghijklmnopqrstuvwxyz.,")
    merges = [("t", "h"), ("▁", "th"), ("▁th", "e"), ("i", "n"), ("▁", "a")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = sentencepiece_bpe(vocabulary, merges)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def sentencepiece_vocabulary(letters: str) -> dict[str, int]:
    """Special tokens, a token for every byte, then `letters`."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    return {token: index for index, token in enumerate(tokens)}


def sentencepiece_bpe(
    vocabulary: dict[str, int], merges: list[tuple[str, str]]
) -> tokenizers.Tokenizer:
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def llama3_like() -> tokenizers.Tokenizer:
    """A regular expression with look-ahead and case folding, then bytes; NFC; both templates."""
    byte_letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(byte_letters)}
    for token in ("'s", "in", "Ġt"):
        vocabulary[token] = len(vocabulary)
    merges = [("'", "s"), ("i", "n"), ("Ġ", "t")]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|begin|>", "<|endoftext|>"])
    begin, end = (tokenizer.token_to_id(token) for token in ("<|begin|>", "<|endoftext|>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A <|endoftext|>",
        special_tokens=[("<|begin|>", begin), ("<|endoftext|>", end)],
    )
    return tokenizer


def training_texts() -> list[str]:
    return [*HANDMADE[:25], *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))]


def trained_byte_level() -> tokenizers.Tokenizer:
    """GPT-2-like."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_texts(), trainer)
    return tokenizer


def trained_sentencepiece() -> tokenizers.Tokenizer:
    """Gemma-like: spaces become letters, no words, what is not in the vocabulary goes by bytes."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # To train in time.
    trainer = trainers.BpeTrainer(vocab_size=1500, limit_alphabet=150, show_progress=False)
    tokenizer.train_from_iterator(training_texts(), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    vocabulary = sentencepiece_vocabulary("")
    for token in sorted(learned["vocab"], key=learned["vocab"].get):
        vocabulary[token] = len(vocabulary)
    made = sentencepiece_bpe(vocabulary, [tuple(pair) for pair in learned["merges"]])
    made.normalizer = normalizers.Replace(" ", "▁")
    return made


def trained_unigram() -> tokenizers.Tokenizer:
    """T5-like: compatibility forms, words marked by their space, begin and end by template."""
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=1500,
        special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


@pytest.mark.parametrize(
    "make",
    [sentencepiece_like, llama3_like, trained_byte_level, trained_sentencepiece, trained_unigram],
)
@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_ids_of_other_families_equal_the_public_ones(tmp_path, make, add_special_tokens):
    transformers.PreTrainedTokenizerFast(tokenizer_object=make()).save_pretrained(tmp_path)
    assert_equal_ids(tmp_path, add_special_tokens)


def test_sentencepiece_tokens_keep_their_leading_space(tmp_path):
    sentencepiece_like().save(str(tmp_path / "tokenizer.json"))
    [answer] = ours(tmp_path, ["the the €"], True)
    assert answer["texts"] == ["<s>", " the", " the", " ", "\ufffd", "\ufffd", "\ufffd"]


def test_special_tokens_show_their_name_whatever_letters_it_has(tmp_path):
    tokenizer = sentencepiece_like()
    tokenizer.add_special_tokens(["<｜begin▁of▁sentence｜>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    [answer] = ours(tmp_path, ["<｜begin▁of▁sentence｜>a"], False)
    assert answer["texts"][0] == "<｜begin▁of▁sentence｜>"


def test_the_config_s_begin_and_end_flags_win_over_the_template(tmp_path):
    sentencepiece_like().save(str(tmp_path / "tokenizer.json"))
    config = {
        "add_bos_token": False,
        "add_eos_token": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    [with_tokens] = ours(tmp_path, ["the"], True)
    [without] = ours(tmp_path, ["the"], False)
    assert with_tokens["ids"] == [*without["ids"], 2]


def test_dropout_in_the_file_does_not_make_ids_random(tmp_path):
    tokenizer = sentencepiece_like()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    [expected] = ours(tmp_path, ["the thin the thin"], False)
    tokenizer.model.dropout = 1.0
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert ours(tmp_path, ["the thin the thin"], False) == [expected]
