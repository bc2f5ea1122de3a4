"""No process of ours computes its first cosine with two threads (PyTorch issue 188792; the race itself is
measured by `benchmarks/first_calls.py`)."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness import vml

UNARY = """Abs Acos Acosh Acospi Asin Asinh Asinpi Atan Atanh Atanpi Cbrt CdfNorm CdfNormInv Ceil Cos Cosd
    Cosh Cospi Erf ErfInv Erfc ErfcInv Exp Exp10 Exp2 Expm1 Floor Frac Inv InvCbrt InvSqrt
    LGamma Ln Log10 Log1p Log2 Logb NearbyInt Rint Round Sin Sind Sinh Sinpi Sqr Sqrt TGamma Tan
    Tand Tanh Tanpi Trunc""".split()


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch has no MKL")
@pytest.mark.skipif(platform.system() != "Linux", reason="looks into an ELF library")
def test_every_function_that_torch_leaves_to_vml_is_settled():
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    linked = {name for name in UNARY if hasattr(library, f"vms{name}")}
    assert linked == {
        "Ln" if name == "log" else "ErfInv" if name == "erfinv" else name.title() for name in vml.FUNCTIONS
    }


def test_settling_calls_each_function_on_one_element_of_both_dtypes():
    called = set()

    class Listening(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            called.add((function._schema.name.removeprefix("aten::"), result.dtype, result.numel()))
            return result

    with Listening():
        vml.settle(torch)
    assert called >= {(name, dtype, 1) for name in vml.FUNCTIONS for dtype in (torch.float32, torch.float64)}


LISTENING = """
import importlib.util, sys
import harness
from harness import vml
assert "torch" not in sys.modules
sys.meta_path.insert(1, type("Old", (), {{"find_module": lambda self, name, path=None: None}})())
settled = []
vml.settle = lambda torch: settled.append(torch.ones(1).cos is not None)
assert importlib.util.find_spec("torch").name == "torch" and not settled  # a look is no import
{first}
assert settled == [True], settled
import torch
assert settled == [True] and torch.__spec__.loader.get_source("torch")
"""


@pytest.mark.parametrize("first", ["import torch.nn", "from harness import libraries; libraries.load()"])
def test_torch_is_settled_by_its_import_and_once(first):
    subprocess.run([sys.executable, "-c", LISTENING.format(first=first)], check=True, timeout=120)


def test_torch_that_was_there_before_is_settled_at_once(monkeypatch):
    settled = []
    monkeypatch.setattr(vml, "settle", settled.append)
    vml.watch()
    assert settled == [torch]
