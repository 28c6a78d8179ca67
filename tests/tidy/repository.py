"""The files of the repository, for the tidy tests."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def tracked_files(*patterns: str) -> list[Path]:
    """Files in git, and new ones it does not ignore, that match one of the patterns."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    return sorted(path for name in set(listed) if (path := ROOT / name).is_file())


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))
