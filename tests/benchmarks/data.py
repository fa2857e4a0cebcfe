"""Getting training pictures ready, beside open_clip's own transform and loader, on one thread.

    python tests/benchmarks/data.py [--size 112] [--photos 400] [--batch 64] [--turns 3]
    python tests/benchmarks/data.py --share 4 [--epochs 5] [--data FOLDER] [--json]

Photos are noise with the spectrum of natural pictures (500 x 375, JPEG of quality 90), made here.
`transform` is bytes to normalised tensors; `loader` is shards to batches of pictures and tokens, by
open_clip's webdataset pipeline and by ours, from the photos and from a pack of them; both take
turns, and medians of CPU seconds are printed as pictures a second with their ratio (ours / theirs).
Memory is what an epoch of each loader alone adds to its process at its peak (Linux).

`--share K` has K processes read the same stream side by side, once each by itself and once as
`--share-data` has it, with the sources of the photos (or the shards in FOLDER) and nothing trained:
CPU seconds of a process between the first batch and the last, and the peak of the memory of all
(sums of PSS, and what lies in shared memory), as medians over the turns.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import torch
from open_clip.transform import image_transform
from PIL import Image
from turns import Sheet, in_turns, parser_of

from harness.commands.data import main as harness_data
from harness.config import ImageTower, RunConfig, Runtime, override
from harness.data.catalog import open_data
from harness.data.images import Encoded, decode, turbo_is_exact
from harness.data.loader import Batches
from harness.data.shared import VARIABLE, shared_folder
from harness.data.text import Tokenizer
from harness.data.transforms import evaluation_transform, normalise, scaled_view, train_view
from harness.seeding import generator

CAPTION = "A man in a blue shirt is riding a bicycle down a dirt road ."
SHARDS = 4
SCALES = {"open_clip's crop, 0.9 to 1": (0.9, 1.0), "SLIP's crop, 0.5 to 1": (0.5, 1.0)}
PEERS = (
    "open_clip",
    "shards",
    "stream",
    "shards, scaled",
    "shards, packed",
    "shards, turbo",
    "shards, scaled, turbo",
    "shards, packed, turbo",
    "open_clip, packed",
)


def photo(seed: int) -> bytes:
    """A JPEG of 500 x 375 pixels whose amplitudes fall with frequency, as in photographs."""
    rng = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(375)[:, None], np.fft.fftfreq(500)[None, :]
    amplitude = 1 / np.maximum(np.hypot(down, across), 1 / 500)
    grey = rng.standard_normal((3, 375, 500)) * 0.3 + rng.standard_normal((1, 375, 500))
    pixels = np.fft.ifft2(np.fft.fft2(grey) * amplitude).real
    pixels = 128 + 50 * (pixels - pixels.mean()) / pixels.std()
    file = io.BytesIO()
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def show(
    sheet: Sheet, title: str, works: dict[str, Callable[[], int]], turns: int, pictures: int
) -> None:
    """A line a work: pictures a CPU second, and its ratio to the first."""
    sheet.say(title)
    times = in_turns(works, turns, warm_up=0)
    first = next(iter(times.values()))
    for name, found in times.items():
        ratio, seconds = found.ratios(first), found.medians()
        sheet.say(
            f"  {name:24} {pictures / seconds['cpu']:8.0f} pictures a CPU s  "
            f"{ratio['cpu']:6.2f} x ({ratio['wall']:.2f} x in wall)",
            name=f"{title}: {name}",
            **seconds,
            ratios=ratio,
        )


# --------------------------------------------------------------------------- transform


def transforms(sheet: Sheet, photos: list[bytes], size: int, turns: int) -> None:
    """Bytes to normalised training tensors."""
    tower = ImageTower(size=size)

    def finish(views: list[np.ndarray]) -> int:
        return len(normalise(torch.from_numpy(np.stack(views)), tower))

    for title, scale in SCALES.items():
        theirs = image_transform(
            size, is_train=True, mean=tower.mean, std=tower.std, aug_cfg={"scale": scale}
        )
        works = {
            "open_clip": lambda t=theirs: len(
                torch.stack([t(Image.open(io.BytesIO(p))) for p in photos])
            ),
            **{
                f"decode={way}, {decoder}": lambda s=scale, w=way, d=decoder: finish(
                    [view(w, d, p, size, s, i) for i, p in enumerate(photos)]
                )
                for way in ("full", "scaled")
                for decoder in ("pillow", "turbo")
            },
        }
        show(sheet, f"transform to {size} px, {title}", works, turns, len(photos))
        for way, decoder in (("full", "turbo"), ("scaled", "pillow"), ("scaled", "turbo")):
            gaps = [_gap(way, decoder, p, size, scale, i) for i, p in enumerate(photos)]
            sheet.say(
                f"  {way} by {decoder} against full by pillow, same crop: "
                f"{np.mean([g.mean() for g in gaps]):.2f} of 255 a pixel in the mean, "
                f"{np.mean([np.percentile(g, 99) for g in gaps]):.1f} at the 99th percentile, "
                f"{max(g.max() for g in gaps)} at the most"
            )


def view(
    way: str, decoder: str, data: bytes, size: int, scale: tuple[float, float], seed: int
) -> np.ndarray:
    """One augmented view by `data.decode` and `data.decoder`."""
    turbo, rng = decoder == "turbo", generator(0, seed)
    if way == "full":
        pixels = decode(data, max_pixels=10**8, turbo=turbo)
        return train_view(pixels, size, scale, False, rng, quick=turbo)
    return scaled_view(Encoded(data, max_pixels=10**8, turbo=turbo), size, scale, False, rng)


def _gap(
    way: str, decoder: str, data: bytes, size: int, scale: tuple[float, float], seed: int
) -> np.ndarray:
    full = view("full", "pillow", data, size, scale, seed).astype(int)
    return np.abs(full - view(way, decoder, data, size, scale, seed))


def check_evaluation(sheet: Sheet, photos: list[bytes], size: int) -> None:
    """The evaluation transform is open_clip's, bit for bit."""
    tower = ImageTower(size=size)
    theirs = image_transform(size, is_train=False, mean=tower.mean, std=tower.std)
    ours, turbo = evaluation_transform(tower), turbo_is_exact()
    equal = all(
        torch.equal(
            ours(decode(p, max_pixels=10**8, turbo=turbo)), theirs(Image.open(io.BytesIO(p)))
        )
        for p in photos[:50]
    )
    sheet.say(
        f"evaluation transform: {'bit-equal to' if equal else 'DIFFERS from'} open_clip's, decoded "
        f"by {'libjpeg-turbo itself' if turbo else 'Pillow'}"
    )


# --------------------------------------------------------------------------- loader


def write_shards(folder: Path, photos: list[bytes]) -> None:
    """The photos with a caption each in a few tars below `folder`."""
    folder.mkdir(parents=True)
    for number in range(SHARDS):
        with tarfile.open(folder / f"{number:06d}.tar", "w") as tar:
            for index in range(number, len(photos), SHARDS):
                for field, content in (("jpg", photos[index]), ("txt", CAPTION.encode())):
                    member = tarfile.TarInfo(f"{index:06d}.{field}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def loader(peer: str, folder: Path, size: int, batch: int) -> Callable[[], int]:
    """One epoch of batches of a peer; the pictures it gave."""
    name, *variants = peer.split(", ")
    place = folder / ("packed/train" if "packed" in variants else "photos")
    if name == "open_clip":
        return lambda: _open_clip_epoch(place, size, batch)
    values = {
        "data.source": name,
        "data.path": str(place),
        "data.crop_scale": (0.9, 1.0),
        "data.decode": "scaled" if "scaled" in variants else "full",
        "data.decoder": "turbo" if "turbo" in variants else "pillow",
        "model.image.size": size,
        "train.batch_size": batch,
    }
    config = override(RunConfig(), values)
    runtime = Runtime(cache=str(folder / "cache"), decode_cache_mb=0)
    data = open_data(config.data, runtime)
    config = override(config, {"train.samples": len(data.split("train"))})
    batches = Batches(data, Tokenizer(77), config, runtime)
    return lambda: sum(
        len(normalise(made.pictures, config.model.image))
        for _, made in zip(range(batches.per_epoch), batches.start(), strict=False)
    )


def _open_clip_epoch(place: Path, size: int, batch: int) -> int:
    import open_clip_train.data as peer
    import webdataset

    # Its own stage for tars falls over webdataset 1.0's mark of the end of a shard.
    peer.tarfile_to_samples_nothrow = webdataset.tarfile_to_samples()
    tower = ImageTower(size=size)
    transform = image_transform(
        size, is_train=True, mean=tower.mean, std=tower.std, aug_cfg={"scale": (0.9, 1.0)}
    )
    files = list(place.glob("*.tar"))
    count = 0
    for file in files:
        with tarfile.open(file) as tar:
            count += len(tar.getnames()) // 2
    args = SimpleNamespace(
        train_data=f"{place}/{{000000..{len(files) - 1:06d}}}.tar",
        train_num_samples=count,
        train_data_upsampling_factors=None,
        batch_size=batch,
        workers=0,
        world_size=1,
        seed=0,
    )
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    data = peer.get_wds_dataset(args, transform, is_train=True, floor=True, tokenizer=tokenizer)
    return sum(len(pictures) for pictures, _ in data.dataloader)


def peak_memory(peer: str, folder: Path, size: int, batch: int) -> float:
    """MB at the peak above the imports, of a process that reads one epoch."""
    words = [sys.executable, __file__, "--alone", peer, "--folder", str(folder)]
    words += ["--size", str(size), "--batch", str(batch)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def _alone(peer: str, folder: Path, size: int, batch: int) -> None:
    epoch = loader(peer, folder, size, batch)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _memory("VmRSS")
    epoch()
    print((_memory("VmHWM") - before) / 1024)


def _memory(which: str) -> int:
    """In kB, of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which))


# --------------------------------------------------------------------------- one stream for several


def share(args: argparse.Namespace, place: Path, folder: Path) -> dict[str, float]:
    """CPU seconds of data a run and peak memory of all, alone and shared, and their ratios."""
    found: dict[str, list[float]] = {}
    for _ in range(args.turns):
        with shared_folder() as memory:
            alone = _side_by_side(args, place, folder, memory, {VARIABLE: ""})
            shared = _side_by_side(args, place, folder, memory, {VARIABLE: str(memory)})
        rows = {"alone": alone, "shared": shared}
        for name in alone:
            rows["ratio"] = rows.get("ratio", {}) | {name: shared[name] / alone[name]}
        for way, values in rows.items():
            for name, value in values.items():
                found.setdefault(f"{name}, {way}", []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def _side_by_side(
    args: argparse.Namespace, place: Path, folder: Path, memory: Path, own: dict[str, str]
) -> dict[str, float]:
    words = [sys.executable, __file__, "--reader", str(place), "--folder", str(folder)]
    words += ["--size", str(args.size), "--batch", str(args.batch), "--epochs", str(args.epochs)]
    environment = {**os.environ, **own, "OMP_NUM_THREADS": "1"}
    readers = [
        subprocess.Popen(words, stdout=subprocess.PIPE, env=environment) for _ in range(args.share)
    ]
    peak = 0.0
    while any(reader.poll() is None for reader in readers):
        lying = sum(f.stat().st_blocks * 512 for f in memory.glob("*/*.batch") if f.exists())
        peak = max(peak, lying / 1e6 + sum(_pss(reader.pid) for reader in readers))
        time.sleep(0.2)
    told = [json.loads(reader.communicate()[0].splitlines()[-1]) for reader in readers]
    return {
        "CPU seconds of data a run": statistics.mean(one["cpu"] for one in told),
        "wall seconds": max(one["wall"] for one in told),
        "peak memory of all, MB": peak,
        "batches decoded a run": statistics.mean(one["made"] for one in told),
    }


def _pss(process: int) -> float:
    """MB of a process, its share of what it has in common with others; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(x.split()[1]) / 1e3 for x in lines if x.startswith("Pss:")), 0.0)


def _read(args: argparse.Namespace) -> None:
    """One of several that read the same stream to its end."""
    values = {
        "data.source": "shards",
        "data.path": str(args.reader),
        "model.image.size": args.size,
        "train.batch_size": args.batch,
    }
    config = override(RunConfig(), values)
    runtime = Runtime(cache=str(args.folder / "cache"), decode_cache_mb=0)
    data = open_data(config.data, runtime)
    config = override(config, {"train.samples": args.epochs * len(data.split("train"))})
    stream = Batches(data, Tokenizer(77), config, runtime).start()
    began, cpu = time.monotonic(), time.process_time()
    made = sum(batch.made for batch in stream)
    told = {"cpu": time.process_time() - cpu, "wall": time.monotonic() - began, "made": made}
    print(json.dumps(told))


def _share_and_print(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = args.data or Path(name) / "photos"
        if args.data is None:
            write_shards(place, [photo(seed) for seed in range(args.photos)])
        found = share(args, place, Path(name))
    with Sheet(args.json) as sheet:
        sheet.say(f"{args.share} runs side by side, {args.epochs} epochs to {args.size} px")
        for title, value in found.items():
            sheet.say(f"  {title:44} {value:8.2f}", name=title, value=value)


def main() -> None:
    """Print all of it."""
    parser = parser_of(__doc__)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--alone", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--reader", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, metavar="K", help="one stream for K processes alone")
    parser.add_argument("--epochs", type=int, default=5, help="of --share")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="shards for --share")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.alone:
        _alone(args.alone, args.folder, args.size, args.batch)
        return
    if args.reader or args.share:
        _read(args) if args.reader else _share_and_print(args)
        return
    photos = [photo(seed) for seed in range(args.photos)]
    with Sheet(args.json) as sheet, tempfile.TemporaryDirectory() as name:
        kilobytes = np.mean([len(p) for p in photos]) / 1e3
        sheet.say(f"{len(photos)} photos of {kilobytes:.0f} kB")
        check_evaluation(sheet, photos, args.size)
        transforms(sheet, photos, args.size, args.turns)
        folder = Path(name)
        write_shards(folder / "photos", photos)
        words = ["pack", str(folder / "photos"), "--out", str(folder / "packed"), "--workers", "1"]
        harness_data([*words, "--size", str(args.size), "--cache", str(folder / "cache")])
        _with_txt(folder / "packed" / "train")
        works = {peer: loader(peer, folder, args.size, args.batch) for peer in PEERS}
        title = f"loader to {args.size} px, batches of {args.batch}"
        show(sheet, title, works, args.turns, len(photos))
        for peer in PEERS:
            peak = peak_memory(peer, folder, args.size, args.batch)
            sheet.say(f"  {peer:24} {peak:8.0f} MB", name=peer, megabytes=peak)


def _with_txt(folder: Path) -> None:
    """Give each packed sample the .txt that open_clip's pipeline reads captions from."""
    for file in folder.glob("*.tar"):
        with tarfile.open(file) as tar:
            members = [(m, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
        with tarfile.open(file, "w") as tar:
            for member, content in members:
                if member.name.endswith(".json"):
                    member.name, content = member.name.replace("json", "txt"), CAPTION.encode()
                    member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    main()
