from pathlib import Path

import pytest
from detectron2.data.datasets.pascal_voc import load_voc_instances
from PIL import Image

from apdet.data.voc import load_voc, split_ids
from apdet.errors import UserError


def load(voc, **kwargs):
    return load_voc(voc.images, voc.xml, **kwargs)


def boxes(image):
    return [annotation["bbox"] for annotation in image["annotations"]]


def test_pixel_indices_become_coordinates(voc):
    voc.add("a", [("cat", 1, 1, 40, 30), ("cat", 5, 7, 5, 7)])
    (image,) = load(voc)
    # The first covers the whole image of 40 x 30, the second the one pixel (4, 6), 0-based.
    assert boxes(image) == [[0, 0, 40, 30], [4, 6, 5, 7]]
    assert (image["width"], image["height"], image["image_id"]) == (40, 30, "a")
    assert image["file_name"] == str(voc.images / "a.jpg")


def test_a_difficult_box_is_a_crowd_to_detectron2_and_known_as_difficult(voc):
    voc.add("a", [("cat", 1, 1, 9, 9, 1), ("cat", 2, 2, 9, 9, 0), ("cat", 3, 3, 9, 9)])
    (image,) = load(voc)
    assert [a["iscrowd"] for a in image["annotations"]] == [1, 0, 0]
    assert [a["difficult"] for a in image["annotations"]] == [1, 0, 0]


def test_a_clean_folder_is_read_as_by_detectron2(voc):
    voc.add("000005", [("dog", 3, 4, 20, 22, 1), ("cat", 1.5, 2.25, 40, 30)], size=(40, 30))
    voc.add("000007", [("cat", 10, 10, 50, 60)], size=(50, 64)).add("000009")
    voc.split("train", "000009", "000005", "000007")
    names = ["cat", "dog"]
    ours = load(voc, ids=split_ids(voc.root, "train"), class_names=names)
    theirs = load_voc_instances(str(voc.root), "train", names)
    for image in ours:
        for annotation in image["annotations"]:
            del annotation["iscrowd"], annotation["difficult"]
    assert ours == theirs


def test_classes_are_those_that_occur_in_natural_order(voc):
    voc.add("a", [(name, 1, 1, 9, 9) for name in ("10", "b", "2", "a1", "10")])
    (image,) = load(voc)
    assert [a["category_id"] for a in image["annotations"]] == [1, 3, 0, 2, 1]


def test_all_xml_files_of_a_folder_are_read_in_natural_order(voc):
    for image_id in ("10", "9", "x"):
        voc.add(image_id)
    assert [image["image_id"] for image in load(voc)] == ["9", "10", "x"]


def test_images_and_annotations_may_lie_in_one_folder(voc):
    voc.add("a", [("cat", 1, 1, 9, 9)])
    (voc.images / "a.jpg").rename(voc.xml / "a.jpg")
    (image,) = load_voc(voc.xml, voc.xml)
    assert image["file_name"] == str(voc.xml / "a.jpg")
    assert boxes(image) == [[0, 0, 9, 9]]


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".jpeg", ".bmp"])
def test_images_may_have_other_suffixes(voc, suffix):
    (image,) = load(voc.add("a", suffix=suffix))
    assert image["file_name"] == str(voc.images / f"a{suffix}")


def test_an_id_may_hold_dots(voc):
    (image,) = load(voc.add("cell.v1.2"))
    assert image["image_id"] == "cell.v1.2"
    assert Path(image["file_name"]).name == "cell.v1.2.jpg"


def test_a_stale_filename_in_the_xml_is_not_followed(voc):
    voc.add("a").add("b")
    voc.annotate("a", filename="b.jpg")
    assert [Path(image["file_name"]).name for image in load(voc)] == ["a.jpg", "b.jpg"]


def test_the_filename_in_the_xml_decides_where_it_must(voc):
    voc.add("scan7", suffix=".png")
    voc.annotate("a", filename="C:/somewhere/scan7.png")
    by_id = {image["image_id"]: image["file_name"] for image in load(voc)}
    assert by_id == dict.fromkeys(("a", "scan7"), str(voc.images / "scan7.png"))
    voc.add("b").add("b", suffix=".png")
    voc.annotate("b", filename="b.png")
    assert load(voc, ids=["b"])[0]["file_name"] == str(voc.images / "b.png")


def test_of_images_of_one_stem_the_photograph_is_taken(voc):
    for suffix in (".bmp", ".jpg", ".png"):
        voc.add("a", suffix=suffix)
    voc.annotate("a", filename="elsewhere.tif")
    assert load(voc)[0]["file_name"] == str(voc.images / "a.jpg")


def test_xml_without_objects_is_an_image_without_boxes(voc):
    (image,) = load(voc.add("a"))
    assert image["annotations"] == []


def test_splits_may_have_columns_blank_lines_a_bom_and_repetitions(voc):
    voc.split("train", "2007_01 -1", "", "  ", "2007_02\t1 extra", "2007_01")
    assert split_ids(voc.root, "train") == ["2007_01", "2007_02"]
    (voc.splits / "train.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert split_ids(voc.root, "train") == ["a", "b"]


def test_without_any_xml_there_are_no_annotations(voc):
    voc.add("a").add("b", size=(20, 10))
    for path in voc.xml.iterdir():
        path.unlink()
    a, b = load(voc, ids=["a", "b"])
    assert "annotations" not in a
    assert (b["width"], b["height"], b["image_id"]) == (20, 10, "b")
    assert set(a) == {"file_name", "image_id", "width", "height"}


def test_missing_and_empty_splits_are_named(voc):
    voc.split("val", "a").split("train10", "a").split("train2", "a").split("empty", "", " ")
    with pytest.raises(UserError, match=r"test\.txt: no such split .* empty, train2, train10, val"):
        split_ids(voc.root, "test")
    with pytest.raises(UserError, match=r"empty\.txt: the split is empty; write"):
        split_ids(voc.root, "empty")
    (voc.splits / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match=r"latin\.txt: not a text file"):
        split_ids(voc.root, "latin")


def test_missing_folders_and_files_are_named(voc, tmp_path):
    with pytest.raises(UserError, match=r"none: no such folder of images; correct"):
        load_voc(tmp_path / "none", voc.xml)
    with pytest.raises(UserError, match=r"JPEGImages: no image there; put"):
        load(voc)
    voc.add("a")
    for folder in (tmp_path, tmp_path / "none"):  # one without XML, one that is not there
        with pytest.raises(UserError, match=r"no \.xml file there; name the folder"):
            load_voc(voc.images, folder)
    with pytest.raises(UserError, match=r"b\.xml: no such annotation file; add it"):
        load(voc, ids=["a", "b"])
    voc.annotate("b")
    with pytest.raises(UserError, match=r"b\.xml: no such image .*b\.jpg.*; add it"):
        load(voc)
    with pytest.raises(UserError, match=r"c\.jpg: no such image; add it"):
        load(voc, ids=["c"])


def test_a_file_that_is_no_image_is_named(voc):
    voc.add("a")
    (voc.images / "a.jpg").write_text("not an image")
    with pytest.raises(UserError, match=r"a\.jpg: not a readable image .*; replace it"):
        load(voc)


SIZE = "<size><width>40</width><height>30</height></size>"
BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        (f"{SIZE}<object><name>cat</name></object>", "<object> lacks its <bndbox>; add it"),
        (f"<object><name>cat</name>{BOX}</object>", "<annotation> lacks its <size>; add it"),
        (f"{SIZE}<object>{BOX}</object>", "lacks its <name>; write the class"),
        (f"{SIZE}<object><name> </name>{BOX}</object>", "lacks its <name>; write the class"),
        (
            f"{SIZE}<object><name>cat</name>{BOX.replace('<xmax>9', '<xmax>nine')}</object>",
            "<xmax> is 'nine'; write a number",
        ),
        (
            f"{SIZE}<object><name>cat</name>{BOX.replace('<xmax>9', '<xmax>nan')}</object>",
            "<xmax> is 'nan'; write a number",
        ),
        (
            f"{SIZE}<object><name>cat</name>{BOX.replace('<xmax>9</xmax>', '')}</object>",
            "<bndbox> lacks its <xmax>; add it",
        ),
        (SIZE.replace("30", ""), "<height> is None; write a number"),
        (SIZE.replace("30", "inf"), "<height> is 'inf'; write a number"),
        ("<size>", "broken XML .*; correct it"),
    ],
)
def test_malformed_annotations_are_named(voc, inside, message):
    voc.add("a")
    (voc.xml / "a.xml").write_text(f"<annotation>{inside}</annotation>")
    with pytest.raises(UserError, match=rf"a\.xml: .*{message}"):
        load(voc)


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe", b"<?xml version='1.0' encoding='x'?>"])
def test_what_is_no_xml_is_named(voc, content):
    voc.add("a")
    (voc.xml / "a.xml").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.xml: broken XML"):
        load(voc)


def test_an_unknown_class_is_named_with_the_remedy(voc):
    voc.add("a", [("gorilla", 1, 1, 9, 9)])
    with pytest.raises(UserError, match=r"a\.xml: class 'gorilla' .*\['cat'\].*in class_names"):
        load(voc, class_names=["cat"])


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))


@pytest.mark.parametrize(
    "entities",
    [f'<!ENTITY l0 "ha">{LAUGHS}', '<!ENTITY l9 SYSTEM "{secret}">', "<!ELEMENT annotation ANY>"],
)
def test_entities_are_refused_and_not_read(voc, tmp_path, entities):
    secret = tmp_path / "secret.txt"
    secret.write_text("swordfish")
    voc.add("a")
    (voc.xml / "a.xml").write_text(
        f"<!DOCTYPE annotation [{entities.replace('{secret}', secret.as_uri())}]>"
        f"<annotation>{SIZE}<object><name>&l9;</name>{BOX}</object></annotation>"
    )
    with pytest.raises(UserError, match=r"a\.xml: holds a DTD or entities.*; remove") as error:
        load(voc)
    assert "swordfish" not in str(error.value)


def test_annotations_without_an_image_of_a_readable_mode_still_have_a_size(voc):
    voc.add("a", suffix=".png")
    Image.new("L", (40, 30)).save(voc.images / "a.png")
    assert (load(voc)[0]["width"], load(voc)[0]["height"]) == (40, 30)
