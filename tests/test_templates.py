import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_kp.errors import DataError, ModelError
from edge_kp.geometry import estimate_similarity, similarity, transform_points
from edge_kp.schema import KeypointSchema
from edge_kp.templates import (
    SHAPE_EXTENT,
    TemplateBank,
    align_shapes,
    align_to_mean,
    build_bank,
    mixture_weights,
    nearest_template,
    reconstruction_error,
)
from edge_kp.templates import __main__ as command
from edge_kp.templates.__main__ import _verdict, main
from edge_kp.templates.picture import draw_bank, draw_mean_shape
from edge_kp.training.datasets import load_dataset

HOUSE = np.array([[-5.0, 4], [5, 4], [-5, -3], [5, -3], [0, -8], [1, 1]])  # the last point is not symmetric
PAIRS = ((0, 1), (2, 3))
SCHEMA = KeypointSchema("house", tuple("abcdef"), (), ((0, 1), (2, 4), (4, 3)), (0, 1))
MIRRORED = KeypointSchema("house", tuple("abcdef"), PAIRS, ((0, 1), (2, 4), (4, 3)), (0, 1))


def houses(count: int, seed: int = 0, noise: float = 0.3, turn: float = 0.2):
    """Houses that differ in one way (the roof) and by noise, anywhere in a frame."""
    rng = np.random.default_rng(seed)
    shapes = np.repeat(HOUSE[None], count, 0)
    shapes[:, 4, 0] += rng.normal(0, 2, count)
    shapes += rng.normal(0, noise, shapes.shape)
    moves = zip(
        rng.normal(0, turn, count), rng.uniform(1, 9, count), rng.uniform(0, 500, (count, 2)), strict=True
    )
    return np.stack([transform_points(similarity(*move), s) for move, s in zip(moves, shapes, strict=True)])


def bank_of(templates, schema=SCHEMA):
    templates = np.asarray(templates, np.float32)
    return TemplateBank(schema, templates, templates.mean(0))


# --- alignment -------------------------------------------------------------------------------------------


def test_copies_of_one_shape_align_exactly():
    rng = np.random.default_rng(0)
    shapes = np.stack(
        [
            transform_points(similarity(a, s, (9, -4)), HOUSE)
            for a, s in zip(rng.uniform(-3, 3, 8), range(1, 9), strict=True)
        ]
    )
    aligned, mean = align_shapes(shapes)
    np.testing.assert_allclose(aligned, np.broadcast_to(mean, aligned.shape), atol=1e-9)


def test_mean_shape_is_centred_and_has_its_extent():
    _, mean = align_shapes(houses(40))
    low, high = mean.min(0), mean.max(0)
    np.testing.assert_allclose((low + high) / 2, 0.5, atol=1e-9)
    assert (high - low).max() == pytest.approx(SHAPE_EXTENT)


def test_mean_shape_keeps_the_average_turn_of_the_data():
    turned = np.stack([transform_points(similarity(a, 3), HOUSE) for a in (0.1, 0.4, 0.7)])
    _, mean = align_shapes(turned)
    edge = mean[1] - mean[0]  # level in HOUSE
    assert np.arctan2(edge[1], edge[0]) == pytest.approx(0.4, abs=1e-6)


def test_each_shape_is_fitted_as_the_closed_form_fits_it():
    shapes = houses(20, noise=0.8)
    shapes[3, 2] = np.nan
    aligned, mean = align_shapes(shapes)
    for shape, found in zip(shapes, aligned, strict=True):
        known = ~np.isnan(shape).any(1)
        matrix = estimate_similarity(shape[known], mean[known])
        np.testing.assert_allclose(found[known], transform_points(matrix, shape[known]), atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.floats(-3, 3), st.floats(0.1, 50), st.tuples(st.floats(-900, 900), st.floats(-900, 900)))
def test_scale_and_place_of_the_data_do_not_matter(angle, scale, shift):
    shapes = houses(15)
    _, mean = align_shapes(shapes)
    _, moved = align_shapes(transform_points(similarity(0, scale, shift), shapes))
    np.testing.assert_allclose(moved, mean, atol=1e-6)
    # A turn of all photos turns the mean; the shape stays the same.
    _, turned = align_shapes(transform_points(similarity(angle, 1), shapes))
    back = estimate_similarity(turned, mean)
    np.testing.assert_allclose(transform_points(back, turned), mean, atol=1e-6)


def test_missing_points_are_filled_in_from_the_other_shapes():
    shapes = houses(200, noise=0.02)
    whole, whole_mean = align_shapes(shapes)
    holes = shapes.copy()
    rng = np.random.default_rng(1)
    gone = np.flatnonzero(rng.random(200) < 0.2)
    holes[gone, 5] = np.nan
    filled, mean = align_shapes(holes)
    assert np.isfinite(filled).all()
    np.testing.assert_allclose(mean, whole_mean, atol=0.005)
    error = np.linalg.norm(filled[gone, 5] - whole[gone, 5], axis=1)
    assert error.max() < 0.02
    # Better than the mean alone: what the other points say has been used.
    assert error.mean() < 0.5 * np.linalg.norm(mean[5] - whole[gone, 5], axis=1).mean()


def test_alignment_refuses_what_it_cannot_align():
    with pytest.raises(ValueError, match="expected shapes"):
        align_shapes(np.zeros((0, 6, 2)))
    shapes = houses(3)
    shapes[1, 1:] = np.nan
    with pytest.raises(ValueError, match="shape 1 has fewer than two"):
        align_shapes(shapes)
    shapes = houses(3)
    shapes[:, 4] = np.nan
    with pytest.raises(ValueError, match=r"points \[4\]"):
        align_shapes(shapes)


# --- building --------------------------------------------------------------------------------------------


def test_bank_finds_the_kinds_in_the_data():
    kinds = np.stack([HOUSE, HOUSE + 6 * np.eye(6, 2, -4), HOUSE * [1, 1.6]])
    rng = np.random.default_rng(0)
    shapes = np.concatenate([kinds[i] + rng.normal(0, 0.05, (n, 6, 2)) for i, n in enumerate((300, 30, 12))])
    bank = build_bank(SCHEMA, shapes, 3, seed=1)
    served = nearest_template(bank, align_to_mean(bank, shapes))
    groups = [set(part.tolist()) for part in np.split(served, [300, 330])]
    assert [len(group) for group in groups] == [1, 1, 1]
    assert len(set.union(*groups)) == 3


def test_a_faulty_label_gets_no_template():
    shapes = houses(150)
    shapes[7] = np.random.default_rng(5).uniform(0, 300, (6, 2))
    bank = build_bank(SCHEMA, shapes, 10)
    aligned = align_to_mean(bank, shapes)
    distance = np.linalg.norm(bank.templates - aligned[7], axis=-1).mean(1)
    usual = np.linalg.norm(bank.templates[nearest_template(bank, aligned)] - aligned, axis=-1).mean(1)
    assert distance.min() > 5 * np.median(usual)


def test_same_seed_same_bank():
    shapes = houses(120)
    assert build_bank(SCHEMA, shapes, 8, 3).digest == build_bank(SCHEMA, shapes, 8, 3).digest
    assert build_bank(SCHEMA, shapes, 8, 3).digest != build_bank(SCHEMA, shapes, 8, 4).digest


def test_flipping_schema_gives_a_symmetric_mean_and_serves_mirrored_shapes():
    shapes = houses(80, turn=0.02)
    shapes[:, 4, 0] += 20  # lopsided data
    bank = build_bank(MIRRORED, shapes, 12)
    mirrored = (bank.mean_shape * [-1, 1] + [1, 0])[MIRRORED.flip_index]
    np.testing.assert_allclose(bank.mean_shape, mirrored, atol=1e-6)
    flipped = (shapes * [-1, 1])[:, MIRRORED.flip_index]
    here, there = (reconstruction_error(bank, s)[0].mean() for s in (shapes, flipped))
    assert there == pytest.approx(here, rel=0.3)
    one_sided = build_bank(SCHEMA, shapes, 12)
    assert reconstruction_error(one_sided, flipped)[0].mean() > 2 * there


def test_templates_are_sorted_along_the_strongest_change():
    shapes = houses(200, noise=0.05)
    roof = build_bank(SCHEMA, shapes, 6).templates[:, 4, 0]
    assert (np.diff(roof) > 0).all() or (np.diff(roof) < 0).all()


def test_one_template_is_the_mean_of_all():
    bank = build_bank(SCHEMA, houses(50), 1)
    # A little smaller than the mean shape, as least squares fits noisy shapes a little too small.
    np.testing.assert_allclose(bank.templates[0], bank.mean_shape, atol=6e-3)


def test_as_many_templates_as_shapes_serve_each_exactly():
    shapes = houses(9)
    bank = build_bank(SCHEMA, shapes, 9)
    assert reconstruction_error(bank, shapes)[0].max() < 0.01


def test_identical_shapes_still_make_a_bank():
    bank = build_bank(SCHEMA, np.repeat(HOUSE[None], 5, 0), 3)
    np.testing.assert_allclose(bank.templates, np.repeat(bank.mean_shape[None], 3, 0), atol=1e-6)


def test_refusals_of_build():
    shapes = houses(5)
    for k in (0, 6):
        with pytest.raises(DataError, match=f"^{k} templates from 5 usable shapes"):
            build_bank(SCHEMA, shapes, k)
    shapes[:3, :4] = np.nan  # fewer than half labelled
    with pytest.raises(DataError, match="3 templates from 2 usable shapes"):
        build_bank(SCHEMA, shapes, 3)
    shapes = houses(5)
    shapes[:, 2] = np.nan
    with pytest.raises(DataError, match="labelled: c;"):
        build_bank(SCHEMA, shapes, 2)
    with pytest.raises(ValueError, match=r"expected \(M, 6, 2\), got \(5, 5, 2\)"):
        build_bank(SCHEMA, houses(5)[:, :5], 2)


# --- mixtures --------------------------------------------------------------------------------------------


def test_mixture_recovers_the_weights_that_made_the_shape():
    rng = np.random.default_rng(0)
    bank = bank_of(rng.uniform(0, 1, (5, 6, 2)))
    weights = rng.dirichlet(np.ones(5), 40)
    aligned = np.einsum("mk,knd->mnd", weights, bank.templates)
    found = mixture_weights(bank, aligned)
    np.testing.assert_allclose(found, weights, atol=2e-3)
    aligned[:, 0] = np.nan  # 10 numbers are left for 5 weights
    np.testing.assert_allclose(mixture_weights(bank, aligned), weights, atol=5e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_mixture_lies_on_the_simplex_and_no_mixture_is_nearer(seed, k):
    rng = np.random.default_rng(seed)
    bank = bank_of(rng.uniform(0, 1, (k, 6, 2)))
    aligned = rng.uniform(-1, 2, (4, 6, 2))
    weights = mixture_weights(bank, aligned)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1)

    def squared(p):
        return ((np.einsum("mk,knd->mnd", p, bank.templates) - aligned) ** 2).sum((1, 2))

    rivals = [np.tile(corner, (4, 1)) for corner in np.eye(k)] + [
        rng.dirichlet(np.ones(k), 4) for _ in range(50)
    ]
    for rival in rivals:
        # Half-way towards a rival must not be better either: the problem is convex.
        assert (squared(weights) <= squared((weights + rival) / 2) + 1e-6).all()


def test_reconstruction_error_of_a_template_is_zero_wherever_it_stands():
    bank = build_bank(SCHEMA, houses(60), 6)
    moved = transform_points(similarity(0.5, 40, (100, 30)), bank.templates)
    single, mixture = reconstruction_error(bank, moved)
    # Templates are means of aligned shapes, so aligning them anew moves them a little.
    assert single.max() < 0.01
    assert mixture.max() < 0.01
    moved[0, 0] = np.nan  # a reference point
    moved[1, 5] = np.nan
    single, _ = reconstruction_error(bank, moved)
    assert np.isnan(single[0])
    assert single[1:].max() < 0.01


def test_more_templates_reconstruct_better_and_mixtures_better_still():
    shapes = houses(300)
    errors = [
        [e.mean() for e in reconstruction_error(build_bank(SCHEMA, shapes, k), shapes)] for k in (2, 8, 32)
    ]
    singles, mixtures = zip(*errors, strict=True)
    assert singles[0] > singles[1] > singles[2]
    assert mixtures[0] > mixtures[1] > mixtures[2]
    assert all(m < s for s, m in errors)


def test_align_to_mean_leaves_hopeless_shapes_out():
    bank = build_bank(SCHEMA, houses(30), 3)
    shapes = houses(2)
    shapes[0, 1:] = np.nan
    aligned = align_to_mean(bank, shapes)
    assert np.isnan(aligned[0]).all()
    expected = transform_points(estimate_similarity(shapes[1], bank.mean_shape), shapes[1])
    np.testing.assert_allclose(aligned[1], expected, atol=1e-9)


# --- the file and the pictures ---------------------------------------------------------------------------


def test_bank_survives_its_file(tmp_path):
    bank = build_bank(MIRRORED, houses(30), 4)
    bank.save(tmp_path / "deep" / "bank.npz")
    read = TemplateBank.load(tmp_path / "deep" / "bank.npz")
    assert read.schema == bank.schema
    assert read.digest == bank.digest
    np.testing.assert_array_equal(read.templates, bank.templates)
    np.testing.assert_array_equal(read.mean_shape, bank.mean_shape)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["bank.npz"]


def test_failed_save_leaves_the_old_bank(tmp_path, monkeypatch):
    path = tmp_path / "bank.npz"
    build_bank(SCHEMA, houses(30), 4).save(path)
    before = path.read_bytes()

    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="no space"):
        build_bank(SCHEMA, houses(30), 5).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def damaged_files(tmp_path):
    bank = build_bank(SCHEMA, houses(30), 4)
    bank.save(tmp_path / "good.npz")
    good = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(good[: len(good) // 2])
    flipped = bytearray(good)
    flipped[good.index(bank.templates.tobytes())] ^= 1
    (tmp_path / "flipped.npz").write_bytes(bytes(flipped))
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("not a bank")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    schema = np.array('{"name": "x"}')
    np.savez(tmp_path / "schema.npz", schema=schema, templates=bank.templates, mean_shape=bank.mean_shape)
    deep = np.array("[" * 200_000)
    np.savez(tmp_path / "deep.npz", schema=deep, templates=bank.templates, mean_shape=bank.mean_shape)
    (tmp_path / "folder.npz").mkdir()
    names = [
        "deep.npz",
        "cut.npz",
        "flipped.npz",
        "empty.npz",
        "text.npz",
        "array.npy",
        "other.npz",
        "schema.npz",
        "folder.npz",
    ]
    return [tmp_path / name for name in [*names, "absent.npz"]]


def test_unusable_files_are_refused_in_one_line(tmp_path):
    for path in damaged_files(tmp_path):
        with pytest.raises(ModelError, match=r"python -m edge_kp\.templates") as refusal:
            TemplateBank.load(path)
        assert str(refusal.value).startswith(str(path))
        assert "\n" not in str(refusal.value)


def test_bank_checks_its_arrays():
    good = np.zeros((3, 6, 2), np.float32)
    with pytest.raises(ValueError, match=r"templates: expected shape \(K, 6, 2\), got \(3, 5, 2\)"):
        TemplateBank(SCHEMA, good[:, :5], good[0])
    with pytest.raises(ValueError, match=r"templates: expected shape"):
        TemplateBank(SCHEMA, good[:0], good[0])
    with pytest.raises(ValueError, match=r"mean_shape: expected shape \(6, 2\), got \(5, 2\)"):
        TemplateBank(SCHEMA, good, good[0, :5])
    with pytest.raises(ValueError, match="templates: expected float32, got float64"):
        TemplateBank(SCHEMA, good.astype(float), good[0])
    with pytest.raises(ValueError, match="mean_shape: expected finite"):
        TemplateBank(SCHEMA, good, good[0] + np.float32(np.nan))


def test_pictures_show_every_template():
    bank = build_bank(SCHEMA, houses(60), 5)
    image = draw_bank(bank, np.full(5, 0.2))
    assert image.dtype == np.uint8
    rows, columns = 2, 3
    height, width = image.shape[0] // rows, image.shape[1] // columns
    inked = [
        (image[r * height : (r + 1) * height, c * width : (c + 1) * width] < 100).any()
        for r in range(rows)
        for c in range(columns)
    ]
    assert inked == [True] * 5 + [False]
    assert draw_mean_shape(bank, 200).shape == (200, 200, 3)
    with pytest.raises(ValueError, match=r"expected shape \(5,\), got \(4,\)"):
        draw_bank(bank, np.full(4, 0.25))


def test_wide_templates_do_not_touch_one_another():
    wide = houses(60) * [4, 1]
    image = draw_bank(build_bank(SCHEMA, wide, 6), np.full(6, 1 / 6))
    width = image.shape[1] // 3
    for border in (width, 2 * width):
        between = image[:140, border - 12 : border + 12]
        assert (between == 255).all()


# --- the command line ------------------------------------------------------------------------------------


def test_command_builds_a_bank_and_its_pictures(tmp_path, capsys):
    out = tmp_path / "new" / "bank.npz"
    assert main(["--data", "synthetic:60", "--k", "6", "--out", str(out)]) == 0
    bank = TemplateBank.load(out)
    assert len(bank) == 6
    assert sorted(p.name for p in out.parent.iterdir()) == ["bank-mean.png", "bank.npz", "bank.png"]
    printed = capsys.readouterr().out
    assert "60 shapes" in printed
    assert "best mixture" in printed
    assert "6 templates are" in printed
    assert bank.digest[:12] in printed


@pytest.mark.parametrize(("spread", "words"), [(2e-5, "enough"), (0.05, "few")])
def test_a_rigid_object_needs_no_more_templates(spread, words):
    """A gain of half a hair is none, however large its share."""
    rng = np.random.default_rng(0)
    schema = KeypointSchema("part", tuple("abcdef"), (), (), (0, 1))
    base = rng.uniform(0.2, 0.8, (6, 2))
    kinds = base + rng.normal(0, spread, (12, 6, 2))
    shapes = kinds[rng.integers(0, 12, 240)]
    told = _verdict(schema, shapes, 12, 0)
    assert told.startswith(f"12 templates are {words}")
    assert ("too few shapes" in _verdict(schema, shapes[:40], 12, 0)) == (words == "few")


def test_command_counts_a_set_as_often_as_training_does(tmp_path, capsys):
    banks = {}
    for name, data in (
        ("once", ["synthetic:30", "synthetic:30,seed=1"]),
        ("thrice", ["synthetic:30", "synthetic:30,seed=1,repeat=3"]),
    ):
        out = tmp_path / f"{name}.npz"
        sets = [word for spec in data for word in ("--data", spec)]
        assert main([*sets, "--k", "4", "--out", str(out)]) == 0
        banks[name] = TemplateBank.load(out)
    assert banks["once"].digest != banks["thrice"].digest
    assert "120 shapes" in capsys.readouterr().out


def test_command_bears_a_point_that_is_seldom_labelled(tmp_path, capsys, monkeypatch):
    """A part of the shapes, on which the verdict is built, may lack it."""
    dataset = load_dataset(["synthetic:60"])
    for i, sample in enumerate(dataset.samples):
        if i != 7:
            sample.keypoints[3] = np.nan
    monkeypatch.setattr(command, "load_dataset", lambda _: dataset)
    for seed in range(6):
        out = tmp_path / f"{seed}.npz"
        assert main(["--data", "synthetic:60", "--k", "6", "--seed", str(seed), "--out", str(out)]) == 0
        assert f"wrote {out}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--k", "61"], "61 templates from 60 usable shapes"),
        (["--out", "bank.txt"], "ends in .npz"),
        (["--data", "nonsense:3"], "unknown kind"),
    ],
)
def test_command_refuses_in_one_line(tmp_path, capsys, change, message):
    arguments = ["--data", "synthetic:60", "--k", "6", "--out", str(tmp_path / "bank.npz"), *change]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_set_that_counts_several_times_gives_no_more_templates(tmp_path, capsys):
    arguments = ["--data", "synthetic:20,repeat=3", "--out", str(tmp_path / "bank.npz")]
    assert main([*arguments, "--k", "21"]) == 1
    assert "21 templates from 20 usable shapes" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
