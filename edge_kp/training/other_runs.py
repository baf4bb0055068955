"""What a training takes over from finished runs: keypoints, a stage 1, a teacher."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_kp.errors import ModelError
from edge_kp.files import replacing
from edge_kp.schema import KeypointSchema, differing
from edge_kp.templates import TemplateBank
from edge_kp.training.checkpoints import load_stage
from edge_kp.training.loop import Place
from edge_kp.training.network import StageNet
from edge_kp.training.recipe import Recipe, load_run, wait

STAGE1_FILES = ("templates.npz", "templates.png", "stage1_errors.npz", "stage1/best.pt")


def given_schema(recipe: Recipe) -> KeypointSchema | None:
    """The keypoints of the templates or the run that the training starts from.

    Raises:
        ModelError: that is no run, or not finished so far.
    """
    for run, files in ((recipe.stage1, STAGE1_FILES), (recipe.teacher, STAGE1_FILES[:1])):
        if run:
            Recipe.read(Path(run) / "run.json")  # else it is no run at all
            for name in files:
                if not (path := Path(run) / name).is_file():
                    raise ModelError(f"{path}: no such file; finish that run with python -m edge_kp.train")
            return TemplateBank.load(Path(run) / "templates.npz").schema
    return TemplateBank.load(recipe.templates).schema if recipe.templates else None


def load_teacher(recipe: Recipe, schema: KeypointSchema) -> StageNet | None:
    """Stage 2 of the run that teaches.

    Raises:
        ModelError: that run is not finished, or knows other keypoints.
    """
    if not recipe.teacher:
        return None
    _, bank, _, teacher = load_run(Path(recipe.teacher))
    if differ := ", ".join(differing(bank.schema, schema)):
        raise ModelError(f"--teacher {recipe.teacher}: is not of the keypoints of the data ({differ} differ)")
    return teacher


def check_stage1(recipe: Recipe, schema: KeypointSchema, attributes: tuple[str, ...]) -> None:
    """
    Args:
        schema, attributes: of the training data.

    Raises:
        ModelError: the stage 1 of the run is not the one that the recipe tells of, or tells other attributes
            than stage 2 will.
    """
    run = Path(recipe.stage1)
    other = Recipe.read(run / "run.json")
    pairs = ("sizes", "widths", "readings", "hidden", "trunks", "searches", "fusions")
    for name in (*pairs, "scale", "box_rule"):
        theirs, ours = getattr(other, name), getattr(recipe, name)
        if name in pairs:
            theirs, ours = theirs[0], ours[0]
        if theirs != ours:
            raise ModelError(f"--stage1 {run}: {name} {theirs} there and {ours} here; train with the same")
    bank = TemplateBank.load(run / "templates.npz")
    if differ := ", ".join(differing(bank.schema, schema)):
        told = f"is not of the keypoints of the data ({differ} differ)"
        raise ModelError(f"--stage1 {run}: {told}; train both on the same")
    tells = load_stage(run / "stage1" / "best.pt", bank.templates).config.attributes
    if tells != attributes:
        raise ModelError(
            f"--stage1 {run}: tells {', '.join(tells)}, this data {', '.join(attributes)};"
            " train both stages on data with the same attributes"
        )


def take_stage1(recipe: Recipe, out: Path, place: Place) -> None:
    """Copy bank and stage 1 of another run, and how far that stage was found to be off."""
    if place.first:
        (out / "stage1").mkdir(exist_ok=True)
        for name in STAGE1_FILES:
            with replacing(out / name) as part:
                shutil.copyfile(Path(recipe.stage1) / name, part)
    wait(place)
