"""How many tokens a picture costs, by its size, as the processor of a model counts them. No pixels are touched here.

Counted ahead, so that a prompt fits its context before it is sent; the server's own count is what is paid.
"""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Patches(_Rule):
    """The picture as it is, cut into squares of one token each (Qwen-VL, GLM-V, Pixtral)."""

    by: Literal["patches"]
    patch_px: Positive
    """Side of the square that becomes one token: patch size × merge."""
    min_px: Positive | None = None
    """Smaller areas are scaled up."""
    max_px: Positive | None = None
    """Larger areas are scaled down."""
    longest_px: Positive | None = None
    """Longer sides are scaled down."""
    round_up: bool = False
    """A begun square counts; else sides are rounded to the nearest."""
    per_row: Count = 0
    """Tokens that end a row of squares."""
    around: Count = 0
    """Tokens that open and close a picture."""

    def tokens(self, width: int, height: int) -> int:
        if self.longest_px and (longest := max(width, height)) > self.longest_px:
            width, height = (max(1, side * self.longest_px // longest) for side in (width, height))
        whole = math.ceil if self.round_up else round
        columns, rows = (max(1, whole(side / self.patch_px)) for side in (width, height))
        area = self.patch_px**2
        if self.max_px and columns * rows * area > self.max_px:
            shrink = math.sqrt(width * height / self.max_px) * self.patch_px
            columns, rows = (max(1, math.floor(side / shrink)) for side in (width, height))
        elif self.min_px and columns * rows * area < self.min_px:
            grow = math.sqrt(self.min_px / (width * height)) / self.patch_px
            columns, rows = (math.ceil(side * grow) for side in (width, height))
        return columns * rows + rows * self.per_row + self.around


class Grid(_Rule):
    """Stretched onto the grid of tiles that is nearest in shape, with the whole picture as one more (InternVL)."""

    by: Literal["grid"]
    tile_px: Positive
    tile_tokens: Positive
    max_tiles: Positive
    around: Count = 0

    def tokens(self, width: int, height: int) -> int:
        shape, area = width / height, width * height
        best, tiles = math.inf, 1
        for columns, rows in sorted(self._grids(), key=lambda g: (g[0] * g[1], g[0])):
            off = abs(shape - columns / rows)
            # Of two grids of one shape the larger is for pictures that would fill half of it.
            if off < best or (off == best and area > 0.5 * self.tile_px**2 * columns * rows):
                best, tiles = off, columns * rows
        return (tiles + (tiles > 1)) * self.tile_tokens + self.around

    def _grids(self) -> set[tuple[int, int]]:
        most = self.max_tiles
        return {(c, r) for c in range(1, most + 1) for r in range(1, most + 1) if c * r <= most}


class Tiles(_Rule):
    """Scaled within bounds, then cut into tiles; those that are begun count (GPT-4o, Gemini)."""

    by: Literal["tiles"]
    tile_px: Positive
    tile_tokens: Positive
    base_tokens: Count = 0
    whole_px: Positive | None = None
    """With no side longer than this it is one tile."""
    longest_px: Positive | None = None
    shortest_px: Positive | None = None
    """Scaled down until the shorter side is no more than this."""

    def tokens(self, width: int, height: int) -> int:
        scale = 1.0
        if self.longest_px:
            scale = min(1.0, self.longest_px / max(width, height))
        if self.shortest_px:
            scale = min(scale, self.shortest_px / min(width, height))
        if self.whole_px and max(width, height) <= self.whole_px:
            return self.base_tokens + self.tile_tokens
        columns, rows = (math.ceil(round(side * scale, 3) / self.tile_px) for side in (width, height))
        return self.base_tokens + columns * rows * self.tile_tokens


RULES: Final[dict[str, type[_Rule]]] = {"patches": Patches, "grid": Grid, "tiles": Tiles}
BySize = Annotated[Patches | Grid | Tiles, Field(discriminator="by")]
