import io
import json
from dataclasses import dataclass

import pytest
from PIL import Image

from spine_ray.data.audit import audit
from spine_ray.data.evidence import Evidence
from spine_ray.data.findings import Audit, Finding
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import inspect_source
from spine_ray.data.rows import Row, Source
from spine_ray.data.samples import Samples


@dataclass
class ListReader:
    contents: list[bytes]

    def read(self, index, path):
        return self.contents[index]


def png(value: int, width: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, 9), value).save(buffer, format="PNG")
    return buffer.getvalue()


def audited(
    contents: list[bytes], names: str = "ab", skipped: tuple[str, ...] = (), **columns
) -> tuple[dict[str, Finding], Samples]:
    """Audit pictures of alternating classes; a column gives one field of the rows."""
    rows = tuple(
        Row(
            path=f"row {index}",
            class_name=names[index % len(names)],
            **{name: values[index] for name, values in columns.items()},
        )
        for index in range(len(contents))
    )
    source = Source(name="x", kind="parquet", rows=rows, reader=ListReader(contents), skipped=skipped)
    inspection = inspect_source(source)
    samples = build_samples(inspection, folds=2)
    return {
        finding.kind: finding for finding in audit(Evidence(inspection=inspection, samples=samples)).findings
    }, samples


def test_sound_data_has_facts_only():
    found, _ = audited([png(index, 5 + index % 4) for index in range(40)], "aab")
    assert {finding.level for finding in found.values()} == {"fact"}
    assert found["balance"].message == "2 classes; smallest b with 13 pictures, largest a with 27"
    assert found["resolution"].message == "short side 5 to 8 px, median 6.5 px"
    assert found["counts"].message == "32 dev pictures in 2 folds, 8 in the test split"


@pytest.mark.parametrize(("num_broken", "level"), [(2, "warning"), (3, "error")])
def test_unreadable_pictures_are_listed_by_problem(num_broken, level):
    contents = [png(index) for index in range(40)]
    contents[:num_broken] = [b"broken"] * num_broken
    found, samples = audited(contents)
    assert found["unreadable"].level == level
    assert found["unreadable"].rows == tuple(f"row {index}" for index in range(num_broken))
    assert found["unreadable"].message.startswith(f"{num_broken} of 40 pictures left out: not a picture")
    assert len(samples.sample_ids) == 40 - num_broken


def test_copies_are_listed_with_their_originals():
    contents = [png(index) for index in range(40)]
    contents[2] = contents[4] = contents[0]
    found, samples = audited(contents)
    original = samples.sample_ids[samples.paths.index("row 0")]
    assert found["duplicates"].message.startswith("2 pictures are exact copies of 1 other;")
    assert set(found["duplicates"].rows) == {original[:16], f"{original[:16]}-1", f"{original[:16]}-2"}
    assert "conflicting_labels" not in found


def test_copies_of_another_class_are_a_warning():
    contents = [png(index) for index in range(40)]
    contents[1] = contents[0]
    found, samples = audited(contents)
    finding = found["conflicting_labels"]
    assert finding.level == "warning"
    assert {samples.paths[samples.sample_ids.index(name)] for name in finding.rows} == {"row 0", "row 1"}
    assert "a, b" in finding.message


def test_copies_across_a_given_split_are_a_leak():
    contents = [png(index) for index in range(40)]
    contents[0] = contents[2]
    found, samples = audited(contents, split=["test"] * 2 + ["dev"] * 38)
    rows = {samples.paths[samples.sample_ids.index(name)] for name in found["test_leak"].rows}
    assert rows == {"row 0", "row 2"}
    assert found["test_leak"].level == "warning"


def test_groups_across_given_folds_are_a_leak():
    folds = [None, None, *(index // 2 % 2 for index in range(2, 40))]
    groups = [None, None, "p", None, "p", *[None] * 35]
    found, samples = audited(
        [png(index) for index in range(40)], split=["test"] * 2 + ["dev"] * 38, fold=folds, group=groups
    )
    rows = {samples.paths[samples.sample_ids.index(name)] for name in found["fold_leak"].rows}
    assert rows == {"row 2", "row 4"}
    assert "test_leak" not in found


def test_class_without_a_test_picture_is_a_warning():
    found, _ = audited([png(index) for index in range(40)], split=["test", *["dev"] * 39])
    assert found["class_not_in_test"].message == "classes without a test picture: b"


def test_files_passed_over_are_listed():
    found, _ = audited([png(index) for index in range(40)], skipped=("a/notes.txt", "loose.png"))
    assert (found["skipped"].level, found["skipped"].rows) == ("fact", ("a/notes.txt",))
    assert (found["outside"].level, found["outside"].rows) == ("warning", ("loose.png",))
    assert found["outside"].message == "1 picture left out, in no class folder (first: loose.png)"


def test_worse_findings_come_first():
    contents = [png(index) for index in range(40)]
    contents[:3] = [b""] * 3
    contents[4] = contents[6]
    found, _ = audited(contents)
    levels = [finding.level for finding in found.values()]
    assert levels == sorted(levels, key=["error", "warning", "fact"].index)
    assert levels[0] == "error"


def test_audit_survives_json():
    findings = (
        Finding(level="warning", kind="duplicates", message="m", rows=("x", "x-1")),
        Finding(level="fact", kind="counts", message="n"),
    )
    before = Audit(findings=findings)
    assert Audit.from_dict(json.loads(json.dumps(before.to_dict()))) == before
    assert before.of("fact") == findings[1:]


def test_unknown_level_is_refused():
    with pytest.raises(ValueError, match="must be one of error, warning, fact, not 'bad'"):
        Finding(level="bad", kind="k", message="m")
