# SPDX-License-Identifier: GPL-2.0-or-later
"""The edit of the source is right however the call is written; what it leaves alone stays byte for byte."""

import random
import re
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from corpus.patches import VARIANTS, apply
from corpus.trees import source as kernel_source
from ejectable.advisories.cve_2024_42134.repair import repaired
from ejectable.advisories.cve_2024_42134.source import Reading, judge, read
from ejectable.errors import BadInput
from ejectable.kernel.source import CSource
from ejectable.model import Status
from tests.remedies.random_c import behaviour, function

HEADER = CSource("struct virtio_pci_device { bool (*is_avq)(struct virtio_device *vdev, unsigned int index); };")
CALL = "vp_dev->is_avq(vdev, vq->index)"
AFFECTED = [
    (family, name)
    for name, variant in VARIANTS.items()
    if variant.expected == "affected"
    for family in variant.families
]


def read_text(text: str) -> Reading:
    return judge(CSource(text), HEADER, None)


def in_loop(loop: str, before: str = "") -> str:
    head = "void vp_del_vqs(struct virtio_device *vdev)\n{\n\tlist_for_each_entry_safe(vq, n, &v->vqs, list) {"
    return f"{before}{head}\n\t\t{loop}\n\t\tvp_del_vq(vq);\n\t}}\n}}\n"


@cache
def variant(family: str, name: str) -> str:
    """virtio_pci_common.c of a real kernel with this variant of the fault."""
    import tempfile

    with tempfile.TemporaryDirectory() as aside:
        for file in (kernel_source(family) / "drivers/virtio").glob("virtio_pci_*.[ch]"):
            shutil.copy(file, aside)
        apply(Path(aside), family, name)
        return (Path(aside) / "virtio_pci_common.c").read_text()


def changed(before: str, after: str) -> list[str]:
    """The lines that are new."""
    old = before.splitlines()
    return [line.strip() for line in after.splitlines() if line not in old]


@pytest.mark.kernels
@pytest.mark.parametrize(("family", "name"), AFFECTED)
def test_every_variant_of_the_fault_in_a_real_kernel_is_repaired_in_one_place(family: str, name: str) -> None:
    text = variant(family, name)
    reading = read_text(text)
    assert reading.status is Status.AFFECTED
    after = repaired(reading)
    assert read_text(after).status is Status.FIXED
    assert 1 <= len(changed(text, after)) <= 2
    assert after.count("vp_dev->is_avq(") == text.count("vp_dev->is_avq(") == 1


@pytest.mark.kernels
@pytest.mark.parametrize("family", ["6.1", "6.12"])
def test_the_common_variant_becomes_what_the_kernel_has_since(family: str) -> None:
    assert changed(variant(family, "affected"), repaired(read_text(variant(family, "affected")))) == [
        "if (vp_dev->is_avq && vp_dev->is_avq(vdev, vq->index))"
    ]
    assert repaired(read_text(variant(family, "affected"))) == variant(family, "fixed")
    assert repaired(read_text(variant(family, "affected-late"))) == variant(family, "fixed")
    assert repaired(read_text(variant(family, "affected-inverted"))) == variant(family, "fixed")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"if ({CALL}) continue;", f"if (vp_dev->is_avq && {CALL}) continue;"),
        (f"if (!{CALL}) go();", f"if (!(vp_dev->is_avq && {CALL})) go();"),
        (f"if (a && {CALL}) go();", f"if (a && vp_dev->is_avq && {CALL}) go();"),
        (f"if (a || {CALL}) go();", f"if (a || (vp_dev->is_avq && {CALL})) go();"),
        (f"if (unlikely({CALL})) go();", f"if (unlikely(vp_dev->is_avq && {CALL})) go();"),
        (f"if ({CALL} == true) go();", f"if ((vp_dev->is_avq && {CALL}) == true) go();"),
        (f"bool x = {CALL};", f"bool x = vp_dev->is_avq && {CALL};"),
        (f"x = {CALL} ? a : b;", f"x = (vp_dev->is_avq && {CALL}) ? a : b;"),
        (f"if (go({CALL}, 1)) go();", f"if (go(vp_dev->is_avq && {CALL}, 1)) go();"),
        (f"if ({CALL} && vp_dev->is_avq) go();", f"if (vp_dev->is_avq && {CALL}) go();"),
        (f"if ({CALL} && vp_dev->is_avq != NULL && a) go();", f"if (vp_dev->is_avq && {CALL} && a) go();"),
        (
            f"if ({CALL} && /* why */ vp_dev->is_avq) go();",
            f"if (vp_dev->is_avq && {CALL} && /* why */ vp_dev->is_avq) go();",
        ),
        (f"if (!vp_dev->is_avq && {CALL}) go();", f"if (vp_dev->is_avq && {CALL}) go();"),
        (f"if (NULL == vp_dev->is_avq && {CALL}) go();", f"if (NULL != vp_dev->is_avq && {CALL}) go();"),
        (f"if (a && (! (vp_dev->is_avq)) && {CALL}) go();", f"if (a && ((vp_dev->is_avq)) && {CALL}) go();"),
        ("if ((*d->is_avq)(v, i)) go();", "if (d->is_avq && (*d->is_avq)(v, i)) go();"),
        ("if ((*d).is_avq(v, i)) go();", "if (d->is_avq && (*d).is_avq(v, i)) go();"),
        (
            "if (to_vp_device(v)->is_avq(v, i)) go();",
            "if (to_vp_device(v)->is_avq && to_vp_device(v)->is_avq(v, i)) go();",
        ),
        ("if (devs[i]->is_avq(v, i)) go();", "if (devs[i]->is_avq && devs[i]->is_avq(v, i)) go();"),
        (
            "if (vp_dev->is_avq(vdev,\n\t\t\t\tvq->index))\n\t\t\tcontinue;",
            "if (vp_dev->is_avq && vp_dev->is_avq(vdev,\n\t\t\t\tvq->index))\n\t\t\tcontinue;",
        ),
        (
            "if (e->is_avq && 1) go(); if (d->is_avq(v, i)) go();",
            "if (e->is_avq && 1) go(); if (d->is_avq && d->is_avq(v, i)) go();",
        ),
    ],
)
def test_the_test_comes_in_front_whatever_the_call_is_part_of(before: str, after: str) -> None:
    assert repaired(read_text(in_loop(before))).split() == in_loop(after).split()
    assert read_text(in_loop(after)).status is Status.FIXED


@pytest.mark.parametrize(
    "loop",
    [
        f"{CALL};",
        f"if (vp_dev->is_avq || {CALL}) go();",
        f"if (!vp_dev->is_avq) {{ if ({CALL}) go(); }}",
        "if (next_device()->is_avq(v, i)) go();",
        "if (d++->is_avq(v, i)) go();",
        "if ((d = e)->is_avq(v, i)) go();",
        "if (((struct virtio_pci_device *)p)->is_avq(v, i)) go();",
    ],
)
def test_what_is_not_understood_is_not_touched(loop: str) -> None:
    reading = read_text(in_loop(loop))
    assert reading.status is Status.AFFECTED
    with pytest.raises(BadInput, match="nothing is changed by guessing"):
        repaired(reading)


@pytest.mark.parametrize(
    "loop",
    [
        "if (({ vp_dev->is_avq(v, i); })) go();",
        "if (other->is_avq && vp_dev->is_avq(v, i)) go();",
        "if (other->is_legacy) continue; if (vp_dev->is_avq(v, i)) go();",
        f"\n#ifdef CONFIG_X\n\t\tif (vp_dev->is_avq && {CALL})\n#else\n\t\tif ({CALL})\n#endif\n\t\t\tcontinue;",
        f"\n#if X\n\t\tif (vp_dev->is_avq)\n#endif\n\t\tif ({CALL})\n\t\t\tcontinue;",
        "ask = vp_dev->is_avq; if (ask(v, i)) go();",
    ],
)
def test_what_cannot_be_decided_is_unknown(loop: str) -> None:
    assert read_text(in_loop(loop)).status is Status.UNKNOWN


def test_several_calls_are_repaired_at_once_and_guarded_ones_left_alone() -> None:
    before = "static bool skips(struct virtio_pci_device *d)\n{\n\treturn d->is_avq(&d->vdev, 1);\n}\n"
    loop = f"if ({CALL} || skips(vp_dev)) continue; if (vp_dev->is_avq && {CALL}) go();"
    after = repaired(read_text(in_loop(loop, before)))
    assert "return d->is_avq && d->is_avq(&d->vdev, 1);" in after
    rest = f"if ((vp_dev->is_avq && {CALL}) || skips(vp_dev)) continue; if (vp_dev->is_avq && {CALL}) go();"
    assert rest in " ".join(after.split())


def test_a_line_that_would_be_too_long_is_broken_where_the_kernel_breaks_it() -> None:
    name = "rather_long_name_of_it"
    after = repaired(read_text(in_loop(f"if ({name}->is_avq({name}_vdev, vq->index))\n\t\t\tcontinue;")))
    assert f"\t\tif ({name}->is_avq &&\n\t\t    {name}->is_avq(" in after
    assert all(len(line.expandtabs(8)) <= 100 for line in after.splitlines())


def test_line_ends_and_odd_bytes_stay_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "drivers/virtio"
    folder.mkdir(parents=True)
    data = b"/* J\xf6rg */\r\n" + in_loop(f"if ({CALL})\n\t\t\tcontinue;").replace("\n", "\r\n").encode()
    (folder / "virtio_pci_common.c").write_bytes(data)
    (folder / "virtio_pci_common.h").write_text(HEADER.text)
    reading = read(tmp_path)
    assert reading is not None
    after = repaired(reading).encode("utf-8", "surrogateescape")
    assert after.replace(b"vp_dev->is_avq && ", b"") == data


# Formatting: comments, blanks and line breaks between any two tokens, and other names, change nothing.

BETWEEN = ["", " ", "\n", "\t", " /* is_avq */ ", "\n\t// if (vp_dev->is_avq)\n", " /* { */ ", " \\\n"]
NAMES = ["d", "vp_dev", "dev_of_this_queue", "x1"]


@pytest.mark.kernels
@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(0, 2**32), st.sampled_from(AFFECTED), st.sampled_from(NAMES))
def test_layout_comments_and_names_do_not_matter(seed: int, which: tuple[str, str], name: str) -> None:
    assume(which[1] != "affected-late")  # a comment beside the test that came too late keeps it
    dice = random.Random(seed)
    text = variant(*which)
    read_in = CSource(text)
    delete = read_in.function("vp_del_vqs")
    assert delete is not None
    out, end = [], 0
    for number, (token, (start, stop)) in enumerate(zip(read_in.tokens, read_in.spans, strict=True)):
        near = delete.at - 60 < number < delete.at + 120
        out += [text[end:start], dice.choice(BETWEEN) if near and dice.random() < 0.2 else "", token]
        end = stop
    mangled = re.sub(r"\bvp_dev\b", name, "".join([*out, text[end:]]))
    after = repaired(read_text(mangled))
    expected = [name if token == "vp_dev" else token for token in CSource(repaired(read_text(text))).tokens]
    assert list(CSource(after).tokens) == expected
    assert read_text(after).status is Status.FIXED


# The compiler's word: random functions, run.


def test_no_function_that_calls_null_is_called_fixed(tmp_path: Path) -> None:
    functions = [function(seed, tests=True) for seed in range(400)]
    words = [read_text(text).status for text in functions]
    seen = behaviour(functions, tmp_path)
    crashes = [any(bad for bad, _ in runs) for runs in seen]
    wrong = [
        text for text, word, crash in zip(functions, words, crashes, strict=True) if crash and word is Status.FIXED
    ]
    assert not wrong, wrong[0]
    assert words.count(Status.FIXED) > 20
    assert sum(crashes) > 100


def test_a_repaired_function_never_calls_null_and_does_the_same_for_other_devices(tmp_path: Path) -> None:
    pairs = []
    for seed in range(400, 700):
        text = function(seed, tests=False)
        reading = read_text(text)
        if reading.status is Status.AFFECTED:
            pairs.append((text, repaired(reading)))
    assert len(pairs) > 200
    before = behaviour([text for text, _ in pairs], tmp_path)
    after = behaviour([text for _, text in pairs], tmp_path)
    for (old, new), runs_before, runs_after in zip(pairs, before, after, strict=True):
        assert not any(bad for bad, _ in runs_after), f"{old}\n{new}"
        # With the pointer set (odd inputs), nothing is different.
        assert [trace for _, trace in runs_before[1::2]] == [trace for _, trace in runs_after[1::2]], f"{old}\n{new}"
        # Without it, it is as if the call had answered "no" (inputs with bit 3 clear).
        told_no = [trace.replace("C", "") for _, trace in runs_before[1:8:2]]
        assert [trace.replace("C", "") for _, trace in runs_after[0:8:2]] == told_no, f"{old}\n{new}"


def test_repairing_never_makes_a_crash_where_tests_stand_already(tmp_path: Path) -> None:
    repairs = []
    for seed in range(700, 1000):
        reading = read_text(function(seed, tests=True))
        if reading.status is Status.AFFECTED:
            try:
                after = repaired(reading)
            except BadInput:
                continue
            if read_text(after).status is Status.FIXED:
                repairs.append(after)
    assert len(repairs) > 80
    for text, runs in zip(repairs, behaviour(repairs, tmp_path), strict=True):
        assert not any(bad for bad, _ in runs), text


@pytest.mark.kernels
@pytest.mark.skipif(shutil.which("spatch") is None, reason="Coccinelle is not installed")
def test_coccinelle_makes_the_same_of_it(tmp_path: Path) -> None:
    """A semantic patch of ours, applied by the kernel's own tool, gives the same tokens."""
    rule = tmp_path / "guard.cocci"
    rule.write_text("@@\nexpression d;\nexpression list a;\n@@\n- d->is_avq(a)\n+ (d->is_avq && d->is_avq(a))\n")
    for family, name in (
        ("6.1", "affected"),
        ("6.12", "affected"),
        ("6.1", "affected-helper"),
        ("6.12", "affected-ternary"),
    ):
        text = variant(family, name)
        (tmp_path / "in.c").write_text(text)
        command: list[str | Path] = [
            "spatch",
            "--very-quiet",
            "--sp-file",
            rule,
            tmp_path / "in.c",
            "-o",
            tmp_path / "out.c",
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        theirs = [t for t in CSource((tmp_path / "out.c").read_text()).tokens if t not in "()"]
        assert theirs == [t for t in CSource(repaired(read_text(text))).tokens if t not in "()"]


@pytest.mark.parametrize("count", [100, 20_000])
def test_a_file_full_of_calls_is_given_up_in_time(count: int) -> None:
    started = time.process_time()
    reading = read_text(in_loop("if (a) { " * 30 + f"if ({CALL}) go(); " * count + "}" * 30))
    assert reading.status in (Status.AFFECTED, Status.UNKNOWN)
    assert time.process_time() - started < 20


@pytest.mark.kernels
@settings(deadline=None, derandomize=True, max_examples=80)
@given(st.integers(0, 2**32), st.sampled_from(AFFECTED))
def test_a_function_that_is_broken_is_repaired_or_refused_and_nothing_else_is_touched(
    seed: int, which: tuple[str, str]
) -> None:
    dice = random.Random(seed)
    text = variant(*which)
    read_in = CSource(text)
    delete = read_in.function("vp_del_vqs")
    assert delete is not None
    start, end = read_in.spans[delete.at][0], read_in.spans[delete.at + 60][1]
    words = re.findall(r"\w+|\s+|.", text[start:end], re.DOTALL)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(words))
        words[at : at + 1] = dice.choice([[], [words[at], words[at]], [dice.choice(words)], ["{"], [")"], ["#if 1\n"]])
    broken = text[:start] + "".join(words) + text[end:]
    reading = read_text(broken)
    try:
        after = repaired(reading)
    except BadInput:
        return
    if reading.open:
        assert after != broken
    assert after.startswith(text[: text.index("void vp_del_vqs(") - 400])
    assert after.endswith(text[end + 400 :])
