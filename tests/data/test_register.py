import logging

import pytest
import yaml
from conftest import CONFIGS
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import pascal_voc
from detectron2.data.detection_utils import create_keypoint_hflip_indices

from apdet.config import load_config
from apdet.config.datasets import register_datasets
from apdet.data.register import register
from apdet.errors import UserError

CLASS_NAMES = list(pascal_voc.CLASS_NAMES)


@pytest.fixture
def registered(tmp_path):
    """A function from entries, and other keys of DATASETS, to the config that registers them."""

    def register_config(*entries, name="config.yaml", **keys):
        path = tmp_path / name
        path.write_text(yaml.safe_dump({"DATASETS": {"REGISTER": list(entries), **keys}}))
        cfg = load_config(path)
        cfg.freeze()
        register_datasets(cfg)
        return cfg

    return register_config


@pytest.fixture
def birds(voc):
    """Entries of a training set of the classes 2, 10 and owl, and of a test set of one of them."""
    voc.add("a", [("owl", 1, 1, 5, 5), ("10", 2, 2, 9, 9)]).add("b", [("2", 1, 1, 4, 4)])
    voc.add("c", [("10", 3, 3, 8, 8)]).split("train", "a", "b").split("test", "c")
    common = {"format": "voc", "root": "voc"}
    return [{"name": f"birds_{s}", "split": s, **common} for s in ("train", "test")]


def registered_entries(entries, **lists):
    """`register`, as a Python config calls it."""
    return register(entries, **{"train": [], "test": [], **lists})


def classes_of(name):
    return MetadataCatalog.get(name).thing_classes


def test_classes_are_those_of_the_training_set_in_natural_order(registered, birds):
    cfg = registered(*birds, TRAIN=["birds_train"], TEST=["birds_test"])
    assert classes_of("birds_train") == classes_of("birds_test") == ["2", "10", "owl"]
    assert cfg.MODEL.RETINANET.NUM_CLASSES == cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3
    assert cfg.is_frozen()
    (image,) = DatasetCatalog.get("birds_test")
    assert [a["category_id"] for a in image["annotations"]] == [1]


def test_paths_start_from_the_config_and_not_from_where_one_stands(
    registered, birds, tmp_path, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    registered(*birds, TRAIN=["birds_train"])
    assert len(DatasetCatalog.get("birds_train")) == 2


def test_classes_that_are_given_are_taken_in_their_order(registered, birds):
    birds[1]["classes"] = ["owl", "10", "hawk", 2]
    registered(*birds, TRAIN=["birds_train"])
    assert classes_of("birds_train") == ["owl", "10", "hawk", "2"]


def test_given_classes_have_to_agree(registered, birds):
    birds[0]["classes"], birds[1]["classes"] = ["owl", "2", "10"], ["2", "10", "owl"]
    with pytest.raises(UserError, match=r"'birds_train' has the classes .* give both the same"):
        registered(*birds)


def test_a_class_of_the_test_set_that_is_not_trained_is_an_error_at_once(registered, birds, voc):
    voc.add("d", [("crow", 1, 1, 5, 5)]).split("test", "d")
    with pytest.raises(UserError, match=r"d\.xml: class 'crow' .* all classes in class_names"):
        registered(*birds, TRAIN=["birds_train"], TEST=["birds_test"])


def test_coco_files_that_number_classes_differently_share_one_list(registered, coco, tmp_path):
    coco.add(1, [(2, 0, 0, 5, 5)]).write()
    other = type(coco)(tmp_path / "other", categories=[(7, "dog"), (9, "cat")])
    other.add(5, [(7, 0, 0, 5, 5), (9, 0, 0, 6, 6)]).write()
    entries = [
        {"name": f"pets_{i}", "format": "coco", "json": str(c.json), "images": str(c.images)}
        for i, c in enumerate((coco, other))
    ]
    registered(*entries, TRAIN=["pets_0"], TEST=["pets_1"])
    assert classes_of("pets_1") == ["cat", "dog"]
    assert MetadataCatalog.get("pets_1").thing_dataset_id_to_contiguous_id == {9: 0, 7: 1}
    (image,) = DatasetCatalog.get("pets_1")
    assert [a["category_id"] for a in image["annotations"]] == [1, 0]


def test_a_set_without_annotations_is_known_as_such(registered, birds, voc):
    voc.add("x").split("bare", "x")
    (voc.xml / "x.xml").unlink()
    bare = {"name": "bare", "format": "voc", "root": "voc", "split": "bare"}
    registered(*birds, bare, TRAIN=["birds_train"], TEST=["bare"])
    assert not MetadataCatalog.get("bare").annotated
    assert MetadataCatalog.get("birds_train").annotated


def test_registering_again_replaces_the_former(registered, birds, voc):
    registered(*birds, TRAIN=["birds_train"])
    voc.split("train", "a")
    registered(*birds, TRAIN=["birds_train"])
    assert len(DatasetCatalog.get("birds_train")) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "entry 'birds_train' has .*colour.*an entry is one of"),
        ({"format": "coco"}, "entry 'birds_train' has .*an entry is one of"),
        ({"classes": ["owl", "10", "owl"]}, "classes of 'birds_train' repeat one: .*owl"),
        ({"root": 5}, "entry 'birds_train' has .*an entry is one of"),
        ({"classes": "owl"}, "entry 'birds_train' has .*an entry is one of"),
        ({"split": None}, "entry 'birds_train' has .*an entry is one of"),
        ({"name": None}, "an entry is one of"),
        ({"name": "birds_test"}, "'birds_test' is taken; choose another"),
        ({"name": "../birds"}, r"'\.\./birds' cannot be the name of a folder; leave out slashes"),
        ({"name": ".."}, "cannot be the name of a folder"),
        ({"name": "birds "}, "cannot be the name of a folder.* spaces at its ends"),
        ({"name": ""}, "cannot be the name of a folder"),
        ({"name": "b" * 300}, "cannot be the name of a folder"),
        ({"root": ""}, "entry 'birds_train' has .*an entry is one of"),
        ({"split": ["train"]}, "entry 'birds_train' has .*an entry is one of"),
        ({"classes": ["owl", " "]}, "classes of 'birds_train' have ' '; write names"),
        ({"annotated": "no"}, "`annotated` of 'birds_train' is 'no'; write true or false"),
        ({"bits": "12"}, "`bits` of 'birds_train' is '12'; .* from 8 to 16"),
        ({"bits": 7}, "`bits` of 'birds_train' is 7"),
        ({"split": {}}, r"`split` of 'birds_train' is {}; write {fraction: 0\.2, seed: 0}"),
        ({"split": {"fraction": 1}}, "between 0 and 1"),
        ({"split": {"fraction": 0}}, "between 0 and 1"),
        ({"split": {"fraction": float("nan")}}, "between 0 and 1"),
        ({"split": {"fraction": "0.2"}}, "between 0 and 1"),
        ({"split": {"fraction": True}}, "between 0 and 1"),
        ({"split": {"fraction": 0.2, "seed": 0.5}}, "the seed is a whole number"),
        ({"split": {"fraction": 0.2, "sed": 1}}, "`split` of 'birds_train' is .*sed.*; write"),
        ({"split": {"fraction": 0.1}}, "3 images .* leave birds_train_val without an image"),
        ({"split": {"fraction": 0.2}, "name": "coco_2017"}, "'coco_2017_train' is taken"),
        ({"name": "coco_2017_val"}, "'coco_2017_val' is taken; choose another"),
        ({"root": "gone"}, "gone: no such folder; correct `root` of 'birds_train'"),
        ({"split": "trian"}, r"trian\.txt: no such split file; there are: test, train"),
    ],
)
def test_a_wrong_entry_is_named(registered, birds, change, message):
    for key, value in change.items():
        birds[0].pop(key, None)
        if value is not None:
            birds[0][key] = value
    with pytest.raises(UserError, match=message):
        registered(*birds, TRAIN=[birds[0].get("name", "")])


@pytest.mark.parametrize("value", [True, 1.5, None])
def test_a_class_name_of_a_python_config_is_a_text(birds, value):
    with pytest.raises(UserError, match=f"classes of 'birds_train' have {value}; write names"):
        registered_entries([{**birds[0], "classes": ["owl", value]}])


def test_an_enormous_value_is_named_in_few_words(registered, birds):
    laughs = ["ha"] * 100
    for _ in range(10):
        laughs = [laughs] * 100
    for key in ("split", "classes", "annotated", "bits"):
        with pytest.raises(UserError) as caught:
            registered_entries([{**birds[0], key: laughs}])
        assert len(str(caught.value)) < 10_000


def test_one_entry_may_be_divided_into_training_and_validation(registered, birds, voc, coco):
    for i in range(7):
        voc.add(f"more{i}", [("owl", 1, 1, 5, 5)], size=(41 + i, 30))
    entry = {"name": "birds", "format": "voc", "split": {"fraction": 0.2, "seed": 3}}
    folders = {"images": "voc/JPEGImages", "annotations": "voc/Annotations"}
    found = []
    for place in ({"root": "voc"}, folders):
        registered({**entry, **place}, TRAIN=["birds_train"], TEST=["birds_val"])
        assert classes_of("birds_train") == classes_of("birds_val") == ["2", "10", "owl"]
        parts = [DatasetCatalog.get(f"birds_{part}") for part in ("train", "val")]
        assert [len(part) for part in parts] == [8, 2]
        found.append([[image["image_id"] for image in part] for part in parts])
        assert len({image["image_id"] for part in parts for image in part}) == 10
    assert found[0] == found[1]
    assert "birds" not in DatasetCatalog


def test_a_coco_file_may_be_divided(registered, coco):
    for i in range(1, 7):
        coco.add(i, [(1 + i % 2, 0, 0, 5, 5)], size=(40 + i, 30))
    coco.write()
    entry = {"name": "pets", "format": "coco", "json": str(coco.json), "images": str(coco.images)}
    found = []
    for reorder in (False, True):
        if reorder:
            coco.content["images"].reverse()
            coco.write()
        registered({**entry, "split": {"fraction": 0.5}}, TRAIN=["pets_train"], TEST=["pets_val"])
        parts = [DatasetCatalog.get(f"pets_{part}") for part in ("train", "val")]
        found.append([[image["image_id"] for image in part] for part in parts])
        assert sorted(found[-1][0] + found[-1][1]) == [1, 2, 3, 4, 5, 6]
    assert found[0] == found[1]
    assert len(found[0][0]) == 3


def test_keypoints_of_a_coco_file_change_places_in_a_mirror(registered, coco):
    names = ["nose", "left_eye", "tail", "Right_Eye", "right_eye", "Left_Eye"]
    coco.add(1, [(1, 0, 0, 5, 5)]).content["categories"][0]["keypoints"] = names
    coco.write()
    entry = {"name": "pets", "format": "coco", "json": str(coco.json), "images": str(coco.images)}
    registered(entry, TRAIN=["pets"])
    assert create_keypoint_hflip_indices(["pets"]) == [0, 4, 2, 5, 1, 3]


def test_a_set_may_be_declared_to_have_no_ground_truth(registered, birds, voc):
    voc.add("x").split("bare", "x")
    bare = {"name": "bare", "format": "voc", "root": "voc", "split": "bare", "annotated": False}
    registered(*birds, bare, TRAIN=["birds_train"], TEST=["bare"])
    metadata = {name: MetadataCatalog.get(name) for name in ("bare", "birds_test")}
    assert not metadata["bare"].annotated
    assert metadata["bare"].declared_unannotated
    assert metadata["birds_test"].annotated
    assert not metadata["birds_test"].declared_unannotated
    assert "annotations" not in DatasetCatalog.get("bare")[0]


def test_a_set_with_boxes_cannot_be_declared_to_have_none(registered, birds):
    birds[1]["annotated"] = False
    with pytest.raises(UserError, match="'birds_test' has `annotated: false`, but 1 boxes"):
        registered(*birds, TRAIN=["birds_train"])


def test_public_test_sets_are_declared_to_have_no_ground_truth(registered):
    registered()
    declared = {
        name: MetadataCatalog.get(name).get("declared_unannotated", False)
        for name in DatasetCatalog
        if name.startswith(("coco_2017", "voc_"))
    }
    assert sorted(name for name in declared if declared[name]) == [
        *("coco_2017_test", "coco_2017_test-dev", "voc_2012_test")
    ]


def test_the_depth_of_a_camera_is_in_the_dataset_dicts(registered, birds):
    birds[0]["bits"] = 12
    registered(*birds, TRAIN=["birds_train"], TEST=["birds_test"])
    assert [image["bits"] for image in DatasetCatalog.get("birds_train")] == [12, 12]
    assert "bits" not in DatasetCatalog.get("birds_test")[0]


def test_the_home_folder_may_be_written_as_a_tilde(registered, birds, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    birds[0]["root"] = "~/voc"
    registered(*birds, TRAIN=["birds_train"])
    assert len(DatasetCatalog.get("birds_train")) == 2
    registered_entries([birds[0]], train=["birds_train"])
    assert len(DatasetCatalog.get("birds_train")) == 2


@pytest.mark.parametrize("argument", ["train", "val", "test"])
@pytest.mark.parametrize("names", ["birds", None, [3], {"birds": 1}])
def test_data_sets_in_use_are_a_list_of_names(argument, names):
    with pytest.raises(UserError, match=rf"^{argument} is .*; give a list of names of data sets"):
        registered_entries([], **{argument: names})


def test_a_validation_set_is_checked_like_a_test_set(registered, birds, voc):
    registered(*birds)
    with pytest.raises(UserError, match=r"^val names 'birds_tst', which is no .* birds_test"):
        registered_entries([], val=["birds_tst"])
    voc.add("d", [("crow", 1, 1, 5, 5)]).split("test", "d")
    absolute = [{**entry, "root": str(voc.root)} for entry in birds]
    with pytest.raises(UserError, match="class 'crow' is not one of the classes"):
        registered_entries(absolute, train=["birds_train"], val=["birds_test"])


def test_what_is_named_twice_is_said(registered, birds, voc, caplog, monkeypatch):
    logger = logging.getLogger("apdet.data.registered")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])

    def said(train, test):
        caplog.clear()
        registered(*birds, TRAIN=train, TEST=test)
        return [r.getMessage() for r in caplog.records if r.name == logger.name]

    assert not said(["birds_train"], ["birds_test"])
    assert said(["birds_train"] * 2, []) == ["birds_train: named more than once in the list train"]
    (message,) = said(["birds_train"], ["birds_train"])
    assert message.startswith("birds_train: 2 of its images are also trained on")
    voc.split("test", "b", "c")
    (message,) = said(["birds_train"], ["birds_test"])
    assert message.startswith("birds_test: 1 of its images are also trained on")


@pytest.mark.parametrize("is_listed", [False, True])
def test_almost_equal_names_are_said_unless_both_are_listed(
    registered, birds, voc, caplog, monkeypatch, is_listed
):
    logger = logging.getLogger("apdet.data.class_names")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    voc.add("b", [("Owl", 1, 1, 4, 4), ("2", 1, 1, 4, 4)])
    if is_listed:
        birds[0]["classes"] = ["owl", "Owl", "2", "10"]
    registered(*birds, TRAIN=["birds_train"])
    # Other loggers may have the handler, too: it depends on what ran before.
    messages = [r.getMessage() for r in caplog.records if r.name == logger.name]
    said = ["'Owl' (1 boxes), 'owl' (1 boxes)" in message for message in messages]
    assert said == [True] * (not is_listed)


def test_sets_in_use_have_to_have_the_same_classes(registered, birds, voc, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    type(voc)(tmp_path / "VOC2007").add("1", [("cat", 1, 1, 9, 9)]).split("trainval", "1")
    with pytest.raises(
        UserError, match=r"'voc_2007_trainval' has .* but 'birds_test' has \['10'\]"
    ):
        registered(birds[1], TRAIN=["voc_2007_trainval"], TEST=["birds_test"])
    voc.add("c", [("cat", 3, 3, 8, 8)])
    cfg = registered(
        {**birds[1], "classes": CLASS_NAMES}, TRAIN=["voc_2007_trainval"], TEST=["birds_test"]
    )
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 20
    (image,) = DatasetCatalog.get("birds_test")
    assert CLASS_NAMES[image["annotations"][0]["category_id"]] == "cat"


def test_a_set_whose_classes_nobody_tells_is_named(registered, birds, voc):
    voc.add("x").split("test", "x")
    with pytest.raises(UserError, match=r"'birds_test' has no class.*`classes: \[\.\.\.\]`"):
        registered(birds[1], TEST=["birds_test"])
    birds[1]["classes"] = ["crow"]
    assert registered(birds[1], TEST=["birds_test"]).MODEL.RETINANET.NUM_CLASSES == 1


def test_a_folder_of_images_and_one_of_annotations_need_no_split(registered, birds, tmp_path):
    entry = {"name": "all", "format": "voc", "images": "voc/JPEGImages"}
    registered({**entry, "annotations": "voc/Annotations"}, TRAIN=["all"])
    images = DatasetCatalog.get("all")
    assert [image["image_id"] for image in images] == ["a", "b", "c"]
    assert images[0]["file_name"] == str(tmp_path / "voc" / "JPEGImages" / "a.jpg")


def test_registering_again_may_name_another_place(registered, birds, voc, tmp_path):
    registered(*birds, TRAIN=["birds_train"])
    other = type(voc)(tmp_path / "other").add("z", [("rook", 1, 1, 5, 5)]).split("train", "z")
    registered({**birds[0], "root": "other"}, TRAIN=["birds_train"])
    (image,) = DatasetCatalog.get("birds_train")
    assert image["file_name"] == str(other.images / "z.jpg")
    assert classes_of("birds_train") == ["rook"]


def test_a_config_may_build_on_another_one_in_another_folder(birds, tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "base.yaml").write_text(
        yaml.safe_dump(
            {
                "_BASE_": str(CONFIGS / "Base-RetinaNet-AP.yaml"),
                "DATASETS": {"REGISTER": birds, "TRAIN": ["birds_train"]},
            }
        )
    )
    (tmp_path / "below" / "mine.yaml").write_text("_BASE_: ../base.yaml\n")
    cfg = load_config(tmp_path / "below" / "mine.yaml")
    assert not cfg.is_frozen()
    register_datasets(cfg)
    assert not cfg.is_frozen()
    assert cfg.MODEL.META_ARCHITECTURE == "RankingRetinaNet"
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 3


@pytest.mark.parametrize("entry", [5, None, ["birds"]])
def test_an_entry_is_a_mapping(registered, entry):
    with pytest.raises(UserError, match="an entry is one of"):
        registered(entry)


def test_a_list_is_asked_for(registered):
    with pytest.raises(UserError, match="entries has 'birds'; an entry is one of"):
        registered("birds")


def test_an_unknown_name_is_answered_with_those_like_it(registered, birds):
    with pytest.raises(
        UserError, match="'birds_trian', which is no data set; did you mean birds_t"
    ):
        registered(*birds, TRAIN=["birds_trian"])
    with pytest.raises(
        UserError, match=r"'#', which is no data set\. Register your own in entries"
    ):
        registered(*birds, TRAIN=["#"])


def test_a_builtin_set_sets_the_number_of_classes_too():
    cfg = load_config(CONFIGS / "VOC" / "retinanet_R50_512_ap.yaml")
    register_datasets(cfg)
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 20
