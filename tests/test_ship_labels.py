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
    ],
)
def test_labels_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_labels(labels_file(tmp_path, text), CLASSES)
    assert told in str(caught.value)


def test_a_judge_takes_labelled_pictures_that_have_a_prediction(tmp_path: Path) -> None:
    labels = read_labels(labels_file(tmp_path, "path,label,group\na,ant,1\nb,bee,1\nc,ant,\nz,ant,\n"), CLASSES)
    judge = Judge(labels, keeps_rows=True)
    log_probs = np.log([[0.9, 0.1], [0.4, 0.6], [np.nan, np.nan], [0.5, 0.5]])
    names, problems = ("a", "b", "c", "unlabelled"), ("", "", "damaged", "")
    judge.look(Predictions(names, problems, log_probs, np.zeros(4), np.ones(4, np.int64)))
    judged = judge.judged
    assert judged.labels.tolist() == [0, 1]
    assert judged.predicted.tolist() == [0, 1]
    np.testing.assert_allclose(judged.losses, -np.log([0.9, 0.6]))
    np.testing.assert_allclose(judged.confidence, [0.9, 0.6])
    assert judged.groups.tolist() == [0, 0]
    np.testing.assert_allclose(judge.log_probs, log_probs[:2], rtol=1e-6)


def test_labels_of_other_pictures_are_found_out(tmp_path: Path) -> None:
    judge = Judge(read_labels(labels_file(tmp_path, "path,label\na,ant\n"), CLASSES), keeps_rows=False)
    judge.look(Predictions(("b",), ("",), np.log([[0.5, 0.5]]), np.zeros(1), np.ones(1, np.int64)))
    with pytest.raises(ValueError, match="0 of the pictures have a label there"):
        _ = judge.judged
