from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_demo_is_true_from_beginning_to_end(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tenuto.cli", "demo", "--once", "--data", str(tmp_path / "demo")]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TENUTO_")}
    result = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=90, check=False)

    told = result.stdout + result.stderr
    assert result.returncode == 0, told
    assert "All 18 steps were checked and true" in told
    assert "402  insufficient_balance" in told
    assert "402  credit_blocked" in told
    assert "\x1b" not in told
