from pathlib import Path

import numpy as np
import pytest

from spine_ray.ship.labels import Judge, read_labels
from spine_ray.ship.stream import Predictions

CLASSES = ("ant", "bee")


def labels_file(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def predicted(names: tuple[str, ...], problems: tuple[str, ...], log_probs: np.ndarray) -> Predictions:
    rows = len(names)
    return Predictions(names, problems, log_probs, np.zeros(rows), np.ones(rows, np.int64))


def test_labels_come_by_the_name_of_the_picture(tmp_path: Path) -> None:
    found = read_labels(labels_file(tmp_path, "label,path\nbee,x.png\nant,y.png\n"), CLASSES)
    assert found.classes == {"x.png": 1, "y.png": 0}
    assert found.groups is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("path,species\nx,ant\n", "needs columns path and label (its columns: path, species)"),
        ("path,label\nx,cow\n", "row 0: 'cow' is none of the classes ant, bee"),
        ("path,label\nx,ant\nx,bee\n", "row 1: 'x' had another label before"),
        ("path,label\nx\n", "1 values for 2 columns"),
        ("", "its columns: none"),
        ("path,label,group\nx,ant,1\ny,bee,1\n", "all pictures are of one group; intervals need at least 2 (without"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_labels(labels_file(tmp_path, text), CLASSES)
    assert told in str(caught.value)


def test_a_judge_takes_labelled_pictures_that_have_a_prediction(tmp_path: Path) -> None:
    labels = read_labels(labels_file(tmp_path, "path,label,group\na,ant,1\nb,bee,1\nc,ant,\nd,bee,\nz,ant,\n"), CLASSES)
    judge = Judge(labels, keeps_rows=True)
    log_probs = np.log([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [np.nan, np.nan], [0.5, 0.5]])
    judge.look(predicted(("a", "b", "d", "c", "unlabelled"), ("", "", "", "damaged", ""), log_probs))
    judged = judge.judged
    assert judged.labels.tolist() == [0, 1, 1]
    assert judged.predicted.tolist() == [0, 1, 0]
    np.testing.assert_allclose(judged.losses, -np.log([0.9, 0.6, 0.3]))
    np.testing.assert_allclose(judged.confidence, [0.9, 0.6, 0.7])
    assert judged.groups.tolist() == [0, 0, 1]
    np.testing.assert_allclose(judge.log_probs, log_probs[:3], rtol=1e-6)


def test_labels_of_other_pictures_are_found_out(tmp_path: Path) -> None:
    judge = Judge(read_labels(labels_file(tmp_path, "path,label\na,ant\n"), CLASSES), keeps_rows=False)
    judge.look(predicted(("b",), ("",), np.log([[0.5, 0.5]])))
    with pytest.raises(ValueError, match=r"0 of the pictures have a label there; .* its path must be"):
        _ = judge.judged


def test_labelled_pictures_that_cannot_be_read_are_not_called_unlabelled(tmp_path: Path) -> None:
    labels = read_labels(labels_file(tmp_path, "path,label\na,ant\nb,bee\n"), CLASSES)
    judge = Judge(labels, keeps_rows=False)
    judge.look(predicted(("a", "b"), ("damaged", "damaged"), np.full((2, 2), np.nan)))
    with pytest.raises(ValueError, match="2 of the pictures have a label there, 2 of these no prediction") as caught:
        _ = judge.judged
    assert "its path must be" not in str(caught.value)


def test_predicted_pictures_of_one_group_have_no_interval(tmp_path: Path) -> None:
    labels = read_labels(labels_file(tmp_path, "path,label,group\na,ant,1\nb,bee,1\nc,ant,2\n"), CLASSES)
    judge = Judge(labels, keeps_rows=False)
    judge.look(predicted(("a", "b"), ("", ""), np.log([[0.9, 0.1], [0.4, 0.6]])))
    with pytest.raises(ValueError, match=r"all 2 pictures .* are of one group; intervals need at least 2"):
        _ = judge.judged
