"""A data set by name: uint8 images on the device, labels, factors, fixed splits and a checksum.

    data = load("textures")                       # or "cifar10", "folder:/my/images?size=64", ...
    data.train.images[index]                      # (n, 3, S, S) uint8
    for index, images in data.train.batches(torch.randperm(len(data.train)), 128): ...

| name | images | train, val, test |
|---|---|---|
| `textures`, `textures:tint=0.5` | drawn here, 32 px, with known factors | 10,000, 2,000, 5,004 |
| `digits` | scikit-learn's, 8 px enlarged to 32 | 1,213, 135, 449 |
| `cifar10`, `cifar100` | torchvision's, downloaded once, 32 px | 45,000, 5,000, 10,000 |
| `cifar10_jpeg` | CIFAR-10 re-coded as JPEG, unpacked to `<root>/cifar10_jpeg` | 45,000, 5,000, 10,000 |
| `stl10` | torchvision's, downloaded once, 96 px; without its unlabelled part | 4,500, 500, 8,000 |
| `folder:PATH`, `…?size=S` | `PATH/train/<class>/*`, `PATH/test/<class>/*` (or `val`) | val a tenth of train |

train is what is trained on; val is a stratified part of the original train, for choosing hyper-parameters; test is held
out. The split depends on the data set alone, never on a training seed. Each split lies in a seeded order that cycles
through the classes: every prefix of it is a random sample, class-balanced as far as the images go.
"""

import difflib
import hashlib
import json
import os
import re
import shlex
import tarfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader, get_worker_info
from tqdm import tqdm

EXTENTS = {"textures": (32, 10_000), "digits": (32, 1_213), "cifar10": (32, 45_000), "cifar100": (32, 45_000), "stl10": (96, 4_500),
           "cifar10_jpeg": (32, 45_000)}        # name -> side, training images: for estimates of hours
NAMES = (*EXTENTS, "folder:PATH")
TEXTURES = (10_000, 2_000, 5_004)       # train, val, test
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_JPEG = (50_000, 10_000)         # train + val, test: fewer means that unpacking was interrupted
FOLDER_SIZE = 224                       # side of a folder's images unless they are small squares or a size is asked for
SMALL = 96                              # a folder of squares up to this side is kept as it is
SPLIT_SEED = 0
FOLDER = re.compile(r"folder:(.+?)(?:\?size=([1-9]\d*))?", re.DOTALL)


class FolderImages:
    """Images decoded when asked for, behind a tensor's indexing: images[index] -> (n, 3, S, S) uint8 on the device."""

    def __init__(self, folder: Path, files: np.ndarray, nbytes: np.ndarray, size: int, device="cpu"):
        self.folder, self.size, self.device = folder, size, device
        self.files = files              # (N,) encoded relative paths: one array, so that workers share its memory
        self.nbytes = nbytes            # (N,) int64, file sizes

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), 3, self.size, self.size

    def paths(self) -> list[str]:
        return [os.path.join(self.folder, os.fsdecode(bytes(file))) for file in self.files]

    def subset(self, index) -> "FolderImages":
        index = index if isinstance(index, slice) else np.asarray(index)
        return FolderImages(self.folder, self.files[index], self.nbytes[index], self.size, self.device)

    def to(self, device) -> "FolderImages":
        return FolderImages(self.folder, self.files, self.nbytes, self.size, device)

    def __getitem__(self, index) -> torch.Tensor:
        return _decode_all(self.subset(index).paths(), self.size).to(self.device)


class _BatchReader:
    """What a DataLoader's worker runs: an undecodable file comes back as its sentence, not as a traceback."""

    def __init__(self, images: FolderImages):
        self.images = images

    def __getitem__(self, index: torch.Tensor):
        try:
            return index, self.images[index]
        except ValueError as error:
            return index, str(error)


@dataclass(frozen=True, eq=False)
class Split:
    """N images with their labels. Images lie on the device, labels and factors on the CPU."""

    images: torch.Tensor | FolderImages             # (N, 3, S, S) uint8
    labels: torch.Tensor                            # (N,) int64
    factors: dict[str, torch.Tensor] | None = None  # name -> (N,) float32, where what was drawn is known

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: np.ndarray) -> "Split":
        """The images of `index` (positions), in that order."""
        rows = torch.from_numpy(index)
        images = self.images.subset(index) if isinstance(self.images, FolderImages) else self.images[rows]
        return Split(images, self.labels[rows], self.factors and {k: v[rows] for k, v in self.factors.items()})

    def batches(self, order: torch.Tensor, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pairs (index (B,), images (B, 3, S, S) uint8 on the device) along `order`; an incomplete last is dropped."""
        order = torch.as_tensor(order, dtype=torch.int64)
        if not 1 <= batch_size <= len(order):
            raise ValueError(f"batch_size is {batch_size}; allowed is 1 to the {len(order)} images of order.")
        chunks = order[: len(order) // batch_size * batch_size].view(-1, batch_size)
        if not isinstance(self.images, FolderImages):
            yield from ((index, self.images.index_select(0, index.to(self.images.device, non_blocking=True))) for index in chunks)
            return
        on_gpu = torch.device(self.images.device).type == "cuda"
        loader = DataLoader(_BatchReader(self.images.to("cpu")), batch_size=None, sampler=chunks, pin_memory=on_gpu,
                            num_workers=min(8, max(torch.get_num_threads() - 1, on_gpu)),    # --jobs divides the threads among the runs
                            generator=torch.Generator())    # the global one must not notice how images are read
        for index, images in loader:
            if isinstance(images, torch.Tensor):
                yield index, images.to(self.images.device, non_blocking=True)
            else:
                raise ValueError(images)


@dataclass(frozen=True, eq=False)
class Data:
    """A data set: three splits of square images."""

    name: str
    size: int                       # S, pixels
    classes: tuple[str, ...]        # names, verbatim; a label is a position in it
    flip: bool                      # does a mirrored image keep its meaning?
    checksum: str                   # sha256 of pixels, labels, factors and classes, in split order
    train: Split
    val: Split
    test: Split


def load(name: str, root: str | Path = ".data", device="cpu", limit: int | None = None, memory_gib: float = 4) -> Data:
    """The data set of that name (table above), its images as uint8 on the device.

    root:       where downloads and the cache of decoded images (`<root>/cache`) lie.
    limit:      keep the first `limit` train images (class-balanced). val shrinks in proportion and test to limit // 2,
                both to no fewer than 10 a class where there are as many. At or above the size of train: keep all.
    memory_gib: a folder whose pixels need more stays on disk: its splits hold FolderImages, decoded batch by batch.
    Images of a folder become RGB (alpha dropped, EXIF orientation applied). Squares of one side up to 96 px stay;
    otherwise the centre square is resized, antialiased, to S = 224 or `?size=S`.
    Raises ValueError on a bad name, limit, folder or image, FileNotFoundError where there is nothing to read. An image that cannot be
    decoded is named here; in a folder that stays on disk, when it is met.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, Integral) or limit < 1):
        raise ValueError(f"limit is {limit!r}; allowed is None or a number of images from 1.")
    limit = None if limit is None else int(limit)
    root = Path(root).expanduser()
    fingerprint, build = _source(name, root, limit)
    cache = fingerprint and _cache_path(root, name, limit, fingerprint)
    found = cache and _read_cache(cache, memory_gib)
    if not found:
        classes, pool, test, n_val = build()
        splits = _split(pool, test, n_val, len(classes), limit)
        if isinstance(pool.images, FolderImages):
            need = 3 * pool.images.size**2 * sum(map(len, splits))
            if need <= memory_gib * 2**30:
                pixels = _decode_all([path for split in splits for path in split.images.paths()], pool.images.size)
                parts = pixels.split([len(split) for split in splits])
                splits = [Split(images, split.labels) for images, split in zip(parts, splits)]
        found = classes, splits, _checksum(classes, splits)
        if cache and isinstance(splits[0].images, torch.Tensor):
            _write_cache(cache, *found)
    classes, splits, checksum = found
    splits = [Split(split.images.to(device), split.labels, split.factors) for split in splits]
    return Data(name, splits[0].images.shape[-1], classes, name != "digits", checksum, *splits)


def check(name: str, root: str | Path = ".data") -> None:
    """Raise what `load` raises where a name or a folder is wrong, without an image being read."""
    _source(name, Path(root).expanduser(), None)


def folder_extent(name: str) -> tuple[int, int] | None:
    """Side in pixels and training images, val included, of `folder:PATH`; None for another name or a folder that is not there."""
    match = FOLDER.fullmatch(name)
    train = match and Path(match[1]).expanduser() / "train"
    if not train or not train.is_dir():
        return None
    files = _files(train)[1]
    if match[2]:
        return int(match[2]), len(files)
    held_out = next((part for name in ("test", "val") if (part := train.parent / name).is_dir()), None)
    return files and _common_side(files + (_files(held_out)[1] if held_out else [])) or FOLDER_SIZE, len(files)


# ---- splits ----

def _balanced_order(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A seeded order that cycles through the classes, and each image's rank within its class: (N,), (N,)."""
    order = np.random.RandomState(SPLIT_SEED).permutation(len(labels))     # its stream is frozen, unlike default_rng's
    order = order[np.argsort(labels[order], kind="stable")]                 # by class, shuffled within
    counts = np.bincount(labels)
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(counts.cumsum() - counts, counts)
    return np.lexsort((labels, rank)), rank


def _stratified(labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of n images, each class in proportion and at least once, and of the rest."""
    _, rank = _balanced_order(labels)
    share = np.where(rank == 0, -1, (rank + 0.5) / np.bincount(labels)[labels])
    order = np.lexsort((labels, share))
    return order[:n], order[n:]


def _limited(sizes: tuple[int, int, int], n_classes: int, limit: int | None) -> tuple[int, int, int]:
    """How many images of (train, val, test) a limit leaves."""
    if limit is not None and limit < n_classes:
        raise ValueError(f"limit is {limit}; allowed is None or at least one image for each of {n_classes} classes.")
    train, val, test = sizes
    if limit is None or limit >= train:
        return sizes
    floor = 10 * n_classes
    return limit, min(val, max(round(val * limit / train), floor)), min(test, max(limit // 2, floor))


def _split(pool: Split, test: Split, n_val: int | None, n_classes: int, limit: int | None) -> list[Split]:
    labels = pool.labels.numpy()
    n_val = max(round(len(pool) / 10), n_classes) if n_val is None else n_val
    val, train = _stratified(labels, n_val)
    train, val = (part[_balanced_order(labels[part])[0]] for part in (train, val))
    held_out = _balanced_order(test.labels.numpy())[0]
    keep = _limited((len(train), len(val), len(held_out)), n_classes, limit)
    return [pool.subset(train[: keep[0]]), pool.subset(val[: keep[1]]), test.subset(held_out[: keep[2]])]


# ---- sources: name -> fingerprint of the content (None: not worth a cache), and a function that reads it ----

Source = tuple[list | None, Callable[[], tuple[tuple[str, ...], Split, Split, int | None]]]


def _source(name: str, root: Path, limit: int | None) -> Source:
    if match := re.fullmatch(r"textures(?::tint=(\d*\.?\d+))?", name):
        return _textures(float(match[1] or 0), limit)
    if match := FOLDER.fullmatch(name):
        return _folder(Path(match[1]).expanduser(), int(match[2]) if match[2] else None)
    if name in ("cifar10", "cifar100", "stl10"):
        return _torchvision(name, root)
    if name == "cifar10_jpeg":
        return _cifar10_jpeg(root)
    if name == "digits":
        return None, _digits
    nearest = difflib.get_close_matches(re.split("[:?]", name)[0], [n.split(":")[0] for n in NAMES], 1, 0.5)
    hint = f"; the nearest is {next(n for n in NAMES if n.split(':')[0] == nearest[0])!r}" if nearest else ""
    raise ValueError(f"name {name!r} is no data set; allowed are {', '.join(NAMES)}{hint}.")


def _textures(tint: float, limit: int | None) -> Source:
    from lib import textures
    if tint > 1:
        raise ValueError(f"name 'textures:tint={tint:g}' has a tint out of range; allowed is 0 to 1.")
    n_classes = len(textures.CLASSES)
    train, val, held_out = _limited(TEXTURES, n_classes, limit)     # draw no more than is kept

    def draw(n, seed):
        images, labels, factors = textures.draw(-(-n // n_classes) * n_classes, seed=seed, tint=tint)
        drawn = Split(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)),
                      {k: torch.from_numpy(v.astype(np.float32)) for k, v in factors.items()})
        return drawn.subset(np.sort(_balanced_order(labels)[0][:n]))        # whole rounds of the classes were drawn

    def build():
        return tuple(textures.CLASSES), draw(train + val, seed=0), draw(held_out, seed=1), val

    return [hashlib.sha256(Path(textures.__file__).read_bytes()).hexdigest(), np.__version__, tint], build


def _digits():
    from sklearn.datasets import load_digits
    found = load_digits()
    grey = [Image.fromarray((image * 255 / 16).round().astype(np.uint8)) for image in found.images]     # 0..16
    images = np.stack([np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)) for image in grey])
    whole = Split(torch.from_numpy(images)[:, None].repeat(1, 3, 1, 1), torch.from_numpy(found.target.astype(np.int64)))
    test, pool = _stratified(found.target, round(len(whole) / 4))
    return tuple(map(str, found.target_names)), whole.subset(pool), whole.subset(test), None


def _torchvision(name: str, root: Path) -> Source:
    from torchvision import datasets
    dataset = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "stl10": datasets.STL10}[name]

    def read(train):
        part = {"split": "train" if train else "test"} if name == "stl10" else {"train": train}
        try:
            found = dataset(root, download=True, **part)
        except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise FileNotFoundError(f"{name} could not be downloaded ({reason}): put {dataset.filename} from "
                                    f"{dataset.url} into {root.absolute()}.") from error
        labels = np.asarray(found.labels if name == "stl10" else found.targets, dtype=np.int64)
        images = found.data if name == "stl10" else found.data.transpose(0, 3, 1, 2)
        return tuple(found.classes), Split(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels))

    def build():
        (classes, pool), (_, test) = read(True), read(False)
        return classes, pool, test, None

    return [dataset.tgz_md5], build         # torchvision verifies the files by md5


def _cifar10_jpeg(root: Path) -> Source:
    path = root / "cifar10_jpeg"
    where = shlex.quote(str(path))
    unpack = (f"unpack it with `mkdir -p {where} && tar xJf cifar10-jpeg.tar.xz -C {where}`; or take data set cifar10, its original, "
              "which is downloaded (its runs are others).")
    if not path.is_dir():
        raise FileNotFoundError(f"cifar10_jpeg is not in {path}: {unpack}")
    counts = tuple(len(_files(path / part)[1]) if (path / part).is_dir() else 0 for part in ("train", "test"))
    if counts != CIFAR10_JPEG:
        raise ValueError(f"cifar10_jpeg in {path} has {counts[0]} train and {counts[1]} test images instead of "
                         f"{CIFAR10_JPEG[0]} and {CIFAR10_JPEG[1]}: {unpack}")
    return _folder(path, 32)


def may_be_shown(name: str) -> bool:
    """Are its images drawn here or the reader's own? Others' photographs are not ours to publish."""
    return name.split(":")[0] in ("textures", "digits", "folder") and name.partition("?")[0] != "folder:imagenet"


def class_names(name: str, n: int) -> tuple[str, ...]:
    """Names of the n classes of data set `name`, by label, without its files: "class 0", ... where only they know them."""
    return CIFAR10 if name in ("cifar10", "cifar10_jpeg") and n == len(CIFAR10) else tuple(f"class {label}" for label in range(n))


# ---- folders of images ----

def _files(folder: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Class names, paths and labels as torchvision's ImageFolder finds them."""
    from torchvision.datasets.folder import IMG_EXTENSIONS
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    files, labels = [], []
    for label, name in enumerate(classes):
        for where, _, names in sorted(os.walk(folder / name, followlinks=True)):
            files += [os.path.join(where, file) for file in sorted(names) if file.lower().endswith(IMG_EXTENSIONS)]
        labels += [label] * (len(files) - len(labels))
    return classes, files, np.array(labels, dtype=np.int64)


def _folder(path: Path, size: int | None) -> Source:
    parts = [path / "train", path / "test" if (path / "test").is_dir() else path / "val"]
    for part, wanted in zip(parts, ("train", "test or val")):
        if not part.is_dir():
            raise FileNotFoundError(f"folder {path} has no {wanted} folder; it needs train/<class>/ and test/<class>/.")
    (classes, *train), (test_classes, *test) = map(_files, parts)
    if foreign := sorted(set(test_classes) - set(classes)):
        raise ValueError(f"folder {parts[1]} has a class {foreign[0]!r} that is not in {parts[0]}.")
    for part, names, (_, labels), least in zip(parts, (classes, test_classes), (train, test), (2, 1)):
        if not len(labels):
            raise ValueError(f"folder {part} has no images in class folders.")
        counts = np.bincount(labels, minlength=len(names))
        few = [c for c in classes if c not in names or counts[names.index(c)] < least]
        if few:
            raise ValueError(f"class {few[0]!r} has too few images in {part}; at least {least} needed.")
    if len(classes) < 2:
        raise ValueError(f"folder {parts[0]} has only one class, {classes[0]!r}; at least two are needed.")

    stats = [os.stat(file) for file in train[0] + test[0]]
    relative = [os.fsencode(file.removeprefix(f"{path}{os.sep}")) for file in train[0] + test[0]]
    listing = hashlib.sha256()
    for file, stat in zip(relative, stats):
        listing.update(b"%s\0%d\0%d\0" % (file, stat.st_size, stat.st_mtime_ns))

    def build():
        images = FolderImages(path, np.array(relative), np.array([stat.st_size for stat in stats]), size or 1)
        images.size = size or _common_side(images.paths()) or FOLDER_SIZE
        n = len(train[0])
        pool, held_out = images.subset(slice(n)), images.subset(slice(n, None))
        return tuple(classes), Split(pool, torch.from_numpy(train[1])), Split(held_out, torch.from_numpy(test[1])), None

    return [str(path.absolute()), size, listing.hexdigest(), PIL.__version__], build


def _common_side(paths: list[str]) -> int | None:
    """The side of these images if all are squares of one side up to SMALL; stops at the first that is not."""
    sides = set()
    for path in paths:
        with _refusing(path), Image.open(path) as image:
            sides |= set(image.size)
        if len(sides) > 1 or max(sides) > SMALL:
            return None
    return sides.pop()


@contextmanager
def _refusing(path: str):
    """Whatever Pillow raises (it has many ways) becomes a ValueError that names the file."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"image {path!r} cannot be decoded: {reason}") from error


def _decode(path: str, size: int) -> np.ndarray:
    """An image file -> (S, S, 3) uint8."""
    with _refusing(path), Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            raise ValueError("pixels are floating-point, of unknown range")
        if image.mode.startswith("I"):      # 16 bits, which Pillow would clip at 255
            image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
        if "transparency" in image.info:
            image = image.convert("RGBA")   # a palette's own alpha; dropped in the next line
        image = image.convert("RGB")
        if image.size != (size, size):
            image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)    # centre square, antialiased
        return np.asarray(image)


def _decode_all(paths: list[str], size: int) -> torch.Tensor:
    """Image files -> (N, 3, S, S) uint8 on the CPU, in threads (Pillow releases the interpreter's lock)."""
    images = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)

    def fill(start):
        for i in range(start, min(start + 64, len(paths))):
            images.numpy()[i] = _decode(paths[i], size).transpose(2, 0, 1)

    starts = range(0, len(paths), 64)
    if get_worker_info() or len(starts) < 2:            # a DataLoader's worker is parallel already
        list(map(fill, starts))
        return images
    with (ThreadPoolExecutor(torch.get_num_threads()) as pool,
          tqdm(total=len(paths), desc="decode", unit=" images", delay=2, mininterval=1, leave=False) as bar):
        for _ in pool.map(fill, starts):
            bar.update(min(64, len(paths) - bar.n))
    return images


# ---- checksum and cache ----

def _checksum(classes: tuple[str, ...], splits: list[Split]) -> str:
    digest = hashlib.sha256(json.dumps(classes).encode())
    for split in splits:
        digest.update(str(tuple(split.images.shape)).encode())
        if isinstance(split.images, FolderImages):
            for file, nbytes in zip(split.images.files, split.images.nbytes):
                digest.update(b"%s\0%d\0" % (file, nbytes))
        else:
            digest.update(split.images.contiguous().numpy())
        digest.update(split.labels.numpy())
        for name, values in sorted((split.factors or {}).items()):
            digest.update(name.encode() + b"\0")
            digest.update(values.contiguous().numpy())
    return digest.hexdigest()


def _cache_path(root: Path, name: str, limit: int | None, fingerprint: list) -> Path:
    """A file name of three parts: the name for people, a hash of what was asked for, a hash of what it is made from."""
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()      # other code may decode or split otherwise
    asked, made = (hashlib.sha256(json.dumps(part).encode()).hexdigest()
                   for part in ([name, limit], [name, limit, code, fingerprint]))
    safe = re.sub("[^A-Za-z0-9_.]+", "-", name)[-60:].strip("-.")
    return root / "cache" / f"{safe}-{asked[:8]}-{made[:16]}.safetensors"


def _write_cache(path: Path, classes: tuple[str, ...], splits: list[Split], checksum: str) -> None:
    """Store what _read_cache reads, aside first; what the same question stored before goes."""
    tensors = {}
    for part, split in zip(("train", "val", "test"), splits):
        tensors |= {f"{part}/images": split.images.contiguous(), f"{part}/labels": split.labels}
        tensors |= {f"{part}/factors/{name}": values for name, values in (split.factors or {}).items()}
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, aside, {"classes": json.dumps(classes), "checksum": checksum})
        os.replace(aside, path)
        for other in path.parent.glob(f"{path.name.rsplit('-', 1)[0]}-*.safetensors"):
            if other != path:
                other.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        warnings.warn(f"decoded images are not cached in {path.parent} ({error}); the next load takes as long.",
                      stacklevel=3)
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _read_cache(path: Path, memory_gib: float) -> tuple[tuple[str, ...], list[Split], str] | None:
    """What _write_cache stored, or None where there is no such file, it is damaged, or too large for memory_gib."""
    try:
        if not path.is_file() or path.stat().st_size > memory_gib * 2**30:
            return None
        with safe_open(path, "pt") as file:
            stored, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.offset_keys()}
        classes = tuple(json.loads(stored["classes"]))
        splits = []
        for part in ("train", "val", "test"):
            prefix = f"{part}/factors/"
            factors = {name[len(prefix):]: values for name, values in tensors.items() if name.startswith(prefix)}
            splits.append(Split(tensors[f"{part}/images"], tensors[f"{part}/labels"], factors or None))
        if _checksum(classes, splits) == stored["checksum"]:
            return classes, splits, stored["checksum"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        pass
    warnings.warn(f"cache file {path} is damaged and is made again.", stacklevel=3)
    return None
