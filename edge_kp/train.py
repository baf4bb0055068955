"""``python -m edge_kp.train``: labelled photos → a trained locator and cascade."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from edge_kp.cli import natural, number, positive, program, run_cli
from edge_kp.errors import BackendError, ModelError
from edge_kp.extras import install
from edge_kp.files import absolute
from edge_kp.modeldir import BOX_RULES
from edge_kp.templates import TemplateBank


def make_parser() -> argparse.ArgumentParser:
    # These need no torch, so --help works without it.
    from edge_kp.training.by_count import LEAST_CROPS
    from edge_kp.training.datasets import DATA_HELP
    from edge_kp.training.parts import PARTS

    parser = argparse.ArgumentParser(
        program("train"),
        description="Train stages and locator. The same command again goes on where a killed run stands.",
    )
    data = parser.add_argument_group("data").add_argument
    data("--data", action="append", required=True, metavar="SPEC", help=DATA_HELP)
    data(
        "--empty",
        action="append",
        default=[],
        metavar="DIR",
        help="pictures that show no object at all: what is found there is false; repeatable",
    )
    data(
        "--validation",
        action="append",
        default=[],
        metavar="SPEC",
        help="without it 5 %% is held back, of few photos 8 or a tenth",
    )
    data(
        "--box", choices=BOX_RULES, default="keypoints", help="tight around the keypoints, or the whole image"
    )
    data("--out", type=Path, required=True, help="folder of the run")
    data(
        "--part",
        choices=("all", "stages", "locator"),
        default="all",
        help="what to train (default all; with --box image there is no locator)",
    )
    model = parser.add_argument_group("model").add_argument
    model(
        "--templates",
        default="",
        metavar="FILE.npz",
        help="bank of python -m edge_kp.templates (default: build)",
    )
    model(
        "--stage1",
        default="",
        metavar="RUN",
        help="take bank and stage 1 of a finished run; train stage 2 alone",
    )
    model(
        "--from",
        dest="start",  # not its name: torchrun takes --start for the beginning of an option of its own
        default="",
        metavar="MODEL",
        help="stages go on from a shipped model or model folder: its templates, networks and weights",
    )
    model(
        "--keep",
        type=number(0, 1),
        default=0.0,
        metavar="SHARE",
        help="with --from: at the end take the mean of the weights and of the model's, which count so much:"
        " less is forgotten (default 0; e.g. 0.5)",
    )
    model("--k", type=positive, help="templates in the bank (default 64, or a quarter of fewer photos)")
    model(
        "--sizes",
        type=positive,
        nargs=2,
        metavar=("S1", "S2"),
        help="input sides, pixels (default 96 128, or the model's of --from)",
    )
    model(
        "--widths",
        type=positive,
        nargs=2,
        metavar=("W1", "W2"),
        help="channels at 1/4 scale (default 16 24)",
    )
    model(
        "--readings",
        type=positive,
        nargs=2,
        metavar=("R1", "R2"),
        help="how often features are read at the keypoints to correct them (default 1 2)",
    )
    model(
        "--hidden",
        type=positive,
        nargs=2,
        metavar=("H1", "H2"),
        help="features of a point in a reading (default 32 64)",
    )
    model(
        "--trunks",
        nargs=2,
        metavar=("T1", "T2"),
        help="shipped (default): starts from the shipped face68-free, for any object, and so does the"
        " locator; plain: from nothing; facemesh: from MediaPipe's face net; lite0: from ImageNet, slow,"
        " for a teacher",
    )
    model(
        "--searches",
        type=natural,
        nargs=2,
        metavar=("F1", "F2"),
        help="search every point on a map of its own first, made of so many features (default 0: do not);"
        " for few pictures, e.g. 0 32",
    )
    model(
        "--fusions",
        nargs=2,
        metavar=("F1", "F2"),
        help="what makes the maps of all scales one: plain, a 3x3 convolution (default), or separable, a"
        " seventh of its arithmetic; with --from it may be separable where the model's is plain",
    )
    model(
        "--scale",
        type=number(0.6, 10),
        help="first crop in sides of the box (default 1.6; 1.1 for --box image)",
    )
    model(
        "--without",
        nargs="+",
        choices=PARTS,
        default=(),
        metavar="PART",
        help=f"leave a part of the method out, for comparison: {', '.join(PARTS)}",
    )
    training = parser.add_argument_group("training").add_argument
    model(
        "--locator-size", type=positive, default=320, metavar="S", help="picture side of the locator, pixels"
    )
    model("--locator-width", type=positive, default=32, metavar="W", help="its channels at 1/8 scale")
    training("--locator-epochs", type=positive, default=40, metavar="E", help="of the locator (default 40)")
    training(
        "--locator-pictures",
        type=positive,
        default=4000,
        metavar="N",
        help="pictures an epoch that it is shown at least; few photos give many (default 4000)",
    )
    training(
        "--epochs",
        type=positive,
        nargs=2,
        default=(0, 0),
        metavar=("E1", "E2"),
        help="of both stages (default 40 60, and of fewer than 500 samples an epoch as many as show them"
        f" {LEAST_CROPS[0]} and {LEAST_CROPS[1]} crops)",
    )
    training(
        "--batch",
        type=positive,
        default=0,
        help="samples a step, over all processes (default 64; of fewer than 2048 an epoch 32, than 512: 16)",
    )
    training(
        "--learning-rate",
        type=number(1e-7, 1),
        default=2e-3,
        help="peak of the one-cycle schedule (default 0.002)",
    )
    training("--patience", type=natural, default=0, help="stop a stage after so many epochs without progress")
    training(
        "--turn", type=number(0, 180), default=30.0, help="random turns up to so many degrees (default 30)"
    )
    training(
        "--teacher", default="", metavar="RUN", help="stage 2 learns from what this finished run sees as well"
    )
    training(
        "--cover", type=number(0, 1), default=0.5, help="share of samples with a random cover (default 0.5)"
    )
    training(
        "--bend",
        type=number(0, 0.1),
        default=0.0,
        help="bend samples, by up to this share of a crop's side (default 0; for few pictures: 0.02)",
    )
    training("--seed", type=natural, default=0)
    training(
        "--amp",
        choices=("auto", "on", "off"),
        default="auto",
        help="bfloat16 (default: where hardware has it)",
    )
    training("--workers", type=natural, help="loader processes (default 1; 0 where they cannot share memory)")
    training("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser


def _networks(args: argparse.Namespace) -> dict[str, Any]:
    """Settings of the networks: those given, or those of the model that is started from.

    Raises:
        ModelError: both, and they differ in more than what a start can bridge: sizes, and fusions that become
            separable.
    """
    pairs = ("sizes", "widths", "readings", "hidden", "trunks", "searches", "fusions")
    given = {name: tuple(getattr(args, name)) for name in pairs if getattr(args, name)}
    given |= {name: getattr(args, name) for name in ("k", "templates", "scale") if getattr(args, name)}
    if not args.start:
        banks = {"templates": args.templates, "stage1": args.stage1 and f"{args.stage1}/templates.npz"}
        for name, path in banks.items():
            if args.k and path and Path(path).is_file() and (has := len(TemplateBank.load(path))) != args.k:
                raise ModelError(f"--k, --{name}: that one has {has} templates; leave --k out")
        if args.keep:
            raise ModelError("--keep: of what? it goes with --from, a model to start from")
        return {"box_rule": args.box, "scale": 1.1 if args.box == "image" else 1.6, **given}
    from edge_kp.training.starting import model_settings

    if args.stage1:
        raise ModelError("--from, --stage1: each brings a stage 1; give one of the two")
    settings = model_settings(args.start)
    settings["sizes"] = given.pop("sizes", settings["sizes"])
    fusions = given.pop("fusions", settings["fusions"])
    if any(theirs not in ("plain", ours) for theirs, ours in zip(settings["fusions"], fusions, strict=True)):
        raise ModelError("--from, --fusions: the model's are separable already; leave --fusions out")
    for name, value in given.items():
        if settings.get(name) != value:
            raise ModelError(f"--from, --{name}: the model brings its own; leave --{name} out")
    if settings["box_rule"] != args.box:
        raise ModelError(f"--from {args.start}: was trained with --box {settings['box_rule']}; say so too")
    return settings | {"fusions": fusions}


def _run(args: argparse.Namespace) -> None:
    try:
        import torch

        from edge_kp.training.both_stages import train_cascade
        from edge_kp.training.finder import measure_whole, train_finder
        from edge_kp.training.recipe import Recipe
    except ImportError as error:
        raise BackendError(f"training needs {error.name}: {install('train')}") from error
    from edge_kp.training.place import has_bfloat16, training_place

    cv2.setNumThreads(1)
    workers = args.workers if args.workers is not None else int(multiprocessing.get_start_method() == "fork")
    if "OMP_NUM_THREADS" not in os.environ:
        # A loader without a core of its own holds up every thread at every barrier.
        torch.set_num_threads(max(1, torch.get_num_threads() - workers))
    with training_place(args.device) as place:
        amp = args.amp == "on" or (args.amp == "auto" and has_bfloat16(place.device))
        recipe = Recipe(
            data=tuple(args.data),
            validation=tuple(args.validation),
            empty=tuple(args.empty),
            **_networks(args),
            stage1=args.stage1,
            start=args.start,
            keep=args.keep,
            teacher=args.teacher,
            epochs=tuple(args.epochs),
            locator_size=args.locator_size,
            locator_width=args.locator_width,
            locator_epochs=args.locator_epochs,
            locator_pictures=args.locator_pictures,
            batch=args.batch,
            learning_rate=args.learning_rate,
            patience=args.patience,
            seed=args.seed,
            amp=amp,
            without=tuple(sorted(set(args.without))),
            turn=args.turn,
            cover=args.cover,
            bend=args.bend,
        )
        if place.first:
            threads = f", {torch.get_num_threads()} threads" if place.device.type == "cpu" else ""
            precision = "bfloat16" if amp else "float32"
            print(f"training on {place.device}{threads}, {precision}, {place.world} process(es)")
        if args.part != "locator":
            train_cascade(recipe, args.out, place, workers)
        if args.part == "locator" or (args.part == "all" and args.box != "image"):
            train_finder(recipe, args.out, place, workers)
        if place.first and args.box != "image":
            measure_whole(recipe, args.out, place)
        if place.first:
            print(f"next: python -m edge_kp.export {exported(args.out)}")


def exported(out: Path) -> str:
    """What to say to ``edge_kp.export`` of a run; one that holds a locator alone lends it to another."""
    model = f"--out models/{absolute(out).name}"
    if (out / "stage2" / "best.pt").exists():
        return f"--run {out} {model}"
    return f"--run RUN --locator {out} {model}, where RUN holds the stages (--part stages)"


def main(argv: Sequence[str] | None = None) -> int:
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # spinning threads starve the loader on small machines
    return run_cli(_run, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
