import os

import pytest
from PIL import Image

from apdet.errors import UserError
from apdet.inference.sources import find_images, number_sources


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a folder of images and other files; it is the working directory."""
    for name in ("b10.jpg", "b2.JPG", "sub/a.png", "sub/deep/a.png", ".hidden/a.png", ".a.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    (tmp_path / "photos" / "notes.md").write_text("no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*sources, **options):
    return [os.path.relpath(path) for path in find_images(sources, **options)]


PHOTOS = ["b2.JPG", "b10.jpg", "sub/a.png", "sub/deep/a.png"]
WHOLE = [f"photos/{name}" for name in PHOTOS]


def test_a_folder_gives_its_images_recursively_and_in_natural_order(folder):
    assert found("photos") == found(str(folder / "photos") + "/") == WHOLE


def test_links_to_folders_are_followed_but_not_in_circles(folder):
    (folder / "photos" / "sub" / "loop").symlink_to(folder / "photos")
    assert found("photos") == WHOLE
    (folder / "linked").mkdir()
    (folder / "linked" / "photos").symlink_to(folder / "photos")
    assert found("linked") == [f"linked/{path}" for path in WHOLE]


def test_results_inside_the_folder_are_left_out(folder):
    assert found("photos", left_out="photos/sub/deep") == WHOLE[:3]
    assert found(".", left_out="photos/sub") == WHOLE[:2]
    assert found("photos/sub/*", left_out="photos/sub/deep") == ["photos/sub/a.png"]


def test_a_pattern_gives_what_it_matches(folder):
    assert found("photos/*.[jJ]*") == WHOLE[:2]
    assert found("photos/*") == WHOLE
    assert found("photos/s*/**/*.png") == found("photos/s*/**") == WHOLE[2:]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(folder):
    Image.new("RGB", (4, 4)).save("photos/[b]2.png")
    assert found("photos/[b]2.png") == ["photos/[b]2.png"]


def test_a_list_names_files_from_its_folder_or_from_the_working_directory(folder):
    (folder / "photos" / "list.txt").write_text(
        "\ufeffsub/a.png\n\n  b2.JPG \nphotos/b10.jpg\nmissing.png\n", encoding="utf-8"
    )
    assert found("photos/list.txt") == [
        *("photos/sub/a.png", "photos/b2.JPG", "photos/b10.jpg"),
        "photos/missing.png",  # is found missing when it is read
    ]


def test_an_image_that_is_named_twice_counts_once_with_a_warning(folder, caplog):
    assert found("photos/sub/a.png", "photos", "photos/./sub/a.png") == [
        *("photos/sub/a.png", "photos/b2.JPG", "photos/b10.jpg", "photos/sub/deep/a.png"),
    ]
    (warning,) = caplog.messages
    assert "2 images are named more than once" in warning


def test_files_of_formats_that_are_not_read_are_counted(folder, caplog):
    (folder / "photos" / "x.heic").touch()
    (folder / "photos" / "x.mp4").touch()
    assert found("photos") == WHOLE
    (warning,) = caplog.messages
    assert "2 files are left out" in warning
    assert "photos/x.heic" in warning


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nowhere", "no such file or folder"),
        ("nowhere/*.jpg", "no image there"),
        ("empty", "no image there"),
        ("empty.txt", "no image there"),
        ("film.mp4", "a video"),
        ("set.json", "--images-json"),
        ("pipe", "a named pipe"),
        ("photos/\0", "no such file"),
    ],
)
def test_a_source_without_images_is_named(folder, source, reason):
    (folder / "empty").mkdir()
    for name in ("empty.txt", "film.mp4", "set.json"):
        (folder / name).touch()
    os.mkfifo(folder / "pipe")
    with pytest.raises(UserError, match=reason) as caught:
        find_images([source])
    assert str(caught.value).startswith(source)


def test_images_are_named_by_their_place_below_the_folder_that_holds_all(folder):
    images = number_sources(find_images(["photos"]))
    assert [image.name for image in images] == PHOTOS
    assert [image.image_id for image in images] == [1, 2, 3, 4]
    (only,) = number_sources(find_images(["photos/sub/deep"]))
    assert only.name == "a.png"
    names = {image.name for image in number_sources(["/x/a.jpg", "/y/a.jpg", "/y/z/a.jpg"])}
    assert names == {"x/a.jpg", "y/a.jpg", "y/z/a.jpg"}
