"""The wheel: whole, and runs with no repository around it."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing of an earlier build gets in and nothing is left behind."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    for path in _shipped():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes((ROOT / path).read_bytes())
    # By way of the source distribution, which must lack nothing either.
    build = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    (source,) = (copy / "dist").glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*pip, "wheel", *options, str(source)], check=True)
    (found,) = folder.glob("*.whl")
    return found


def _shipped() -> list[Path]:
    """What of the sources belongs in it."""
    found = (ROOT / "src" / "crowdnash").rglob("*")
    return sorted(
        path.relative_to(ROOT)
        for path in found
        if path.is_file() and "__pycache__" not in path.parts
    )


@pytest.mark.slow
def test_the_wheel_is_whole_and_holds_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    packed = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert packed == {path.relative_to("src").as_posix() for path in _shipped()}
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_wheel_solves_and_reports_without_the_repository(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    libraries = sysconfig.get_path("purelib")
    # The libraries' own path files, which name this repository, are not read from PYTHONPATH.
    paths = os.pathsep.join([str(tmp_path / "installed"), libraries])
    environment = {**os.environ, "PYTHONPATH": paths}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-S", "-m", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        ).stdout

    where = run("crowdnash", "--version")
    assert where.startswith("crowdnash ")
    run("crowdnash", "solve", "sis", "--num-agents", "10", "--num-epochs", "2", "--out", "here")
    page = (tmp_path / "here" / "report.html").read_text()
    assert "sis" in page
    assert "verified" in run("crowdnash", "verify", "here/certificate-last.json")
    run("crowdnash", "case", "sioux-falls", "--scale", "small", "--out", "roads")
    assert (tmp_path / "roads" / "links.csv").read_text().startswith("from_node,to_node,flow,time")
    for path in (tmp_path / "installed").rglob("*.py"):
        assert str(ROOT) not in path.read_text()
