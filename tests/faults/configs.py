"""Keys of the config that were ignored or scaled away."""

from faults.checks import Check, has_files, logged
from faults.coco_edits import change, put
from faults.fault import both, set_keys
from faults.row import Row, refused, works
from faults.running import Outcome
from faults.setup import Setup


def evaluations(count: int) -> Check:
    def holds(outcome: Outcome) -> None:
        found = len(logged(outcome, "bbox/AP"))
        assert found == count, f"{found} evaluations, not {count}"

    return holds


SCHEDULE = (
    Row(
        name="CHECKPOINT_PERIOD is scaled to 0",
        fault=set_keys(
            SOLVER__REFERENCE_BATCH_SIZE=1, SOLVER__MAX_ITER=8, SOLVER__CHECKPOINT_PERIOD=1
        ),
        expect=(works(holds=has_files("model_0000000.pth", "model_0000001.pth")),),
    ),
    Row(
        name="EVAL_PERIOD is scaled to 0",
        fault=set_keys(SOLVER__REFERENCE_BATCH_SIZE=1, SOLVER__MAX_ITER=8, TEST__EVAL_PERIOD=1),
        expect=(works(holds=evaluations(2)),),
    ),
    Row(
        name="EVAL_PERIOD 0 is scaled, which still means no evaluation before the end",
        fault=set_keys(SOLVER__REFERENCE_BATCH_SIZE=1, SOLVER__MAX_ITER=8, TEST__EVAL_PERIOD=0),
        expect=(works(holds=evaluations(1)),),
    ),
    Row(
        name="MAX_ITER is scaled to 0",
        fault=set_keys(
            SOLVER__REFERENCE_BATCH_SIZE=1,
            SOLVER__MAX_ITER=1,
            SOLVER__LR_SCHEDULER_NAME="WarmupCosineLR",
        ),
        expect=(works(holds=evaluations(1)), refused("MAX_ITER")),
    ),
    Row(
        name="SOLVER.REFERENCE_WORLD_SIZE",
        fault=set_keys(SOLVER__REFERENCE_WORLD_SIZE=2),
        command=("--dry-run",),
        expect=(works(says="4 of 2 images"),),
    ),
    Row(
        name="SOLVER.REFERENCE_WORLD_SIZE with REFERENCE_BATCH_SIZE",
        fault=set_keys(SOLVER__REFERENCE_WORLD_SIZE=2, SOLVER__REFERENCE_BATCH_SIZE=2),
        command=("--dry-run",),
        expect=(refused("REFERENCE_(WORLD|BATCH)_SIZE[\\s\\S]*REFERENCE_(WORLD|BATCH)_SIZE"),),
    ),
)


def two_stages(setup: Setup) -> None:
    """Train a two-stage detector from scratch."""
    setup.set("_BASE_", setup.config["_BASE_"].replace("retinanet", "faster_rcnn"))
    setup.set("MODEL.WEIGHTS", "")


def as_keypoint_rcnn(setup: Setup) -> None:
    """Keypoint R-CNN on pictures of which one has no visible keypoint."""
    two_stages(setup)
    setup.set("MODEL.KEYPOINT_ON", True)
    setup.set("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 2)
    setup.set("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [8])
    setup.set("TEST.KEYPOINT_OKS_SIGMAS", [0.05, 0.05])
    setup.edit_json(lambda content: content.update(categories=content["categories"][:1]))

    def mark(annotation: dict) -> None:
        x, y, width, height = annotation["bbox"]
        visible = 2 * (annotation["image_id"] != 1)
        corners = (x + 2, y + 2), (x + width - 2, y + height - 2)
        annotation.update(
            category_id=1,
            keypoints=[value for corner in corners for value in (*corner, visible)],
            num_keypoints=visible,
        )

    change("annotations", mark)(setup)
    put("categories", keypoints=["head", "tail"], skeleton=[[1, 2]])(setup)


IGNORED = (
    Row(
        name="Keypoint R-CNN: keypoints are read",
        fault=as_keypoint_rcnn,
        command=("--dry-run",),
        expect=(works(says=r"loss_keypoint +[0-9.]*[1-9]"),),
    ),
    Row(
        name="MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE",
        fault=both(as_keypoint_rcnn, set_keys(MODEL__ROI_KEYPOINT_HEAD__MIN_KEYPOINTS_PER_IMAGE=1)),
        command=("--dry-run",),
        expect=(works(says="training images +3 of tr"),),
    ),
    Row(
        name="MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS of another number than the data",
        fault=both(as_keypoint_rcnn, set_keys(MODEL__ROI_KEYPOINT_HEAD__NUM_KEYPOINTS=17)),
        expect=(refused("NUM_KEYPOINTS is 17, but .* have 2 keypoints"),),
    ),
    Row(
        name="TEST.KEYPOINT_OKS_SIGMAS left out for two keypoints",
        fault=both(as_keypoint_rcnn, set_keys(TEST__KEYPOINT_OKS_SIGMAS=[])),
        expect=(refused("KEYPOINT_OKS_SIGMAS has 0 values"),),
    ),
    Row(
        name="MODEL.MASK_ON of a detector of boxes",
        fault=set_keys(MODEL__MASK_ON=True),
        expect=(refused("MODEL.MASK_ON"),),
    ),
    Row(
        name="MODEL.LOAD_PROPOSALS",
        fault=set_keys(MODEL__LOAD_PROPOSALS=True),
        expect=(refused("LOAD_PROPOSALS"),),
    ),
    Row(
        name="MODEL.LOAD_PROPOSALS, --dry-run",
        fault=set_keys(MODEL__LOAD_PROPOSALS=True),
        command=("--dry-run",),
        expect=(refused("LOAD_PROPOSALS"),),
    ),
    Row(
        name="semantic segmentation: SemanticSegmentor",
        fault=set_keys(MODEL__META_ARCHITECTURE="SemanticSegmentor", MODEL__WEIGHTS=""),
        expect=(refused("semantic|SemanticSegmentor"),),
    ),
    Row(
        name="semantic segmentation: PanopticFPN",
        fault=both(two_stages, set_keys(MODEL__META_ARCHITECTURE="PanopticFPN")),
        expect=(refused("semantic|PanopticFPN"),),
    ),
)

ROWS = (*SCHEDULE, *IGNORED)
