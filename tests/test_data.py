"""lib/data.py on files made here, in the formats that the real data sets have."""

import hashlib
import io
import pickle
import tempfile
import warnings
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from conftest import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, STL10, ImageFolder

from lib import data as datasets
from lib import probe, textures, train
from lib.data import FolderImages, load

SPLITS = ("train", "val", "test")


def equal(a, b):
    """Are two Data the same, pixel by pixel?"""
    pairs = [(getattr(a, s), getattr(b, s)) for s in SPLITS]
    return (a.classes, a.size, a.flip, a.checksum) == (b.classes, b.size, b.flip, b.checksum) and all(
        torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels) for one, other in pairs)


def paint(path, rng, side=12, mode="RGB", **options):
    """A file of smooth random content; its format follows the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    w, h = (side, side) if isinstance(side, int) else side
    Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)).convert(mode).save(path, **options)


def make_folder(path, classes=("ant", "bee"), train=20, test=6, side=12, held_out="test"):
    rng = np.random.default_rng(0)
    for c in classes:
        for part, n in (("train", train), (held_out, test)):
            for i in range(n):
                paint(path / part / c / f"{i:03}.png", rng, side)
    return path


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "images")


def load_folder(path, options="", **arguments):
    return load(f"folder:{path}{options}", root=path.parent / "root", **arguments)


# ---- the real formats ----

def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(root, monkeypatch, dataset, n_classes, per_class=20):
    """CIFAR's pickled batches, one colour plane after the other, and torchvision's md5 list for them."""
    base, rng = root / dataset.base_folder, np.random.default_rng(0)
    base.mkdir(parents=True)
    fine = dataset is CIFAR100
    written = {}
    for part in ("train_list", "test_list"):
        entries = []
        for name, _ in getattr(dataset, part):
            n = n_classes * per_class // (len(dataset.train_list) if part == "train_list" else 2)
            batch = {"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8),
                     "fine_labels" if fine else "labels": [i % n_classes for i in range(n)]}
            (base / name).write_bytes(pickle.dumps(batch, protocol=2))
            entries.append([name, md5(base / name)])
            written[name] = batch
        monkeypatch.setattr(dataset, part, entries)
    names = [f"class {i:03}" for i in range(n_classes)]
    meta = base / dataset.meta["filename"]
    meta.write_bytes(pickle.dumps({dataset.meta["key"]: names}, protocol=2))
    monkeypatch.setattr(dataset, "meta", dataset.meta | {"md5": md5(meta)})
    return names, written


@pytest.mark.parametrize(("name", "dataset", "n_classes"), [("cifar10", CIFAR10, 10), ("cifar100", CIFAR100, 100)])
def test_cifar_is_read_from_torchvisions_pickles_plane_by_plane(tmp_path, monkeypatch, name, dataset, n_classes):
    names, written = write_cifar(tmp_path, monkeypatch, dataset, n_classes)
    data = load(name, root=tmp_path)
    assert data.classes == tuple(names) and data.size == 32 and data.flip and data.train.factors is None
    assert (len(data.train), len(data.val), len(data.test)) == (18 * n_classes, 2 * n_classes, 10 * n_classes)
    key = "fine_labels" if n_classes == 100 else "labels"
    truth = {row.tobytes(): label for batch in written.values() for row, label in zip(batch["data"], batch[key])}
    for split in (data.train, data.val, data.test):
        assert [truth[image.numpy().tobytes()] for image in split.images] == split.labels.tolist()


def test_cifar_is_served_from_the_cache_once_its_files_are_gone(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch, CIFAR10, 10)
    first = load("cifar10", root=tmp_path)
    for file in (tmp_path / CIFAR10.base_folder).iterdir():
        file.unlink()
    assert equal(first, load("cifar10", root=tmp_path))


def test_stl10_is_read_from_its_column_major_binaries(tmp_path, monkeypatch):
    base, rng = tmp_path / STL10.base_folder, np.random.default_rng(0)
    base.mkdir()
    images = {part: rng.integers(0, 256, (n, 3, 96, 96), dtype=np.uint8) for part, n in (("train", 40), ("test", 20))}
    for part, pixels in images.items():
        pixels.transpose(0, 1, 3, 2).tofile(base / f"{part}_X.bin")
        (np.arange(len(pixels), dtype=np.uint8) % 10 + 1).tofile(base / f"{part}_y.bin")      # labels from 1
    (base / "unlabeled_X.bin").write_bytes(b"")
    names = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    (base / "class_names.txt").write_text("\n".join(names))
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(STL10, part, [[file, md5(base / file)] for file, _ in getattr(STL10, part)])
    data = load("stl10", root=tmp_path)
    assert data.classes == tuple(names) and data.size == 96 and data.flip
    assert (len(data.train), len(data.val), len(data.test)) == (30, 10, 20)
    truth = {image.tobytes(): i % 10 for pixels in images.values() for i, image in enumerate(pixels)}
    for split in (data.train, data.val, data.test):
        assert [truth[image.numpy().tobytes()] for image in split.images] == split.labels.tolist()


@pytest.mark.parametrize(("name", "module", "file"), [("cifar10", "cifar", "cifar-10-python.tar.gz"),
                                                      ("cifar100", "cifar", "cifar-100-python.tar.gz"),
                                                      ("stl10", "stl10", "stl10_binary.tar.gz")])
def test_a_failed_download_says_in_one_sentence_which_file_goes_where(tmp_path, monkeypatch, name, module, file):
    def fail(*_, **__):
        raise URLError("no route\nto host")
    monkeypatch.setattr(getattr(torchvision.datasets, module), "download_and_extract_archive", fail)
    with pytest.raises(FileNotFoundError) as caught:
        load(name, root=tmp_path)
    message = str(caught.value)
    assert file in message and str(tmp_path) in message and "no route to host" in message and "\n" not in message


def test_cifar10_jpeg_is_a_folder_of_its_own_and_says_how_to_unpack_it(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"mkdir -p (.*cifar10_jpeg) && tar xJf cifar10-jpeg.tar.xz -C \1"):
        load("cifar10_jpeg", root=tmp_path)
    rng = np.random.default_rng(0)
    for part, n in (("train", 5), ("test", 2)):
        for c in ("cat", "dog"):
            for i in range(n):
                paint(tmp_path / "cifar10_jpeg" / part / c / f"{i:04}.jpg", rng, 32)
    with pytest.raises(ValueError, match="10 train and 4 test images instead of 50000 and 10000: unpack"):
        load("cifar10_jpeg", root=tmp_path)         # what an interrupted tar leaves
    monkeypatch.setattr(datasets, "CIFAR10_JPEG", (10, 4))
    data = load("cifar10_jpeg", root=tmp_path)
    assert data.size == 32 and data.classes == ("cat", "dog") and len(data.test) == 4
    truth = np.asarray(Image.open(tmp_path / "cifar10_jpeg/test/cat/0000.jpg")).transpose(2, 0, 1)
    assert any(np.array_equal(truth, image) for image in data.test.images.numpy())


def test_digits_are_scikit_learns_enlarged_and_never_flipped(tmp_path):
    from sklearn.datasets import load_digits
    data = load("digits", root=tmp_path)
    assert data.classes == tuple("0123456789") and data.size == 32 and not data.flip
    assert (len(data.train), len(data.val), len(data.test)) == (1213, 135, 449)
    images = torch.cat([data.train.images, data.val.images, data.test.images])
    labels = torch.cat([data.train.labels, data.val.labels, data.test.labels])
    assert torch.equal(images[:, 0], images[:, 2]) and images.max() == 255
    small = torch.nn.functional.avg_pool2d(images[:, :1].float(), 4).flatten(1)     # nearly what it was
    wanted = torch.from_numpy(load_digits().data * 255 / 16).float()
    nearest = torch.cdist(small, wanted).argmin(1)
    assert len(nearest.unique()) > 1790 and torch.equal(torch.from_numpy(load_digits().target)[nearest], labels)
    assert not list(tmp_path.iterdir())             # nothing to cache


# ---- textures ----

def test_textures_bring_their_factors_row_by_row(tmp_path):
    data = load("textures", root=tmp_path, limit=240)
    assert data.classes == tuple(textures.CLASSES) and data.size == 32 and data.flip
    assert (len(data.train), len(data.val), len(data.test)) == (240, 120, 120)
    images, labels, factors = textures.draw(360, seed=0)
    where = {image.tobytes(): i for i, image in enumerate(images)}
    for split in (data.train, data.val):
        rows = [where[image.numpy().tobytes()] for image in split.images]
        assert split.labels.tolist() == labels[rows].tolist() and split.factors.keys() == factors.keys()
        for name, values in split.factors.items():
            assert values.dtype == torch.float32
            np.testing.assert_array_equal(values.numpy(), factors[name][rows].astype(np.float32))
    held_out = {image.tobytes() for image in textures.draw(len(data.test), seed=1)[0]}
    assert all(image.numpy().tobytes() in held_out for image in data.test.images)


def test_textures_are_10000_to_train_2000_for_val_and_5004_held_out(tmp_path, monkeypatch):
    drawn = []

    def draw(n, seed, size=32, tint=0.0):           # numbered images instead of patterns: this test is about counting
        drawn.append((n, seed))
        images = np.zeros((n, 3, 2, 2), dtype=np.uint8)
        images[:, 0, 0, 0], images[:, 1, 0, 0] = np.arange(n) // 256, np.arange(n) % 256
        return images, np.arange(n) % 12, {"row": np.arange(n, dtype=np.float32)}
    monkeypatch.setattr(textures, "draw", draw)
    data = load("textures", root=tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (10_000, 2_000, 5_004)
    assert drawn == [(12_000, 0), (5_004, 1)]
    rows = torch.cat([data.train.factors["row"], data.val.factors["row"]])
    assert torch.equal(rows.sort().values, torch.arange(12_000.0))      # disjoint, nothing lost
    assert set(data.val.labels.bincount().tolist()) <= {166, 167}
    assert data.test.labels.bincount().tolist() == [417] * 12
    data = load("textures", root=tmp_path, limit=512)
    assert (len(data.train), len(data.val), len(data.test)) == (512, 120, 256)
    assert drawn[2:] == [(636, 0), (264, 1)]        # no more than is kept, in whole rounds of the classes
    data = load("textures", root=tmp_path, limit=5_001)
    assert (len(data.train), len(data.val), len(data.test)) == (5_001, 1_000, 2_500)


def test_the_tint_is_an_option_of_the_name(tmp_path):
    grey, tinted = (load(name, root=tmp_path, limit=24) for name in ("textures", "textures:tint=0.5"))
    assert grey.checksum != tinted.checksum
    assert torch.equal(grey.train.images[:, 0], grey.train.images[:, 1])
    assert not torch.equal(tinted.train.images[:, 0], tinted.train.images[:, 1])
    with pytest.raises(ValueError, match="tint out of range; allowed is 0 to 1"):
        load("textures:tint=2", root=tmp_path)


# ---- splits and limits ----

def test_splits_are_disjoint_stratified_and_the_same_at_every_call(tmp_path):
    path = make_folder(tmp_path / "images", ("a", "b", "c"), train=30, test=10, side=8)
    for i in range(20):                             # an unbalanced class
        (path / f"train/c/{i:03}.png").unlink()
    first, second = load_folder(path), load_folder(path.rename(tmp_path / "moved"))
    assert equal(first, second)
    seen = [image.tobytes() for s in SPLITS for image in getattr(first, s).images.numpy()]
    assert len(seen) == len(set(seen)) == 100
    assert first.val.labels.bincount().tolist() == [3, 3, 1] and first.train.labels.bincount().tolist() == [27, 27, 9]


def test_a_rare_class_still_has_an_image_in_train_and_in_val(tmp_path):
    path = make_folder(tmp_path / "images", ("a", "b", "rare"), train=40, test=1, side=4)
    for i in range(2, 40):
        (path / f"train/rare/{i:03}.png").unlink()
    data = load_folder(path)
    assert data.val.labels.bincount().tolist() == [4, 3, 1] and data.train.labels.bincount().tolist() == [36, 37, 1]


def test_the_split_does_not_follow_any_global_seed(folder):
    torch.manual_seed(1), np.random.seed(1)
    first = load_folder(folder)
    torch.manual_seed(2), np.random.seed(2)
    assert equal(first, load(f"folder:{folder}", root=folder.parent / "elsewhere"))


def test_every_prefix_of_a_split_is_class_balanced_and_shuffled_within_the_class(tmp_path):
    data = load("digits", root=tmp_path)
    for n in (10, 55, 200):
        counts = data.train.labels[:n].bincount(minlength=10)
        assert counts.max() - counts.min() <= 1
    folder_data = load_folder(make_folder(tmp_path / "images", train=40, side=4))
    for s in SPLITS:
        assert getattr(folder_data, s).labels[:4].tolist() == [0, 1, 0, 1]
    truth = [np.asarray(Image.open(tmp_path / f"images/train/ant/{i:03}.png")).transpose(2, 0, 1) for i in range(40)]
    ants = folder_data.train.images[folder_data.train.labels == 0].numpy()
    rows = [next(i for i, image in enumerate(truth) if np.array_equal(image, ant)) for ant in ants]
    assert len(set(rows)) == 36 and rows != sorted(rows)


def test_a_limit_keeps_a_balanced_part_of_the_same_splits(tmp_path):
    path = make_folder(tmp_path / "images", train=60, test=60, side=6)
    whole, part = load_folder(path), load_folder(path, limit=31)
    assert (len(whole.train), len(whole.val), len(whole.test)) == (108, 12, 120)
    assert (len(part.train), len(part.val), len(part.test)) == (31, 12, 20)     # 10 a class at least, where there are
    for s in SPLITS:
        n = len(getattr(part, s))
        assert torch.equal(getattr(part, s).images, getattr(whole, s).images[:n])
    assert part.train.labels.bincount().tolist() == [16, 15] and part.checksum != whole.checksum
    assert equal(whole, load_folder(path, limit=108)) and equal(whole, load_folder(path, limit=10**9))


def test_others_photographs_are_not_shown():
    ours = ("textures:tint=0.5", "digits", "folder:/my/images?size=64")
    others = ("cifar10", "cifar10_jpeg", "stl10", "folder:imagenet?size=64")
    assert [datasets.may_be_shown(name) for name in (*ours, *others)] == [True] * 3 + [False] * 4


def test_class_names_are_known_without_the_images_where_the_data_set_fixes_them():
    assert datasets.class_names("cifar10", 10) == datasets.class_names("cifar10_jpeg", 10) == tuple(sorted(datasets.CIFAR10))
    assert datasets.class_names("folder:/my/images", 3) == ("class 0", "class 1", "class 2") == datasets.class_names("cifar10", 3)


def test_a_limit_shrinks_val_in_proportion_and_test_to_half_of_it():
    assert datasets._limited((45_000, 5_000, 10_000), 10, 10_000) == (10_000, 1_111, 5_000)
    assert datasets._limited((10_000, 2_000, 5_004), 12, 512) == (512, 120, 256)
    assert datasets._limited((10_000, 2_000, 5_004), 12, None) == (10_000, 2_000, 5_004)


@pytest.mark.parametrize("limit", [0, -3, 2.5, True, "12"])
def test_a_limit_that_is_no_number_of_images_is_refused(tmp_path, limit):
    with pytest.raises(ValueError, match="limit is .* allowed is None or a number of images from 1"):
        load("digits", root=tmp_path, limit=limit)


@pytest.mark.parametrize(("name", "classes"), [("digits", 10), ("textures", 12)])
def test_a_limit_below_the_number_of_classes_is_refused(tmp_path, name, classes):
    with pytest.raises(ValueError, match=f"limit is {classes - 1}; .* at least one image for each of {classes} cl"):
        load(name, root=tmp_path, limit=classes - 1)
    assert len(load(name, root=tmp_path, limit=np.int64(classes)).train) == classes


@pytest.mark.parametrize(("name", "nearest"), [("texture", "'textures'"), ("cifar-10", "'cifar10'"),
                                               ("Digits", "'digits'"), ("folder", "'folder:PATH'"),
                                               ("textures:tnt=1", "'textures'")])
def test_an_unknown_name_is_refused_with_the_nearest_one(tmp_path, name, nearest):
    with pytest.raises(ValueError, match=f"name '{name}' is no data set; allowed are .*; the nearest is {nearest}"):
        load(name, root=tmp_path)


# ---- checksum ----

def test_the_checksum_changes_with_a_pixel_a_label_and_a_class_name(tmp_path):
    path = make_folder(tmp_path / "images")
    sums = [load_folder(path).checksum]
    pixels = np.array(Image.open(path / "test/bee/000.png"))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path / "test/bee/000.png")
    sums.append(load_folder(path).checksum)
    (path / "train/ant/000.png").rename(path / "train/bee/x.png")
    sums.append(load_folder(path).checksum)
    for part in ("train", "test"):
        (path / part / "bee").rename(path / part / "beetle")
    sums.append(load_folder(path).checksum)
    assert len(set(sums)) == 4 and all(len(s) == 64 for s in sums)


@pytest.mark.parametrize("part", ["images", "labels", "factors"])
def test_the_checksum_covers_every_tensor(part):
    def checksum(**changed):
        split = datasets.Split(**{"images": torch.zeros(2, 3, 2, 2, dtype=torch.uint8), "labels": torch.tensor([0, 1]),
                                  "factors": {"tint": torch.zeros(2)}} | changed)
        return datasets._checksum(("a", "b"), [split])
    other = {"images": torch.eye(2, dtype=torch.uint8).expand(2, 3, 2, 2), "labels": torch.tensor([1, 0]),
             "factors": {"tint": torch.ones(2)}}
    assert checksum() == checksum() != checksum(**{part: other[part]})


# ---- batches ----

def test_batches_follow_the_order_and_drop_the_incomplete_last(folder):
    train = load_folder(folder).train
    order = torch.randperm(len(train))
    batches = list(train.batches(order, 10))
    assert len(batches) == 3 and torch.equal(torch.cat([index for index, _ in batches]), order[:30])
    for index, images in batches:
        assert images.dtype == torch.uint8 and torch.equal(images, train.images[index])


@pytest.mark.parametrize("batch_size", [0, 37])
def test_a_batch_larger_than_the_order_is_refused_instead_of_no_steps(folder, batch_size):
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}; allowed is 1 to the 36 images"):
        next(load_folder(folder).train.batches(torch.arange(36), batch_size))


@pytest.mark.parametrize("cores", [1, 3])
def test_a_folder_too_large_for_memory_streams_the_same_batches(folder, monkeypatch, cores):
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)         # without and with worker processes
    held, streamed = load_folder(folder), load_folder(folder, memory_gib=1e-6)
    assert isinstance(streamed.train.images, FolderImages) and streamed.size == held.size == 12
    assert streamed.train.images.shape == held.train.images.shape and streamed.classes == held.classes
    for s in SPLITS:
        a, b = getattr(held, s), getattr(streamed, s)
        rows = torch.tensor([3, 0, 0, 1])
        assert torch.equal(a.labels, b.labels) and torch.equal(a.images[rows], b.images[rows])
        assert torch.equal(a.images[:2], b.images[:2])
    order = torch.randperm(len(held.train))
    state = torch.get_rng_state()
    pairs = list(zip(held.train.batches(order, 8), streamed.train.batches(order, 8), strict=True))
    assert len(pairs) == 4 and torch.equal(state, torch.get_rng_state())
    for (i, a), (j, b) in pairs:
        assert torch.equal(i, j) and torch.equal(a, b)


@pytest.mark.parametrize("threads, workers", [(1, 0), (3, 2), (64, 8)])
def test_a_streamed_folder_is_read_by_as_many_processes_as_the_run_has_threads_besides_its_own(folder, monkeypatch, threads, workers):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    loaders = []
    monkeypatch.setattr("lib.data.DataLoader", lambda *given, **options: loaders.append(options) or [])
    train = load_folder(folder, memory_gib=0).train
    assert list(train.batches(torch.arange(36), 9)) == [] and [options["num_workers"] for options in loaders] == [workers]


def test_the_extent_of_a_folder_is_what_loading_it_gives_and_of_one_that_comes_later_too(tmp_path):
    name = f"folder:{tmp_path}/images"
    assert datasets.folder_extent(name) is None and datasets.folder_extent("digits") is None
    make_folder(tmp_path / "images", side=32)
    loaded = load(name, root=tmp_path / "root")
    assert datasets.folder_extent(name) == (loaded.size, len(loaded.train) + len(loaded.val)) == (32, 40)
    paint(tmp_path / "images/test/ant/large.png", np.random.default_rng(0), side=300)
    assert datasets.folder_extent(name)[0] == load(name, root=tmp_path / "root").size == 224
    assert datasets.folder_extent(f"{name}?size=64") == (64, 40)


def test_a_streamed_folder_trains_and_is_evaluated_like_one_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    folder = make_folder(tmp_path / "images", side=32)
    data = [load_folder(folder, **more) for more in ({}, {"memory_gib": 0})]
    config = tiny(batch_size=12, queue=24, epochs=1, evaluation="full")
    (method, history, _), (streamed, same, _) = (train.pretrain(d, config, probe.monitor(d, config)) for d in data)
    assert isinstance(data[1].train.images, FolderImages) and same == history
    found, again = (probe.evaluate(m.encoder, d, config)[0] for m, d in zip((method, streamed), data))
    assert again == found and found["images_train"] == len(data[0].train)


def test_a_streamed_folder_has_a_checksum_of_its_listing(folder):
    sums = [load_folder(folder, memory_gib=0).checksum, load_folder(folder, memory_gib=0).checksum]
    paint(folder / "train/ant/000.png", np.random.default_rng(9), mode="L")
    sums.append(load_folder(folder, memory_gib=0).checksum)
    assert sums[0] == sums[1] != sums[2] and sums[0] != load_folder(folder).checksum


@pytest.mark.parametrize("cores", [1, 2])
def test_an_undecodable_image_met_while_streaming_is_named_in_one_sentence(folder, monkeypatch, cores):
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    train = load_folder(folder, memory_gib=0).train
    for path in train.images.paths():
        Path(path).write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"^image '[^\n]*\.png' cannot be decoded: [^\n]*$"):
        list(train.batches(torch.arange(36), 9))


# ---- what an image file may be ----

def decoded(tmp_path, image, suffix="png", size=8, **options):
    """What load makes of one file, told from the others by being the only image of its class in test."""
    path = make_folder(tmp_path / "images", side=size)
    for file in (path / "test/ant").iterdir():
        file.unlink()
    image.save(path / f"test/ant/x.{suffix}", **options)
    test = load_folder(path, f"?size={size}").test
    return test.images[test.labels == 0][0].numpy().transpose(1, 2, 0)


RAMP = (np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
COLOUR = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=2)


def test_grey_becomes_three_equal_channels(tmp_path):
    np.testing.assert_array_equal(decoded(tmp_path, Image.fromarray(RAMP)), np.stack([RAMP] * 3, 2))


def test_a_bilevel_image_becomes_black_and_white(tmp_path):
    assert set(np.unique(decoded(tmp_path, Image.fromarray(RAMP > 99)))) == {0, 255}


def test_rgb_is_kept_and_the_alpha_of_rgba_is_dropped(tmp_path):
    np.testing.assert_array_equal(decoded(tmp_path / "a", Image.fromarray(COLOUR)), COLOUR)
    rgba = Image.fromarray(np.dstack([COLOUR, RAMP]))
    assert rgba.mode == "RGBA"
    np.testing.assert_array_equal(decoded(tmp_path / "b", rgba), COLOUR)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("options", [{}, {"transparency": bytes(range(256))}])
def test_a_palette_becomes_its_colours(tmp_path, options):
    palette = Image.fromarray(COLOUR).quantize(64)
    np.testing.assert_array_equal(decoded(tmp_path, palette, **options), np.asarray(palette.convert("RGB")))


def test_cmyk_becomes_rgb(tmp_path):
    cmyk = Image.fromarray(np.full((8, 8, 4), (255, 0, 0, 0), dtype=np.uint8), mode="CMYK")
    found = decoded(tmp_path, cmyk, "jpg", quality=100).astype(int)
    assert np.abs(found - (0, 255, 255)).max() < 8


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bits_are_scaled_to_8_not_clipped(tmp_path, suffix):
    deep = Image.fromarray(RAMP.astype(np.uint16) * 257)
    np.testing.assert_array_equal(decoded(tmp_path, deep, suffix)[..., 0], RAMP)


def test_floating_point_pixels_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"x\.tif' cannot be decoded: pixels are floating-point"):
        decoded(tmp_path, Image.fromarray(RAMP.astype(np.float32)), "tif")


def test_the_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6                                # to be turned clockwise by a quarter
    np.testing.assert_array_equal(decoded(tmp_path, Image.fromarray(COLOUR), exif=exif), np.rot90(COLOUR, -1))


def test_odd_sizes_are_resized_antialiased_to_the_centre_square(tmp_path):
    wide = np.zeros((16, 48, 3), dtype=np.uint8)
    wide[:, 16:32] = 200                            # the centre square; the rest is cropped away
    wide[::2, 16:32] = 100                          # alternating rows: a sampler without antialiasing sees one of them
    found = decoded(tmp_path, Image.fromarray(wide)).astype(int)
    assert found.shape == (8, 8, 3) and np.abs(found[1:-1, 1:-1] - 150).max() < 20


def test_small_squares_of_one_side_stay_and_anything_else_becomes_224(tmp_path):
    assert load_folder(make_folder(tmp_path / "a", train=3, test=1, side=96)).size == 96
    assert load_folder(make_folder(tmp_path / "b", train=3, test=1, side=97)).size == 224
    assert load_folder(make_folder(tmp_path / "c", train=3, test=1, side=(10, 11))).size == 224
    path = make_folder(tmp_path / "d", train=3, test=1, side=10)
    paint(path / "test/bee/000.png", np.random.default_rng(0), 12)
    assert load_folder(path).size == 224 and load_folder(path, "?size=10").size == 10


def test_a_truncated_jpeg_is_refused_by_name(tmp_path):
    path = make_folder(tmp_path / "images", side=32)
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "JPEG")
    for cut in (700, 10, 0):                        # inside the pixels, inside the header, empty
        (path / "train/ant/broken.jpg").write_bytes(buffer.getvalue()[:cut])
        with pytest.raises(ValueError, match=r"^image '.*broken\.jpg' cannot be decoded: [^\n]+$"):
            load_folder(path)


# ---- what a folder may be ----

def test_a_folder_is_read_as_torchvisions_image_folder_does(tmp_path):
    path = make_folder(tmp_path / "images", ("été", "<script>alert(1)<∕script>", " a b", "Z", "a"), 5, 2)
    (path / "train/Z/notes.txt").write_text("no image")
    paint(path / "train/Z/deep/er/x.PNG", np.random.default_rng(5))
    data, reference = load_folder(path), ImageFolder(path / "train")
    assert data.classes == tuple(reference.classes) and len(data.train) + len(data.val) == len(reference) == 26
    truth = {np.asarray(image).transpose(2, 0, 1).tobytes(): label for image, label in reference}
    for split in (data.train, data.val):
        assert [truth[image.numpy().tobytes()] for image in split.images] == split.labels.tolist()


def test_val_serves_as_the_held_out_part_where_there_is_no_test(tmp_path):
    data = load_folder(make_folder(tmp_path / "images", held_out="val"))
    assert len(data.test) == 12 and len(data.val) == 4


def test_each_fault_of_a_folder_is_one_sentence(tmp_path):
    def fault(break_it, error, match):
        path = make_folder(tmp_path / str(len(list(tmp_path.iterdir()))) / "images", train=3, test=1)
        break_it(path)
        with pytest.raises(error, match=match) as caught:
            load_folder(path)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)

    def clear(folder):
        for file in folder.iterdir():
            file.unlink()
    fault(lambda p: p.rename(p.parent / "gone"), FileNotFoundError, "has no train folder")
    fault(lambda p: (p / "test").rename(p / "held_out"), FileNotFoundError, "has no test or val folder")
    for part in ("train", "test"):
        fault(lambda p, part=part: [clear(p / part / c) for c in ("ant", "bee")],
              ValueError, f"{part} has no images in class folders")
    few = "class 'bee' has too few images in .*{}; at least {} needed"
    fault(lambda p: clear(p / "train/bee"), ValueError, few.format("train", 2))
    fault(lambda p: [(p / f"train/bee/00{i}.png").unlink() for i in (0, 1)], ValueError, few.format("train", 2))
    fault(lambda p: clear(p / "test/bee"), ValueError, few.format("test", 1))
    fault(lambda p: (clear(p / "test/bee"), (p / "test/bee").rmdir()), ValueError, few.format("test", 1))
    fault(lambda p: (p / "test/wasp").mkdir(), ValueError, "test has a class 'wasp' that is not in .*train")
    fault(lambda p: [(clear(p / part / "bee"), (p / part / "bee").rmdir()) for part in ("train", "test")],
          ValueError, "has only one class, 'ant'")


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200)


@settings(max_examples=30)
@given(names=st.lists(NAMES, min_size=2, max_size=4, unique=True),
       broken=st.sampled_from([None, b"", b"no image", b"\xff\xd8\xff", b"GIF89a"]))
def test_hostile_names_of_classes_and_files_are_kept_and_broken_files_named(names, broken):
    with tempfile.TemporaryDirectory() as place:
        path = make_folder(Path(place) / "images", classes=names, train=2, test=1)
        if broken is None:
            assert set(load_folder(path).classes) == set(names)
            return
        (path / "train" / names[0] / "zz 'quoted' $HOME \u202e.png").write_bytes(broken)
        with pytest.raises(ValueError, match="zz .*quoted.* cannot be decoded") as error:
            load_folder(path)
        assert "\n" not in str(error.value).replace(names[0], "")


# ---- cache ----

def cached(root):
    return sorted((root / "cache").iterdir())


def test_a_second_load_decodes_nothing_and_gives_equal_tensors(folder, monkeypatch):
    first = load_folder(folder)

    def fail(*_):
        raise AssertionError("decoded again")
    monkeypatch.setattr(datasets, "_decode", fail)
    assert equal(first, load_folder(folder))


def test_factors_survive_the_cache(tmp_path, monkeypatch):
    first = load("textures", root=tmp_path, limit=24)
    monkeypatch.setattr(textures, "draw", None)
    second = load("textures", root=tmp_path, limit=24)
    assert equal(first, second)
    for name, values in first.test.factors.items():
        assert torch.equal(values.nan_to_num(-1), second.test.factors[name].nan_to_num(-1))


def test_a_cache_file_damaged_anywhere_is_made_again(folder):
    first = load_folder(folder)
    file, = cached(folder.parent / "root")
    whole = file.read_bytes()
    header = whole.index(b"bee")
    damaged = [whole[:-100], whole[:4], b"", b"junk" * 50, whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:],
               whole[:header] + b"bet" + whole[header + 3:]]         # cut, empty, foreign, one bit, one class name
    for content in damaged:
        file.write_bytes(content)
        with pytest.warns(UserWarning, match="is damaged and is made again"):
            assert equal(first, load_folder(folder))
        with warnings.catch_warnings(action="error"):
            assert equal(first, load_folder(folder))


def test_the_cache_follows_the_files_and_keeps_one_answer_to_a_question(folder):
    first = load_folder(folder)
    load_folder(folder, limit=4)
    assert len(cached(folder.parent / "root")) == 2
    for file in sorted(folder.glob("*/*/000.png")):
        paint(file, np.random.default_rng(7))
    second = load_folder(folder)
    assert second.checksum != first.checksum and len(cached(folder.parent / "root")) == 2
    assert equal(second, load(f"folder:{folder}", root=folder.parent / "elsewhere"))


def test_a_cache_that_cannot_be_written_costs_one_warning_and_no_more(folder):
    root = folder.parent / "root"
    root.write_text("a file where the root should be")       # as good as read-only, for the superuser too
    with pytest.warns(UserWarning, match="not cached in .*; the next load takes as long") as caught:
        data = load_folder(folder)
    assert len(data.train) == 36 and len(caught) == 1


def test_a_full_disk_leaves_no_half_written_cache(folder, monkeypatch):
    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(datasets, "save_file", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        data = load_folder(folder)
    assert len(data.train) == 36 and not cached(folder.parent / "root")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_images_lie_on_the_gpu_whether_held_or_streamed(folder):
    order = torch.randperm(36)
    for memory_gib in (4, 0):
        train = load_folder(folder, device="cuda", memory_gib=memory_gib).train
        batches = list(train.batches(order, 8))
        assert len(batches) == 4 and all(images.is_cuda and not index.is_cuda for index, images in batches)
        assert train.images[order[:5]].is_cuda and not train.labels.is_cuda
