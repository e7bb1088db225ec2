from __future__ import annotations

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from support.images.image_sets import assert_looks, looked

from catdog_edge.training.engine.batches import augment as augmenting
from catdog_edge.training.engine.batches.augment import _far_away, augment

SIDE = 48


def ramps(count: int) -> np.ndarray:
    """Pictures whose blue is 4 times the column and whose green is 4 times the row."""
    ramp = np.arange(SIDE, dtype=np.uint8) * 4
    picture = np.full((SIDE, SIDE, 3), 100, np.uint8)
    picture[:, :, 0], picture[:, :, 1] = ramp[None, :], ramp[:, None]
    return np.repeat(picture[None], count, axis=0)


def photographs(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(20, 236, (count, 6, 6, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def slopes(pictures: np.ndarray) -> np.ndarray:
    """`[N,2,2]`: how the source column and row change along a picture's columns and rows."""
    middle = pictures[:, 20:28, 20:28].astype(float) / 4
    along_columns = np.diff(middle, axis=2).mean((1, 2))
    along_rows = np.diff(middle, axis=1).mean((1, 2))
    return np.stack([along_columns[:, :2], along_rows[:, :2]], axis=2)


@pytest.mark.parametrize("policy", ["default", "camera", "classic"])
def test_the_generator_alone_decides(policy: str) -> None:
    pictures = photographs(40)
    before = pictures.copy()
    first = augment(pictures, policy, np.random.default_rng([3, 1, 4]))
    again = augment(pictures, policy, np.random.default_rng([3, 1, 4]))
    other = augment(pictures, policy, np.random.default_rng([3, 1, 5]))
    assert first.shape == pictures.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(pictures, before)
    assert not np.shares_memory(first, pictures)


@pytest.mark.parametrize("policy", ["default", "camera", "classic"])
def test_every_picture_is_changed_in_its_own_way(policy: str) -> None:
    made = augment(ramps(30), policy, np.random.default_rng(0))
    assert len({picture.tobytes() for picture in made}) == 30


@pytest.mark.parametrize("policy", ["default", "camera", "classic"])
def test_as_many_draws_for_a_batch_whatever_comes_of_them(policy: str) -> None:
    one, two = np.random.default_rng(8), np.random.default_rng(8)
    augment(photographs(16), policy, one)
    augment(ramps(16), policy, two)
    assert one.random() == two.random()


def test_classic_turns_mirrors_and_greys_as_often_as_it_says() -> None:
    made = augment(ramps(3000), "classic", np.random.default_rng(1))
    middle = made[:, SIDE // 2, SIDE // 2]
    grey = (made == made[..., :1]).all((1, 2, 3))
    assert grey.mean() == pytest.approx(0.1, abs=0.02)
    maps = slopes(made[~grey])
    mirrored, upside_down = maps[:, 0, 0] < 0, maps[:, 1, 1] < 0
    assert mirrored.mean() == pytest.approx(0.3, abs=0.03)
    assert upside_down.mean() == pytest.approx(0.05, abs=0.015)
    # What is left is a rotation about the centre, even over -45 to 45 degrees.
    maps[mirrored, :, 0] *= -1
    maps[upside_down, :, 1] *= -1
    angle = np.rad2deg(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert np.abs(angle).max() < 46
    assert np.abs(angle).max() > 43
    assert angle.mean() == pytest.approx(0, abs=2)
    assert angle.std() == pytest.approx(90 / 12**0.5, abs=1.5)
    assert np.linalg.det(maps) == pytest.approx(1, abs=0.08)
    assert np.abs(middle[~grey][:, :2].astype(int) - 4 * (SIDE - 1) / 2).max() < 6
    turned = made[~grey][np.abs(angle) > 30]
    assert (turned[:, 0, 0] == 0).all()  # corners that nothing covers are black


def test_default_reframes_and_mirrors_half_of_the_pictures() -> None:
    made = augment(ramps(2000), "default", np.random.default_rng(2))
    # A channel's slope has its sign whatever the light does; grey pictures are left out.
    grey = np.ptp(made.astype(int), axis=3).max((1, 2)) < 40
    maps = slopes(made[~grey])
    flat = np.abs(maps).max((1, 2)) < 0.05  # a rectangle of grey in the middle
    assert flat.mean() < 0.1
    assert (maps[~flat][:, 0, 0] < 0).mean() == pytest.approx(0.5, abs=0.05)
    assert (maps[~flat][:, 1, 1] < 0).mean() < 0.03


def test_default_changes_light_but_keeps_it_near() -> None:
    made = augment(np.full((2000, 16, 16, 3), 128, np.uint8), "default", np.random.default_rng(3))
    levels = made.mean((1, 2, 3))
    assert levels.mean() == pytest.approx(128, abs=3)
    assert 15 < levels.std() < 30
    assert levels.min() > 70
    assert levels.max() < 190
    casts = made.mean((1, 2))
    assert np.ptp(casts, axis=1).max() < 45


def test_default_faults_come_as_often_as_it_says() -> None:
    made = augment(np.full((2000, 24, 24, 3), 128, np.uint8), "default", np.random.default_rng(4))
    rough = made.astype(float).std((1, 2)).max(1)
    noisy = np.abs(np.diff(made.astype(int), axis=2)).max((1, 3)).min(1) > 0
    assert noisy.mean() == pytest.approx(0.1, abs=0.02)
    # A flat picture shows no blur; noise and most rectangles show.
    assert (rough > 0.5).mean() == pytest.approx(0.2, abs=0.03)


def test_camera_has_dark_far_and_blurred_pictures_as_often_as_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flat = np.full((2000, 24, 24, 3), 128, np.uint8)
    made = augment(flat, "camera", np.random.default_rng(4))
    assert (made.mean((1, 2, 3)) < 66).mean() == pytest.approx(0.1, abs=0.02)
    # Far away and out of focus are counted where they happen: framing and light hide them.
    counts = dict.fromkeys(("far", "blurred"), 0)
    blur = cv2.GaussianBlur

    def far_away(picture: np.ndarray, place: np.ndarray) -> np.ndarray:
        counts["far"] += 1
        return _far_away(picture, place)

    def blurred(picture: np.ndarray, size: tuple[int, int], sigma: float, **more: object) -> object:
        counts["blurred"] += size == (0, 0)
        return blur(picture, size, sigma, **more)

    monkeypatch.setattr(augmenting, "_far_away", far_away)
    monkeypatch.setattr(cv2, "GaussianBlur", blurred)
    augment(flat, "camera", np.random.default_rng(5))
    assert counts["far"] / 2000 == pytest.approx(0.125, abs=0.02)
    assert counts["blurred"] / 2000 == pytest.approx(0.1, abs=0.02)
    monkeypatch.undo()
    dot = np.zeros((1, 60, 60, 3), np.uint8)
    dot[:, 15:45, 15:45] = 255
    for place in np.random.default_rng(0).random((200, 5)):
        framed = _far_away(dot[0], place)
        assert framed.shape == dot[0].shape
        side = round(60 * (0.25 + 0.5 * place[0]))
        small = cv2.resize(dot[0], (side, side), interpolation=cv2.INTER_AREA)
        assert cv2.matchTemplate(framed, small, cv2.TM_SQDIFF).min() < 100, "it is there, whole"


def test_rectangles_and_sizes_that_are_not_square() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (12, 20, 33, 3), dtype=np.uint8)
    for policy in ("default", "classic"):
        assert augment(pictures, policy, np.random.default_rng(0)).shape == pictures.shape


def test_none_returns_what_came_in() -> None:
    pictures = photographs(2)
    assert augment(pictures, "none", np.random.default_rng(0)) is pictures


def test_wrong_input_is_named() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="default, camera, classic, none"):
        augment(photographs(1), "strong", generator)
    with pytest.raises(ValueError, match="float64"):
        augment(photographs(1) / 255.0, "default", generator)
    with pytest.raises(ValueError, match=r"\[48, 48, 3\]"):
        augment(photographs(1)[0], "default", generator)


CHANGED = {
    "classic": looked(
        "6e778362687a7f927d8f869666967d3e1b60612f755d8b817087946c38795d31"
        "327069486d6b7f8f7970825e4066972b3f6b7f4b846ca4628d8ba97c5198592c"
        "5a8870327c997b827b70748072936d2342535e467aa4894b6d78996939688026"
        "24596d2ba69d956e6a827154144b6d22327e6b417493797d7d7b95923d756943"
        "4878733059886d676da99d753887743b6c7f72784765646c7e81565943455362"
        "55967b527b6f7592a3898c7c7872592d329858406e8673a793809e88447aae66"
        "425c82607c826b8b809d8f78598360427a6e6e4e8d7c748b948c83615778737d"
        "74797f7f8a817565928e91ae89955daa938592856f709c85918c7c7a7a8f5d75"
    ),
    "default": looked(
        "65675b5766525f4d6e626767676a6e703161436b74666c66829083795b766b63"
        "5e5355604f4e62535c585f52654d6256444e507658857884468d737467815666"
        "7e6bc0898f9da184ad8b6aa4914b85a28c60ab819890a87d63b276998683958f"
        "84858051947f626f8b855f5973685849ad82724a718da48a7ea97c758d957765"
        "7c7a9da2958b9b9299b6ab7a7692a9853c655b6d4f594f627470454e45353c66"
        "406c6fd88181a9c5825f7d9e6cbc8d69bb806bae759b7ea56b9192978aa7aebe"
        "71746f7c5c726e7349839788718a678b5c82628773888e87a68b826868907791"
        "84a2a4999a8e816e8ca5a3bb80a27fb8cda9c6ad8f91d29eb3bbb0a1bbb97498"
    ),
    "camera": looked(
        "1b1a191a17171a1d161e171a1b1c161372567451727664727081867a7978867c"
        "51748d70737f8a5e677f86718e5574899d826f649e97ae72a3759e7d698477a1"
        "47546b6c66647e4f7563467a79485c6f3a816176638058595e7d566954706956"
        "2a3439292f302c302a353b292a373a2d968555898d688590a19b6b887e869388"
        "2620232c32343128303a2d1e233931219f7d91635e6b6a3c575a967e6c5a3c42"
        "a1744e83b7829399a070799a669695788b6790988684828b6c97afb36d7c997e"
        "6b5250696e5d5e5c615667615a69606e9274736297857998bea78978767c9c6d"
        "687a7a64494e6b807e756c6f7c62695b74776887637f5455606a7073643e6e6b"
    ),
}


@pytest.mark.parametrize("policy", CHANGED)
def test_a_seed_changes_pictures_as_ever(policy: str) -> None:
    changed = augment(photographs(16), policy, np.random.default_rng(7))
    assert_looks(changed, CHANGED[policy], most=2)
