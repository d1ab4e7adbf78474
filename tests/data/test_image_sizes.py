"""Sizes of many images: read by several workers, and once on each machine."""

import multiprocessing
import os
import socket

import pytest
import torch
import torch.distributed as dist
from detectron2.data import DatasetCatalog
from PIL import Image

from apdet.data import image_sizes as module
from apdet.data import register
from apdet.data.image_sizes import image_sizes
from apdet.errors import UserError

HOSTS = ["a", "b", "b"]  # the machine of each process


@pytest.fixture
def images(tmp_path, monkeypatch):
    """The files of enough images for several workers, each with another size."""
    monkeypatch.setattr(module, "_NUM_FEW", 0)
    paths = [str(tmp_path / f"{i}.png") for i in range(3 * module._NUM_IN_A_ROW)]
    for i, path in enumerate(paths):
        Image.new("1", (i + 1, 2)).save(path)
    return paths


def test_workers_read_the_sizes_in_the_order_of_the_files(images, monkeypatch):
    image_size, this_process = module.image_size, os.getpid()

    def read(file_name):
        assert os.getpid() != this_process
        return image_size(file_name)

    monkeypatch.setattr(module, "image_size", read)
    state = torch.get_rng_state()
    assert image_sizes(images) == [(i + 1, 2) for i in range(len(images))]
    assert torch.equal(torch.get_rng_state(), state)  # it belongs to the training


def test_the_first_of_several_broken_files_is_named(images):
    for path in (images[700], images[300], images[299]):
        with open(path, "wb"):
            pass
    with pytest.raises(UserError, match=r"/299\.png: not a readable image"):
        image_sizes(images)


def read_in_process(rank, rendezvous, entry):
    """Register an entry in one of several processes.

    Returns:
        The files of which this process read the size, and the sizes in the data set or the error.
    """
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=len(HOSTS))
    socket.gethostname = lambda: HOSTS[rank]
    read, image_size = [], module.image_size
    module.image_size = lambda file_name: read.append(file_name) or image_size(file_name)
    try:
        register.register([entry], train=["pets"], test=[])
        result = [(image["width"], image["height"]) for image in DatasetCatalog.get("pets")]
    except UserError as error:
        result = str(error)
    dist.barrier()  # gloo aborts in a process that another one leaves too early
    dist.destroy_process_group()
    return len(read), result


def in_processes(tmp_path, entry):
    rendezvous = f"file://{tmp_path}/rendezvous"
    with multiprocessing.get_context("fork").Pool(len(HOSTS)) as pool:
        calls = [(rank, rendezvous, entry) for rank in range(len(HOSTS))]
        return pool.starmap(read_in_process, calls, chunksize=1)


@pytest.fixture
def entry(voc):
    voc.add("1", [("cat", 1, 1, 9, 9)], size=(21, 13), stated=(1, 1)).add("2", size=(30, 40))
    files = {"images": str(voc.images), "annotations": str(voc.xml)}
    return {"name": "pets", "format": "voc", **files}


def test_one_process_of_each_machine_reads_the_images_for_all(entry, tmp_path):
    found = in_processes(tmp_path, entry)
    assert found == [(num_read, [(21, 13), (30, 40)]) for num_read in (2, 2, 0)]


def test_all_processes_end_with_the_error_of_the_one_that_reads(entry, voc, tmp_path):
    (voc.images / "1.jpg").write_bytes(b"")
    found = in_processes(tmp_path, entry)
    assert [num_read for num_read, _ in found] == [1, 1, 0]
    assert all(str(voc.images / "1.jpg") in message for _, message in found)
