"""What NGFF's metadata say of an image: axes, levels of its pyramid, voxel sizes in mm, place of the first voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segplug.errors import DataError

MILLIMETRES: Mapping[str, float] = {
    "angstrom": 1e-7, "picometer": 1e-9, "nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0, "centimeter": 10.0,
    "decimeter": 100.0, "meter": 1e3, "kilometer": 1e6, "inch": 25.4, "foot": 304.8, "yard": 914.4,
}  # fmt: skip
"""Of each unit of length that NGFF names (UDUNITS-2) and that an image may have."""

SPATIAL = ("z", "y", "x")


@dataclass(frozen=True)
class Multiscale:
    """One level of an image.

    Args:
        version: of NGFF.
        path: of the level's array in the group.
        axes: names in the array's order, out of t, c, z, y, x.
        units: of the spatial axes, by name; without those that have none.
        scale, translation: in those units, per axis of the array.
    """

    version: str
    path: str
    axes: tuple[str, ...]
    units: Mapping[str, str]
    scale: tuple[float, ...]
    translation: tuple[float, ...]

    def millimetres(self, values: Sequence[float]) -> dict[str, float]:
        """The values of the spatial axes, by name; a number without unit is taken for mm."""
        return {
            axis: value * MILLIMETRES[self.units.get(axis, "millimeter")]
            for axis, value in zip(self.axes, values, strict=True)
            if axis in SPATIAL
        }


def read_multiscale(attributes: Mapping[str, Any], level: int, name: str) -> Multiscale:
    """One level from the attributes of a group.

    Raises:
        DataError: there is no multiscale image, no such level, or metadata that are no NGFF 0.4 or 0.5.
    """
    ome = attributes.get("ome", attributes)
    found = ome.get("multiscales") if isinstance(ome, Mapping) else None
    if not found:
        told = "a collection of images (bioformats2raw)" if "bioformats2raw.layout" in (ome or {}) else "no multiscales"
        told = "a plate; each field of its wells is an image" if "plate" in (ome or {}) else told
        raise DataError(
            f"{name}: {told}; expected the group of one OME-Zarr image (NGFF 0.4 or 0.5). Name the image's own group, "
            'such as {"url": "file.ome.zarr/0"} in a file of the case\'s name'
        )
    try:
        multiscale = found[0]
        axes = multiscale["axes"]
        names = tuple(axis["name"] for axis in axes)
        levels = multiscale["datasets"]
        if level >= len(levels):
            raise DataError(
                f"{name}: has no level {level}; expected 0 to {len(levels) - 1}. Correct the level in the file that "
                "points to it"
            )
        if len(set(names)) != len(names) or not {"y", "x"} <= set(names) <= {"t", "c", "z", "y", "x"}:
            raise DataError(f"{name}: the axes {', '.join(names)}; expected y and x, with or without z, c and t")
        units = {axis["name"]: axis["unit"] for axis in axes if axis["name"] in SPATIAL and axis.get("unit")}
        strange = sorted(set(units.values()) - set(MILLIMETRES))
        if strange:
            raise DataError(f"{name}: the unit {', '.join(strange)}; expected one of {', '.join(MILLIMETRES)}")
        scale, translation = (1.0,) * len(names), (0.0,) * len(names)
        # the level's own transformations first, then those that all levels share
        for step in [
            *levels[level]["coordinateTransformations"],
            *multiscale.get("coordinateTransformations", ()),
        ]:
            if step["type"] == "scale":
                factors = _numbers(step["scale"], len(names))
                scale = tuple(s * f for s, f in zip(scale, factors, strict=True))
                translation = tuple(t * f for t, f in zip(translation, factors, strict=True))
            elif step["type"] == "translation":
                shift = _numbers(step["translation"], len(names))
                translation = tuple(t + s for t, s in zip(translation, shift, strict=True))
            elif step["type"] != "identity":
                raise DataError(f"{name}: a transformation {step['type']!r}; expected scale and translation")
        if not all(s > 0 for s, axis in zip(scale, names, strict=True) if axis in SPATIAL):
            raise DataError(f"{name}: the scale {scale} of axes {', '.join(names)}; expected numbers above 0")
        version = str(ome.get("version") or multiscale.get("version") or "0.4")
        return Multiscale(version, str(levels[level]["path"]), names, units, scale, translation)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise DataError(
            f"{name}: metadata 'multiscales' that are not NGFF's ({type(error).__name__}: {error}); expected those of "
            "NGFF 0.4 or 0.5, with axes, datasets and their coordinateTransformations. Convert the image anew"
        ) from None


def _numbers(values: Sequence[float], count: int) -> tuple[float, ...]:
    numbers = tuple(float(v) for v in values)
    if len(numbers) != count or not all(abs(n) < float("inf") for n in numbers):
        raise ValueError(f"{values} for {count} axes")
    return numbers


def multiscales(
    version: str, name: str, axes: Sequence[str], units: Mapping[str, str], levels: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """NGFF's `multiscales`, of one image.

    Args:
        levels: of each its `path`, `scale` and `translation`.
    """
    return {
        **({"version": version} if version == "0.4" else {}),
        "name": name,
        "axes": [{"name": axis, "type": "space", **({"unit": units[axis]} if axis in units else {})} for axis in axes],
        "datasets": [
            {
                "path": level["path"],
                "coordinateTransformations": [
                    {"type": "scale", "scale": list(level["scale"])},
                    {"type": "translation", "translation": list(level["translation"])},
                ],
            }
            for level in levels
        ],
    }
