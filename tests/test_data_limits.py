from dataclasses import fields

import pytest

from spine_ray.climb.words import _space
from spine_ray.data.limits import AuditLimits
from spine_ray.space.keys import AUDIT_KEYS
from spine_ray.space.load import load_space


def test_a_space_file_knows_every_threshold_and_no_other():
    assert tuple(field.name for field in fields(AuditLimits)) == AUDIT_KEYS


def test_what_a_space_says_lies_on_top_of_the_defaults(tmp_path):
    (tmp_path / "s.yaml").write_text("backbone: a\naudit: {near_duplicate: 40, imbalance: 3}\n")
    space = load_space(str(tmp_path / "s.yaml"), sets=["audit.upsampled=0.9"])
    assert AuditLimits.of(space.audit) == AuditLimits(near_duplicate=40, imbalance=3, upsampled=0.9)
    (tmp_path / "again.yaml").write_text(space.text)
    assert load_space(str(tmp_path / "again.yaml")).audit == space.audit


@pytest.mark.parametrize("given", [("audit: {near: 3}", ()), ("", ("audit.near=3",))])
def test_an_unknown_threshold_names_the_allowed_ones(tmp_path, given):
    text, sets = given
    (tmp_path / "s.yaml").write_text(f"backbone: a\n{text}\n")
    with pytest.raises(ValueError, match=r"audit has no key 'near'.*; allowed: unreadable, near_duplicate"):
        load_space(str(tmp_path / "s.yaml"), sets=sets)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"unreadable": 1.5}, "audit.unreadable must lie in 0 to 1, not 1.5"),
        ({"near_duplicate": 3.5}, "audit.near_duplicate must be a whole number of at least 0, not 3.5"),
        ({"near_duplicate": 200}, "audit.near_duplicate must be below 128 bits"),
        ({"near_shift": "far"}, "audit.near_shift must be a number, not 'far'"),
        ({"imbalance": 0.5}, "audit.imbalance must be at least 1, not 0.5"),
        ({"crowd": True}, "audit.crowd must be a number, not True"),
        ({"other": 1}, "audit has no key 'other'; allowed: unreadable"),
    ],
)
def test_a_threshold_outside_its_range_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        AuditLimits.of(given)


def test_a_bad_threshold_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "s.yaml").write_text("backbone: a\n")
    with pytest.raises(ValueError, match=r"s\.yaml: audit\.crowd must lie in 0 to 1, not 7"):
        _space(str(tmp_path / "s.yaml"), ["audit.crowd=7"], False)
