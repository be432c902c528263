"""The build hook: with a compiler a wheel for this platform, without one a wheel for all."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_editable, build_wheel

import hatch_build

ROOT = Path(hatch_build.__file__).resolve().parent
C = "int osl_answer(void);\nint osl_answer(void) { return 42; }\n"
PYPROJECT = """
[project]
name = "osler"
version = "0"
requires-python = ">=3.11"
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[tool.hatch.build]
dev-mode-dirs = ["src"]
[tool.hatch.build.hooks.custom]
[tool.hatch.build.targets.wheel]
packages = ["src/osler"]
exclude = ["/src/osler/native/csrc"]
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A package with our hook and one C file."""
    (tmp_path / "src/osler/native/csrc").mkdir(parents=True)
    (tmp_path / "src/osler/__init__.py").touch()
    (tmp_path / "src/osler/native/csrc/answer.c").write_text(C)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / ".gitignore").write_text("*.so\n")
    (tmp_path / "hatch_build.py").write_text((ROOT / "hatch_build.py").read_text())
    (tmp_path / "wheels").mkdir()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as file:
        return [name for name in file.namelist() if ".dist-info" not in name]


def test_a_wheel_with_the_library_is_for_this_platform(project):
    name = build_wheel("wheels")
    assert name.startswith("osler-0-py3-none-linux_")
    assert "osler/native/_osler.so" in _names(project / "wheels" / name)
    assert not [name for name in _names(project / "wheels" / name) if name.endswith(".c")]


def test_an_editable_install_has_it_beside_the_sources(project):
    build_editable("wheels")
    library = project / hatch_build.LIBRARY
    code = f"import ctypes; print(ctypes.CDLL({str(library)!r}).osl_answer())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    # The call is hidden unless it is marked OSL_API.
    assert "undefined symbol: osl_answer" in done.stderr


def test_without_a_compiler_there_is_one_line_and_a_wheel_for_all(project, monkeypatch, capfd):
    monkeypatch.setenv("PATH", "")
    name = build_wheel("wheels")
    assert name == "osler-0-py3-none-any.whl"
    assert "osler/native/_osler.so" not in _names(project / "wheels" / name)
    said = capfd.readouterr().err.strip()
    assert said == "osler: the native engine is not built: no C compiler (cc, gcc, clang or $CC)"


def test_what_does_not_compile_is_one_line_and_leaves_no_library(project, monkeypatch, capfd):
    build_editable("wheels")
    assert (project / hatch_build.LIBRARY).exists()
    (project / hatch_build.SOURCES / "wrong.c").write_text("int wrong(void) { return right; }\n")
    assert build_wheel("wheels").endswith("-any.whl")
    assert not (project / hatch_build.LIBRARY).exists()
    assert [path.name for path in (project / "src/osler/native").iterdir()] == ["csrc"]
    said = capfd.readouterr().err.strip()
    assert "wrong.c" in said
    assert "\n" not in said


def test_the_compiler_may_be_named(monkeypatch):
    monkeypatch.setenv("CC", "ccache gcc -m64")
    assert hatch_build.compiler() == ["ccache", "gcc", "-m64"]
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(hatch_build, "sources", lambda root: [Path("x.c")])
    with pytest.raises(hatch_build.BuildError, match="no-such-compiler"):
        hatch_build.build(ROOT, Path("/tmp/nowhere.so"))


def test_a_library_older_than_a_source_is_out_of_date(project):
    library = project / hatch_build.LIBRARY
    assert not hatch_build.up_to_date(project, library)
    hatch_build.build(project, library)
    assert hatch_build.up_to_date(project, library)
    header = project / hatch_build.SOURCES / "later.h"
    header.touch()
    newer = library.stat().st_mtime + 1
    os.utime(header, (newer, newer))
    assert not hatch_build.up_to_date(project, library)
