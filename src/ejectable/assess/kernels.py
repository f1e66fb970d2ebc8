# SPDX-License-Identifier: GPL-2.0-or-later
"""What the advisories say of the kernels in a file, a package, a directory or a source tree."""

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from ejectable.errors import BadInput, EjectableError, Ended, OurFault
from ejectable.intake.inputs import STANDARD_INPUT
from ejectable.intake.limits import Limits
from ejectable.intake.reasons import as_ours
from ejectable.model import Finding, KernelReport, Status, worst

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ejectable.advisories import Advisory
    from ejectable.advisories.code import CodeUnder
    from ejectable.kernel.open import Kernel

__all__ = ["DEBUG", "Judged", "Unreadable", "judge", "judge_path", "judge_paths", "status_of"]


# Set by --debug; an environment variable reaches the processes of --jobs too.
DEBUG = "EJECTABLE_DEBUG"
Place = Literal["builtin", "module", "absent"]
VIRTIO_PCI = "virtio_pci"  # whose place has a key of its own in the document, from before there were others
# Names that mean another file in another process.
DESCRIPTORS = ("/dev/fd/", "/dev/stdin", "/proc/self/")


class Unreadable(msgspec.Struct, frozen=True):
    """An input that could not be judged, and the exit code that its error has."""

    path: str
    error: str
    exit_code: int
    hint: str | None = None


class Judged(msgspec.Struct, frozen=True):
    """What came of one path: kernels, errors, or both where one of several things in it is damaged."""

    path: str
    kernels: tuple[KernelReport, ...]
    unreadable: tuple[Unreadable, ...]


def judge(kernel: "Kernel", advisories: Mapping[str, "Advisory"]) -> KernelReport:
    """What each advisory says of one kernel."""
    findings: tuple[Finding, ...] = tuple(advisory.probe(kernel) for advisory in advisories.values())
    codes = {advisory.code.module: advisory.code for advisory in advisories.values() if advisory.code.module}
    modules = {name: _place(kernel, code) for name, code in codes.items()}
    return KernelReport(
        path=kernel.path,
        member=kernel.member,
        release=kernel.release,
        banner=kernel.banner,
        arch=kernel.arch,
        build_id=kernel.build_id,
        format=kernel.format,
        virtio_pci=modules.get(VIRTIO_PCI),
        findings=findings,
        modules=modules,
    )


class Job(msgspec.Struct, frozen=True):
    """What is judged at once: a path, or the packages of one kernel; `initramfs` were given beside it."""

    paths: tuple[str, ...]
    initramfs: tuple[str, ...] = ()

    @property
    def here(self) -> bool:
        """Whether only this process can read it: its standard input, or a descriptor of it."""
        return self.paths[0] == STANDARD_INPUT or self.paths[0].startswith(DESCRIPTORS)


def jobs_of(paths: Sequence[str], limits: Limits) -> list[Job]:
    """The paths of one command, sorted into what belongs together, in their order, by a confined process.

    Raises `Ended` where that died: then nothing tells what belongs to what.
    """
    if len(paths) < 2:
        return [Job((path,)) for path in paths]
    from ejectable.assess.confined import confined

    found: list[Job] = confined(
        lambda: _jobs_of(paths, limits), paths, limits, into=list[Job], ids=(), alone=True, usual=()
    )
    return found


def _jobs_of(paths: Sequence[str], limits: Limits) -> list[Job]:
    from ejectable.intake import file_input
    from ejectable.kernel.initramfs import is_initramfs
    from ejectable.kernel.package_set import groups

    initramfs = []
    for path in dict.fromkeys(paths):
        with contextlib.suppress(EjectableError, OSError, ValueError):
            if is_initramfs(file_input(path)):
                initramfs.append(path)
    sets = groups([file_input(path) for path in paths], limits)
    return [
        Job(names, tuple(path for path in initramfs if path not in names))
        for names in (tuple(source.name for source in group) for group in sets)
    ]


def judge_path(path: str, ids: Sequence[str], limits: Limits) -> Judged:
    """Judge every kernel in `path`; `ids` are the advisories to ask. Errors become part of the answer."""
    return judge_job(Job((path,)), ids, limits)


def judge_job(job: Job, ids: Sequence[str], limits: Limits) -> Judged:
    """Judge every kernel in what belongs together, in a confined process; its death becomes part of the answer."""
    from ejectable.assess.confined import confined, undecided

    try:
        return confined(
            lambda: _judge_job(job, ids, limits), (*job.paths, *job.initramfs), limits, into=Judged, ids=ids
        )
    except Ended as ended:
        return Judged(job.paths[0], (undecided(job.paths[0], ids, ended),), ())


def _judge_job(job: Job, ids: Sequence[str], limits: Limits) -> Judged:
    from ejectable.advisories import registry
    from ejectable.intake import file_input
    from ejectable.kernel import Kernel
    from ejectable.kernel.open import open_kernels

    advisories = {name: advisory for name, advisory in registry().items() if name in ids}
    reports: list[KernelReport] = []
    unreadable: list[Unreadable] = []
    path = job.paths[0]
    found = iter(open_kernels(*job.paths, limits=limits, initramfs=[file_input(one) for one in job.initramfs]))
    while True:
        # Both may fail: looking for the next kernel (then the generator is at its end), and reading this one.
        try:
            kernel = next(found, None)
            if kernel is None:
                break
            if isinstance(kernel, Kernel):
                reports.append(judge(kernel, advisories))
            else:
                unreadable.append(_unreadable(kernel.path, kernel.error))
        except EjectableError as error:
            unreadable.append(_unreadable(path, error))
        except MemoryError:
            raise
        except OSError as error:
            unreadable.append(_unreadable(path, as_ours(error, os.fspath(error.filename or path))))
        except Exception as error:  # noqa: BLE001  (a bug of ours in one input must not cost the answers of the others)
            if os.environ.get(DEBUG):
                traceback.print_exc()
            fault = OurFault(
                f"{path}: this is a bug in ejectable: {type(error).__name__}: {error}",
                hint="Run the same command with --debug and report what it prints.",
            )
            unreadable.append(_unreadable(path, fault))
    if not reports and not unreadable:
        unreadable.append(_unreadable(path, BadInput("there is no kernel in it", path=path)))
    return Judged(path, tuple(reports), tuple(unreadable))


def judge_paths(
    paths: Sequence[str], ids: Sequence[str], limits: Limits, *, jobs: int, done: Callable[[str], None]
) -> Iterator[Judged]:
    """Judge many paths, up to `jobs` at once in processes of their own; answers come in the order of `paths`."""
    try:
        work = jobs_of(paths, limits)
    except Ended as ended:
        from ejectable.assess.confined import undecided

        for path in paths:
            yield Judged(path, (undecided(path, ids, ended),), ())
            done(path)
        return
    if len(work) < 2 or jobs < 2:
        for job in work:
            yield judge_job(job, ids, limits)
            for path in job.paths:
                done(path)
        return
    # Fresh processes, not forked ones: the progress bar's thread must not be copied in the middle of something.
    import multiprocessing
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait

    from ejectable.advisories import add_folders, added_folders

    pool = ProcessPoolExecutor(
        min(jobs, len(work)),
        mp_context=multiprocessing.get_context("forkserver"),
        initializer=add_folders,
        initargs=(added_folders(),),
    )
    try:
        futures = {job: pool.submit(judge_job, job, ids, limits) for job in work if not job.here}
        jobs_by_future = {future: job for job, future in futures.items()}
        pending = set(jobs_by_future)
        for job in work:
            future = futures.get(job)
            if future is None:
                yield judge_job(job, ids, limits)
                done(job.paths[0])
                continue
            while future in pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for one in finished:
                    for path in jobs_by_future[one].paths:
                        done(path)
            yield _result(future, job.paths[0])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def status_of(report: KernelReport) -> Status:
    """What the findings of one kernel add up to."""
    return worst(finding.status for finding in report.findings)


def _result(future: "Future[Judged]", path: str) -> Judged:
    from concurrent.futures.process import BrokenProcessPool

    try:
        return future.result()
    except BrokenProcessPool:
        fault = OurFault("The process that judged it was killed.", hint="Is there enough memory? Try --jobs 1.")
        return Judged(path, (), (Unreadable(path, f"{path}: {fault.message}", fault.exit_code, fault.hint),))


def _unreadable(path: str, error: EjectableError) -> Unreadable:
    return Unreadable(path, error.message, error.exit_code, error.hint)


def _place(kernel: "Kernel", code: "CodeUnder") -> Place | None:
    """Where the kernel has a module's code; asked after the probes, which have read what this looks at."""
    module = code.module
    if kernel.source_tree is not None or module is None:
        return None
    if kernel.module(module) is not None:
        return "module"
    witness = code.entry or code.functions[0]
    if kernel.vmlinux is not None and kernel.vmlinux.symbols.function(witness):
        return "builtin"
    if kernel.builtin(module):
        return "builtin"
    says = kernel.config.says(code.option, *code.menus) if kernel.config and code.option else None
    words: dict[str | None, Place] = {"y": "builtin", "m": "module", "n": "absent"}
    return words.get(says)
