"""What YAML would guess or drop in silence is read as it is meant, or refused by name."""

import pytest

from apdet.config import load_config
from apdet.config.yaml_file import read_yaml_file
from apdet.errors import UserError


def read(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return read_yaml_file(path)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("SEED: 1\nVIS_PERIOD: 2\nSEED: 1", "lines 1 and 3: the key SEED"),
        ("SOLVER:\n  GAMMA: 1\n  GAMMA: 2", "lines 2 and 3: the key GAMMA"),
        ("SOLVER: {GAMMA: 1, GAMMA: 2}", "line 1: the key GAMMA"),
        ("SEED: 1\n'SEED': 2", "lines 1 and 2: the key SEED"),
        ("DATASETS:\n  REGISTER:\n  - name: a\n    name: b", "lines 3 and 4: the key name"),
        ("- [{a: 1}, {b: [{c: 1, c: 1}]}]", "line 1: the key c"),
        ("a: {<<: {b: 1, b: 2}}", "line 1: the key b"),
        ("<<: {a: 1}\n<<: {a: 2}", "lines 1 and 2: the key <<"),
    ],
)
def test_a_key_given_twice_is_refused_with_both_lines(tmp_path, text, where):
    with pytest.raises(UserError, match=rf"c\.yaml, {where} is given twice"):
        read(tmp_path, text)


def test_a_key_given_twice_in_a_base_names_the_base(tmp_path):
    (tmp_path / "base.yaml").write_text("SEED: 1\nSEED: 2")
    (tmp_path / "c.yaml").write_text("_BASE_: base.yaml\nSEED: 3")
    with pytest.raises(UserError, match=r"base\.yaml, lines 1 and 2: the key SEED"):
        load_config(tmp_path / "c.yaml")


def test_a_key_may_override_one_of_a_merged_mapping_and_one_of_a_base(tmp_path):
    text = "x: &x {a: 1, b: 2}\ny: {<<: *x, a: 3}\nz: {<<: [*x, {b: 4, c: 5}], c: 6}"
    content = read(tmp_path, text)
    assert content["y"] == {"a": 3, "b": 2}
    assert content["z"] == {"a": 1, "b": 2, "c": 6}
    (tmp_path / "base.yaml").write_text("SEED: 1")
    (tmp_path / "heir.yaml").write_text("_BASE_: base.yaml\nSEED: 2")
    assert load_config(tmp_path / "heir.yaml").SEED == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("1e-3", 1e-3), ("1E3", 1e3), ("[1.5e2, -2e-1]", [150.0, -0.2]), ("1.0e-3", 1e-3)],
        *[("12", 12), ("-3", -3), ("1_000", 1000), ("0x10", 16), ("0", 0), (".5", 0.5)],
        *[("010", "010"), ("1:30", "1:30"), ("[08, 1:2:3]", ["08", "1:2:3"])],
        *[("2012-01-01", "2012-01-01"), ("yes", True), ("off", False), ("~", None), ("1.", 1.0)],
        *[("1e", "1e"), ("e3", "e3"), ("'1e3'", "1e3")],
    ],
)
def test_a_number_is_what_everybody_reads_as_one(tmp_path, text, value):
    found = read(tmp_path, f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


def test_class_names_are_texts_as_they_are_written(tmp_path):
    names = ["no", "on", "010", "1e3", "2012-01-01", "null", "0x10", "1:30", "1.50"]
    text = f"DATASETS: {{REGISTER: [{{name: a, classes: [{', '.join(names)}]}}]}}\n"
    content = read(tmp_path, text + f"MODEL: {{WEIGHTS_CLASSES: [{', '.join(names)}]}}")
    assert content["DATASETS"]["REGISTER"][0]["classes"] == names
    assert content["MODEL"]["WEIGHTS_CLASSES"] == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1: 2", "line 1: the key 1 is not a text; put it in quotes"),
        (b"a: 1\nyes: 2", "line 2: the key yes is not a text"),
        (b"a: &a [*a]", r"line 1: \*a refers to itself"),
        (b"a: " + 3000 * b"[", "nested too deep"),
        (b"a: " + 5000 * b"9", "line 1: .*999.* is no int"),
        ("a: é".encode("latin-1"), "not in UTF-8"),
        ("a: 1".encode("utf-16"), "not in UTF-8"),
        (b"a: [1", "not a safe YAML file: line 1: "),
        (b"a: \x00", "not a safe YAML file: "),
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(tmp_path, content, message):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"c\.yaml.*{message}") as caught:
        read_yaml_file(path)
    assert "\n" not in str(caught.value)


def test_a_base_that_leads_back_to_its_file_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("_BASE_: b.yaml")
    (tmp_path / "b.yaml").write_text("_BASE_: [a.yaml]")
    with pytest.raises(UserError, match=r"a\.yaml: its _BASE_ leads back to the file itself"):
        load_config(tmp_path / "a.yaml")


def test_a_key_that_overrides_one_of_an_alias_leaves_the_others_of_the_alias(tmp_path):
    base = "MODEL: {ROI_BOX_HEAD: &head {POOLER_RESOLUTION: 7}, ROI_MASK_HEAD: *head}"
    (tmp_path / "base.yaml").write_text(base)
    heir = "_BASE_: base.yaml\nMODEL: {ROI_BOX_HEAD: {POOLER_RESOLUTION: 9}}"
    (tmp_path / "heir.yaml").write_text(heir)
    model = load_config(tmp_path / "heir.yaml").MODEL
    assert model.ROI_BOX_HEAD.POOLER_RESOLUTION == 9
    assert model.ROI_MASK_HEAD.POOLER_RESOLUTION == 7


@pytest.mark.parametrize("kind", ["[*{0}, *{0}]", "{{a: *{0}, b: *{0}}}"])
def test_aliases_that_lead_to_billions_of_entries_are_refused_at_once(tmp_path, kind):
    lines = ["x0: &x0 [1, 2]", *(f"x{i}: &x{i} {kind.format(f'x{i - 1}')}" for i in range(1, 60))]
    path = tmp_path / "c.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"c\.yaml, line \d+: aliases lead to more than 1,000,000"):
        read_yaml_file(path)
    path.write_text("\n".join(lines[:12]))
    assert len(read_yaml_file(path)) == 12


@pytest.mark.parametrize("value", ["!!int many", "9" * 5000, "!!float much"])
def test_a_number_that_cannot_be_read_is_named_with_its_line(tmp_path, value):
    path = tmp_path / "c.yaml"
    path.write_text(f"A: 1\nB: {value}\n")
    with pytest.raises(UserError, match=r"c\.yaml, line 2: '.{1,40}' is no (int|float)$"):
        read_yaml_file(path)
