import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from detectron2.data.datasets.pascal_voc import load_voc_instances
from PIL import Image

from apdet.data.voc import load_voc, read_voc, split_ids
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


@pytest.mark.parametrize(
    "write",
    [
        "{}.jpg",
        "{}.JPG",
        "{}.xml",
        "JPEGImages/{}.jpg",
        "C:\\images\\{}.png",
        "./{}",
        "  {}\t",
        "{}  1",
        "{} -1",
        "{}.jpg 0",
        "JPEGImages/{}.jpg Annotations/{}.xml",
    ],
)
def test_an_id_in_a_split_may_have_a_suffix_folders_and_columns(voc, write):
    names = ["photo", "photo (1)", "photo  (2)", "v1.2"]
    for name in names:
        voc.add(name)
    if len(write.split()) > 1:  # columns are only told from names without spaces
        names = ["photo", "v1.2"]
    voc.split("train", *[write.format(name, name) for name in names])
    assert split_ids(voc.root, "train") == names


@pytest.mark.parametrize("line", ["photo (1)", "photo (1).jpg", "photo copy"])
def test_an_id_with_a_space_is_not_taken_for_that_of_another_image(voc, line):
    voc.add("photo").split("train", line)
    with pytest.raises(UserError, match=rf"{re.escape(line.removesuffix('.jpg'))}\.jpg: no such"):
        load(voc, ids=split_ids(voc.root, "train"))


def test_ids_that_a_split_repeats_are_counted(voc, flaws):
    voc.add("a").add("b").split("train", "a", "b", "a", "a.jpg")
    assert split_ids(voc.root, "train") == ["a", "b"]
    (warning,) = flaws()
    assert "train.txt: 2 image ids are there more than once" in warning


@pytest.mark.parametrize("suffix", [".XML", ".Xml"])
def test_the_suffix_of_annotations_may_have_capital_letters(voc, suffix, flaws):
    voc.add("a", [("cat", 1, 1, 9, 9)]).add("b", [("dog", 2, 2, 9, 9)])
    expected = load(voc)
    (voc.xml / "a.xml").rename(voc.xml / f"a{suffix}")
    assert load(voc) == load(voc, ids=["a", "b"]) == expected
    assert flaws() == []
    voc.annotate("a")
    assert [boxes(image) for image in load(voc)] == [[], [[1, 1, 9, 9]]]
    assert "1 annotation files are not read" in flaws()[0]
    assert f"a{suffix}" in flaws()[0]


def test_images_without_annotation_file_are_counted(voc, flaws):
    voc.add("a", [("cat", 1, 1, 9, 9)]).add("b").add("c", suffix=".webp")
    for name in "bc":
        (voc.xml / f"{name}.xml").unlink()
    (voc.images / "notes.txt").write_text("not an image")
    (voc.images / "d.HEIC").write_text("an image of a telephone")
    (voc.images / "._a.jpg").write_text("what macOS writes beside a file")
    (voc.xml / "._a.xml").write_text("what macOS writes beside a file")
    assert [image["image_id"] for image in load(voc)] == ["a"]
    without_xml, not_read = flaws()
    assert "2 images have no .xml file and are left out" in without_xml
    assert str(voc.images / "b.jpg") in without_xml
    assert "1 images are left out, because files with their suffix are not read" in not_read
    assert str(voc.images / "d.HEIC") in not_read


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width> </width></size>"])
def test_a_size_that_is_not_stated_is_taken_from_the_image(voc, size, flaws):
    voc.add("a", size=(21, 13))
    (voc.xml / "a.xml").write_text(f"<annotation>{size}</annotation>")
    (image,) = load(voc)
    assert (image["width"], image["height"]) == (21, 13)
    assert flaws() == []


@pytest.mark.parametrize(
    ("text", "difficult"),
    [("true", 1), (" 1 ", 1), ("1.0", 1), ("Yes", 1), ("false", 0), ("no", 0), ("Unspecified", 0)],
)
def test_truth_values_are_read_as_they_are_meant(voc, text, difficult):
    voc.add("a", [("cat", 1, 1, 9, 9, text)])
    (annotation,) = load(voc)[0]["annotations"]
    assert annotation["iscrowd"] == annotation["difficult"] == difficult


def test_parts_of_an_object_are_not_objects(voc):
    voc.add("a")
    part = f"<part><name>head</name>{BOX}</part>"
    (voc.xml / "a.xml").write_text(
        f"<annotation>{SIZE}<object>{part}<name>a\n  cat</name>{BOX}</object></annotation>"
    )
    records = read_voc(voc.images, voc.xml)
    assert records.class_names == ["a cat"]
    assert len(records.images[0]["annotations"]) == 1


def test_files_that_cannot_be_read_are_named(voc, monkeypatch):
    voc.add("a").split("train", "a")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    for owner, name, call, message in [
        ("pathlib.Path", "iterdir", lambda: load(voc), "JPEGImages: cannot be read"),
        ("pathlib.Path", "read_text", lambda: split_ids(voc.root, "train"), r"train\.txt: cannot"),
        ("defusedxml.ElementTree", "parse", lambda: load(voc), r"a\.xml: cannot be read"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(f"{owner}.{name}", refuse)
            with pytest.raises(UserError, match=rf"{message}.*Permission denied.*make it readable"):
                call()


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
        (f"<object><name>cat</name>{2 * BOX}</object>", "<object> has more than one <bndbox>"),
        (
            f"<object><name>cat</name><difficult>maybe</difficult>{BOX}</object>",
            "<difficult> is 'maybe'; write 0 or 1",
        ),
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
        (SIZE.replace("30", "30px"), "<height> is '30px'; write a number"),
        (SIZE.replace("30", "inf"), "<height> is 'inf'; write a number"),
        ("<size>", "broken XML .*; correct it"),
        (2 * SIZE, "<annotation> has more than one <size>; write one"),
        (f"<object>{2 * '<name>cat</name>'}{BOX}</object>", "<object> has more than one <name>"),
        (
            f"<object><name>cat</name>{2 * '<difficult>0</difficult>'}{BOX}</object>",
            "<object> has more than one <difficult>",
        ),
        (
            f"<object><name>cat</name>{BOX.replace('<xmax>', '<xmax>8</xmax><xmax>')}</object>",
            "<bndbox> has more than one <xmax>",
        ),
        ("<size><width>1_0</width></size>", "<width> is '1_0'; write a number"),
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


OBJECT = "<object><name>cat</name></object>"


@pytest.mark.parametrize(
    "content",
    [
        "<html><body>404</body></html>",
        '<annotation xmlns="https://example.org">' + OBJECT + "</annotation>",
        f"<annotation><objects>{OBJECT}</objects></annotation>",
        f"<ANNOTATION>{OBJECT.upper()}</ANNOTATION>",
        f"<annotation>{OBJECT}{OBJECT.replace('object', 'Object')}</annotation>",
        f"<annotation>{OBJECT}<objects>{OBJECT.upper()}</objects></annotation>",
        f'<annotation>{OBJECT}<x:object xmlns:x="https://example.org"/></annotation>',
    ],
)
def test_an_object_where_voc_has_none_is_not_overlooked(voc, content):
    voc.add("a")
    (voc.xml / "a.xml").write_text(content)
    with pytest.raises(UserError, match=r"a\.xml: not in VOC's format; write <annotation>"):
        load(voc)


@pytest.mark.parametrize(
    "tag", ["name", "difficult", "bndbox", "xmin", "ymax", "size", "width", "height"]
)
@pytest.mark.parametrize("respell", [str.title, str.upper, "{{https://example.org}}{}".format])
def test_a_tag_in_other_letters_is_not_overlooked(voc, tag, respell):
    voc.add("a", [("cat", 1, 1, 9, 9, 1)])
    tree = ElementTree.parse(voc.xml / "a.xml")
    next(tree.iter(tag)).tag = respell(tag)
    tree.write(voc.xml / "a.xml")
    found = re.escape(respell(tag))
    with pytest.raises(UserError, match=rf"a\.xml: VOC's format has no <{found}>; write <{tag}>"):
        load(voc)


def test_a_pipe_is_not_read(voc):
    voc.add("a").add("b").split("train", "a")
    for path in (voc.xml / "a.xml", voc.splits / "train.txt", voc.images / "b.jpg"):
        path.rename(path.with_suffix(".real"))
        os.mkfifo(path)
        with pytest.raises(UserError, match=f"{path.name}: a named pipe, not a regular file"):
            load(voc, ids=[*split_ids(voc.root, "train"), "b"])
        path.unlink()
        path.symlink_to(path.with_suffix(".real"))
    assert len(load(voc, ids=["a", "b"])) == 2


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
