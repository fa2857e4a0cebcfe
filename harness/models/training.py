"""The two towers together with what is there for training alone.

The modules of the loss's terms look into the towers while they train; evaluation, cost and the
weights that are kept see only the towers, so no objective can cost anything at inference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config import RunConfig
from harness.errors import ConfigError
from harness.models.text import Unpadded
from harness.models.tokens import PatchLayout, patch_layout, stage_maps, with_stages
from harness.models.two_tower import TwoTower, seeded

if TYPE_CHECKING:
    from harness.objectives.terms import BatchInputs


UNPADDED = "train.unpadded"
"""Among what the terms drew, where the tokens of the captions are; no term has a name like it."""


class Pass(NamedTuple):
    """One pass of both towers over some pairs.

    Attributes:
        towers: which made it.
        features: what the image backbone gave before pooling.
        layout: where its patches are; None where no term needs them.
        image: unit-norm embeddings (N, D).
        hidden: (N, L, width) of the text tower before pooling.
        tokens: (N, L) ids.
        stages: maps (N, C, G, G) of the image tower's stages; none where no term needs them.
        own: where the texts' tokens are; None where pads pass through the tower too.
    """

    towers: TwoTower
    features: Tensor
    layout: PatchLayout | None
    image: Tensor
    hidden: Tensor
    tokens: Tensor
    stages: tuple[Tensor, ...] = ()
    own: Unpadded | None = None

    def with_pictures(self, places: Tensor) -> Pass:
        """The same texts, each with the picture of this pass that `places` (M,) has for it."""
        return self._replace(
            features=self.features[places],
            image=self.image[places],
            stages=tuple(one[places] for one in self.stages),
        )


class Outputs(NamedTuple):
    """What some pairs give to the terms of the loss.

    Attributes:
        image, text: unit-norm embeddings (N, D).
        of_terms: name of a term -> what it looks at besides; rows follow the order of the pairs.
    """

    image: Tensor
    text: Tensor
    of_terms: Mapping[str, tuple[Tensor, ...]]

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, in one order."""
        return [self.image, self.text, *(t for made in self.of_terms.values() for t in made)]

    def replaced(self, tensors: Sequence[Tensor]) -> Outputs:
        """The same with others in the place of `tensors`."""
        image, text, *others = tensors
        rest = iter(others)
        of_terms = {
            name: type(made)._make([next(rest) for _ in made])  # type: ignore[attr-defined]
            for name, made in self.of_terms.items()
        }
        return Outputs(image, text, of_terms)


def needs_patches(config: RunConfig) -> bool:
    """Whether a term of the loss looks at the image tower's patches."""
    return any(term.needs_patches for term in config.objective.active.values())


def needs_stages(config: RunConfig) -> bool:
    """Whether a term of the loss looks at the maps of the image tower's stages."""
    return any(term.needs_stages for term in config.objective.active.values())


class TrainingModel(nn.Module):
    """A TwoTower as `model`, and the modules that the objectives of `config` need beside it.

    Each of these modules is initialised from a generator of its own, so that switching a term on
    leaves the towers' initial weights, and the other terms', as they were.

    Attributes:
        whole_batches: whether each pass is of a batch whose loss follows, so that terms may begin
            what it waits for; whoever trains says so.

    Raises:
        ConfigError: a term needs patches and the backbone gives none, or a stage is not there.
    """

    whole_batches = False

    def __init__(self, config: RunConfig, rows: np.ndarray | None) -> None:
        super().__init__()
        self.model = TwoTower(config.model, rows, config.seed)
        self.terms = config.objective.active
        self.layout: PatchLayout | None = None
        if needs_patches(config):
            image = config.model.image
            place = (self.model.image.backbone, image.backbone, image.size)
            self.layout = patch_layout(*place)
            if needs_stages(config):
                self.layout = with_stages(self.layout, *place)
        self._module_names = {name: term.module_name or name for name, term in self.terms.items()}
        for name, term in self.terms.items():
            if hasattr(self, self._module_names[name]):
                raise ConfigError(f"a loss term cannot be called {name!r}: the name is taken")
            with seeded(config.seed, term.drawn_as or name):
                module = term.module(config, self.model, self.layout)
            self.add_module(self._module_names[name], module)

    def term_modules(self) -> dict[str, Any]:
        """Name of a term -> its module, or None."""
        return {name: getattr(self, attribute) for name, attribute in self._module_names.items()}

    def lr_factors(self) -> dict[str, float]:
        """Name of a parameter -> what its learning rate is multiplied by, where that is not 1."""
        return {
            f"{attribute}.{name}": factor
            for term, attribute in self._module_names.items()
            if getattr(self, attribute) is not None
            for name, _ in getattr(self, attribute).named_parameters()
            if (factor := self.terms[term].lr_factor_of(name)) != 1.0
        }

    def training_only(self) -> dict[str, Tensor]:
        """The weights beside the towers: those of `state_dict` that no inference needs."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("model.")}

    def forward(
        self, pixels: Tensor, tokens: Tensor, inputs: Mapping[str, BatchInputs] | None = None
    ) -> Outputs:
        """One pass of each tower, whatever the terms.

        Args:
            pixels: (N, 3, S, S).
            tokens: (N, L) ids.
            inputs: what the terms drew for these pairs, by name, and for `train.unpadded` where the
                tokens are, as UNPADDED; None outside of training.
        """
        seen = self.look(pixels, tokens, (inputs or {}).get(UNPADDED))
        text = F.normalize(self.model.text.pool(seen.hidden, tokens).float(), dim=-1)
        of_terms = {}
        for name, module in self.term_modules().items():
            found = self.terms[name].outputs(seen, module, (inputs or {}).get(name))
            if found is not None:
                of_terms[name] = found
                if self.whole_batches:
                    self.terms[name].begin(found, module)
        return Outputs(seen.image, text, of_terms)

    def look(self, pixels: Tensor, tokens: Tensor, own: Any = None) -> Pass:
        """One pass of each tower, over pictures (N, 3, S, S) and texts (M, L).

        `own` says where the texts' tokens are, for pads to be passed over.
        """
        stages: list[Tensor] = []
        if self.layout is not None and self.layout.stage_channels:
            backbone = self.model.image.backbone
            features, stages = stage_maps(backbone, pixels, self.layout.grid)
        else:
            features = self.model.image.features(pixels)
        image = F.normalize(self.model.image.embed(features).float(), dim=-1)
        words = any(term.needs_words for term in self.terms.values())
        hidden = self.model.text.hidden(tokens, own, words=words)
        return Pass(self.model, features, self.layout, image, hidden, tokens, tuple(stages), own)
