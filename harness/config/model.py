"""The `model` section of a configuration: the two towers and the space they share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from harness.config.identity import NOT_IDENTITY, Float, Int, Strict
from harness.config.inheritance import read_inheritance


class ImageTower(Strict):
    """A timm backbone and the pictures it is fed."""

    backbone: str = "resnet18"
    """Any timm model by its architecture name, or one registered by the harness or the sweep.
    Elsewhere: arch, architecture, encoder, image_encoder, vision_model, model_name."""
    size: Annotated[Int, Field(ge=8, le=1024)] = 224
    """Height and width of the input in pixels.
    Elsewhere: image_size, img_size, input_size, image_resolution, crop_size."""
    output_stride: Annotated[Literal[8, 16, 32] | None, Field(json_schema_extra={"born": None})] = (
        None
    )
    """Pixels along the side of one patch of the last map, for convolutional backbones that timm can
    dilate: small pictures keep more patches.  null: the backbone's own (32 for most)."""
    mean: tuple[Float, Float, Float] = (0.48145466, 0.4578275, 0.40821073)
    """Taken from the red, green and blue of a picture in [0, 1]; CLIP's.  Elsewhere: image_mean."""
    std: tuple[Float, Float, Float] = (0.26862954, 0.26130258, 0.27577711)
    """What the red, green and blue are divided by after that; CLIP's.  Elsewhere: image_std."""
    pretrained: Annotated[str | None, Field(json_schema_extra=NOT_IDENTITY)] = None
    """Local file of the backbone's initial weights: safetensors, or a state dict of torch.save.
    The content is identity, the place is not; `mean` and `std` should be those it was made with.
    Elsewhere: weights_file, init_weights, checkpoint, pretrained_image."""
    pretrained_sha256: Annotated[str | None, Field(json_schema_extra={"born": None})] = None
    """SHA-256 of that file; filled in when a sweep is expanded."""


class TextTower(Strict):
    """CLIP's causal text transformer (open_clip's blocks) at any depth and width."""

    layers: Annotated[Int, Field(ge=1, le=48)] = 12
    """Transformer blocks, CLIP's 12.  Elsewhere: depth, n_layers, num_layers, num_hidden_layers,
    text_depth, blocks."""
    width: Annotated[Int, Field(ge=8)] = 512
    """Channels of a token in each block.  Elsewhere: hidden_size, d_model, hidden_dim."""
    heads: Annotated[Int, Field(ge=1)] = 8
    """Attention heads of each block; they divide the width.  Elsewhere: n_heads, num_heads,
    num_attention_heads."""
    context_length: Annotated[Int, Field(ge=4, le=512)] = 77
    """Tokens of a caption, start and end among them; what is longer is cut.  Elsewhere: max_length,
    seq_len, max_tokens, sequence_length, max_position_embeddings."""
    vocabulary: Literal["full", "corpus"] = "full"
    """`full`: the 49,408 rows of CLIP's byte-pair encoding.  `corpus`: only the rows that the
    training captions use, plus one for all others; the same tokens with a smaller table."""
    init: Annotated[str | None, Field(json_schema_extra=NOT_IDENTITY)] = None
    """Blocks of a finished, deeper tower to start from (TinyCLIP): `even of 12` or `first of 12`
    layers of the same run at that depth and without this, `0,4,11 of 12` by hand, or `even of run
    KEY`.  Its embeddings, last norm and projection come too; the image tower and the temperature
    start as ever.  How the choice is worded is not identity; what it comes to is, below."""
    init_parent: Annotated[str | None, Field(json_schema_extra={"born": None})] = None
    """Key of that run; filled in when a sweep is expanded."""
    init_blocks: Annotated[tuple[Int, ...] | None, Field(json_schema_extra={"born": None})] = None
    """Its block for each of this tower's; filled in with it."""

    @field_validator("init")
    @classmethod
    def _one_wording(cls, value: str | None) -> str | None:
        return None if value is None else str(read_inheritance(value))

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TextTower:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        return self

    @model_validator(mode="after")
    def _parent_has_the_blocks(self) -> TextTower:
        if self.init is None and (self.init_parent, self.init_blocks) != (None, None):
            raise ValueError("init_parent and init_blocks are given without init")
        init = None if self.init is None else read_inheritance(self.init)
        if init is not None and init.layers is not None:
            init.blocks(self.layers, init.layers)
        return self


class Model(Strict):
    """The two towers and the space they share."""

    image: ImageTower = ImageTower()
    text: TextTower = TextTower()
    embed_dim: Annotated[Int, Field(ge=2)] = 512
    """Dimension of the space that pictures and texts share.  Elsewhere: projection_dim,
    embedding_dim, output_dim, dim."""
    init_logit_scale: Annotated[Float, Field(gt=0, le=100)] = 1 / 0.07
    """Initial value of exp(logit_scale), the inverse of the temperature.  Elsewhere: temperature,
    logit_scale, init_temperature."""
    max_logit_scale: Annotated[Float, Field(gt=0, le=100)] = 100.0
    """exp(logit_scale) is clamped to [1, this] after each step (CLIP, section 2.5)."""
