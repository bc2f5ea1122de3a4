"""Plugins are found in three places, by name or path, and bad files are told in two lines."""

import sys

import pytest

from harness import registry
from harness.errors import HarnessError

MINE = '''"""Half the sum of the task vectors."""
from harness import merge_method, param


@merge_method("mine", title="Mine")
class Mine:
    scale: float = param(0.5, "scaling coefficient", low=0, high=2, noop=0.0)

    def merge(self, group, state):
        merged = group.base.clone()
        for delta in group.deltas.values():
            merged += self.scale * delta
        return merged
'''


def put(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_built_in_methods_are_found_and_load():
    found = registry.find("methods")
    assert {"linear", "task_arithmetic", "ties", "dare", "led", "reasonany"} <= set(found)
    for name, plugin in found.items():
        assert registry.has_variants(plugin) or registry.method(name).method_name == name


def test_a_file_in_the_working_folder_is_registered_by_being_there(workdir):
    put(workdir, "methods/mine.py", MINE)
    assert registry.find("methods")["mine"].source == "./"
    assert registry.method("mine").title == "Mine"


def test_a_file_given_by_path_is_a_method(workdir):
    put(workdir, "elsewhere/mine.py", MINE)
    assert registry.method("elsewhere/mine.py")().scale == 0.5


def test_two_files_of_one_name_are_an_error_with_both_paths(workdir):
    put(workdir, "methods/ties.py", MINE)
    with pytest.raises(HarnessError) as caught:
        registry.find("methods")
    assert str(workdir / "methods" / "ties.py") in caught.value.message
    assert str(registry.BUILT_IN / "methods" / "ties.py") in caught.value.message


def test_an_installed_package_brings_plugins(workdir, monkeypatch):
    put(workdir, "lib/mergepack/__init__.py", "")
    put(workdir, "lib/mergepack/methods/mine.py", MINE)
    put(
        workdir,
        "lib/mergepack-1.0.dist-info/METADATA",
        "Metadata-Version: 2.1\nName: mergepack\nVersion: 1.0\n",
    )
    put(workdir, "lib/mergepack-1.0.dist-info/entry_points.txt", "[harness.plugins]\nmergepack = mergepack\n")
    monkeypatch.syspath_prepend(str(workdir / "lib"))
    try:
        assert registry.find("methods")["mine"].source == "mergepack"
    finally:
        sys.modules.pop("mergepack", None)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(HarnessError) as caught:
        registry.get("methods", "tiess")
    assert "`tiess`" in caught.value.message and "`ties`" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import nosuchmodule\n", ":1: ModuleNotFoundError"),
        ("def broken(:\n", ":1: SyntaxError"),
        ("x = 1\n", "0 merge methods"),
        (MINE.replace('"mine"', '"other"'), "calls itself `other`"),
        (MINE.replace("def merge", "def merges"), "neither `merge` nor `build`"),
        (
            MINE.replace('param(0.5, "scaling coefficient", low=0, high=2, noop=0.0)', "").replace(
                " = \n", "\n"
            ),
            "has no default",
        ),
    ],
)
def test_a_broken_file_is_told_with_its_path_or_reason(workdir, text, told):
    put(workdir, "mine.py", text)
    with pytest.raises(HarnessError) as caught:
        registry.method("./mine.py")
    assert told in caught.value.message
    assert caught.value.hint


def test_a_broken_file_does_not_hide_the_others(workdir):
    put(workdir, "methods/broken.py", "1/0\n")
    assert "ties" in registry.find("methods")
    registry.method("ties")
