import functools
import warnings

import pytest
import torch

from apdet import losses
from apdet.losses.ghm import GHMLoss
from apdet.losses.interface import declare, interface_of


def test_the_losses_say_what_they_are():
    interfaces = {name: interface_of(getattr(losses, name)) for name in losses.LOSSES}
    assert [name for name, i in interfaces.items() if i.softmax] == ["ohem_loss"]
    assert {name: i.needs for name, i in interfaces.items()} == {
        "ap_loss": ("group",),
        "auc_loss": ("group",),
        "dr_loss": (),
        "focal_loss": ("normalizer",),
        "ghm_loss": (),
        "ohem_loss": ("normalizer",),
        "pnp_loss": ("group",),
    }
    assert [i.module for i in interfaces.values() if i.module] == [GHMLoss]
    assert interfaces["focal_loss"].hyper_parameters == ("alpha", "gamma")
    assert interfaces["ghm_loss"].hyper_parameters == ("bins", "momentum")


def test_ranking_loss_is_exported_but_no_loss_by_itself():
    assert losses.ranking_loss is losses.ap.ranking_loss
    assert "ranking_loss" not in losses.LOSSES
    assert set(losses.LOSSES) | {"ranking_loss", "LOSSES"} == set(losses.__all__)


def test_attributes_may_be_set_by_hand_or_by_the_decorator():
    def by_hand(logits, labels, *, factor=1.0, normalizer=None):
        return logits.sum()

    by_hand.softmax, by_hand.needs = True, ("normalizer",)

    @declare(softmax=True, needs=("normalizer",))
    def decorated(logits, labels, *, factor=1.0, normalizer=None):
        return logits.sum()

    assert interface_of(by_hand) == interface_of(decorated)
    assert interface_of(by_hand) == (True, ("normalizer",), None, ("factor",))


def test_a_partial_and_a_wrapper_are_what_the_loss_in_them_is():
    @functools.wraps(losses.ohem_loss)
    def wrapper(*args, **kwargs):
        return 2 * losses.ohem_loss(*args, **kwargs)

    expected = interface_of(losses.ohem_loss)
    assert interface_of(wrapper) == expected
    assert interface_of(functools.partial(losses.ohem_loss, neg_pos_ratio=1.0)) == expected


def test_a_comma_that_is_missing_does_not_make_letters_of_the_need():
    def loss(logits, targets, *, group=None):
        return logits.sum()

    loss.needs = "group"
    assert interface_of(loss).needs == ("group",)


def of_0_1(logits, targets, *, factor=1.0, normalizer=None, group=None):
    return logits.sum()


def test_a_loss_that_names_its_needs_in_its_signature_is_told_which_attribute_to_set():
    with pytest.warns(FutureWarning, match=r"set of_0_1.needs = \('normalizer', 'group'\)"):
        interface = interface_of(of_0_1)
    assert interface == (False, ("normalizer", "group"), None, ("factor",))


def test_a_loss_that_updates_counts_in_place_is_kept_in_a_module():
    def counts(logits, targets, *, bins=4, moving_counts):
        moving_counts += 1
        return moving_counts.sum()

    with pytest.warns(FutureWarning, match=r"counts names moving_counts .* counts.module"):
        interface = interface_of(counts)
    assert interface.hyper_parameters == ("bins",)
    module = interface.module(bins=7)
    assert [module(torch.zeros(1), torch.zeros(1)).item() for _ in range(2)] == [7, 14]
    assert module.state_dict()["moving_counts"].tolist() == [2] * 7


def test_a_loss_that_needs_nothing_is_not_warned_of():
    def plain(logits, targets, *, factor=1.0):
        return logits.sum()

    def declared(logits, targets, *, group=None):
        return logits.sum()

    declared.needs = ()  # its group is its own
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert interface_of(plain).needs == ()
        assert interface_of(declared) == (False, (), None, ("group",))


def test_the_former_list_of_softmax_losses_is_still_there():
    with pytest.warns(DeprecationWarning, match="SOFTMAX is deprecated"):
        assert losses.SOFTMAX == ("ohem_loss",)
    with pytest.raises(AttributeError, match="no attribute 'sofmax'"):
        losses.sofmax  # noqa: B018
