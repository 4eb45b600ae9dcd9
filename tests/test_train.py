"""The training loop of a proxy: what is repeatable, what a checkpoint holds, what augmentation and norms do."""

import copy
import gc
import math
import weakref
from dataclasses import replace
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from scalesearch.errors import DataError, PlanError, TrialDivergedError
from scalesearch.nets.blocks import start_near_identity
from scalesearch.nets.network import build
from scalesearch.proxy.device import Shelf, on_device, resized
from scalesearch.proxy.draws import augmented, draw, steps_per_epoch
from scalesearch.proxy.evaluate import BATCH, evaluate, norm_batches
from scalesearch.proxy.images import Images
from scalesearch.proxy.state import State
from scalesearch.proxy.train import Training, train
from scalesearch.recipe import Recipe, Schedule
from scalesearch.spec import Head, Network, Stage, Stem

NETWORK = Network(
    stem=Stem(width=8, stride=1),
    stages=(
        Stage(block="mbconv", depth=1, width=8, stride=2),
        Stage(block="mbconv", depth=2, width=12, expansion=2.0, kernel=5, se_ratio=0.25),
    ),
    head=Head(width=16, dropout=0.1),
    resolution=8,
    num_classes=3,
    drop_path=0.1,
)
RECIPE = Recipe(batch_size=16, learning_rate=0.02, average=0.3, crop=0.125, flip=True, norm_images=40)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stripes(count, *, channels=1, side=8, seed=0):
    """Images of three classes that differ in the direction of their stripes, with noise on top."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    patterns = torch.stack([rows % 2, columns % 2, (rows + columns) % 2]).float()
    noise = torch.rand(count, channels, side, side, generator=generator)
    return (255 * (0.5 * patterns[labels].unsqueeze(1) + 0.5 * noise)).byte(), labels


def placed(train, validation, *, resolution=8, memory=2**30):
    """Two pairs (images, labels) on the CPU; `memory` of 0 bytes has them streamed."""
    (train_images, train_labels), (held, held_labels) = (
        (part.numpy() for part in pair) for pair in (train, validation)
    )
    found = Images(
        train_images=train_images,
        train_labels=train_labels,
        validation_images=held,
        validation_labels=held_labels,
        fingerprint="",
    )
    return on_device(found, resolution=resolution, device=CPU, memory=memory)


def images(count=96, *, channels=1, validation=60, memory=2**30):
    return placed(stripes(count, channels=channels), stripes(validation, channels=channels, seed=1), memory=memory)


def started(data, recipe=RECIPE, *, epochs=3, seed=5, network=NETWORK):
    module = build(network, seed=seed)
    start_near_identity(module)
    return train(module, data, recipe, epochs=epochs, seed=seed)


def draws_of(seed, recipe, count):
    """Order, shifts and mirrored images of an epoch, by step and seed."""
    found = draw([seed], 0, images=count, side=8, recipe=recipe)
    return found.order, found.shifts, found.mirrored


def copied(tensors):
    return {name: value.clone() for name, value in tensors.items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


RECIPES = pytest.mark.parametrize(
    "recipe",
    [RECIPE, replace(RECIPE, average=0.0), replace(RECIPE, optimizer="sgd", learning_rate=0.1, momentum=0.8)],
    ids=["adamw-averaged", "adamw", "sgd-averaged"],
)


# Repeating and resuming


@RECIPES
def test_the_same_seed_gives_the_same_bits(recipe):
    data = images()
    (first, results), (second, again) = started(data, recipe), started(data, recipe)
    assert list(results) == list(again)
    assert same(first.state.tensors(), second.state.tensors())


def test_another_seed_gives_another_run():
    data = images()
    assert list(started(data, seed=1)[1]) != list(started(data, seed=2)[1])


@RECIPES
@pytest.mark.parametrize("as_in_a_file", [torch.clone, lambda value: value.contiguous().clone()])
def test_a_training_restored_behind_any_step_ends_as_if_it_had_never_stopped(recipe, as_in_a_file):
    data = images()
    whole, _ = started(data, recipe)
    expected, states = [], []
    for found in whole.steps():
        expected += found or []
        tensors = {name: as_in_a_file(value) for name, value in whole.tensors().items()}
        states.append((tensors, whole.epoch, whole.step))
    moments = {(epoch, step): tensors for tensors, epoch, step in states}  # the last of each: in an evaluation, if any
    assert len(moments) > whole.step >= 12
    for (epoch, step), tensors in moments.items():
        resumed, rest = started(data, recipe, seed=5)
        torch.rand(step)  # of a generator that stands somewhere else
        resumed.restore(tensors, epoch=epoch, step=step)
        assert list(rest) == expected[epoch:]
        assert same(resumed.state.tensors(), whole.state.tensors())


def test_restoring_takes_copies():
    data = images()
    training, results = started(data)
    next(results)
    state = copied(training.tensors())
    kept = copied(state)
    resumed, rest = started(data)
    resumed.restore(state, epoch=1, step=training.step)
    list(rest)
    assert same(state, kept)


def test_an_evaluation_leaves_the_run_as_it_is():
    data = images()
    plain, results = started(data)
    looked_at, others = started(data)
    for result in others:
        assert ([result.accuracy], [result.loss]) == evaluate(looked_at.state, data)
        assert result == next(results)
    assert same(plain.state.tensors(), looked_at.state.tensors())


# The steps


def test_schedules_pass_through_their_knots_and_run_straight_between_them():
    schedule = Schedule((0.0, 0.25, 0.5, 1.0), (0.0, 1.0, 1.0, 0.2))
    assert [schedule(x) for x in (0.0, 0.125, 0.25, 0.4, 0.5)] == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert schedule(0.75) == pytest.approx(0.6)
    assert schedule(1 - 1e-12) == pytest.approx(0.2)


@given(st.floats(0, 1, exclude_max=True), st.floats(0.01, 0.99))
def test_warm_up_and_linear_decay_have_their_closed_form(progress, peak):
    value = Schedule((0.0, peak, 1.0), (0.0, 1.0, 0.0))(progress)
    assert value == pytest.approx(min(progress / peak, (1 - progress) / (1 - peak)), abs=1e-9)


@pytest.mark.parametrize(
    ("knots", "values"), [((0, 1), (1,)), ((0, 0, 1), (1, 1, 1)), ((0.1, 1), (1, 1)), ((0,), (1,))]
)
def test_schedules_refuse_knots_that_are_none(knots, values):
    with pytest.raises(PlanError):
        Schedule(knots, values)


def test_the_learning_rate_of_every_step_is_the_schedule_at_the_middle_of_the_step(monkeypatch):
    data, recipe = images(), replace(RECIPE, schedule=Schedule((0.0, 0.5, 1.0), (0.0, 1.0, 0.0)))
    training, results = started(data, recipe, epochs=2)
    rates = []
    original = training.state.optimizer.step
    monkeypatch.setattr(
        training.state.optimizer,
        "step",
        lambda: (rates.append(float(training.state.optimizer.param_groups[0]["lr"])), original()),
    )
    list(results)
    assert len(rates) == 2 * 96 // 16
    middles = [(step + 0.5) / len(rates) for step in range(len(rates))]
    assert rates == pytest.approx([0.02 * min(2 * x, 2 - 2 * x) for x in middles])


@given(st.integers(1, 2000), st.integers(2, 300))
def test_an_epoch_has_full_batches_only_unless_the_set_is_smaller_than_one(count, batch):
    steps = steps_per_epoch(count, Recipe(batch_size=batch))
    assert steps == (count // batch if count >= batch else 1)


def test_the_fused_step_is_adamw_as_it_is_written_down():
    # arXiv:1711.05101, algorithm 2, on weights that lie in memory as channels_last
    data, recipe = images(16), replace(RECIPE, average=0.0, crop=0.0, flip=False, weight_decay=0.3)
    network = replace(NETWORK, drop_path=0.0, head=Head(width=16))
    training, results = started(data, recipe, epochs=1, network=network)
    reference = build(network, seed=5)
    start_near_identity(reference)
    normal = data.normalised(data.train.images)
    functional.cross_entropy(reference(normal), data.train_labels, label_smoothing=recipe.label_smoothing).backward()
    next(results)
    rate = recipe.learning_rate * recipe.schedule(0.5)
    trained = dict(training.state.module.named_parameters())
    for name, weight in reference.named_parameters():
        gradient = weight.grad
        decay = recipe.weight_decay if weight.ndim > 1 else 0.0
        expected = weight * (1 - rate * decay) - rate * gradient / (gradient.abs() + 1e-8)
        clear = gradient.abs() > 1e-4  # near 0 the sign of a gradient depends on the order of summation
        torch.testing.assert_close(trained[name][clear], expected[clear], rtol=1e-3, atol=1e-4)


def test_the_average_is_a_plain_mean_first_and_exponential_from_its_horizon_on(monkeypatch):
    data, recipe = images(), replace(RECIPE, average=0.25)  # 12 steps, horizon 3
    training, results = started(data, recipe, epochs=2)
    trail = []
    original = training.state.optimizer.step
    monkeypatch.setattr(
        training.state.optimizer,
        "step",
        lambda: (original(), trail.append([weight.detach().clone() for weight in training.state.module.parameters()])),
    )
    list(results)
    mean = [torch.stack(values).mean(0) for values in zip(*trail[:3], strict=True)]
    for weights in trail[3:]:
        mean = [old + (new - old) / 3 for old, new in zip(mean, weights, strict=True)]
    for expected, average in zip(mean, training.state.averaged.parameters(), strict=True):
        torch.testing.assert_close(average, expected, rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_not_finite_ends_the_trial():
    training, results = started(images(), replace(RECIPE, learning_rate=1e30, average=0.0))
    with pytest.raises(TrialDivergedError) as caught:
        list(results)
    assert caught.value.epoch == training.epoch
    assert not math.isfinite(sum(float(weight.detach().sum()) for weight in training.state.module.parameters()))


def test_weights_that_the_last_step_ruins_end_the_trial_too():
    _, results = started(images(16), replace(RECIPE, learning_rate=1e30, average=0.0), epochs=1)
    with pytest.raises(TrialDivergedError):
        next(results)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_images_are_learnt(channels):
    data = images(192, channels=channels)
    *_, last = started(data, epochs=4)[1]
    assert last.accuracy > 80
    assert last.loss < math.log(3) / 2


@pytest.mark.parametrize("count", [2, 5, 17])
def test_sets_smaller_than_a_batch_and_of_odd_sizes_are_trained(count):
    data = images(count, validation=3)
    assert [result.epoch for result in started(data, epochs=2)[1]] == [1, 2]


def test_a_single_image_is_refused():
    with pytest.raises(DataError):
        started(images(1))


# Augmentation and normalisation


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]))
def test_a_crop_is_a_shift_with_black_let_in(seed, channels):
    pixels, _ = stripes(12, channels=channels)
    recipe = replace(RECIPE, crop=0.25, flip=False, batch_size=12)  # 2 px of 8
    [[shifts]], [[mirrored]] = draws_of(seed, recipe, 12)[1:]
    for image, found in zip(pixels, augmented(pixels, shifts, mirrored, recipe), strict=True):
        black = functional.pad(image, (2, 2, 2, 2))
        moved = [black[:, row : row + 8, column : column + 8] for row in range(5) for column in range(5)]
        assert any(torch.equal(found, shift) for shift in moved)


def test_a_flip_mirrors_about_half_of_the_images_and_touches_no_other():
    plain, _ = stripes(96)
    recipe = replace(RECIPE, crop=0.0, batch_size=96)
    [[shifts]], [[drawn]] = draws_of(0, recipe, 96)[1:]
    changed = augmented(plain, shifts, drawn, recipe)
    mirrored = [torch.equal(found, image.flip(-1)) for found, image in zip(changed, plain, strict=True)]
    kept = [torch.equal(found, image) for found, image in zip(changed, plain, strict=True)]
    assert mirrored == drawn.tolist()
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))
    assert 24 < sum(mirrored) < 72


def test_without_crop_and_flip_images_stay_as_they_are():
    pixels, _ = stripes(16)
    recipe = replace(RECIPE, crop=0.0, flip=False)
    [[shifts]], [[mirrored]] = draws_of(0, recipe, 16)[1:]
    assert torch.equal(augmented(pixels, shifts, mirrored, recipe), pixels)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 200), st.integers(2, 64), st.lists(st.integers(0, 999), min_size=1, max_size=4, unique=True))
def test_an_epoch_takes_no_image_twice_and_a_seed_draws_the_same_beside_any_others(count, batch, seeds):
    recipe = replace(RECIPE, batch_size=batch)
    found = draw(seeds, 3, images=count, side=8, recipe=recipe)
    for column, seed in enumerate(seeds):
        order = found.order[:, column].flatten()
        assert len(order.unique()) == len(order) == min(count, count // batch * batch or count)
        alone = draw([seed], 3, images=count, side=8, recipe=recipe)
        for together, one in (
            (found.order, alone.order),
            (found.shifts, alone.shifts),
            (found.mirrored, alone.mirrored),
        ):
            assert torch.equal(together[:, column], one[:, 0])
    assert not torch.equal(found.order, draw(seeds, 4, images=count, side=8, recipe=recipe).order) or count < 8


def kept_of(shelf, name, resolution, memory):
    pixels, labels = (part.numpy() for part in stripes(32, seed=len(name)))
    arrays = dict.fromkeys(("train_images", "validation_images"), pixels)
    found = Images(**arrays, train_labels=labels, validation_labels=labels, fingerprint=name)
    return shelf.images(found, resolution=resolution, memory=memory)


def test_images_of_an_earlier_trial_are_used_again_and_are_those_that_a_first_trial_gets():
    shelf = Shelf(CPU)
    first = kept_of(shelf, "one", 6, 2**20)
    other = kept_of(shelf, "other", 6, 2**20)
    assert kept_of(shelf, "one", 6, 2**20) is first
    assert kept_of(shelf, "one", 7, 2**20).train.shape == (32, 1, 7)
    assert not torch.equal(first.train.images, other.train.images)
    fresh = kept_of(Shelf(CPU), "one", 6, 2**20)
    assert torch.equal(first.train.images, fresh.train.images)
    assert torch.equal(first.mean, fresh.mean)


def test_kept_images_take_a_quarter_of_the_memory_and_the_oldest_leaves_first():
    shelf, bytes_of_6 = Shelf(CPU), 2 * 32 * 6 * 6
    sets = [kept_of(shelf, name, 6, 12 * bytes_of_6) for name in ("a", "bb", "ccc")]  # a quarter: three sets
    assert kept_of(shelf, "a", 6, 12 * bytes_of_6) is sets[0]  # now the youngest
    kept_of(shelf, "dddd", 6, 12 * bytes_of_6)
    assert kept_of(shelf, "a", 6, 12 * bytes_of_6) is sets[0]
    assert kept_of(shelf, "bb", 6, 12 * bytes_of_6) is not sets[1]
    large = kept_of(shelf, "a", 12, 12 * bytes_of_6)  # four times as much as a set of 6 px
    assert kept_of(shelf, "a", 12, 12 * bytes_of_6) is not large


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_training_images_have_mean_0_and_deviation_1_in_three_channels(channels):
    data = images(60, channels=channels)
    values = data.normalised(data.train.images)
    assert values.shape == (60, 3, 8, 8)
    assert values.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(values.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


def test_a_sorted_set_is_normalised_by_all_of_its_classes():
    dark, bright = torch.zeros(5000, 1, 2, 2, dtype=torch.uint8), torch.full((5000, 1, 2, 2), 200, dtype=torch.uint8)
    pair = torch.cat([dark, bright]), torch.zeros(10000, dtype=torch.int64)
    assert placed(pair, pair, resolution=2).mean.item() == pytest.approx(100, abs=0.1)


def test_resizing_keeps_bytes_flat_images_and_the_right_side():
    flat = torch.full((3, 1, 28, 28), 77, dtype=torch.uint8)
    assert torch.equal(resized(flat, 20), flat[..., :20, :20])
    assert resized(flat, 28) is flat
    black_and_white = 255 * (torch.rand(5, 3, 9, 9) < 0.5).byte()
    assert resized(black_and_white, 14).dtype == torch.uint8


# Batch norm


def norm_inputs(module, batches):
    """Per batch-norm layer, the inputs that it meets when every layer normalises by its batch."""
    seen = {name: [] for name, layer in module.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    hooks = [
        module.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: seen[name].append(args[0]))
        for name in seen
    ]
    with torch.no_grad():
        for batch in batches:
            module(batch)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("average", [0.0, 0.3])
def test_norms_are_evaluated_with_the_plain_mean_of_the_batches_statistics(average):
    # no dropout and no drop path, so that a module in training mode differs in its norms alone
    network = replace(NETWORK, drop_path=0.0, head=Head(width=16))
    data, recipe = images(600), replace(RECIPE, average=average, norm_images=300)
    training, results = started(data, recipe, epochs=1, network=network)
    list(results)
    module = training.state.module if training.state.averaged is None else training.state.averaged
    estimated = copied(module.state_dict())
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))[:300]
    parts = order.tensor_split(300 // BATCH["cpu"])
    batches = [data.normalised(data.train.images[part]) for part in parts]
    inputs = norm_inputs(module.train(), batches)
    assert inputs
    for name, values in inputs.items():
        mean = torch.stack([value.mean((0, 2, 3)) for value in values]).mean(0)
        variance = torch.stack([value.var((0, 2, 3)) for value in values]).mean(0)
        torch.testing.assert_close(estimated[f"{name}.running_mean"], mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(estimated[f"{name}.running_var"], variance, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 700), st.integers(2, 600))
def test_no_batch_of_the_norms_is_too_small_to_have_a_variance(count, asked):
    data = placed(stripes(count, side=2), stripes(2, side=2), resolution=2)
    sizes = [len(batch) for batch in norm_batches(data, State(nn.Linear(1, 1), Recipe(norm_images=asked)))]
    assert sum(sizes) == min(count, asked)
    assert max(sizes) <= BATCH["cpu"]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2


def test_the_momentum_of_the_norms_outlives_the_evaluation():
    training, results = started(images())
    list(islice(results, 1))
    assert {layer.momentum for layer in training.state.averaged.modules() if isinstance(layer, nn.BatchNorm2d)} == {0.1}


# The recipe


def test_a_recipe_survives_its_dict_form():
    recipe = replace(RECIPE, schedule=Schedule((0.0, 0.5, 1.0), (1.0, 0.5, 0.0)))
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_a_recipe_names_all_its_faults_at_once():
    with pytest.raises(PlanError) as caught:
        Recipe(learning_rate=-1.0, batch_size=1, crop=0.7)
    assert len(caught.value.faults) == 3


def test_a_recipe_refuses_a_key_that_is_none():
    with pytest.raises(PlanError, match="learning_rte"):
        Recipe.from_dict({"learning_rte": 1.0})


# Ways of training that come to the same


def test_streamed_images_train_to_the_same_bits_as_resident_ones():
    (first, results), (second, again) = started(images()), started(images(memory=0))
    assert list(results) == list(again)
    assert same(first.state.tensors(), second.state.tensors())


def test_streamed_images_are_resized_to_the_proxys_side():
    pair = stripes(30, side=12)
    resident, streamed = (placed(pair, pair, memory=memory) for memory in (2**30, 0))
    [found] = streamed.train.feed([torch.tensor([7, 3, 3])])
    assert torch.equal(found, resident.train.images[[7, 3, 3]])
    assert (streamed.mean, streamed.deviation) == (resident.mean, resident.deviation)


@pytest.mark.parametrize("micro_batch", [1, 5, 8, 15])
def test_micro_batches_sum_to_the_gradient_of_the_whole_batch(micro_batch):
    # without batch norm, which sees one micro-batch at a time, the parts of a batch are independent
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3))
    data, recipe = images(48), replace(RECIPE, norm_images=2)
    whole, parts = (
        Training(copy.deepcopy(module), data, recipe, epochs=2, seeds=[0], micro_batch=most)
        for most in (None, micro_batch)
    )
    for [one], [other] in zip(whole.results(), parts.results(), strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-5)
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
    for one, other in zip(whole.state.module.parameters(), parts.state.module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@settings(deadline=None)
@given(st.integers(2, 300), st.integers(2, 300))
def test_micro_batches_differ_by_one_image_at_most(count, micro_batch):
    data = placed(stripes(count, side=2), stripes(2, side=2), resolution=2)
    seen = []

    class Seen(nn.Linear):
        def forward(self, images):
            seen.append(len(images))
            return super().forward(images.flatten(1))

    recipe = Recipe(batch_size=count, norm_images=2)
    training = Training(Seen(12, 3), data, recipe, epochs=1, seeds=[0], micro_batch=micro_batch)
    next(training.results())
    parts = seen[: -(-count // micro_batch)]
    assert sum(parts) == count
    assert max(parts) <= micro_batch
    assert max(parts) - min(parts) <= 1


@pytest.mark.parametrize("memory", [2**30, 0])
def test_a_training_that_is_over_is_freed_at_once_with_its_images(memory):
    training, results = started(images(memory=memory), epochs=1)
    list(results)
    kept = [weakref.ref(training), weakref.ref(training.state), weakref.ref(training.state.module)]
    gc.collect()
    gc.disable()
    try:
        del training, results
        assert [one() for one in kept] == [None] * 3
    finally:
        gc.enable()
