"""docs/operations.md against the configuration, the metrics and the files it speaks of."""

import re
import shutil
import subprocess
import sys

import pytest

from .repository import ROOT
from .test_metrics_document import OTHERS, catalogue

DOCUMENT = (ROOT / "docs" / "operations.md").read_text()
PROTOCOL = (ROOT / "proto" / "ess" / "v1" / "server.proto").read_text()
UNIT = (ROOT / "deploy" / "ess_server.service").read_text()
EXAMPLE = (ROOT / "deploy" / "ess_server.textproto").read_text()


def fields():
    """Name -> what the comment calls its default, "" for none, of each field of ServerConfig."""
    body = re.search(r"message ServerConfig \{(.*?)\n\}", PROTOCOL, re.DOTALL)[1]
    found = {}
    field = r"((?:  //.*\n)+)  (?:repeated |optional )?\w+ (\w+) = \d+;"
    for comment, name in re.findall(field, body):
        text = " ".join(line.strip(" /") for line in comment.splitlines())
        default = re.search(r"Default:? (.+?)[.:](?= |$)", text)
        found[name] = default[1] if default and default[1] != "none" else ""
    return found


def documented():
    """Name -> default, from the table of the fields."""
    table = DOCUMENT.split("## Configure")[1].split("##")[0]
    return {
        name: default.strip(" `") for name, default in re.findall(r"\| `(\w+)` \|([^|]*)\|", table)
    }


def test_the_fields_are_read():
    assert len(fields()) > 20
    assert fields()["max_result_bytes"] == "16 GiB"


def test_every_field_is_documented_with_its_default():
    assert documented() == fields()


def test_alerts_use_metrics_that_exist():
    names = set(
        re.findall(r"\b(?:ess|process)_\w+", DOCUMENT.split("## Metrics")[1].split("##")[0])
    )
    known = set(catalogue()) | OTHERS
    assert len(names) > 5
    assert {re.sub(r"_bucket$", "", name) for name in names} <= known


def test_the_unit_waits_longer_than_a_drain():
    seconds = int(re.search(r"TimeoutStopSec=(\d+)", UNIT)[1])
    assert seconds > float(fields()["drain_seconds"]) + 5


def test_the_example_names_fields_that_exist():
    names = set(re.findall(r"^(?:# )?(\w+)(?::| \{)", EXAMPLE, re.MULTILINE))
    assert {"listen", "models"} <= names
    assert names <= set(fields())


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    if not (verify := shutil.which("systemd-analyze")):
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / "ess_server.service"
    unit.write_text(UNIT.replace("/usr/local/bin/ess_server", sys.executable))
    run = subprocess.run([verify, "verify", unit], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
