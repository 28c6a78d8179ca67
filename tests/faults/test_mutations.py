"""Mutated calls to the real server; `make fuzz` sends many more."""

from .hostile_run import hostile_run

CALLS = 10_000


def test_mutated_calls_get_a_documented_code_and_change_nothing(server):
    report = hostile_run(server, CALLS, seed=1)

    print(report.text())
    assert not report.findings, "\n".join([*report.findings[:20], report.text()])
