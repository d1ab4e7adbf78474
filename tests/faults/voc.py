"""Faults in annotations in PASCAL VOC's format."""

import re
from collections.abc import Callable
from functools import partial

from faults.fault import Fault
from faults.pictures import draw_pictures, write_split
from faults.row import Row as AnyRow
from faults.row import as_flawless, rarely, refused, works
from faults.setup import Setup

Row = partial(AnyRow, layout="voc")


def edit(pattern: str, replacement: str, *, first: int | None = None) -> Fault:
    """Replace a regular expression in the first XML files, or in all."""

    def fault(setup: Setup) -> None:
        for path in sorted((setup.folder / "Annotations").iterdir())[:first]:
            text, count = re.subn(pattern, replacement, path.read_text())
            if not count:
                raise ValueError(f"{path} does not hold {pattern}")
            path.write_text(text)

    return fault


def split(line: Callable[[str], str]) -> Fault:
    """Write the lines of the split otherwise."""
    stems = [picture.stem for picture in draw_pictures()]
    return lambda setup: write_split(setup.folder, [line(stem) for stem in stems])


def rename(*names: str) -> Fault:
    """Give the pictures other names."""

    def fault(setup: Setup) -> None:
        for number, name in enumerate(names):
            for folder, suffix in (("JPEGImages", "png"), ("Annotations", "xml")):
                old = setup.folder / folder / f"im{number}.{suffix}"
                old.rename(old.with_name(f"{name}.{suffix}"))
        edit("<filename>.*</filename>", "")(setup)
        write_split(setup.folder, list(names))

    return fault


def rename_xml(suffix: str, *, whole_folder: bool = False) -> Fault:
    """Give two of the XML files another suffix."""

    def fault(setup: Setup) -> None:
        for number in (0, 2):
            path = setup.folder / "Annotations" / f"im{number}.xml"
            path.rename(path.with_suffix(suffix))
        if whole_folder:
            use_folders(setup)

    return fault


def use_folders(setup: Setup) -> None:
    """Take all XML files of a folder, not those of a split."""
    for entry in setup.config["DATASETS"]["REGISTER"]:
        del entry["root"], entry["split"]
        entry.update(images="JPEGImages", annotations="Annotations")


def lose_an_xml(setup: Setup) -> None:
    use_folders(setup)
    (setup.folder / "Annotations" / "im1.xml").unlink()


swapped = edit(
    r"<xmin>(.*?)</xmin><ymin>(.*?)</ymin><xmax>(.*?)</xmax><ymax>(.*?)</ymax>",
    r"<xmin>\3</xmin><ymin>\4</ymin><xmax>\1</xmax><ymax>\2</ymax>",
    first=2,
)
swapped_x = edit(r"<xmin>(.*?)</xmin>(.*?)<xmax>(.*?)</xmax>", r"<xmin>\3</xmin>\2<xmax>\1</xmax>")
CORNERS = "corner|order|swap|xmin"


def lines_are(how: str, line: Callable[[str], str]) -> AnyRow:
    """A row in which the lines of a split are written otherwise."""
    return Row(
        name=f"lines of a split {how}",
        fault=split(line),
        expect=(as_flawless(), refused(r"all\.txt|im0")),
    )


SPLITS = (
    lines_are("end in .png", "{}.png".format),
    lines_are("are paths", "JPEGImages/{}.png".format),
    *rarely(
        lines_are("end in .PNG", "{}.PNG".format),
        lines_are("end in .xml", "{}.xml".format),
        lines_are("are paths without suffix", "./{}".format),
        lines_are("end in a carriage return", "{}\r".format),
        lines_are("begin with a tab", "\t{}".format),
    ),
    Row(
        name="names of a split differ after a space: photo, photo (1), ...",
        fault=rename("photo", "photo (1)", "photo (2)", "photo (3)"),
        expect=(as_flawless(), refused("photo")),
    ),
    Row(
        name="names of a split hold two spaces in a row",
        slow=True,
        fault=rename("a  b", "a b", "a  c", "a c"),
        expect=(as_flawless(), refused("a  ?b")),
    ),
    Row(
        name="a name of a split stands there twice",
        slow=True,
        fault=lambda setup: write_split(setup.folder, ["im0", "im1", "im2", "im3", "im1"]),
        expect=(as_flawless(warns=r"\b1 .*(twice|repeat|duplicate|again|more than once)"),),
    ),
)

FILES = (
    *[
        Row(
            name=f"two XML files end in {suffix}, {place}",
            fault=rename_xml(suffix, whole_folder=place == "a folder"),
            expect=(as_flawless(), refused(rf"im[02]|\.{suffix}")),
            slow=suffix == ".Xml",
        )
        for suffix in (".XML", ".Xml")
        for place in ("a split", "a folder")
    ],
    Row(
        name="an image of a folder has no XML file",
        fault=lose_an_xml,
        expect=(works(says=r"\b1\b[^\n]*(without|no|lack)[^\n]*(xml|annotation)"), refused("im1")),
    ),
    Row(
        name="a split names an image without an XML file",
        fault=lambda setup: (setup.folder / "Annotations" / "im1.xml").unlink(),
        expect=(refused("im1.xml"),),
    ),
)

FIELDS = (
    Row(
        name="XML without <size>",
        fault=edit(r"<size>.*</size>\n", "", first=2),
        expect=(as_flawless(),),
    ),
    Row(
        name="XML with an empty <width>",
        slow=True,
        fault=edit(r"<width>\d+</width>", "<width></width>", first=2),
        expect=(as_flawless(),),
    ),
    Row(
        name="XML with a size of text",
        fault=edit(r"<width>\d+</width>", "<width>64px</width>", first=2),
        expect=(as_flawless(), refused("width")),
        slow=True,
    ),
    Row(
        name="corners of VOC boxes in the wrong order",
        fault=swapped,
        expect=(as_flawless(warns=CORNERS), refused(CORNERS)),
    ),
    Row(
        name="xmin and xmax of VOC boxes swapped",
        fault=swapped_x,
        expect=(as_flawless(warns=CORNERS), refused(CORNERS)),
    ),
    Row(
        name="VOC boxes as fractions of the image",
        fault=edit(r"<(xmin|ymin|xmax|ymax)>(\d)(\d?)</", r"<\1>0.\2\3</"),
        expect=(works(warns="fraction|normali[sz]ed|between 0 and 1"), refused("fraction|pixel")),
    ),
    Row(
        name="<difficult> is text",
        slow=True,
        fault=edit("<difficult>0<", "<difficult>no<", first=2),
        expect=(as_flawless(), refused("difficult")),
    ),
    Row(
        name="a coordinate with a decimal comma",
        fault=edit(r"<xmin>(\d+)<", r"<xmin>\1,0<", first=1),
        expect=(as_flawless(), refused("xmin")),
    ),
    Row(
        name="a class of VOC in two spellings: dog, Dog",
        fault=edit("<name>dog<", "<name>Dog<", first=1),
        expect=(works(warns=r"\bdog\b"), refused(r"\bdog\b")),
    ),
    Row(
        name="spaces around a class of VOC",
        fault=edit("<name>dog<", "<name> dog\n <", first=1),
        expect=(as_flawless(),),
    ),
)

VARIANTS = rarely(
    Row(
        name="an <object> with two names",
        fault=edit("<name>", "<name>dog</name><name>", first=1),
        expect=(refused("<name>"),),
    ),
)

ROWS = (*SPLITS, *FILES, *FIELDS, *VARIANTS)
