"""Fixtures of the parity tests, and the table that they print.

`pytest tests/parity --full` also runs Gemma 3 270M and writes the table into docs/parity.md.
"""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

import gemma3_270m
import model_parity
import pytest

REPORT = model_parity.REPOSITORY / "docs" / "parity.md"
RESULTS_HEADING = "## Results"
ROWS = pytest.StashKey[list[model_parity.ParityRow]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full", action="store_true", help="run what takes long too; write docs/parity.md"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


@pytest.fixture
def record_row(
    request: pytest.FixtureRequest,
) -> Callable[[model_parity.ParityRow], None]:
    """Adds a line to the table at the end of the run, whether the test passes or not."""
    return request.config.stash[ROWS].append


@pytest.fixture(scope="session", autouse=True)
def capture_model_is_built() -> None:
    if not model_parity.CAPTURE_MODEL.exists():
        pytest.fail("build/bin/capture_model is missing; run `make build`")


@pytest.fixture(scope="session")
def smollm2() -> pathlib.Path:
    """The folder that tools/make_demo_model makes."""
    cache = os.environ.get("ESS_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
        "ess-profiler",
    )
    folder = pathlib.Path(cache) / "models" / "smollm2-135m"
    if not (folder / "model.safetensors").exists():
        pytest.skip("the demo model is absent; tools/make_demo_model makes it")
    return folder


@pytest.fixture(scope="session")
def gemma3(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[pathlib.Path]:
    """The folder of Gemma 3 270M."""
    if not request.config.getoption("--full", default=False):
        pytest.skip("Gemma 3 270M takes a minute to make; --full does")
    folder = tmp_path_factory.mktemp("gemma3-270m")
    gemma3_270m.make(folder)
    yield folder
    shutil.rmtree(folder)


def table(rows: list[model_parity.ParityRow]) -> list[str]:
    lines = [
        "| case | prompt lengths | logits | operators | undecided at 0.1 | undecided at 0.001 |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = [
            f"{row.undecided[t]:.2%}" if t in row.undecided else "not compared"
            for t in model_parity.TOLERANCES
        ]
        lengths = ", ".join(map(str, row.lengths))
        lines.append(
            f"| {row.case} | {lengths} | {row.logits:.1e} | {row.operators:.1e} | "
            + " | ".join(shares)
            + " |"
        )
    return lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    terminalreporter.section("parity with transformers")
    for line in table(rows):
        terminalreporter.write_line(line)
    if config.getoption("--full", default=False):
        text = REPORT.read_text().split(RESULTS_HEADING)[0]
        REPORT.write_text("\n".join([text + RESULTS_HEADING, "", *table(rows), ""]))
        terminalreporter.write_line(f"written: {REPORT.relative_to(model_parity.REPOSITORY)}")
