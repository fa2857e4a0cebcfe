"""Whether a model minds how words are put together: swaps, replacements and additions.

On disk as their authors have them, below the data root: `sugar_crepe/` with `swap_obj.json` and so
on beside the pictures of COCO 2017 (`val2017/`), `sugar_crepe_pp/` likewise, `winoground/` with
`examples.jsonl` and `images/`, `aro/` with `visual_genome_relation.json` and so on and `images/`;
ARO's tasks of order are shuffled when its code opens them, and are read from what that gives.
Sizes are those of the authors' files; a set whose copies differ has none.
"""

from functools import partial

from harness.evaluate.suites.records import TEXT_SCORES, Benchmark
from harness.metrics.choice import GROUP_SCORE

_PARTS = {
    "add_att": 692,
    "add_obj": 2_062,
    "replace_att": 788,
    "replace_obj": 1_652,
    "replace_rel": 1_406,
    "swap_att": 666,
    "swap_obj": 0,  # 245 in the authors' file, 246 in a copy of it
}
_CREPE = "curl -L https://raw.githubusercontent.com/RAIVNLab/sugar-crepe/main/data/"
_COCO = "; curl -L http://images.cocodataset.org/zips/val2017.zip -o {root}/%s/val2017.zip"
_ARO = "see https://github.com/mertyg/vision-language-models-are-bows"
_ORDERED = (("coco", "COCO", 25_010), ("flickr30k", "Flickr30K", 5_000))

_choice = partial(Benchmark, task="choice", metrics=TEXT_SCORES)

COMPOSITION = (
    *(
        _choice(
            name=f"sugar_crepe-{part}",
            title=f"SugarCrepe {part}",
            samples=samples,
            source="Hsieh et al. 2023; pictures of COCO 2017, split val",
            file=f"{part}.json",
            fetched_by=f"{_CREPE}{part}.json --create-dirs -o {{root}}/sugar_crepe/{part}.json"
            f"{_COCO % 'sugar_crepe'}",
        )
        for part, samples in _PARTS.items()
    ),
    *(
        _choice(
            name=f"sugar_crepe_pp-{part}",
            title=f"SugarCrepe++ {part}",
            samples=0,
            source="Dumpala et al. 2024; both right captions above the wrong one",
            file=f"{part}.json",
            fetched_by="hf download Aman-J/SugarCrepe_pp --repo-type dataset --include 'data/*' "
            f"--local-dir {{root}}/sugar_crepe_pp{_COCO % 'sugar_crepe_pp'}",
        )
        for part in _PARTS
        if not part.startswith("add")
    ),
    _choice(
        name="winoground",
        title="Winoground",
        samples=400,
        metrics=(GROUP_SCORE,),
        source="Thrush et al. 2022; group score, chance 1 in 6",
        file="examples.jsonl",
        fetched_by="hf download facebook/winoground --repo-type dataset --local-dir "
        "{root}/winoground (its terms are to be accepted there)",
    ),
    *(
        _choice(
            name=f"aro-{part}",
            title=f"ARO, Visual Genome {part}",
            samples=samples,
            source="Yuksekgonul et al. 2023; the box of the picture that the captions are about",
            file=f"visual_genome_{part}.json",
            fetched_by=f"{_ARO}; into {{root}}/aro",
        )
        for part, samples in (("relation", 23_937), ("attribution", 28_748))
    ),
    *(
        _choice(
            name=f"aro-{of}_order",
            title=f"ARO, {title} order",
            samples=samples,
            source="Yuksekgonul et al. 2023; a caption among four shuffles of its words",
            file=f"{of}_order.json",
            fetched_by=f"{_ARO}, whose class shuffles as it opens: its `test_cases` as JSON are "
            f"{{root}}/aro/{of}_order.json, with the pictures beside it",
        )
        for of, title, samples in _ORDERED
    ),
)

#: What is always there: names of held-out drawings with one part swapped.
SWAPS = tuple(
    _choice(
        name=f"openmoji_swap_{what}",
        title=f"OpenMoji, another {words}",
        samples=179,
        source="OpenMoji 17; held-out drawings of a man or a woman with one skin tone",
    )
    for what, words in (("role", "role"), ("gender", "gender"), ("tone", "skin tone"))
)
