from types import SimpleNamespace

import pytest

from apdet.engine.folder_guard import FolderGuard
from apdet.errors import UserError


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "output"
    path.mkdir()
    return path


def guard_of(folder):
    hook = FolderGuard(str(folder))
    hook.trainer = SimpleNamespace(iter=6, max_iter=6)
    hook.before_train()
    hook.after_step()
    return hook


@pytest.fixture
def guard(folder):
    return guard_of(folder)


@pytest.mark.parametrize("is_made_anew", [False, True])
def test_a_removed_folder_ends_the_training(guard, folder, is_made_anew):
    folder.rmdir()
    if is_made_anew:
        folder.mkdir()
    with pytest.raises(UserError, match=rf"^{folder}: it was removed; restore the folder"):
        guard.after_step()
    with pytest.raises(UserError, match="it was removed"):
        guard.after_train()


def test_a_folder_that_was_moved_there_and_back_is_the_same(guard, folder, tmp_path):
    folder.rename(tmp_path / "elsewhere").rename(folder)
    guard.after_step()


@pytest.mark.parametrize("is_made_anew", [False, True])
def test_a_folder_that_is_being_removed_ends_the_training(folder, is_made_anew):
    for file in ("lock", "log.txt"):
        (folder / file).touch()
    guard = guard_of(folder)
    (folder / "log.txt").rename(folder / "log.txt.1")  # as programs do that keep logs short
    guard.after_step()
    (folder / "lock").unlink()
    if is_made_anew:
        (folder / "lock").touch()
    message = rf"^{folder}: it was removed in part: lock is gone; restore the folder"
    for check in (guard.after_step, guard.after_train, guard.check):
        with pytest.raises(UserError, match=message):
            check()


def test_after_another_error_there_is_no_second_one(guard, folder):
    guard.trainer.iter = 3
    folder.rmdir()
    guard.after_train()
