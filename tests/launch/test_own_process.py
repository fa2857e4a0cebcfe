import importlib
import subprocess
import sys
from importlib import metadata

import pytest

from harness.launch.own_process import HEAVY, import_in_parts

HEAVY_MODULES = ["timm.models.vision_transformer", "open_clip.model", "torchvision.datasets"]


def output_of(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


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
    homes = dict.fromkeys(["SIZE", "light", "late"], "parted.light") | {"both": "parted.nowhere"}
    import_in_parts({"parted": homes})
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


def test_a_name_that_its_module_lacks_is_had_of_the_package(parted):
    assert parted.late == 1
    assert parted.both() == 2


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
import sys, torch
from harness.launch.own_process import begin_process
begin_process()
import harness.run
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
print(*sys.modules)
"""
    heavy = {"torch._dynamo", "sympy", "scipy", "transformers", "optuna", "pandas"}
    heavy |= {"torchvision.models.resnet", *HEAVY_MODULES}
    assert heavy & set(output_of(code)) == set()


@pytest.mark.thorough
def test_packages_in_parts_give_all_they_have():
    code = """
import sys
from harness.launch.own_process import begin_process
begin_process()
import harness.run, timm, torchvision, open_clip
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
    output_of(code)


@pytest.mark.parametrize("package", HEAVY)
def test_every_name_is_where_this_version_of_its_package_has_it(package):
    top = package.partition(".")[0]
    dir(importlib.import_module(package))  # a package in parts runs then
    for name, home in HEAVY[package].items():
        module = importlib.import_module(home)
        found = module if home == f"{package}.{name}" else getattr(module, name, None)
        assert found is vars(sys.modules[package])[name], (
            f"{top} {metadata.version(top.replace('open_clip', 'open_clip_torch'))} has {name} "
            f"elsewhere than in {home}: every start runs all of {package} until HEAVY says where"
        )


def test_importing_the_library_leaves_other_packages_alone():
    """As in a notebook that has a timm of its own."""
    code = """
import sys
before = list(sys.meta_path)
import harness, harness.api, harness.config, harness.space
import importlib.util
print([str(finder) for finder in sys.meta_path if "_PartsFinder" in str(finder)])
print(type(importlib.util.find_spec("timm").loader).__name__)
"""
    assert output_of(code) == ["[]", "SourceFileLoader"]


@pytest.mark.thorough
def test_timm_beside_the_library_is_an_ordinary_module():
    code = """
import sys, types, harness, harness.api, harness.models.image, timm, open_clip, torchvision
for package in (timm, timm.models, open_clip, torchvision):
    assert type(package) is types.ModuleType
assert {"timm.models.vision_transformer", "open_clip.model"} <= set(sys.modules)
"""
    output_of(code)


def test_a_worker_starts_without_what_it_does_not_use():
    command = [sys.executable, "-X", "importtime", "-m", "harness.launch.worker"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"harness.models.image", "timm.models._registry"} <= imported
    assert not imported & set(HEAVY_MODULES)


def test_a_command_begins_likewise():
    code = """
import sys
from harness.commands import main
for _ in range(2):
    main(["--help"])
print(sum("_PartsFinder" in str(finder) for finder in sys.meta_path))
"""
    assert output_of(code)[-1] == "1"
