"""What makes faces harder does what it says, by how much it says."""

import numpy as np
import pytest

from benchmarks.weaknesses import covered, dark, small, smeared

KEYPOINTS = np.zeros((68, 2), np.float32)
KEYPOINTS[:] = np.random.default_rng(0).uniform((60, 50), (140, 150), (68, 2))
KEYPOINTS[36], KEYPOINTS[45] = (70, 90), (130, 90)  # eyes 60 px apart
KEYPOINTS[0], KEYPOINTS[1] = (60, 50), (140, 150)


def picture():
    rng = np.random.default_rng(1)
    return rng.integers(60, 180, (200, 200, 3)).astype(np.uint8)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.65])
def test_a_cover_hides_its_share_of_the_box_and_nothing_else(share):
    image = picture()
    out = covered(image, KEYPOINTS, share, np.random.default_rng(2))
    changed = (out != image).any(2)
    assert changed.sum() == pytest.approx(share * 80 * 100, abs=160 + 0.02 * 8000)
    changed[50:151, 60:141] = False
    assert not changed.any()


def test_less_light_is_more_noise_at_the_same_brightness():
    image = np.full((200, 200, 3), 120, np.uint8)
    out = [dark(image, KEYPOINTS, light, np.random.default_rng(3)) for light in (1.0, 0.1, 0.02)]
    for picture, light in zip(out, (1.0, 0.1, 0.02), strict=True):
        assert picture.mean() == pytest.approx(120, abs=2)
        # Poisson: the standard deviation in grey levels is the root of level / electrons a level.
        assert picture.std() == pytest.approx((120 / (8 * light)) ** 0.5, rel=0.1)


def test_a_small_face_keeps_its_place_and_loses_its_detail():
    image = np.full((200, 200, 3), 40, np.uint8)
    image[80:120, 90:130] = 200
    out = small(image, KEYPOINTS, 6.0, np.random.default_rng(4))
    assert out.shape == image.shape
    rows, columns = np.nonzero(out[..., 0] > 120)
    assert (rows.mean(), columns.mean()) == pytest.approx((99.5, 109.5), abs=4)
    fine = small(picture(), KEYPOINTS, 6.0, np.random.default_rng(4))
    assert (
        np.abs(np.diff(fine.astype(float), axis=1)).mean()
        < 0.2 * np.abs(np.diff(picture().astype(float), axis=1)).mean()
    )


def test_a_smear_spreads_a_point_over_its_length():
    image = np.zeros((200, 200, 3), np.uint8)
    image[100, 100] = 255
    for length in (0.2, 0.5):
        out = smeared(image, KEYPOINTS, length, np.random.default_rng(5))[..., 0]
        rows, columns = np.nonzero(out)
        extent = np.hypot(np.ptp(rows), np.ptp(columns))
        assert extent == pytest.approx(60 * length, abs=4)
    np.testing.assert_array_equal(smeared(image, KEYPOINTS, 0.0, np.random.default_rng(5)), image)
