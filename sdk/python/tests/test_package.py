"""Promise: what is installed has the types, and nothing of the tests."""

import subprocess
import sys
import zipfile
from pathlib import Path

from stack import ROOT


def test_the_wheel_has_the_package_and_its_types(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT / "sdk/python", check=True, capture_output=True)
    [wheel] = tmp_path.iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert "assent/py.typed" in names
    assert "assent/hook.py" in names
    assert not [name for name in names if not name.startswith(("assent/", "assent-"))]
