"""Every run of the comparison sees as many crops, whatever the number of photos."""

import pytest

from benchmarks.data_efficiency import CROPS, WAYS, Object, arguments, objects
from edge_kp.errors import DataError
from edge_kp.train import make_parser
from edge_kp.training.datasets import parse_spec


def test_objects_are_named_with_their_data():
    found = objects(["part@coco:a.json@coco:b.json", "face@ibug:a@ibug:b"], ["part"])
    assert found == {
        "part": Object("coco:a.json", "coco:b.json", "image"),
        "face": Object("ibug:a", "ibug:b", "keypoints"),
    }
    for wrong in ("part", "part@coco:a.json", "part@@coco:b.json"):
        with pytest.raises(DataError, match="expected NAME@DATA@TEST"):
            objects([wrong], [])


@pytest.mark.parametrize("count", [25, 50, 100, 150, 762])
@pytest.mark.parametrize(("compare", "way"), [(c, way) for c, ways in WAYS.items() for way in ways])
def test_runs_differ_in_their_photos_alone(count, compare, way):
    args = make_parser().parse_args(
        [*arguments(Object("ibug:a", "ibug:b", "keypoints"), count, WAYS[compare][way], 2), "--out", "run"]
    )
    spec = parse_spec(args.data[0])
    assert (spec.take, spec.seed, args.seed) == (count, 2, 2)
    for epochs, crops in zip(args.epochs, CROPS, strict=True):
        assert 0.95 * count * spec.repeat * epochs == pytest.approx(crops, rel=0.05)  # whole epochs
    assert tuple(args.without) == (("bank",) if way == "without" else ())
    assert args.trunks == (["shipped"] * 2 if way == "from face68-free" else ["plain"] * 2)
    assert args.k < count
