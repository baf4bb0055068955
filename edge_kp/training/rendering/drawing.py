"""A scene as a picture: the painted and lit face, shoulders, glasses, and what a camera adds."""

from __future__ import annotations

import cv2
import numpy as np

from edge_kp.training.rendering.light import lit, random_lights
from edge_kp.training.rendering.look import Look, random_look
from edge_kp.training.rendering.model import FACE, FaceModel
from edge_kp.training.rendering.paint import Texture, paint
from edge_kp.training.rendering.scene import PIVOT, SIZE, Scene
from edge_kp.training.rendering.surface import FINE, Surface, fine_pixels, seen
from edge_kp.training.rendering.worn import frame
from edge_kp.types import Array


def draw(model: FaceModel, scene: Scene, background: Array, rng: np.random.Generator) -> Array:
    """The scene as uint8 BGR (``SIZE``, ``SIZE``, 3), before a background of ``FINE`` times that side."""
    look, lights = random_look(scene.worn, rng), random_lights(rng)
    texture = Texture(rng)
    surface = seen(model, scene, look, lights)
    albedo, gloss = paint(model, surface, look, texture, rng)
    light, shine = lit(surface.normal, surface.shadow, lights)
    face = surface.part == FACE
    exposure = _exposure(float(light[face].mean()) if face.any() else 1.0, look, rng)
    fine = background.copy()
    _draw_shoulders(fine, scene, _levels(look.cloth * light.mean(0) * exposure))
    fine.reshape(-1, 3)[surface.pixel] = _levels((albedo * light + gloss[:, None] * shine) * exposure)
    if scene.worn.glasses is not None:
        _draw_glasses(fine, scene, scene.worn.glasses, surface, rng)
    return _camera(cv2.resize(fine, (SIZE, SIZE), interpolation=cv2.INTER_AREA), rng)


def _exposure(light: float, look: Look, rng: np.random.Generator) -> float:
    """Brightness of the picture under a mean light: cameras brighten dark faces, but not all the way."""
    return rng.uniform(0.55, 1.1) / light * (0.4 / look.skin.mean()) ** 0.25


def _levels(colours: Array) -> Array:
    """Linear colours from 0 to 1, cut off there, as grey levels from 0 to 255."""
    return np.asarray(np.clip(colours, 0, 1) ** (1 / 2.2) * 255)


def _fixed(points: Array) -> Array:
    """Fine pixels (K, 2 or more) as OpenCV's whole numbers (K, 2) of sixteenths (``shift=4``)."""
    return np.round(points[:, :2] * 16).astype(np.int32)


def _draw_shoulders(fine: Array, scene: Scene, colour: Array) -> None:
    """A flat shape under the neck, where the model ends."""
    x = np.linspace(-1, 1, 25)
    slope = np.column_stack([23 * x, -13.5 - 2 * np.abs(x) - 6 * np.abs(x) ** 5, 0 * x - 3])
    outline = np.concatenate([slope, [(25, -60, -3), (-25, -60, -3)]])
    points = fine_pixels(scene.project((outline - PIVOT) @ scene.body.T))
    cv2.fillPoly(fine, [_fixed(points)], colour.tolist(), cv2.LINE_AA, 4)


def _draw_glasses(fine: Array, scene: Scene, rims: Array, surface: Surface, rng: np.random.Generator) -> None:
    """Lenses, rims (2, K, 3), bridge and arms; what the head hides of them stays away."""
    before, depth = fine.copy(), np.full(fine.shape[:2], -np.inf, np.float32)
    colour = (np.full(3, rng.uniform(0, 60)) if rng.random() < 0.7 else rng.uniform(20, 200, 3)).tolist()
    width = max(1, round(FINE * scene.scale * rng.uniform(0.08, 0.4)))
    tint = scene.worn.tint
    lens_colour = (rng.uniform(0, 60, 3) if tint > 0.3 else rng.uniform(120, 255, 3)).tolist()
    for rim in rims:
        points = fine_pixels(scene.project(scene.attached(rim)))
        _draw_lens(fine, depth, points, lens_colour, tint)
        _draw_wire(fine, depth, points, True, colour, width)
    for line in frame(rims):
        _draw_wire(fine, depth, fine_pixels(scene.project(scene.attached(line))), False, colour, width)
    head = np.full(depth.size, -np.inf, np.float32)
    head[surface.pixel] = surface.depth
    behind = depth < head.reshape(depth.shape) - 0.4
    fine[behind] = before[behind]


def _draw_lens(fine: Array, depth: Array, points: Array, colour: list[float], tint: float) -> None:
    """Tint the picture inside an outline (K, 3), and note its depth in cm in ``depth`` (H, W)."""
    outline = [_fixed(points)]
    lens = cv2.fillPoly(fine.copy(), outline, colour, cv2.LINE_AA, 4)
    cv2.addWeighted(lens, tint, fine, 1 - tint, 0, fine)
    cv2.fillPoly(depth, outline, float(points[:, 2].mean()), cv2.LINE_8, 4)


def _draw_wire(
    fine: Array, depth: Array, points: Array, closed: bool, colour: list[float], width: int
) -> None:
    """Draw a line through points (K, 3), and note its depth in cm in ``depth`` (H, W), a little wider."""
    line = _fixed(points)
    cv2.polylines(fine, [line], closed, colour, width, cv2.LINE_AA, 4)
    ends = np.roll(line, -1, axis=0) if closed else np.vstack([line[1:], line[-1:]])
    for a, b, z in zip(line.tolist(), ends.tolist(), points[:, 2].tolist(), strict=True):
        cv2.line(depth, a, b, z, width + 2, cv2.LINE_8, 4)


def _camera(image: Array, rng: np.random.Generator) -> Array:
    """Slight blur, noise and JPEG."""
    blur = rng.uniform(0, 0.9)
    if blur > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    noise = rng.standard_normal(image.shape, np.float32)
    image = image + np.float32(rng.uniform(0, 4)) * noise
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 99))]
    _, data = cv2.imencode(".jpg", np.clip(image, 0, 255).astype(np.uint8), quality)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
