"""Rules that hold for every file of the repository."""

import re

import pytest

from .repository import ROOT, relative, tracked_files

MAX_LINES = 400
MAX_BYTES = 1 << 20
SOURCES = ("*.h", "*.cc", "*.py", "*.rs")


def test_no_source_is_longer_than_its_limit():
    long = [
        f"{relative(path)}: {count} lines"
        for path in tracked_files(*SOURCES)
        if (count := len(path.read_text().splitlines())) > MAX_LINES
    ]
    assert not long


def test_no_file_is_large():
    large = [relative(path) for path in tracked_files() if path.stat().st_size > MAX_BYTES]
    assert not large


def test_nothing_is_disabled_or_left_for_later():
    words = re.compile("DISABLED" + "_|TO" + "DO|FIX" + "ME")
    found = [relative(path) for path in tracked_files(*SOURCES) if words.search(path.read_text())]
    assert not found


def lists(path):
    """The nearest CMakeLists.txt at or above a source."""
    folder = path.parent
    while not (folder / "CMakeLists.txt").exists():
        folder = folder.parent
    return (folder / "CMakeLists.txt").read_text()


@pytest.mark.parametrize("pattern", ["tests/*.cc", "server/*.cc", "server/*.h"])
def test_every_source_is_built(pattern):
    """A test that no CMakeLists.txt names, nor a glob of it, would disappear unseen."""
    forgotten = [
        relative(path)
        for path in tracked_files(pattern)
        if path.name not in (text := lists(path)) and f"*{path.suffix}" not in text
    ]
    assert not forgotten


def test_every_header_begins_with_its_purpose_and_has_a_guard():
    bare = [
        relative(path)
        for path in tracked_files("server/*.h", "tests/*.h")
        if not path.read_text().startswith("//")
        or ("#pragma once" not in path.read_text() and "HWY_TARGET_TOGGLE" not in path.read_text())
    ]
    assert not bare


def test_documents_name_sources_that_exist():
    """Backquoted paths in docs/ and README.md."""
    source = re.compile(r"`((?:server|client|proto|tests|tools|cmake|docs|deploy)/[\w./-]+)`")
    missing = []
    for path in tracked_files("docs/*.md", "README.md"):
        for name in source.findall(path.read_text()):
            if not (ROOT / name).exists():
                missing.append(f"{relative(path)}: {name}")
    assert not missing
