"""docs/metrics.md lists the metrics of the catalogue, with types and labels, and no others."""

import re

from .repository import ROOT

CATALOGUE = ROOT / "server" / "telemetry" / "metric_catalogue.h"
DOCUMENT = ROOT / "docs" / "metrics.md"
# Made by code and not by the catalogue: the exposition's own and the process's.
OTHERS = {
    "ess_metrics_series",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_open_fds",
    "process_max_fds",
}


def catalogue():
    """Name -> (type, labels)."""
    text = CATALOGUE.read_text().replace("\\\n", " ")
    entry = r"\b(COUNTER|GAUGE|HISTOGRAM)\(\s*\w+,\s*((?:[^()]|\([^()]*\))*?)\)\s"
    entries = re.findall(entry, text)
    metrics = {}
    for kind, arguments in entries:
        strings = re.findall(r'"([^"]*)"', arguments)
        if strings:
            metrics[strings[0]] = (kind.lower(), strings[2:])
    return metrics


def document():
    """Name -> (type, labels), from the rows of the tables."""
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \|([^|]*)\|", DOCUMENT.read_text(), re.MULTILINE)
    return {name: (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows}


def test_the_catalogue_is_read():
    assert len(catalogue()) > 25
    assert catalogue()["ess_requests_total"] == ("counter", ["model", "rpc", "code"])


def test_the_document_has_exactly_the_metrics_of_the_catalogue():
    assert set(document()) == set(catalogue()) | OTHERS


def test_types_and_labels_agree():
    documented = document()
    for name, (kind, labels) in catalogue().items():
        assert documented[name] == (kind, labels), name
