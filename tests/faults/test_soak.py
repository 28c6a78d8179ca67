"""The soak in short: the detector of leaks finds one that is there, and no other. `make soak` is
the long form.
"""

from .soak import soak

SECONDS = 15


def test_memory_stays_under_mixed_load(model_root):
    report = soak(model_root, SECONDS)
    print(report.text())
    assert not report.findings


def test_a_planted_leak_is_found(model_root):
    report = soak(model_root, SECONDS, leak=True)
    print(report.text())
    assert any("memory grew" in finding for finding in report.findings)
    assert len(report.findings) == 1
