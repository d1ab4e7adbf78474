import gc

import pytest

from apdet.data.coco import read_coco
from apdet.data.garbage import no_garbage_collection
from apdet.data.records import to_dataset_dicts
from apdet.data.voc import read_voc
from apdet.errors import UserError


@pytest.mark.parametrize("is_enabled", [True, False])
def test_garbage_is_collected_again_after_an_error(is_enabled):
    @no_garbage_collection()
    def fail():
        assert not gc.isenabled()
        raise UserError("an error")

    (gc.enable if is_enabled else gc.disable)()
    try:
        with pytest.raises(UserError, match="an error"):
            fail()
        assert gc.isenabled() == is_enabled
    finally:
        gc.enable()


def test_no_garbage_is_looked_for_while_a_data_set_is_read(coco, voc):
    coco.add(1, [(1, 0, 0, 5, 5)] * 2000).write()
    voc.add("a", [("cat", 1, 1, 9, 9)] * 2000)
    records = read_coco(coco.json, coco.images)
    for read in (
        lambda: read_coco(coco.json, coco.images),
        lambda: read_voc(voc.images, voc.xml),
        lambda: to_dataset_dicts(records, ["cat", "dog"], "pets"),
    ):
        before = sum(generation["collections"] for generation in gc.get_stats())
        kept = read()
        after = sum(generation["collections"] for generation in gc.get_stats())
        assert after - before <= 1  # it may come at once when all is read
        del kept


def test_records_stay_unless_they_are_to_be_used_up(coco):
    coco.add(1, [(1, 0, 0, 5, 5), (2, 1, 1, 6, 6)]).write()
    records = read_coco(coco.json, coco.images)
    first = to_dataset_dicts(records, records.class_names, "pets")
    assert to_dataset_dicts(records, records.class_names, "pets", use_up=True) == first
    assert len(first[0]["annotations"]) == 2
    assert not records.images
