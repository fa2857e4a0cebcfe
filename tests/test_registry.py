import importlib
import subprocess
import sys

import pytest

from harness.config.sweep_files import load_sweep
from harness.errors import ConfigError, SweepError
from harness.models.names import BACKBONES
from harness.registry import Registry, import_in_parts


def define(registry, qualname="part"):
    def part():
        return registry

    part.__qualname__ = qualname
    return registry.register("a")(part)


def test_a_part_is_found_by_its_name():
    registry = Registry("thing")
    part = define(registry)
    assert registry.get("a") is part
    assert "a" in registry
    assert list(registry) == ["a"]


def test_two_parts_of_one_name_are_refused():
    registry = Registry("thing")
    define(registry)
    with pytest.raises(ConfigError, match="thing 'a' is registered twice"):
        define(registry, "another")


def test_the_same_definition_loaded_again_takes_its_own_place():
    registry = Registry("thing")
    define(registry)
    again = define(registry)
    assert registry.get("a") is again


@pytest.mark.parametrize("_", range(2))
def test_what_a_test_registers_the_next_one_does_not_find(_, tmp_path):
    assert "left_over" not in BACKBONES
    file = tmp_path / "left_over.py"
    file.write_text(
        "from harness.models.names import BACKBONES\n"
        "BACKBONES.register('left_over')(lambda size: None)\n"
    )
    with pytest.raises(SweepError, match="defines no SWEEP"):
        load_sweep(str(file))
    assert "left_over" in BACKBONES
    assert "swin_nano" in BACKBONES


def written(folder, **files):
    """A package `parted` with these modules."""
    package = folder / "parted"
    package.mkdir()
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)


@pytest.fixture
def parted(tmp_path, monkeypatch):
    """A package that runs late: of its modules `both` has a function of its own name."""
    written(
        tmp_path,
        __init__="from . import heavy\nfrom .both import both\nlate, __all__ = 1, ['both', 'late']",
        heavy="",
        both="def both(): return 2",
        light="SIZE = 3",
        inner="from parted.light import SIZE as size\nimport parted.light as light",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    import_in_parts({"parted": {"SIZE": "parted.light", "light": "parted.light"}})
    yield importlib.import_module("parted")
    for name in [name for name in sys.modules if name.partition(".")[0] == "parted"]:
        del sys.modules[name]


def has_run():
    return "parted.heavy" in sys.modules


def test_a_package_runs_when_it_is_asked_for_a_name(parted):
    assert importlib.import_module("parted.inner").size == parted.SIZE == 3
    assert parted.light.SIZE == 3
    assert not has_run()
    assert parted.late == 1
    assert has_run()
    assert parted.inner is sys.modules["parted.inner"]


def test_a_module_does_not_stand_for_the_function_of_its_name(parted):
    from parted.both import both

    assert not has_run()
    assert parted.both is both
    assert parted.both() == 2


def test_a_name_that_is_not_there_is_told_as_ever(parted):
    with pytest.raises(AttributeError, match="module 'parted' has no attribute 'nothing'"):
        parted.nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from parted import nothing  # noqa: F401


def test_a_star_and_a_listing_have_every_name(parted):
    names = {}
    exec("from parted import *", names)
    assert {"both", "late"} <= names.keys()
    assert {"both", "late", "heavy"} <= set(dir(parted))


def test_what_fails_to_run_fails_again(parted, tmp_path):
    (tmp_path / "parted" / "heavy.py").write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            parted.late  # noqa: B018


def test_a_run_imports_neither_a_compiler_nor_every_tower():
    """Each costs a worker 0.1 to 2 s of CPU; what is listed was all imported once."""
    code = """
import sys, torch, harness.run
from harness.evaluate.cost import count_gmacs
from harness.models.image import build_backbone
from harness.train.optimiser import EagerAdamW
tower = build_backbone("resnet18", 32)
optimiser = EagerAdamW(tower.parameters())
tower(torch.zeros(2, 3, 32, 32)).sum().backward()
optimiser.step()
optimiser.load_state_dict(optimiser.state_dict())
optimiser.zero_grad()
count_gmacs(tower.eval(), torch.zeros(1, 3, 32, 32))
heavy = ["torch._dynamo", "sympy", "scipy", "transformers", "torchvision.models.resnet", "optuna"]
heavy += ["timm.models.vision_transformer", "open_clip.model", "torchvision.datasets", "pandas"]
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.thorough
def test_packages_in_parts_give_all_they_have():
    code = """
import sys, harness.run, timm, torchvision, open_clip
from torchvision.ops.stochastic_depth import StochasticDepth
assert "torchvision.models.resnet" not in sys.modules
assert callable(torchvision.ops.stochastic_depth)
assert torchvision.ops.StochasticDepth is StochasticDepth
assert "alexnet" in torchvision.models.list_models() and callable(torchvision.models.alexnet)
assert timm.is_model("vit_base_patch16_224") and len(timm.list_models()) > 1000
assert timm.utils.accuracy and timm.data.create_dataset
assert "ViT-B-32" in open_clip.list_models()
assert open_clip.CLIP is sys.modules["open_clip.model"].CLIP
"""
    subprocess.run([sys.executable, "-c", code], check=True)
