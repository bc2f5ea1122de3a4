"""Which engine a run gets, what it is refused for, and the family's `engine:` section."""

import pytest

from harness.errors import HarnessError
from harness.evaluate import choice, load_task
from harness.evaluate.choice import EngineSettings, numerics, refuse, resolve
from harness.evaluate.pool import engines_for
from harness.family import parse_family

TASK = """
task: harness_{name}
custom_dataset: !function data.rows
test_split: test
output_type: {output}
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {settings}
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata:
  version: 1
  harness: {{title: t, group: g, paper: p, licence: l, revision: r, profile: standard,
            higher_is_better: true}}
"""


@pytest.fixture
def task(tmp_path):
    def make(settings, output="generate_until", name="made"):
        path = tmp_path / f"{name}.yaml"
        (tmp_path / "data.py").write_text("def rows():\n    return {}\n")
        path.write_text(TASK.format(name=name, settings=settings, output=output))
        return load_task(path)

    return make


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """A machine with so many GPUs, as far as device files say."""

    def there(count, chosen=None):
        for number in range(count):
            (tmp_path / f"nvidia{number}").touch()
        for other in ("nvidiactl", "nvidia-uvm", "null"):
            (tmp_path / other).touch()
        monkeypatch.setattr(choice, "DEVICES", tmp_path)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if chosen is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)

    return there


def family_with(tmp_path, engine):
    path = tmp_path / "mine.yaml"
    path.write_text(f"title: t\nbase: org/base\nexperts:\n  reasoning: org/one\nengine: {engine}\n")
    return parse_family(path)


def test_without_a_gpu_auto_is_hf(gpus):
    gpus(0)
    assert resolve("auto") == resolve("hf") == "hf"


@pytest.mark.parametrize("installed", [True, False])
def test_with_a_gpu_auto_is_vllm_where_that_is_installed(gpus, monkeypatch, installed):
    gpus(2)
    monkeypatch.setattr(choice, "find_spec", lambda name: object() if installed else None)
    assert resolve("auto") == ("vllm" if installed else "hf")
    assert resolve("hf") == "hf"
    gpus(2, chosen="")  # all hidden
    assert resolve("auto") == "hf"


def test_an_engine_that_is_not_there_is_told_with_what_to_do(gpus, monkeypatch):
    gpus(0)
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    with pytest.raises(HarnessError, match="engine `vllm` is not installed") as told:
        resolve("vllm")
    assert "make vllm" in told.value.hint
    with pytest.raises(HarnessError, match="no engine is called `vlm`") as told:
        resolve("vlm")
    assert "vllm" in told.value.hint


def test_more_gpus_per_model_than_there_are_is_told_before_any_work(gpus, tmp_path, monkeypatch):
    gpus(2)
    monkeypatch.setattr(choice, "find_spec", lambda name: object())
    family = family_with(tmp_path, "{tensor_parallel: 4}")
    with pytest.raises(HarnessError, match="`engine.tensor_parallel` is 4, and 2 GPUs are there"):
        resolve("vllm", family)
    assert resolve("vllm", family_with(tmp_path, "{tensor_parallel: 2}")) == "vllm"


def test_visible_gpus_are_those_of_the_environment(gpus):
    gpus(11)
    assert choice.visible_gpus() == [str(number) for number in range(11)], "in the order of their numbers"
    gpus(11, chosen="3, GPU-1b2c,7")
    assert choice.visible_gpus() == ["3", "GPU-1b2c", "7"]


@pytest.mark.parametrize(
    ("engine", "size", "wanted", "groups"),
    [
        ("vllm", 2, None, ["0,1", "2,3"]),  # the fifth is left over
        ("vllm", 2, 1, ["0,1"]),
        ("hf", 2, None, ["0", "1", "2"]),  # as many as there are models
        ("vllm", 1, 9, ["0", "1", "2"]),
    ],
)
def test_every_engine_sees_its_own_gpus(gpus, tmp_path, monkeypatch, engine, size, wanted, groups):
    gpus(5)
    monkeypatch.setattr("harness.evaluate.engine.Engine.start", lambda self: None)
    settings = EngineSettings(tensor_parallel=size)
    with engines_for(3, wanted, tmp_path / "log", engine, settings) as made:
        assert [one.engine.settings["gpus"] for one in made] == groups
        assert {one.engine._environment()["CUDA_VISIBLE_DEVICES"] for one in made} == set(groups)


def test_without_a_gpu_vllm_has_one_engine_and_what_the_user_sees_is_left_alone(gpus, tmp_path, monkeypatch):
    gpus(0)
    monkeypatch.setattr("harness.evaluate.engine.Engine.start", lambda self: None)
    with engines_for(3, None, tmp_path / "log", "vllm") as made:
        assert len(made) == 1
        assert "CUDA_VISIBLE_DEVICES" not in made[0].engine._environment()
    with engines_for(0, None, tmp_path / "none", "vllm") as made:
        assert made == [] and not (tmp_path / "none").exists()


@pytest.mark.parametrize("setting", ["num_beams: 4", "no_repeat_ngram_size: 3", "mirostat: 1"])
def test_vllm_refuses_what_it_would_have_to_leave_out(task, setting):
    settings = f"{{until: [], {setting}}}"
    with pytest.raises(HarnessError, match=f"task `made` generates with `{setting}`, which vLLM cannot do"):
        refuse(task(settings), "vllm")
    refuse(task(settings), "hf")


def test_settings_that_do_nothing_are_no_reason_to_refuse(task):
    refuse(task("{until: [], num_beams: 1, no_repeat_ngram_size: 0, do_sample: true, top_p: 0.9}"), "vllm")
    refuse(task("{until: [], max_gen_toks: 8}"), "vllm", {"temperature": 0.6})
    with pytest.raises(HarnessError, match="num_beams: 2"):
        refuse(task("{until: []}"), "vllm", {"num_beams": 2})
    refuse(task("{until: [], num_beams: 4}", output="loglikelihood"), "vllm")


def test_what_changes_answers_is_told_apart_and_defaults_are_not_spelled():
    plain = EngineSettings()
    assert numerics("hf", plain) == {"engine": "hf", "dtype": "auto"}
    assert numerics("vllm", plain) == {"engine": "vllm", "dtype": "auto"}
    other = EngineSettings(max_model_len=4096, memory_fraction=0.5, batch_size=7, kv_cache_gib=3)
    assert numerics("vllm", other) == {"engine": "vllm", "dtype": "auto", "max_model_len": 4096}
    assert numerics("hf", other) == {"engine": "hf", "dtype": "auto"}


def test_the_familys_engine_section_is_read_and_its_errors_name_file_line_and_key(tmp_path):
    made = family_with(tmp_path, "{tensor_parallel: 4, memory_fraction: 0.8, max_model_len: 8192}")
    assert made.engine == EngineSettings(tensor_parallel=4, memory_fraction=0.8, max_model_len=8192)
    with pytest.raises(HarnessError, match=r"mine.yaml:5: unknown key `engine.tensor_paralel`") as told:
        family_with(tmp_path, "{tensor_paralel: 4}")
    assert "tensor_parallel" in told.value.hint
    for wrong in ("{memory_fraction: 1.5}", "{tensor_parallel: 0}", "{dtype: int8}", "{max_model_len: 2}"):
        with pytest.raises(HarnessError, match=r"mine.yaml:5: `engine\."):
            family_with(tmp_path, wrong)
