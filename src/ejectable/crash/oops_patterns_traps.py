# SPDX-License-Identifier: GPL-2.0-or-later
"""The wordings of sanitizers, of the processor that refused something, and of BUG()."""

from ejectable.crash.oops_pattern import BUG, OopsPattern, oops_pattern

__all__ = ["TRAPS"]

TRAPS: tuple[OopsPattern, ...] = (
    # Sanitizers (mm/kasan/report.c, mm/kmsan/report.c, kernel/kcsan/report.c, mm/kfence/report.c, lib/ubsan.c).
    oops_pattern(
        "kasan-free",
        BUG + r"KASAN: (double-free|invalid-free) or (?:double|invalid)-free in (\S+)",
        "kasan",
        "KASAN: invalid-free in {f}",
        "named",
    ),
    oops_pattern(
        "kasan-free", BUG + r"KASAN: (double-free|invalid-free) in (\S+)", "kasan", "KASAN: {0} in {f}", "named"
    ),
    oops_pattern("kasan", BUG + r"KASAN: ([\w-]+) in (\S+)", "kasan", "KASAN: {0} {access} in {f}", "named"),
    oops_pattern("kasan", BUG + r"KASAN: ([\w-]+) on address", "kasan", "KASAN: {0} {access} in {f}"),
    oops_pattern("kasan", BUG + r"KASAN: ?([\w-]*)", "kasan", "KASAN: {0} in {f}"),
    oops_pattern("kmsan", BUG + r"KMSAN: (\w[\w -]*?) in (\S+)", "kmsan", "KMSAN: {0} in {f}", "named"),
    oops_pattern("kmsan", BUG + r"KMSAN: ?([\w-]*)", "kmsan", "KMSAN: {0} in {f}"),
    oops_pattern(
        "kcsan",
        BUG + r"KCSAN: (\w[\w -]*(?:: [\w -]+?)??) in (\S+)(?: / (\S+))?",
        "kcsan",
        "KCSAN: {0} in {race}",
        "race",
        bare=True,
    ),
    oops_pattern("kcsan", BUG + r"KCSAN: ?([\w-]*)", "kcsan", "KCSAN: {0} in {f}", bare=True),
    oops_pattern("kfence", BUG + r"KFENCE: ([\w -]+?) in (\S+)", "kasan", "KFENCE: {0} in {f}", "named"),
    oops_pattern("kfence", BUG + r"KFENCE: ?([\w -]*)", "kasan", "KFENCE: {0} in {f}"),
    oops_pattern("ubsan", r"UBSAN: Undefined behaviour in (\S+)", "ubsan", "UBSAN: undefined-behaviour in {f}"),
    oops_pattern(
        "ubsan",
        r"Internal error: UBSAN: ([\w -]+): [0-9a-f]+ \[#\d+\]",
        "ubsan",
        "UBSAN: {0} in {f}",
        trap=True,
        role="die",
    ),
    oops_pattern("ubsan", r"UBSAN: ([\w-]+) in (\S+)", "ubsan", "UBSAN: {0} in {f}"),
    oops_pattern("ubsan", r"UBSAN: ([\w-]+)", "ubsan", "UBSAN: {0} in {f}"),
    # The processor refused an access.
    oops_pattern(
        "null",
        r"(?:BUG: unable to handle kernel |BUG: [Kk]ernel |nable to handle kernel )NULL pointer dereference",
        "null-deref",
        "BUG: unable to handle kernel NULL pointer dereference in {f}",
        trap=True,
    ),
    oops_pattern(
        "paging",
        r"BUG: unable to handle (?:kernel paging request|page fault for address)",
        "paging-fault",
        "BUG: unable to handle kernel paging request in {f}",
        trap=True,
    ),
    oops_pattern(
        "paging",
        r"BUG: Unable to handle kernel (?:data access|instruction fetch|unaligned access)",
        "paging-fault",
        "BUG: unable to handle kernel paging request in {f}",
        trap=True,
    ),
    oops_pattern(
        "paging",
        r"nable to handle kernel access to user memory",
        "paging-fault",
        "BUG: unable to handle kernel access to user memory in {f}",
        trap=True,
    ),
    oops_pattern(
        "paging",
        (
            r"nable to handle kernel (paging request|"
            r"execute from non-executable memory|read from unreadable memory|"
            r"write to read-only memory|execution of user memory|pointer dereference|ecoding|"
            r"unaligned access|mm fault)"
        ),
        "paging-fault",
        "BUG: unable to handle kernel paging request in {f}",
        trap=True,
    ),
    oops_pattern(
        "paging",
        r"(?<![A-Za-z_])BUG: [Uu]nable to handle (?:kernel)?",
        "paging-fault",
        "BUG: unable to handle kernel paging request in {f}",
        trap=True,
    ),
    # User space's own are told in other words: `traps: name[1] general protection fault ip:.. error:0 in ..`.
    oops_pattern(
        "gpf",
        r"^(?:\S{1,20}: )?general protection fault(?:$|: (?!.{0,80} error:)|(?:,| for) .{0,120}?(?::|$))",
        "gpf",
        "general protection fault in {f}",
        trap=True,
    ),
    oops_pattern(
        "double-fault",
        r"PANIC: double fault|^(?:Oops: )?double fault: [0-9a-f]{4} \[#",
        "double-fault",
        "PANIC: double fault in {f}",
        trap=True,
    ),
    oops_pattern("divide", r"^(?:Oops: )?divide[ _]error: ", "divide-error", "divide error in {f}", trap=True),
    oops_pattern(
        "stack-segment",
        r"^(?:Oops: )?stack segment(?: fault)?(?:: |, )",
        "gpf",
        "stack segment fault in {f}",
        trap=True,
    ),
    oops_pattern(
        "stack",
        r"BUG: (?:[A-Z]+ )?stack guard page was hit",
        "stack-overflow",
        "BUG: stack guard page was hit in {f}",
        "stall",
        trap=True,
    ),
    oops_pattern(
        "stack",
        (
            r"Insufficient stack space to handle exception|^kernel stack overflow \((?:double-fault|"
            r"page fault)\): [0-9a-f]{4}"
        ),
        "stack-overflow",
        "kernel stack overflow in {f}",
        "stall",
        trap=True,
    ),
    oops_pattern(
        "stack",
        r"(?:\bKernel stack overflow\b|\bstack-overflow on |do_IRQ: .{0,40}stack overflow|Overflow stack: )",
        "stack-overflow",
        "kernel stack overflow in {f}",
        "stall",
        trap=True,
    ),
    # A check in the code failed.
    oops_pattern("rust", r"^rust_kernel: panicked at ", "bug", "Rust panic in {f}", trap=True),
    oops_pattern("list", r"kernel BUG at (?:\S*/)?lib/list_debug\.c", "bug", "BUG: corrupted list in {f}", trap=True),
    oops_pattern("usercopy", r"kernel BUG at (?:\S*/)?mm/usercopy\.c", "bug", "BUG: bad usercopy in {f}", trap=True),
    oops_pattern("bug", r"[kK]ernel BUG at (\S+?:\d+|\S+?)!?(?:$|\s)", "bug", "kernel BUG in {f}", trap=True),
    oops_pattern("bug", r"^Kernel BUG \[#\d+\]|[kK]ernel BUG at ", "bug", "kernel BUG in {f}", trap=True),
    oops_pattern(
        "opcode",
        r"^(?:Oops: )?invalid opcode: [0-9a-f]{4}",
        "undefined-instruction",
        "invalid opcode in {f}",
        role="die",
        trap=True,
    ),
    oops_pattern("die", r"Internal error: Oops - BUG", "bug", "kernel BUG in {f}", role="die", trap=True),
    oops_pattern(
        "die",
        (
            r"Internal error: Oops - undefined instruction|Internal error: undefined instruction|"
            r"\b(?:illegal operation|operation exception): [0-9a-f]{4} ilc|"
            r"Oops - illegal instruction \[#"
        ),
        "undefined-instruction",
        "undefined instruction in {f}",
        role="die",
        trap=True,
    ),
    oops_pattern(
        "die",
        (
            r"Internal error: (?:Oops - )?(BRK handler|BTI|CFI|FPAC|SP/PC alignment|"
            r"synchronous external abort|[^:]{1,60}): [0-9a-f]+ ?\[#\d+\]"
        ),
        "other",
        "Internal error: {0} in {f}",
        role="die",
        trap=True,
    ),
    oops_pattern(
        "die", r"Oops: general protection fault", "gpf", "general protection fault in {f}", role="die", trap=True
    ),
    oops_pattern(
        "die",
        r"Internal error: : ?[0-9a-f]+ \[#\d+\]|\bOops(?:\[#|:| - | \[#).{0,120}\[?#?\d",
        "paging-fault",
        "Oops in {f}",
        role="die",
        trap=True,
    ),
    oops_pattern(
        "die",
        (
            r"^((?:int3|debug|bounds|overflow|alignment check|segment not present|invalid TSS|"
            r"coprocessor \w+|simd exception|control protection|specification exception|"
            r"addressing exception|protection exception|privileged operation|monitor event|"
            r"data exception|fixpoint divide exception|unexpected \w+|"
            r"[a-z][a-z ]{2,40} exception)): [0-9a-f]{4} (?:ilc:\d )?\[#\d+\]"
        ),
        "other",
        "{0} in {f}",
        role="die",
        trap=True,
    ),
    oops_pattern(
        "die",
        r"^Unexpected kernel BRK exception at EL1|Bad mode in .{1,40} handler detected|SError Interrupt on CPU\d+",
        "other",
        "unexpected exception in {f}",
        trap=True,
    ),
    oops_pattern("die", r"^Alignment trap: not handling", "paging-fault", "Alignment trap in {f}", trap=True),
    oops_pattern(
        "die", r"^Unhandled fault: .{1,60} \(0x[0-9a-f]+\) at 0x", "paging-fault", "unhandled fault in {f}", trap=True
    ),
    oops_pattern(
        "oops-counter",
        r"^[A-Za-z][\w ,.()/-]{2,80}(?:: [0-9a-f]{4,16} (?:ilc:\d )?|, sig: \d+ ?)\[#\d{1,4}\](?: |$)",
        "other",
        "Oops in {f}",
        role="die",
        trap=True,
    ),
)
