"""A drawn object with exact keypoints: a horned mask that turns, nods, grimaces and gets covered.

Stands in for a labelled data set in demonstrations and tests: it has mirror pairs, shapes that cluster (the
mask looks left, ahead or right), clutter, uneven light and occlusion, and needs no file. Everything follows
from (seed, index); labels are computed without drawing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from edge_kp.geometry import similarity, transform_points
from edge_kp.schema import KeypointSchema
from edge_kp.training.samples import Reading, Sample
from edge_kp.types import Array

SIZE = 160  # side of every image, pixels
MARGIN = 5.0  # least distance of a keypoint from the image's edge, pixels

# name → (x right, y down, z towards the viewer) of the mask at rest
_POINTS: dict[str, tuple[float, float, float]] = {
    "left_horn": (-0.72, -1.25, -0.25),
    "right_horn": (0.72, -1.25, -0.25),
    "left_temple": (-0.92, -0.45, -0.35),
    "right_temple": (0.92, -0.45, -0.35),
    "left_eye": (-0.40, -0.20, 0.20),
    "right_eye": (0.40, -0.20, 0.20),
    "nose": (0.0, 0.15, 0.60),
    "left_cheek": (-0.78, 0.45, -0.15),
    "right_cheek": (0.78, 0.45, -0.15),
    "left_mouth": (-0.34, 0.58, 0.20),
    "right_mouth": (0.34, 0.58, 0.20),
    "chin": (0.0, 1.05, 0.10),
}
_REST = np.array(list(_POINTS.values()))
_I = {name: i for i, name in enumerate(_POINTS)}


def _pair(a: str, b: str) -> tuple[int, int]:
    return _I[a], _I[b]


SYNTHETIC = KeypointSchema(
    name="mask12",
    keypoints=tuple(_POINTS),
    flip_pairs=tuple(_pair(f"left_{p}", f"right_{p}") for p in ("horn", "temple", "eye", "cheek", "mouth")),
    edges=(
        *(_pair(f"{s}_horn", f"{s}_temple") for s in ("left", "right")),
        *(_pair(f"{s}_temple", f"{s}_cheek") for s in ("left", "right")),
        *(_pair(f"{s}_cheek", "chin") for s in ("left", "right")),
        *(_pair(f"{s}_eye", "nose") for s in ("left", "right")),
        _pair("left_mouth", "right_mouth"),
    ),
    reference=_pair("left_temple", "right_temple"),
)


@dataclass(frozen=True, eq=False)
class Scene:
    """What is to be drawn.

    Attributes:
        keypoints: (12, 2) float64, pixels.
        unit: pixels per unit of the mask's own coordinates.
        cover: (5,) centre x, y, half axes a, b in pixels and angle in radians of the ellipse drawn over the
            mask; None where nothing covers it.
    """

    seed: int
    index: int
    keypoints: Array
    unit: float
    cover: Array | None

    @property
    def visible(self) -> Array:
        """(12,) float32: 0 where the covering ellipse lies over the point, else 1."""
        if self.cover is None:
            return np.ones(len(self.keypoints), np.float32)
        x, y, a, b, angle = self.cover
        back = similarity(-float(angle), 1.0)
        offset = transform_points(back, self.keypoints - (x, y)) / (a, b)
        return ((offset**2).sum(1) > 1).astype(np.float32)


def make_scene(seed: int, index: int) -> Scene:
    """Draw lots for the mask's shape, turn, place and cover."""
    rng = np.random.default_rng([seed, index])
    p = _REST.copy()
    side = np.sign(p[:, 0])
    # Non-rigid modes: breadth, length of the jaw, horns that spread and grow, eyes, and mouth.
    p[:, 0] *= rng.uniform(0.88, 1.12)
    p[_I["chin"], 1] += rng.uniform(-0.15, 0.2)
    horns = [_I["left_horn"], _I["right_horn"]]
    p[horns, 0] += side[horns] * rng.uniform(-0.3, 0.3)
    p[horns, 1] += rng.uniform(-0.2, 0.3)
    eyes = [_I["left_eye"], _I["right_eye"]]
    p[eyes, 0] += side[eyes] * rng.uniform(-0.06, 0.08)
    p[eyes, 1] += rng.uniform(-0.08, 0.08)
    mouth = [_I["left_mouth"], _I["right_mouth"]]
    p[mouth, 0] += side[mouth] * rng.uniform(-0.12, 0.1)
    p[mouth, 1] += rng.uniform(-0.1, 0.12) + side[mouth] * rng.uniform(-0.06, 0.06)
    # The mask mostly looks left, ahead or right, so that its shapes form clusters.
    yaw = np.deg2rad(rng.choice([-38.0, 0.0, 38.0]) + rng.normal(0, 7))
    pitch = np.deg2rad(rng.normal(0, 8))
    x = p[:, 0] * np.cos(yaw) + p[:, 2] * np.sin(yaw)
    z = p[:, 2] * np.cos(yaw) - p[:, 0] * np.sin(yaw)
    y = p[:, 1] * np.cos(pitch) + z * np.sin(pitch)
    unit = float(rng.uniform(26, 42))
    keypoints = transform_points(similarity(np.deg2rad(rng.uniform(-40, 40)), unit), np.column_stack([x, y]))
    low, high = keypoints.min(0), keypoints.max(0)
    keypoints += rng.uniform(MARGIN - low, SIZE - 1 - MARGIN - high)
    cover = None
    if rng.random() < 0.35:
        centre = rng.uniform(keypoints.min(0), keypoints.max(0))
        axes = rng.uniform(0.3, 0.75, 2) * unit
        cover = np.array([*centre, *axes, rng.uniform(0, np.pi)])
    return Scene(seed, index, keypoints, unit, cover)


def draw(scene: Scene) -> Array:
    """The scene as uint8 BGR (160, 160, 3)."""
    rng = np.random.default_rng([scene.seed, scene.index, 1])
    image = _background(rng)
    _draw_mask(image, scene.keypoints, scene.unit, rng)
    colour = _colour(rng)  # drawn in any case, so that light and noise do not depend on the cover
    if scene.cover is not None:
        _draw_cover(image, scene.cover, colour)
    return _light(image, rng)


def render(seed: int, index: int) -> Array:
    """The image of sample ``index``, uint8 BGR (160, 160, 3)."""
    return draw(make_scene(seed, index))


def read_synthetic(count: int, seed: int = 0) -> Reading:
    """``count`` samples, each drawn anew whenever it is loaded."""
    samples = []
    for index in range(count):
        scene = make_scene(seed, index)
        visible = scene.visible
        samples.append(
            Sample(
                key=f"synthetic/seed{seed}/{index}",
                keypoints=scene.keypoints.astype(np.float32),
                visible=visible,
                attributes={"occlusion": float((visible == 0).any())},
                load=partial(render, seed, index),
                image_size=(SIZE, SIZE),
            )
        )
    return Reading(f"synthetic:{count}" + (f",seed={seed}" if seed else ""), SYNTHETIC, tuple(samples))


# ---- drawing --------------------------------------------------------------------------------------


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(20, 236, 3))


def _fixed(points: Array) -> Array:
    """Pixels as OpenCV's fixed-point coordinates with 4 fractional bits."""
    return np.round(np.asarray(points) * 16).astype(np.int32)


def _fill(image: Array, points: Array, colour: tuple[int, ...]) -> None:
    cv2.fillPoly(image, [_fixed(points)], colour, cv2.LINE_AA, 4)


def _disc(image: Array, centre: Array, radius: float, colour: tuple[int, ...]) -> None:
    x, y = (int(v) for v in _fixed(centre))
    cv2.circle(image, (x, y), max(int(radius * 16), 8), colour, -1, cv2.LINE_AA, 4)


def _background(rng: np.random.Generator) -> Array:
    """Blotches between two colours, with some lines, discs and boxes as clutter."""
    ends = np.array([_colour(rng), _colour(rng)], np.float32)
    cells = int(rng.integers(2, 9))
    blend = rng.random((cells, cells, 1), dtype=np.float32)
    blotches = (ends[0] * blend + ends[1] * (1 - blend)).astype(np.uint8)
    image = cv2.resize(blotches, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(0, 7))):
        corners = rng.integers(0, SIZE, (2, 2))
        (x0, y0), (x1, y1) = ((int(x), int(y)) for x, y in corners)
        kind, colour, size = int(rng.integers(3)), _colour(rng), int(rng.integers(2, 14))
        if kind == 0:
            cv2.line(image, (x0, y0), (x1, y1), colour, max(size // 3, 1), cv2.LINE_AA)
        elif kind == 1:
            cv2.circle(image, (x0, y0), size, colour, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(image, (x0, y0), (x0 + 2 * size, y0 + size), colour, -1)
    return np.asarray(image)


def _draw_mask(image: Array, points: Array, unit: float, rng: np.random.Generator) -> None:
    around = image.reshape(-1, 3).mean(0)
    skin = _contrasting(rng, around)
    horn, eye, paint = (_contrasting(rng, np.array(skin)) for _ in range(3))
    at = {name: points[i] for name, i in _I.items()}
    brow = (at["left_temple"] + at["right_temple"]) / 2 + (at["left_eye"] + at["right_eye"]) / 2 - at["nose"]
    for s in ("left", "right"):
        temple, tip = at[f"{s}_temple"], at[f"{s}_horn"]
        _fill(image, np.array([temple, tip, 0.65 * brow + 0.35 * temple]), horn)
        _disc(image, tip, 0.09 * unit, horn)
    outline = ("right_temple", "right_cheek", "chin", "left_cheek", "left_temple")
    _fill(image, np.array([brow, *(at[name] for name in outline)]), skin)
    for s in ("left", "right"):
        _disc(image, at[f"{s}_eye"], 0.17 * unit, (240, 240, 240))
        _disc(image, at[f"{s}_eye"], 0.09 * unit, eye)
    _fill(
        image,
        np.array([0.6 * at["nose"] + 0.4 * brow, at["nose"], 0.8 * at["nose"] + 0.2 * at["chin"]]),
        paint,
    )
    _disc(image, at["nose"], 0.11 * unit, paint)
    # The mouth sags or smiles between its corners.
    middle = (at["left_mouth"] + at["right_mouth"]) / 2 + rng.uniform(-0.3, 0.5) * (
        at["chin"] - at["nose"]
    ) / 2
    t = np.linspace(0, 1, 9)[:, None]
    curve = (1 - t) ** 2 * at["left_mouth"] + 2 * t * (1 - t) * middle + t**2 * at["right_mouth"]
    cv2.polylines(image, [_fixed(curve)], False, paint, max(round(0.09 * unit), 1), cv2.LINE_AA, 4)


def _contrasting(rng: np.random.Generator, other: Array) -> tuple[int, ...]:
    """A random colour well away from ``other``."""
    colour = _colour(rng)
    for _ in range(20):
        if np.linalg.norm(np.array(colour) - other) > 90:
            break
        colour = _colour(rng)
    return colour


def _draw_cover(image: Array, cover: Array, colour: tuple[int, ...]) -> None:
    x, y, a, b, angle = (float(v) for v in cover)
    t = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    ring = np.column_stack([a * np.cos(t), b * np.sin(t)])
    _fill(image, transform_points(similarity(angle, 1.0, (x, y)), ring), colour)


def _light(image: Array, rng: np.random.Generator) -> Array:
    """Uneven light over the whole image, then blur and sensor noise."""
    x, y = np.meshgrid(*[np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)] * 2)
    direction, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.7)
    gain = rng.uniform(0.65, 1.1) + strength * (np.cos(direction) * x + np.sin(direction) * y)
    lit = np.clip(image * gain[..., None].astype(np.float32), 0, 255)
    if rng.random() < 0.4:
        lit = cv2.GaussianBlur(lit, (0, 0), float(rng.uniform(0.4, 1.3)))
    noise = np.frombuffer(rng.bytes(lit.size), np.int8).reshape(lit.shape)
    lit = lit + noise * np.float32(rng.uniform(0, 0.12))
    return np.asarray(np.clip(lit, 0, 255).astype(np.uint8))
