"""Predictions on a cluster: those of this machine, in the same order, whatever node says them."""

import pytest

from spine_ray.data.albums import listed_album
from spine_ray.predict import main
from spine_ray.tune.predicting import AlbumSource, Layout

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize(
    ("nodes", "layout"),
    [
        ([{"CPU": 0.0}, {"CPU": 16.0}, {"CPU": 16.0}], Layout(2, 16, 0)),
        ([{"CPU": 16.0}, {"CPU": 4.0}], Layout(5, 4, 0)),
        ([{"CPU": 16.0}, {"CPU": 8.0, "GPU": 1.0}], Layout(1, 8, 1)),
        ([{"CPU": 32.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 1.0}], Layout(5, 8, 1)),
        ([{"CPU": 2.0, "GPU": 4.0}], Layout(2, 1, 1)),
    ],
)
def test_actors_fill_the_cluster(nodes: list[dict[str, float]], layout: Layout) -> None:
    assert Layout.of(nodes) == layout


def test_a_cluster_without_cores_predicts_nothing() -> None:
    with pytest.raises(ValueError, match="no machine that predicts"):
        Layout.of([{"CPU": 0.0}, {}])


def test_pictures_are_read_in_one_task_and_travel_in_parcels() -> None:
    (task,) = AlbumSource(listed_album([b"x"] * 600)).get_read_tasks(200)
    assert [block.num_rows for block in task()] == [1, 1, 1]


def test_an_address_where_nobody_answers_is_one_line(shipped_study, tmp_path, capfd) -> None:
    words = [str(shipped_study.root), "--images", str(shipped_study.pictures), "--out", str(tmp_path / "x.csv")]
    assert main([*words, "--address", "127.0.0.1:1"]) == 2
    assert "no Ray cluster answers there" in capfd.readouterr().err
    assert not (tmp_path / "x.csv").exists()
