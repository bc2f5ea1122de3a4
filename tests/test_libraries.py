"""Imports of large libraries: what waits for them, what they leave out, and the end of a process."""

import gc
import signal
import subprocess
import sys
import textwrap

import pytest

from harness import libraries


def test_ctrl_c_waits_for_an_import(tmp_path, monkeypatch):
    """In the middle of torch's it would end the process, or be lost."""
    source = "import signal\nsignal.raise_signal(signal.SIGINT)\nwhole = True\n"
    (tmp_path / "struck.py").write_text(source)
    (tmp_path / "later.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    usual = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        libraries.load("struck", "later")
    assert sys.modules.pop("struck").whole and "later" not in sys.modules
    assert signal.getsignal(signal.SIGINT) is usual and gc.isenabled()


def test_transformers_comes_without_scikit_learn_and_who_needs_it_has_it():
    script = """
        import sys
        from harness import libraries
        libraries.load()
        assert "transformers.generation.candidate_generator" in sys.modules
        assert "sklearn" not in sys.modules
        from transformers.utils import is_sklearn_available
        import sklearn.metrics
        assert is_sklearn_available()
        libraries.lean = None  # once: it must not be hidden while another thread scores with it
        libraries.load("json")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


@pytest.mark.parametrize(("said", "code"), [("0", 0), ("3", 3), ("None", 0), ("'why'", 1)])
def test_a_process_ends_with_its_exit_code_and_what_it_wrote(said, code, tmp_path):
    """Also where the end of the interpreter is cut short, as after torch was imported."""
    script = f"""
        import atexit, pathlib, sys, types
        from harness.libraries import leave
        sys.modules["torch"] = types.ModuleType("torch")
        atexit.register(lambda: pathlib.Path("over").touch())
        print("the last words")
        leave({said})
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == code and done.stdout == "the last words\n"
    assert done.stderr == ("why\n" if code == 1 else "")
    assert (tmp_path / "over").exists()
