"""How fine-tuning is done: the defaults, and what a study varies."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class FineTuneOptions(BaseModel):
    """Settings of `finetune`; the defaults are what users get."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    replay_share: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Weight of the replay pack's crops in the loss; 0: no replay."""
    replay_batch: Annotated[int, Field(ge=1, le=256)] | None = None
    """Crops of the replay pack in a step; None: two of pictures, one of volumes, which cost more time."""
    anchor: Annotated[float, Field(ge=0)] = 1.0
    """Weight of staying near the root's output on the replay pack's crops, beside their labels."""
    root_share: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the root's weights in the result, 0: none; see `xlstm_unet.learn.finetune_steps.mixed`.

    None: by how near the corrections are to what the root knows, see `root_share` there.
    """
    trained: Literal["auto", "all", "decoder", "norms"] = "auto"
    """Which parameters learn; ``auto``: all of a small network, else decoder, norms and head."""
    distillation: Annotated[float, Field(ge=0)] = 0.0
    """Weight of staying near the root's output on untouched voxels; 0: they carry no loss."""
    hold_out: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Share of the corrected objects kept back to judge by, where there are enough of them."""
    judge: bool = True
    """Measure before and after; without it all time goes into steps and the verdict is ``keep``."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    warmup: Annotated[int, Field(ge=0)] = 10
    batch: Annotated[int, Field(ge=1, le=256)] = 3
    """Crops of corrections in a step."""
    crop: Annotated[int, Field(ge=16, le=1024)] | None = None
    """Side of a crop at the model's scale; None: by the model's patch size."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
