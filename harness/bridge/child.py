"""The process that runs mergekit: `python -m harness.bridge.child SPEC` or `--describe`.

Everything it prints is the merge's log. It ends at once when its parent does: then its standard input closes.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

SHARD = 5_000_000_000  # bytes


def main() -> None:
    if sys.argv[1] == "--describe":
        print(json.dumps(describe(), indent=1))
        return
    # transformers imports scikit-learn and scipy (a second) where it finds them; nothing here uses them
    sys.modules.setdefault("sklearn", None)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run(json.loads(Path(sys.argv[1]).read_text("utf-8")))


def _end_with_parent() -> None:
    while os.read(0, 1024):  # not through sys.stdin: Python could not end while a thread reads there
        pass
    os._exit(1)


def run(spec: dict[str, Any]) -> None:
    """Merge as `spec["config"]` (mergekit's configuration) says into the folder `spec["to"]`."""
    import torch
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    from harness.measure import peak_mib

    torch.set_num_threads(spec["threads"])
    options = MergeOptions(
        random_seed=spec["seed"],
        copy_tokenizer=False,
        write_model_card=False,
        out_shard_size=SHARD,
        quiet=True,
        device="cpu",
    )
    run_merge(MergeConfiguration.model_validate(spec["config"]), spec["to"], options)
    _check_finite(Path(spec["to"]))
    Path("result.json").write_text(json.dumps({"peak_mib": peak_mib()}))


def _check_finite(folder: Path) -> None:
    import torch
    from safetensors import safe_open

    bad = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            bad += [name for name in tensors.keys() if not torch.isfinite(tensors.get_tensor(name)).all()]
    if bad:
        raise SystemExit(f"mergekit computed NaN or infinity in {len(bad)} tensors, such as {bad[0]}")


def describe() -> dict[str, Any]:
    """mergekit's own definitions, as `definitions.py` reads them."""
    from importlib.metadata import version

    from mergekit.merge_methods.registry import registered_methods

    found = sorted(registered_methods(), key=lambda method: method.spec.name)
    return {"mergekit": version("mergekit"), "methods": {m.spec.name: _entry(m) for m in found}}


def _entry(method: Any) -> dict[str, Any]:
    spec, contract, idle = method.spec, method.spec.contract, _idle(method)
    return {
        "title": spec.pretty_name or spec.name,
        "url": spec.reference_url or "",
        "base": contract.base.value,
        "inputs": [contract.min_inputs, contract.max_inputs],
        "non_base": [contract.min_non_base, contract.max_non_base],
        "parameters": [
            {
                "name": p.name,
                "type": getattr(p.value_type, "__name__", "")
                if isinstance(p.value_type, type)
                else str(p.value_type),
                "scope": p.scope.value,
                "required": p.required,
                **({} if p.required else {"default": p.default}),
            }
            for p in spec.parameters
            if p.name not in idle
        ],
    }


def _idle(method: Any) -> set[str]:
    """Parameters that mergekit lists for all task-vector methods and that this one never looks at."""
    idle = set()
    if getattr(method, "sparsification_method", ...) is None:
        idle |= {"density", "rescale"}
    if getattr(method, "consensus_method", ...) is None:
        idle |= {"int8_mask"}
    return idle


if __name__ == "__main__":
    main()
