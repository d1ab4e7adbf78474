"""Values that cannot be and files that cannot be read: one line with the key or the file."""

from faults.fault import Fault, set_keys
from faults.row import Row, rarely, refused
from faults.setup import Setup


def impossible(key: str, value: object, says: str = "") -> Row:
    """A row in which a key of the config has an impossible value."""
    return Row(
        name=f"{key} is {value!r}",
        fault=set_keys(**{key.replace(".", "__"): value}),
        command=("--dry-run",),
        expect=(refused(rf"{key}\b.*{says}"),),
    )


NAMES = (
    impossible("MODEL.META_ARCHITECTURE", "RankingRetinanet", "did you mean RankingRetinaNet"),
    impossible("MODEL.BACKBONE.NAME", "os.system", "build_resnet_fpn_backbone"),
    impossible("SOLVER.LR_SCHEDULER_NAME", "WarmupCosinLR", "did you mean WarmupCosineLR"),
    impossible("DATALOADER.SAMPLER_TRAIN", "Sampler", "TrainingSampler"),
    impossible("MODEL.DEVICE", "gpu", "cpu"),
    impossible("MODEL.DEVICE", "cuda:77", "cpu"),
    *rarely(
        impossible("MODEL.ANCHOR_GENERATOR.NAME", "Anchors", "DefaultAnchorGenerator"),
        impossible("MODEL.RESNETS.NORM", "Batch", "FrozenBN"),
        impossible("MODEL.RESNETS.DEPTH", 51, "50"),
        impossible("MODEL.DEVICE", "meta", "cpu"),
        impossible("INPUT.FORMAT", "RBG", "RGB"),
        impossible("INPUT.RANDOM_FLIP", "both", "horizontal"),
        impossible("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "max", "norm"),
    ),
)

NUMBERS = (
    impossible("SOLVER.BASE_LR", float("nan")),
    impossible("SOLVER.MAX_ITER", 0),
    impossible("SOLVER.CHECKPOINT_PERIOD", 0),
    impossible("SOLVER.IMS_PER_BATCH", -4),
    impossible("MODEL.RETINANET.IOU_LABELS", [0, 1], "IOU_THRESHOLDS"),
    *rarely(
        impossible("SOLVER.BASE_LR", -0.1),
        impossible("SOLVER.MAX_ITER", -5),
        impossible("SOLVER.STEPS", [[2]]),
        impossible("SOLVER.GAMMA", 0.0),
        impossible("SOLVER.WARMUP_ITERS", -1),
        impossible("DATALOADER.NUM_WORKERS", -1),
        impossible("MODEL.PIXEL_STD", [0.0, 1.0, 1.0]),
        impossible("MODEL.RETINANET.PRIOR_PROB", 1.0),
        impossible("MODEL.RETINANET.NMS_THRESH_TEST", float("inf")),
        impossible("MODEL.ANCHOR_GENERATOR.SIZES", []),
        impossible("INPUT.MIN_SIZE_TRAIN", []),
        impossible("TEST.DETECTIONS_PER_IMAGE", 0),
    ),
)


def base(content: bytes | str) -> Fault:
    """Give the config a base with this content."""

    def fault(setup: Setup) -> None:
        data = content.encode() if isinstance(content, str) else content
        (setup.folder / "base.yaml").write_bytes(data)
        setup.set("_BASE_", "base.yaml")

    return fault


LAUGHS = "".join(f"x{i}: &x{i} {{a: *x{i - 1}, b: *x{i - 1}}}\n" for i in range(1, 60))

FILES = tuple(
    Row(name=name, fault=base(content), command=("--dry-run",), limit=20, expect=(refused(says),))
    for name, content, says in [
        ("YAML that has itself as a base", "_BASE_: base.yaml\n", r"base\.yaml.*_BASE_"),
        ("YAML whose base is null", "_BASE_: null\n", r"base\.yaml.*_BASE_"),
        ("YAML whose base is a mapping", "_BASE_: {a: 1}\n", r"base\.yaml.*_BASE_"),
        ("YAML that is binary", bytes(range(256)), r"base\.yaml.*UTF-8"),
        ("YAML in Latin-1", "SEED: 1 # é".encode("latin-1"), r"base\.yaml.*UTF-8"),
        ("YAML in UTF-16", "SEED: 1".encode("utf-16"), r"base\.yaml.*UTF-8"),
        ("YAML with a key that is a number", "1: 2\n", r"base\.yaml, line 1.*key 1"),
        ("YAML with a number of 5000 digits", f"SEED: {'9' * 5000}\n", r"base\.yaml, line 1"),
        ("YAML nested 5000 deep", f"SEED: {'[' * 5000}", r"base\.yaml.*deep"),
        ("YAML with an alias of itself", "SEED: &a [*a]\n", r"base\.yaml, line 1.*itself"),
        ("YAML of billions of aliases", f"x0: &x0 {{a: 1}}\n{LAUGHS}", r"base\.yaml.*aliases"),
        ("YAML in which MODEL is null", "MODEL: null\n", "MODEL is"),
        ("YAML that would run code", "A: !!python/object/apply:os.getcwd []\n", r"base\.yaml"),
        ("YAML that is empty", "", r"base\.yaml.*mapping"),
    ]
)

PATHS = (
    Row(
        name="OUTPUT_DIR with a character that no path has",
        fault=set_keys(OUTPUT_DIR="out\0put"),
        expect=(refused(r"OUTPUT_DIR out\\x00put"),),
    ),
)

ROWS = (*NAMES, *NUMBERS, *FILES, *PATHS)
