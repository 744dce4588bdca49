"""Pictures of a taxi fleet show the numbers they should."""

import re

import numpy as np
import pytest
from matplotlib.patches import StepPatch
from PIL import Image

from crowdnash.games.taxi_map import PAPER_MAP, read_map
from crowdnash.reports import taxi as taxi_pictures
from crowdnash.reports.still import draw

# Three taxis over four steps: one goes up, one down, one stays.
POSITIONS = np.array([[18, 18, 18], [7, 18, 18], [4, 10, 18], [4, 10, 18]])


def test_zone_occupancy():
    panels = taxi_pictures.zone_occupancy(POSITIONS, read_map(PAPER_MAP))
    heights = {}
    for patch in draw(panels).axes[0].findobj(StepPatch):
        values, _, baseline = patch.get_data()
        heights[patch.get_label()] = values - baseline
    assert list(heights) == ["zone 2", "start", "zone 1"]  # from the bottom
    np.testing.assert_allclose(heights["zone 1"], [0, 1 / 3, 1 / 3, 1 / 3], atol=1e-12)
    np.testing.assert_allclose(heights["start"], [1, 2 / 3, 1 / 3, 1 / 3], atol=1e-12)
    np.testing.assert_allclose(heights["zone 2"], [0, 0, 1 / 3, 1 / 3], atol=1e-12)


def test_fleet_on_map():
    figure = taxi_pictures.fleet_on_map(POSITIONS, read_map(PAPER_MAP), [0, 3])
    counts = [{t.get_position(): t.get_text() for t in ax.texts if t.get_text() != "S"}
              for ax in figure.axes]  # fmt: skip
    # Column and row: S is (1,3), cell 4 is (1,1), cell 10 is (1,4).
    assert counts == [{(1, 3): "3"}, {(1, 3): "1", (1, 1): "1", (1, 4): "1"}]
    assert [len(ax.patches) for ax in figure.axes] == [21, 21]


def test_animation(tmp_path):
    path = tmp_path / "fleet.gif"
    taxi_pictures.save_animation(path, POSITIONS, read_map(PAPER_MAP), frames_per_second=5)
    with Image.open(path) as image:
        assert image.format == "GIF"
        assert getattr(image, "n_frames", 1) == 4
        assert image.info["duration"] == 200


def test_a_large_fleet_is_thinned(tmp_path, monkeypatch):
    drawn = []
    place = taxi_pictures._place_dots

    def recorded(dots, positions, city):
        place(dots, positions, city)
        drawn.append(dots.get_offsets())

    monkeypatch.setattr(taxi_pictures, "_place_dots", recorded)
    crowd = np.full((2, 2500), 4)
    taxi_pictures.save_animation(tmp_path / "crowd.gif", crowd, read_map(PAPER_MAP))
    assert [len(offsets) for offsets in drawn] == [834, 834]  # every third
    assert (tmp_path / "crowd.gif").stat().st_size > 1000


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda city: taxi_pictures.zone_occupancy(np.array([[0, 1], [2, 19]]), city),
         "positions must be in 0..18: taxi 1 at step 1 is at 19"),
        (lambda city: taxi_pictures.zone_occupancy(np.zeros((0, 3), int), city),
         "positions must have steps and taxis, not shape (0, 3)"),
        (lambda city: taxi_pictures.fleet_on_map(POSITIONS, city, [4]),
         "steps must be some of 0..3, not [4]"),
        (lambda city: taxi_pictures.fleet_on_map(POSITIONS, city, []),
         "steps must be some of 0..3, not []"),
        (lambda city: taxi_pictures.save_animation("x.gif", POSITIONS, city, 0),
         "frames_per_second must be at least 1, not 0"),
    ],
)  # fmt: skip
def test_pictures_of_nothing(call, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        call(read_map(PAPER_MAP))
