# SPDX-License-Identifier: GPL-2.0-or-later
"""Which function of a stack trace is to blame.

The top of a trace is rarely the culprit: it reports, unwinds, allocates, copies, locks or waits on behalf of the
one that called it wrongly. What is passed over is what every caller in the kernel may be standing in.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ejectable.crash.frames import base

__all__ = ["blame", "bottom", "caller_of_stall", "caller_of_wait", "skipped"]


def _words(text: str) -> str:
    return "|".join(text.split())


# Reporting and unwinding: what prints, warns, traps and checks.
REPORTING = _words(
    r"""
    dump_stack\w* __dump_stack show_stack\w* show_trace\w* show_regs\w* dump_backtrace\w* unwind_backtrace\w*
    sched_show_task print_\w* \w*printk\w* \w*panic\w* report_bug\w* fixup_bug \w*warn_slowpath\w* \w*__warn\w*
    warn_alloc\w* warn_bogus\w* \w*do_error_trap \w*do_trap\w* \w*_trap do_invalid_op \w*invalid_op
    \w*asm_exc_\w* exc_\w* handle_bug do_error\w* die die_\w* __die\w* oops_\w* \w*oops_end no_context
    \w*bad_area\w* page_fault_oops kernelmode_fixup_or_oops __do_kernel_fault do_kernel_fault die_kernel_fault
    do_translation_fault do_mem_abort el1\w* do_bad_area do_page_fault do_DataAbort do_PrefetchAbort __dabt_svc
    __und_svc __pabt_svc do_undefinstr bug_handler brk_handler do_debug_exception call_break_hook do_el1_\w*
    bad_mode arm64_serror_panic vectors program_check_\w* _exception\w* __handle_irq_event\w* \w*kasan\w*
    \w*kmsan\w* \w*kcsan\w* \w*kfence\w* __asan_\w* __hwasan_\w* __msan_\w* __tsan_\w* __sanitizer\w* __csan\w*
    \w*ubsan\w* handle_overflow check_memory_region\w* check_region_inline check_noncircular check_prev_add\w*
    check_prevs_add validate_chain mark_lock\w* mark_usage mark_held_locks mark_irqflags print_circular_bug\w*
    \w*lockdep\w* __might_\w* might_\w* ___might_\w* __schedule_bug schedule_debug check_preemption_disabled
    debug_smp_processor_id __this_cpu_preempt_check debug_object\w* __debug_object\w* debug_print_object
    debug_check_no_obj\w* __debug_check\w* \w*_is_static_object fortify_\w* __fortify\w* __stack_chk_fail
    stack_trace_\w* save_stack\w* \w*stack_depot\w* arch_stack_walk\w* walk_stackframe\w* trace_\w*
    perf_trace\w* __bpf_trace_\w* \w*traceiter\w* trace_event_\w* perf_tp_\w* bad_page\w* object_err slab_err
    slab_bug slab_pad_check check_bytes_and_report check_object free_debug_processing alloc_debug_processing
    check_slab kmsan_\w* bust_spinlocks nmi_\w* default_do_nmi do_nmi\w* nmi end_repeat_nmi arch_trigger_\w*
    \w*show_all_\w* __report_\w* kgdb\w* notify_die atomic_notifier\w* notifier_call_chain spin_bug spin_dump
    rwlock_bug do_raw_\w* hardlockup\w* watchdog_\w* read_word_at_a_time __read_once_\w* ret_from_exception
    handle_exception \w*do_bp illegal_op do_report_trap __do_pgm_check pgm_check_handler monitor_event_exception
    handle_\w*_exception exception_enter
    """
)
# Locks, references, lists, timers and the like: data structures that the caller handed in.
LOCKING = _words(
    r"""
    lock_acquire\w* __lock_acquire\w* lock_release\w* __lock_release lock_is_held\w* lock_class\w*
    register_lock_class look_up_lock_class reacquire_held_locks lock_acquired lock_contended lock_set_class
    \w*spin_lock\w* \w*spin_trylock\w* \w*spin_unlock\w* \w*raw_read_\w*lock\w* \w*raw_write_\w*lock\w*
    _read_lock\w* _write_lock\w* queued_\w*lock\w* native_queued_\w* pv_queued_\w* pv_wait\w* __pv_\w* kvm_wait
    virt_spin_lock osq_\w* mcs_\w* \w*mutex_lock\w* \w*mutex_trylock\w* \w*mutex_unlock\w*
    \w*mutex_remove_waiter mutex_spin_on_owner mutex_optimistic_spin mutex_can_spin\w* down down_\w* up up_read
    up_write __down\w* __up\w* rwsem_\w* call_rwsem_\w* percpu_down_\w* percpu_up_\w* rt_mutex_\w* rt_spin_\w*
    __wake_up\w* wake_up_\w* try_to_wake_up complete wait_for_completion\w* finish_wait prepare_to_wait\w*
    refcount_\w* __refcount_\w* atomic\w* arch_atomic\w* __list_\w* list_\w* hlist_\w* __hlist\w* llist_\w*
    plist_\w* rb_\w* __rb_\w* instrument_\w* test_bit test_and_\w* set_bit clear_bit arch_test_bit
    \w*constant_test_bit del_timer\w* timer_delete\w* try_to_del_timer\w* timer_\w*_sync detach_if_pending
    flush_work __flush_work\w* start_flush_work __cancel_work\w* cancel_work\w* cancel_delayed_work\w*
    try_to_grab_pending flush_workqueue __flush_workqueue drain_workqueue destroy_workqueue kthread_stop
    """
)
# Copying, formatting, freeing: library functions that trip over a bad argument.
LIBRARY = _words(
    r"""
    \w*memcpy\w* \w*memcmp\w* \w*memset\w* \w*memchr\w* \w*memmove\w* \w*strcmp\w* \w*strncmp\w*
    \w*strcasecmp\w* \w*strncasecmp\w* \w*strcpy\w* \w*strlcpy\w* \w*strncpy\w* \w*strscpy\w* \w*strlen\w*
    \w*strnlen\w* \w*strnstr\w* \w*strstr\w* \w*strchr\w* \w*strrchr\w* strcat strlcat strncat \w*sized_strscpy
    memscan bcmp \w*copy_to_user\w* \w*copy_from_user\w* \w*copy_user\w* _copy_\w* \w*put_user\w* \w*get_user\w*
    copyin copyout copy_to_iter\w* copy_from_iter\w* rep_movs\w* rep_stos\w* clear_user\w* string string_nocheck
    \w*pointer \w*snprintf \w*scnprintf \w*sprintf \w*kasprintf \w*kvasprintf\w* va_format number format_decode
    dev_info _dev_\w* dev_notice dev_warn dev_err dev_alert dev_crit dev_emerg __dev_printk __netdev_printk
    netdev_\w{3,6} __x86_indirect_\w* __indirect_thunk\w* \w*_indirect_thunk_\w* __x86_return_thunk srso_\w*
    retbleed\w* memory_is_\w* bytes_is_\w* kfree kfree_sensitive kfree_skb\w* __kfree_skb kmem_cache_free\w*
    slab_free\w* __slab_free do_slab_free ___cache_free cache_free_debugcheck slab_free_freelist_hook\w* kvfree
    vfree __vunmap kfree_const debug_check_no_locks_freed kobject_del kobject_put kobject_get __kobject_del
    kobject_uevent_env add_uevent_var kobject_add\w* kobject_cleanup kobject_release get_device_parent
    device_add device_del device_unregister device_destroy device_release device_initial_probe
    devres_release_\w* release_nodes device_for_each_child\w* device_remove_file sysfs_remove\w*
    kernfs_remove\w* __kernfs_remove hwrng_unregister i2c_del_adapter __unregister_client rollback_registered\w*
    unregister_netdev\w* tty_unregister_device dummy_urb_enqueue usb_kill_urb usb_kill_anchored_urbs
    usb_control_msg\w* usb_hcd_submit_urb usb_submit_urb kref_\w* csum_partial\w* __sw_hweight\w* find_\w*bit
    _find_\w*bit
    """
)
SKIP = re.compile(rf"(?:{REPORTING}|{LOCKING}|{LIBRARY})\Z")

# Some kinds pass over more.
EXTRA: dict[str, re.Pattern[str]] = {
    "kasan-free": re.compile(r"kmem_|slab_|__slab|kfree|vunmap|vfree|kvfree|___cache|cache_free|mempool_free|kzfree"),
    "odebug": re.compile(
        r"debug_|rcu|hrtimer_|timer_|work_|percpu_|kmem_|slab_|__slab|kfree|vunmap|vfree|__free_|"
        r"kobject_|free_p|free_unref|__vunmap|destroy_\w*work|debugobj|work$|cache_free"
    ),
    "usercopy-warn": re.compile(r"usercopy|__check"),
    "usercopy": re.compile(r"usercopy|__check|check_\w*object"),
    "kobject": re.compile(r"kobject_"),
    "proc": re.compile(r"proc_|_proc"),
    "refcount": re.compile(r"refcount|kobject_|kref_|_refcount"),
    "locking": re.compile(r"lock_sock|release_sock|lock_\w+_nested$|__lock_sock"),
    "kmalloc": re.compile(r"malloc|kcalloc|kzalloc|krealloc|slab|kmem|alloc_pages|__get_free|kmalloc|kvcalloc"),
    "urb": re.compile(r"usb_submit_urb|usb_start_wait_urb|usb_bulk_msg|usb_interrupt_msg|usb_control_msg"),
    "kmsan": re.compile(
        r"usb_submit_urb|usb_start_wait_urb|usb_bulk_msg|usb_interrupt_msg|usb_control_msg|_copy_to_iter|instrument_"
    ),
    "preemptible": re.compile(r"preempt|debug_|processor_id|this_cpu"),
    "leak": re.compile(
        r"kmemleak|alloc|mmap|kmem|slab|create_object|idr_get|list_lru_init|printf|pcpu_create|"
        r"str\w*dup|memdup|kobject_set_name|dup_user"
    ),
    "rcu-usage": re.compile(r"rcu|kmem|slab|kmalloc|vmalloc|kcalloc|kzalloc"),
    "ubsan": re.compile(r"ubsan|overflow|ubsan_epilogue"),
    "lock-key": re.compile(r"stack|lock|IRQ|assign_"),
    "spinlock": re.compile(r"spin_|_lock|_unlock"),
    "deadlock": re.compile(
        r"process_one_work|flush_work|drain_work|destroy_work|__flush|touch_wq|touch_work|start_flush"
    ),
    "panic-stack": re.compile(r"stack_chk"),
    "hung-die": re.compile(r"schedule"),
    "page-state": re.compile(
        r"bad_page|free_p|free_unref|__free_|free_\w*page|get_page_from|rmqueue|prep_new|"
        r"alloc_pages|__alloc|check_\w*page|release_pages|post_alloc|page_\w*_check|put_page|"
        r"__put_|free_large|free_one|alloc"
    ),
    "page-map": re.compile(r"print_bad|vm_normal|zap_|unmap_"),
    "slab": re.compile(
        r"kmem_|slab|kfree|kmalloc|kzalloc|___cache|alloc_debug|free_debug|check_|print_trailer|init_object|alloc"
    ),
    "stack": re.compile(r"(?!)"),
}

# Where a thread of execution began: nothing below it is to blame.
BOTTOM = re.compile(
    r"(?:entry_SYSCALL\w*|entry_INT80\w*|entry_SYSENTER\w*|do_syscall_\w*|do_fast_syscall\w*|"
    r"__do_fast_syscall\w*|do_int80\w*|system_call\w*|sysenter\w*|syscall_call|x64_sys_call"
    r"|ret_from_\w*|ret_fast_syscall|ret_to_user|kernel_thread_helper|el0\w*|invoke_syscall|"
    r"el0_svc\w*|do_el0_svc|__sys_trace\w*|syscall_exit\w*|handle_syscall|do_trap_ecall_u|"
    r"tracesys\w*"
    r"|start_kernel|x86_64_start_\w*|secondary_startup\w*|start_secondary|cpu_startup_entry|rest_init|kthread)\Z"
)

# Waiting, as hung tasks do it.
WAITING = re.compile(
    r"sched|_lock|_slowlock|\bdown|^down|^__down|rwsem|completion|kthread|wait|synchronize|"
    r"context_switch|__switch_to|cancel_delayed_work"
    r"|^percpu_down|^mutex|rwbase|^rt_mutex|^io_|^rtlock|^bit_|out_of_line|freezing|msleep|"
    r"usleep|_lock_common|flush_work|cancel_work"
)
# Hangs that come in from all over the kernel, and are told apart by what they wait for.
HANG_ANCHORS = ("rtnl_lock", "synchronize_rcu", "synchronize_srcu", "synchronize_net", "synchronize_sched")

# Work is handed out here; what was handed out is the frame above. For reads, writes and ioctls of all kinds the
# frame above the common entry is the one that tells them apart.
DISPATCH = re.compile(
    r"(?:process_one_work|do_syscall_\w*|do_fast_syscall_\w*|__do_fast_syscall_\w*|"
    r"sysenter_dispatch|tracesys_phase2|\w*netif_receive_skb\w*|\w*do_softirq\w*|"
    r"call_timer_fn|\w*_run_timers"
    r"|run_timer_softirq|run_ksoftirqd|smpboot_thread_fn|kthread|start_secondary|"
    r"cpu_startup_entry|ret_from_fork\w*|entry_SYSCALL\w*|el0_svc\w*|invoke_syscall|"
    r"ret_fast_syscall|x64_sys_call|ia32_sys_call|handle_softirqs"
    r"|vfs_write|vfs_read|vfs_iter_read|vfs_iter_write|do_iter_read|do_iter_write|vfs_ioctl|"
    r"ksys_ioctl|\w*compat_ioctl\w*|compat_sys_ioctl|\w*blkdev_driver_ioctl|blkdev_ioctl|"
    r"call_read_iter|call_write_iter"
    r"|do_iter_readv_writev\w*|call_mmap|mmap_region|do_mmap\w*|do_dentry_open|vfs_open|"
    r"sock_sendmsg\w*|__sock_sendmsg|sock_recvmsg\w*|\w*sock_release|\w*__sys_setsockopt|"
    r"do_sock_setsockopt|kernel_setsockopt"
    r"|sock_common_setsockopt|__sys_listen\w*|kernel_listen|sk_common_release|sock_mmap|"
    r"__sys_accept\w*|kernel_accept|sock_do_ioctl|sock_ioctl|compat_sock_ioctl|"
    r"nfnetlink_rcv_msg|rtnetlink_rcv_msg|genl_rcv_msg"
    r"|(?:compat_)?(?:SYSC|SyS|__sys|___sys|__do_sys|__se_sys|__x64_sys|__arm64_sys)_(?:socketpair|connect|ioctl)"
    r"|__do_fault|handle_mm_fault|\w*do_page_fault|do_user_addr_fault|page_fault|__fput|"
    r"task_work_run|exit_to_user\w*|\w*smp_call_function\w*|resume_user_mode_work)\Z"
)
SYSCALL_PREFIX = re.compile(
    r"^(?:__x64_|__ia32_|__arm64_|__s390x_|__riscv_|SYSC_|SyS_|compat_SYSC_|compat_SyS_|__se_|__do_)(?=sys_|\w)"
)
INTERRUPTED = re.compile(
    r"(?:asm_)?(?:sysvec_)?(?:apic_timer_interrupt|reschedule_interrupt|"
    r"call_function\w*interrupt|irq_work_interrupt)|asm_sysvec_\w+|common_interrupt|"
    r"ret_from_intr|el1_irq|el1h_64_irq\w*|__irq_svc|timer_interrupt_common"
)


def blame(functions: Iterable[str], name: str = "") -> str | None:
    """The first function that is not passed over, or `None`; `name` is the trigger's."""
    extra = EXTRA.get(name)
    for function in functions:
        plain = base(function)
        if skipped(plain) or (extra is not None and extra.search(plain)):
            continue
        if bottom(plain):
            break
        return plain
    return None


@lru_cache(maxsize=8192)
def skipped(name: str) -> bool:
    """Whether a function is passed over, whatever the kind of event."""
    return SKIP.match(name) is not None


@lru_cache(maxsize=4096)
def bottom(name: str) -> bool:
    """Whether a thread of execution begins with it."""
    return BOTTOM.match(name) is not None


def caller_of_wait(functions: Sequence[str]) -> str | None:
    """For a task that hangs: who waits, or the well-known thing that everybody waits for."""
    names = [base(function) for function in functions]
    for name in names:
        for anchor in HANG_ANCHORS:
            if anchor in name:
                return name if anchor == "rtnl_lock" else "synchronize_rcu"
    for name in names:
        if not WAITING.search(name) and not bottom(name) and not skipped(name):
            return name
    return None


def caller_of_stall(functions: Sequence[str]) -> str | None:
    """For a CPU that does not come back: the last function before the dispatcher, as the top is a random one."""
    names = [base(function) for function in functions]
    start = next((at + 1 for at in range(len(names) - 1, -1, -1) if INTERRUPTED.match(names[at])), 0)
    for window in (names[start:], names):
        before: str | None = None
        for name in window:
            if DISPATCH.match(name):
                if "smp_call_function" in name:
                    return "smp_call_function"
                if before is not None:
                    return SYSCALL_PREFIX.sub("", before)
                continue
            if not (before is None and skipped(name) and not _is_lock(name)):
                before = name
        if before is not None:
            return SYSCALL_PREFIX.sub("", before)
    return None


def _is_lock(name: str) -> bool:
    return "lock" in name
