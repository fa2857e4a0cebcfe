import pytest

from harness.config.sweep_files import load_sweep
from harness.errors import ConfigError, SweepError
from harness.models.names import BACKBONES
from harness.registry import Registry


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
