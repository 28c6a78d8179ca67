"""The layering of server/: what includes and links say against the table in layers.py."""

import re

import pytest

from .layers import MAY_INCLUDE, RESERVED_HEADERS, TORCH_FREE
from .repository import ROOT, relative, tracked_files

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
LIBRARY = re.compile(r"ess_cc_library\((\w+)(.*?)\)", re.DOTALL)


def includes_of_folder(folder):
    for path in tracked_files(f"server/{folder}/*.h", f"server/{folder}/*.cc"):
        for included in INCLUDE.findall(path.read_text()):
            yield path, included


@pytest.mark.parametrize("folder", sorted(MAY_INCLUDE))
def test_a_folder_includes_only_what_its_row_allows(folder):
    wrong = []
    for path, included in includes_of_folder(folder):
        match = re.match(r"server/(\w+)/", included)
        if match and match[1] != folder and match[1] not in MAY_INCLUDE[folder]:
            wrong.append(f"{relative(path)} includes {included}")
    assert not wrong


@pytest.mark.parametrize("folder", sorted(MAY_INCLUDE))
def test_a_folder_links_only_what_its_row_allows(folder):
    text = (ROOT / "server" / folder / "CMakeLists.txt").read_text()
    wrong = []
    for name, body in LIBRARY.findall(text):
        for linked in re.findall(r"ess::(\w+)", body):
            # NAME_torch is the part of NAME that knows LibTorch.
            below = linked.removesuffix("_torch")
            of_proto = linked == "proto" and folder in RESERVED_HEADERS["ess/v1/"]
            if below not in MAY_INCLUDE[folder] | {folder} and not of_proto:
                wrong.append(f"ess_{name} links ess::{linked}")
    assert not wrong


def test_every_folder_of_the_server_has_a_row():
    folders = {p.name for p in (ROOT / "server").iterdir() if p.is_dir()}
    assert folders == set(MAY_INCLUDE)


def test_the_table_has_no_cycles():
    order, left = [], dict(MAY_INCLUDE)
    while left:
        free = [folder for folder, below in left.items() if below <= set(order)]
        assert free, f"a cycle among {sorted(left)}"
        order += free
        for folder in free:
            del left[folder]


@pytest.mark.parametrize("folder", sorted(TORCH_FREE))
def test_torch_free_folders_include_no_torch(folder):
    wrong = [
        f"{relative(path)} includes {included}"
        for path, included in includes_of_folder(folder)
        if re.match(r"(ATen|c10|torch)/", included)
        or included
        in {"server/base/device.h", "server/base/device_memory.h", "server/base/torch_status.h"}
    ]
    assert not wrong


@pytest.mark.parametrize("prefix", sorted(RESERVED_HEADERS))
def test_reserved_headers_stay_in_their_folders(prefix):
    wrong = [
        f"{relative(path)} includes {included}"
        for folder in sorted(set(MAY_INCLUDE) - RESERVED_HEADERS[prefix])
        for path, included in includes_of_folder(folder)
        if included.startswith(prefix)
    ]
    assert not wrong
