import random
import sys

import detectron2.data.transforms as T  # noqa: N812
import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from PIL import Image
from pycocotools import mask as mask_util

from apdet.data.augmentation import ssd_augmentation
from apdet.data.mapper import BoxMapper, build_mapper
from apdet.data.voc import load_voc
from apdet.errors import UserError


@pytest.fixture
def image(voc):
    """The dataset dict of an image with two boxes, one of them difficult."""
    voc.add("a", [("cat", 5, 6, 30, 25), ("dog", 1, 1, 20, 20, 1)])
    noise = np.random.randint(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(voc.images / "a.jpg")
    (image,) = load_voc(voc.images, voc.xml)
    return image


@pytest.mark.parametrize("is_train", [True, False])
def test_it_gives_what_detectron2s_mapper_gives(cfg, image, is_train):
    cfg.INPUT.FIXED_SIZE_TRAIN = []
    cfg.INPUT.MIN_SIZE_TRAIN = (64,)
    ours = BoxMapper(cfg, is_train)(image)
    theirs = DatasetMapper(cfg, is_train)(image)
    assert ours.keys() == theirs.keys()
    assert "annotations" not in ours
    torch.testing.assert_close(ours["image"], theirs["image"], rtol=0, atol=0)
    if is_train:
        ours, theirs = ours["instances"], theirs["instances"]
        assert ours.gt_classes.tolist() == theirs.gt_classes.tolist() == [0]  # no difficult box
        torch.testing.assert_close(ours.gt_boxes.tensor, theirs.gt_boxes.tensor)


@pytest.mark.parametrize("ssd", [True, False])
def test_an_image_without_boxes_has_empty_instances(cfg, image, ssd):
    cfg.INPUT.SSD_AUGMENTATION = ssd
    image["annotations"] = []
    for _ in range(20):
        instances = BoxMapper(cfg, is_train=True)(image)["instances"]
        assert len(instances) == 0
        assert instances.gt_boxes.tensor.shape == (0, 4)


def test_crowds_and_difficult_boxes_do_not_decide_on_the_crops(cfg, image):
    cfg.INPUT.SSD_AUGMENTATION = True
    mapper = BoxMapper(cfg, is_train=True)
    crowd = {"bbox": [0, 0, 1, 1], "bbox_mode": 0, "category_id": 0, "iscrowd": 1}
    for seed in range(20):
        results = []
        for annotations in (image["annotations"], [*image["annotations"], crowd]):
            np.random.seed(seed)
            random.seed(seed)
            results.append(mapper({**image, "annotations": annotations}))
        torch.testing.assert_close(results[0]["image"], results[1]["image"], rtol=0, atol=0)
        assert len(results[1]["instances"]) <= 1


def test_the_dataset_dict_is_left_as_it_was(cfg, image):
    before = repr(image)
    BoxMapper(cfg, is_train=True)(image)
    assert repr(image) == before


@pytest.mark.parametrize("harm", ["cut short", "no image", "gone", "resized"])
@pytest.mark.parametrize("is_train", [True, False])
def test_an_image_that_cannot_be_read_is_named(cfg, image, voc, harm, is_train):
    path = voc.images / "a.jpg"
    if harm == "cut short":
        path.write_bytes(path.read_bytes()[:600])
    elif harm == "no image":
        path.write_text("not an image at all")
    elif harm == "gone":
        path.unlink()
    else:
        Image.new("RGB", (50, 50)).save(path)
    message = "no such image; add it" if harm == "gone" else "not a readable image .*replace it"
    with pytest.raises(UserError, match=rf"a\.jpg: {message} or remove it"):
        BoxMapper(cfg, is_train)(image)


def test_a_crop_drops_the_boxes_whose_centre_it_cuts_off(cfg, image):
    cfg.INPUT.SSD_AUGMENTATION = True
    image["annotations"] = [
        {"bbox": [x, y, x + 4, y + 4], "bbox_mode": 0, "category_id": 0, "iscrowd": 0}
        for x in range(0, 36, 6)
        for y in range(0, 26, 6)
    ]
    mapper = BoxMapper(cfg, is_train=True)
    counts = set()
    for _ in range(40):
        boxes = mapper(image)["instances"].gt_boxes.tensor
        counts.add(len(boxes))
        # Boxes are squares; what is cut off beyond the centre would leave less than half of one.
        width, height = (boxes[:, 2] - boxes[:, 0]), (boxes[:, 3] - boxes[:, 1])
        assert (width >= 0.5 * width.max() - 1e-3).all()
        assert (height >= 0.5 * height.max() - 1e-3).all()
    assert len(counts) > 1


@pytest.mark.parametrize("fixed", [[], [20, 20]])
def test_test_images_keep_their_size_if_asked_for(cfg, image, fixed):
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.FIXED_SIZE_TEST = 20, fixed
    assert BoxMapper(cfg, is_train=False)(image)["image"].shape[1] == 20
    pixels = BoxMapper(cfg, is_train=False, resize=False)(image)["image"]
    expected = np.asarray(Image.open(image["file_name"]))[..., ::-1]
    np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), expected)


def test_the_old_name_still_builds_the_mapper(cfg):
    with pytest.warns(DeprecationWarning, match="call BoxMapper"):
        assert isinstance(build_mapper(cfg, True), BoxMapper)


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("size", [(3000, 1), (1, 3000)])
def test_a_very_thin_image_is_resized_to_at_least_one_pixel(cfg, voc, size, is_train):
    voc.add("thin", [("cat", 1, 1, *size)], size=size)
    (image,) = load_voc(voc.images, voc.xml)
    cfg.INPUT.FIXED_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = [], (64,), 64
    mapped = BoxMapper(cfg, is_train)(image)
    expected = (1, 64) if size[1] == 1 else (64, 1)
    assert mapped["image"].shape[1:] == expected
    if is_train:
        box = mapped["instances"].gt_boxes.tensor[0].tolist()
        assert box == pytest.approx([0, 0, expected[1], expected[0]])


def test_an_image_that_cannot_be_augmented_is_named(voc):
    voc.add("thin", [("cat", 1, 1, 300, 1)], size=(3000, 1))
    (image,) = load_voc(voc.images, voc.xml)
    resize = T.ResizeShortestEdge(64, 64)
    mapper = BoxMapper(is_train=True, augmentations=[resize], image_format="BGR")
    with pytest.raises(UserError, match=r"thin\.jpg: an image of 3000 x 1 pixels cannot be augm"):
        mapper(image)


@pytest.mark.parametrize("is_train", [True, False])
def test_images_of_16_bits_are_read_with_the_depth_of_their_camera(cfg, voc, is_train):
    cfg.INPUT.FIXED_SIZE_TRAIN = [30, 40]
    voc.add("a", [("cat", 5, 6, 30, 25)], suffix=".png")
    (image,) = load_voc(voc.images, voc.xml)
    Image.fromarray(np.full((30, 40), 2056, dtype=np.uint16)).save(image["file_name"])
    with pytest.raises(UserError, match=r"a\.png: an image of 16 bits, .* `bits: 12`"):
        BoxMapper(cfg, is_train)(image)
    pixels = BoxMapper(cfg, is_train)({**image, "bits": 12})["image"]
    assert pixels.unique().tolist() == [128]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"INPUT.FORMAT": "BRG"}, r"^image_format is 'BRG'; choose one of BGR, RGB, L, "),
        (
            {"INPUT.FORMAT": "L"},
            r"^INPUT.FORMAT is 'L', so images have 1 channels, but MODEL.PIXEL_MEAN has 3",
        ),
        (
            {"INPUT.FORMAT": "L", "MODEL.PIXEL_MEAN": [100.0]},
            r"^INPUT.FORMAT is 'L', .* but MODEL.PIXEL_STD has 3 values; give one for each",
        ),
        ({"MODEL.PIXEL_MEAN": [100.0]}, r"^INPUT.FORMAT is 'BGR', .* MODEL.PIXEL_MEAN has 1 value"),
        (
            {
                **{"INPUT.FORMAT": "L", "MODEL.PIXEL_MEAN": [1.0], "MODEL.PIXEL_STD": [1.0]},
                "INPUT.SSD_AUGMENTATION": True,
            },
            r"^image_format is 'L', but SSD's augmentation distorts colours; choose BGR or RGB",
        ),
        ({"MODEL.LOAD_PROPOSALS": True}, r"^MODEL.LOAD_PROPOSALS is True"),
        ({"MODEL.META_ARCHITECTURE": "PanopticFPN"}, r"^MODEL.META_ARCHITECTURE is 'PanopticFPN'"),
        ({"MODEL.META_ARCHITECTURE": "SemanticSegmentor"}, r"^MODEL.META_ARCHITECTURE is 'Sem"),
        ({"MODEL.PROPOSAL_GENERATOR.NAME": "RRPN"}, r"^MODEL.PROPOSAL_GENERATOR.NAME is 'RRPN'"),
        ({"MODEL.ROI_HEADS.NAME": "RROIHeads"}, r"^MODEL.ROI_HEADS.NAME .* rotated boxes are not"),
        (
            {"MODEL.ANCHOR_GENERATOR.NAME": "RotatedAnchorGenerator"},
            r"^MODEL.ANCHOR_GENERATOR.NAME is .* rotated boxes are not trained",
        ),
    ],
)
def test_what_the_mapper_does_not_do_is_refused(cfg, keys, message):
    cfg.merge_from_list([item for pair in keys.items() for item in pair])
    with pytest.raises(UserError, match=message):
        BoxMapper(cfg, is_train=True)


def test_proposals_are_refused_in_a_python_config_too():
    with pytest.raises(UserError, match="precomputed_proposal_topk cannot be used"):
        BoxMapper(
            is_train=True, augmentations=[], image_format="BGR", precomputed_proposal_topk=100
        )


def test_cropping_polygons_without_shapely_is_an_error(cfg, image, monkeypatch):
    monkeypatch.setitem(sys.modules, "shapely", None)
    cfg.MODEL.MASK_ON = cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = "absolute", [20, 20]
    image["annotations"][0]["segmentation"] = [[5, 6, 30, 6, 30, 25]]
    with pytest.raises(UserError, match=r"a\.jpg: to crop masks .* pip install shapely; or train"):
        BoxMapper(cfg, is_train=True)(image)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # of fvcore
def test_masks_and_keypoints_stay_with_their_boxes(cfg, voc):
    """Each object is a rectangle of its own class, full of its mask, with keypoints in corners."""
    voc.add("a", size=(64, 48))
    file_name = str(voc.images / "a.jpg")
    corners = [(x, y) for x in range(2, 60, 12) for y in range(2, 40, 12)]
    annotations = [
        {
            "bbox": [x, y, x + 10, y + 8],
            "bbox_mode": 0,
            "category_id": k,
            "segmentation": mask_util.frPyObjects(np.array([[x, y, 10.0, 8]]), 48, 64)[0],
            "keypoints": [x + 1, y + 1, 2, x + 9, y + 1, 2, x + 1, y + 7, 2, x + 9, y + 7, 2],
        }
        for k, (x, y) in enumerate(corners)
    ]
    image = {"file_name": file_name, "width": 64, "height": 48, "annotations": annotations}
    mapper = BoxMapper(
        is_train=True,
        augmentations=[*ssd_augmentation("BGR", [0.0, 0.0, 0.0]), T.Resize((256, 256))],
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format="bitmask",
        use_keypoint=True,
        keypoint_hflip_indices=np.arange(4),
        drop_by_centre=True,
    )
    kept = set()
    for seed in range(30):
        np.random.seed(seed)
        random.seed(seed)
        instances = mapper(image)["instances"]
        kept.add(len(instances))
        boxes, extents = instances.gt_boxes.tensor, instances.gt_masks.get_bounding_boxes().tensor
        torch.testing.assert_close(boxes, extents, atol=8, rtol=0)  # a pixel became up to 8
        # Classes tell which object it is: their order in the grid is that of the boxes.
        columns = instances.gt_classes // 4
        for box, column in zip(boxes, columns, strict=True):
            assert (columns[boxes[:, 0] > box[2]] > column).all()
        x, y, visibility = instances.gt_keypoints.tensor.unbind(dim=2)
        inside = (x >= boxes[:, None, 0] - 1) & (x <= boxes[:, None, 2] + 1)
        inside &= (y >= boxes[:, None, 1] - 1) & (y <= boxes[:, None, 3] + 1)
        assert inside[visibility > 0].all()
    assert len(kept) > 5
