"""What is wrong with a COCO keypoints file, told so that it can be mended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any


def short(value: Any) -> str:
    """A number or name that the file gives, fit for a line."""
    return " ".join(str(value)[:80].split())


def missing_field(data: Mapping[str, Any]) -> str | None:
    """Which entry lacks a field that tells what belongs to what, the first of them."""
    shown = [a.get("image_id") for a in data["annotations"] if isinstance(a, dict) and a.get("keypoints")]
    rules: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
        ("images", "id", lambda image: True),
        ("images", "file_name", lambda image: image["id"] in shown),
        ("categories", "id", lambda category: bool(category.get("keypoints"))),
        ("annotations", "category_id", lambda annotation: True),
        ("annotations", "image_id", lambda annotation: bool(annotation.get("keypoints"))),
    )
    for kind, name, is_needed in rules:
        for place, entry in enumerate(data[kind], 1):
            if isinstance(entry, dict) and name not in entry and is_needed(entry):
                return f"number {place} of its {kind} has no {name}; give it one, or export the file again"
    return None


def number_annotations(annotations: Sequence[dict[str, Any]], category: Any) -> str | None:
    """Give the annotations of a category their place in the file, from 1, where not one has an ``id``.

    Returns:
        What is wrong, where some have one: a place might be another's id.
    """
    own = {place: a for place, a in enumerate(annotations, 1) if a["category_id"] == category}
    without = [place for place, a in own.items() if a.get("id") is None]
    if without and len(without) < len(own):
        return f"number {without[0]} of its annotations has no id, others have; give it one of its own"
    for place in without:
        own[place]["id"] = place
    return None


def unlike_images(ids: Collection[Hashable], shown: Collection[Hashable]) -> str | None:
    """What is wrong where an annotation writes an image's id as text, which is a number there, or reverse.

    Args:
        ids: of the images.
        shown: the ``image_id`` of annotations.
    """
    written = {str(number): number for number in ids}
    for number in shown:
        if number not in ids and str(number) in written:
            theirs = short(repr(written[str(number)]))
            return f"its annotations have image_id {short(repr(number))}, the image has id {theirs}; {_ALIKE}"
    return None


def why_none(data: Mapping[str, Any], category: Mapping[str, Any]) -> str:
    """What the annotations have instead of labelled keypoints of the category."""
    number = category["id"]
    others = [a["category_id"] for a in data["annotations"] if a["category_id"] != number]
    if alike := [other for other in others if str(other) == str(number)]:
        told = f"category_id {short(repr(alike[0]))}, the category has id {short(repr(number))}"
        return f": they have {told}; {_ALIKE}"
    own = [a for a in data["annotations"] if a["category_id"] == number]
    if own and not any(a.get("keypoints") for a in own):
        return f": its {len(own)} annotations have none; export keypoints, not boxes"
    labelled = [a for a in own if _labelled_points(a) >= 2]
    if counted := sum(a.get("num_keypoints") == 0 for a in labelled):
        return f": num_keypoints is 0 in {counted} annotations that have labelled points; {_COUNT}"
    if labelled:
        crowd = short(repr(labelled[0].get("iscrowd")))
        return f": {len(labelled)} annotations with labelled points have iscrowd {crowd}; {_SINGLE}"
    return (
        f": in none of its {len(own)} annotations two points are labelled (visibility 1 or 2)" if own else ""
    )


_ALIKE = "write both alike"
_COUNT = "write how many are, or leave it out"
_SINGLE = "write the number 0 for single objects, or leave it out"


def _labelled_points(annotation: Mapping[str, Any]) -> int:
    points = annotation.get("keypoints")
    return sum(flag in (1, 2) for flag in points[2::3]) if isinstance(points, list) else 0
