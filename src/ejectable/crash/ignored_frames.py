# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that are ignored when a function is blamed: reporting helpers, allocators, entry code, common callers.

Families, by what they do. A pattern matches a name as a whole.
"""

import re

__all__ = [
    "ALLOCATES",
    "BOTTOM",
    "DISPATCH",
    "EXTRA",
    "HANG_ANCHORS",
    "INTERRUPTED",
    "SKIP",
    "TELLS",
    "TRAP",
    "WAITING",
]


def _family(text: str) -> str:
    return "|".join(text.split())


# What prints, warns, traps, unwinds and checks: it only tells of what its caller did.
REPORTING = _family(
    r"""
    dump_stack\w* __dump_stack show_stack\w* show_regs\w* \w*dump_backtrace\w* unwind_backtrace\w*
    \w*walk_stack\w* sched_show_task print_\w* \w*printk\w* \w*panic\w* \w*report_bug\w* \w*fixup_bug\w*
    \w*warn_slowpath\w* \w*__warn\w* warn_alloc\w* warn_bogus\w* \w*do_error\w* \w*do_trap\w* \w*_trap
    \w*invalid_op \w*asm_exc_\w* exc_(?!page_fault)\w* handle_bug die die_\w* __die\w* oops_\w* \w*oops_end
    no_context \w*bad_area\w* page_fault_oops kernelmode_fixup_or_oops \w*do_kernel_fault die_kernel_fault
    do_translation_fault do_mem_abort do_tag_check_fault el1\w* do_bad_area do_DataAbort do_PrefetchAbort
    __dabt_svc __und_svc __pabt_svc do_undefinstr bug_handler brk_handler do_debug_exception call_break_hook
    do_el1_\w* bad_mode arm64_serror_panic vectors program_check_\w* _exception\w* \w*kasan\w* \w*kmsan\w*
    \w*kcsan\w* \w*kfence\w* __asan_\w* \w*hwasan\w* __msan_\w* __tsan_\w* __sanitizer\w* __csan\w* \w*ubsan\w*
    handle_overflow check_memory_region\w* check_region_inline \w*check_(?:heap_|stack_)?object\w* check_noncircular
    check_prev_add\w* check_prevs_add validate_chain valid_state \w*mark_lock\w* mark_usage \w*held_locks
    mark_irqflags \w*lockdep\w* \w*might_(?:fault|sleep|resched)\w* __schedule_bug schedule_debug
    check_preemption_disabled debug_smp_processor_id __this_cpu_preempt_check \w*debug_object\w*
    debug_print_object debug_check_no_obj\w* __debug_check\w* \w*_is_static_object \w*fortify_\w*
    __stack_chk_fail stack_trace_(?:save|consume)\w* save_stack\w* \w*stack_depot\w* arch_stack_walk\w*
    \w*perf_trace\w* __bpf_trace_\w* \w*traceiter\w* trace_event_raw_event_\w*
    perf_tp_\w* bad_page\w* object_err slab_err slab_bug slab_pad_check check_bytes_and_report
    \w*debug_processing check_slab bust_spinlocks nmi_\w* default_do_nmi do_nmi\w* nmi end_repeat_nmi
    arch_trigger_\w* \w*show_all_\w* __report_\w* \w*add_taint\w*
    kgdb\w* notify_die spin_bug spin_dump rwlock_bug do_raw_\w*
    hardlockup\w* watchdog_(?:timer_fn|overflow\w*|check\w*|hardlockup\w*|trigger\w*|buddy\w*)
    read_word_at_a_time \w*(?:read|write)_once_\w*nocheck ret_from_exception handle_exception \w*do_bp illegal_op
    do_report_trap __do_pgm_check pgm_check_handler monitor_event_exception handle_\w*_exception exception_enter
    \w*imbalance_bug \w*assertfail\w* \w*hex_dump\w* get_taint \w*seqprop_\w* ref_tracker_\w* owner_on_cpu
    __kcsan_check_access rust_begin_unwind rust_helper_\w* _RN\w*rust_begin_unwind\w* _RN\w*panicking\w*
    """
)
# Locks, references, lists, trees, bits, timers and work: what the caller handed in was wrong.
STRUCTURES = _family(
    r"""
    \w*lock_acquire\w* \w*lock_release\w* \w*lock_class\w* lock_acquired lock_contended
    \w*spin_(?:try)?lock\w* \w*spin_unlock\w* \w*(?:read|write)_(?:try|un)?lock\w* \w*raw_spin_rq\w*
    queued_\w*lock\w* native_queued_\w* pv_queued_\w* pv_wait\w* __pv_\w* kvm_wait virt_spin_lock \w*osq_\w*
    mcs_\w* (?:__|rt_|ww_|_)?mutex_\w* __ww_mutex\w* down \w*down_(?:read|write|trylock|interruptible|killable)\w*
    __down\w* up \w*up_(?:read|write)\w* rwsem_\w* call_rwsem_\w* percpu_(?:down|up)_\w* rt_(?:spin|read|write)_\w*
    \w*bh_(?:enable|disable)\w* \w*__wake_up\w* complete \w*wait_for_completion\w* \w*finish_wait
    prepare_to_wait\w* refcount_\w* __refcount_\w* kref_\w*
    \w*atomic(?:64|_long)?_(?:dec|inc|read|set|or|xor|and|add|sub|fetch|xchg|cmpxchg|try)\w*
    \w*list_(?:add|del|replace|move|splice|rotate|cut|empty)\w* \w*klist_\w* plist_\w* rb_\w* __rb_\w*
    rhashtable_lookup\w* \w*rhashtable_lookup\w* xas_(?:start|load|find)\w* instrument_\w*
    \w*(?:set|clear|change|test)_bit\w* test_and_\w* \w*constant_test_bit find_\w*bit _find_\w*bit
    \w*del_timer\w* \w*timer_delete\w* try_to_del_timer\w* \w*timer_\w*_sync \w*stop_timer_sync detach_if_pending
    lock_timer_base __mod_timer \w*flush_work\w* __cancel_work\w* cancel_(?:delayed_)?work\w* try_to_grab_pending
    \w*flush_workqueue\w* \w*drain_workqueue \w*destroy_workqueue \w*queue_(?:delayed_)?work\w* insert_work
    \w*local_irq_(?:save|restore|enable|disable)\w* native_(?:save|restore)_fl \w*irqentry_\w*
    trace_(?:hard|soft)irq\w* kthread_stop cleanup_srcu_struct
    iput iput_final ihold \w*dput drop_nlink put_device ida_free
    (?:un)?lock_page\w* __sw_hweight\w*
    """
)
# The allocators, and the page cache, which allocates for file systems.
ALLOCATORS = _family(
    r"""
    \w*(?:m|z|c)alloc\w* \w*krealloc\w* \w*kmem_cache\w* cache_from_obj virt_to_cache allocate_slab _*slab_\w*
    \w*slab_(?:alloc|free)\w* \w*alloc_(?:frozen_)?page\w*
    \w*folio_(?:alloc|unlock)\w* filemap_alloc_folio\w* __filemap_get_folio\w* find_or_create_page\w*
    do_read_cache_folio\w* read_cache_page\w* pagecache_get_page\w* grab_cache_page_write_begin\w*
    find_lock_entries truncate_inode_pages_range truncate_cleanup_\w* ifs_\w* iomap_(?:release|invalidate)_folio
    \w*(?:mem|str|strn)dup\w* kfree kfree_sensitive kzfree
    \w*kfree_skb\w* ___cache_free cache_free_debugcheck kvfree vfree __vunmap kfree_const
    debug_check_no_locks_freed
    """
)
# Copying, formatting, checksums, port access, and the devices' model: library functions that a bad argument trips.
LIBRARY = _family(
    r"""
    \w*memcpy\w* \w*memcmp\w* \w*memset\w* \w*memchr\w* \w*memmove\w* memscan bcmp
    \w*str(?:n|case|ncase)?cmp\w* \w*str[ln]?cpy\w* \w*strscpy\w* \w*strn?len\w* \w*strn?str\w* \w*strr?n?chr\w*
    str[ln]?cat \w*copy_(?:to|from|in|out)_(?:user|iter)\w* \w*copy_(?:page|folio)_(?:to|from)_iter\w*
    \w*copy_user\w* _copy_\w* copyin copyout \w*put_user\w* \w*get_user\w* rep_movs\w* rep_stos\w* clear_user\w*
    extract_(?:user|iter)_to_sg\w* string string_nocheck \w*pointer \w*snprintf \w*scnprintf \w*sprintf
    \w*k?v?asprintf\w* va_format number format_decode widen_string special_hex_number address_val
    (?:hex|mac_address|uuid|bitmap(?:_list)?|escaped|symbol|resource|flags|fwnode|device_node|range|hex_range)_string
    ip[46]?(?:_addr)?(?:_compressed)?_string\w* dentry_name file_dentry_name bdev_name time_and_date
    _?dev_(?:info|notice|warn|err|alert|crit|emerg|printk\w*) __dev_printk __netdev_printk netdev_(?:info|warn|err)
    \w*_indirect_thunk_\w* __x86_return_thunk srso_\w* retbleed\w* memory_is_\w* bytes_is_\w*
    \w*(?:read|write)[bwlq] \w*io(?:read|write)(?:8|16|32|64)\w* \w*(?:rd|wr)msr\w* \w*(?:read|write)_msr\w*
    (?:__)?(?:in|out)s?[bwl] logic_(?:in|out)\w* crc\d+\w* crc_itu_t\w* csum_partial\w* __phys_addr\w*
    kobject_\w* __kobject_del add_uevent_var get_device_parent device_add device_del device_unregister
    device_destroy device_release device_for_each_child\w* device_remove_file devres_release_all
    sysfs_remove\w* hwrng_unregister i2c_del_adapter __unregister_client rollback_registered\w*
    unregister_netdev\w* tty_unregister_device dummy_urb_enqueue usb_kill_urb usb_kill_anchored_urbs
    usb_control_msg\w* usb_hcd_submit_urb usb_submit_urb
    """
)
TELLS = re.compile(rf"(?:{REPORTING})\Z")
ALLOCATES = re.compile(rf"(?:{REPORTING}|{ALLOCATORS})\Z")
SKIP = re.compile(rf"(?:{REPORTING}|{STRUCTURES}|{ALLOCATORS}|{LIBRARY})\Z")

URB = r"usb_submit_urb|usb_start_wait_urb|usb_bulk_msg|usb_interrupt_msg|usb_control_msg"
# Some kinds pass over more; by the name of the pattern. Here a part of the name is enough.
EXTRA: dict[str, re.Pattern[str]] = {
    "kasan-free": re.compile(r"kmem_|slab_|__slab|kfree|vunmap|vfree|kvfree|___cache|cache_free|mempool_free|kzfree"),
    "odebug": re.compile(
        r"debug_|rcu|hrtimer_|timer_|work_|percpu_|kmem_|slab_|__slab|kfree|vunmap|vfree|__free_|"
        r"kobject_|free_p|free_unref|debugobj|work$|cache_free"
    ),
    "usercopy-warn": re.compile(r"^(?:report_)?usercopy|__check"),
    "usercopy": re.compile(r"^(?:report_)?usercopy|__check|check_\w*object"),
    "kobject": re.compile(r"kobject_"),
    "proc": re.compile(r"proc_|_proc"),
    "refcount": re.compile(r"refcount|kobject_|kref_"),
    "locking": re.compile(r"lock_sock|release_sock"),
    "wait-context": re.compile(r"lock_sock|release_sock"),
    "kmalloc": re.compile(r"malloc|slab|kmem|__get_free|alloc_pages|free_pages"),
    "urb": re.compile(URB),
    # Ciphers and random numbers only spread what was never written, as netlink's answers do.
    "kmsan": re.compile(
        rf"{URB}|alloc_skb|netlink_ack|netlink_rcv_skb|_encrypt\Z|^(?:crypto|cipher|drbg|rng)_|instrument_"
    ),
    "preemptible": re.compile(r"preempt|debug_|processor_id|this_cpu"),
    "atomic": re.compile(r"schedule"),
    "leak": re.compile(
        r"kmemleak|alloc|mmap|kmem|slab|create_object|idr_get|list_lru_init|printf|pcpu_create|"
        r"str\w*dup|memdup|dup_user"
    ),
    "rcu-usage": re.compile(r"rcu|kmem|slab"),
    "ubsan": re.compile(r"ubsan|overflow"),
    "lockdep-limit": re.compile(r"trace|lock|add_chain|flush_|drain_"),
    "lock-key": re.compile(r"stack|lock|IRQ|assign_"),
    "spinlock": re.compile(r"spin_|_lock|_unlock"),
    "deadlock": re.compile(r"process_one_work|flush_work|drain_work|destroy_work|touch_wq|touch_work|start_flush"),
    "panic-stack": re.compile(r"stack_chk"),
    "panic-stack-end": re.compile(r"schedule|retint_kernel"),
    "panic-overflow": re.compile(r"bad_stack"),
    "hung-die": re.compile(r"schedule"),
    "rcu-stall": re.compile(r"apic_timer_interrupt|rcu"),
    # Many BUG_ON()s stand in the wrappers of socket buffers, for the sake of whoever calls them.
    "bug": re.compile(r"^skb_"),
    "page-state": re.compile(
        r"(?:free|put|get|update|release)_page|free_unref|^_*folio|truncate_inode_pages|page_frag_free|alloc|vmap|"
        r"page_owner|bad_page|free_p|__free_|free_\w*page|rmqueue|prep_new|check_\w*page|page_\w*_check|__put_|free_one"
    ),
    "page-map": re.compile(r"print_bad|vm_normal|zap_|unmap_"),
    "slab": re.compile(
        r"kmem_|slab|kfree|kmalloc|kzalloc|___cache|alloc_debug|free_debug|check_|print_trailer|init_object|alloc"
    ),
}

# Where a thread of execution began: nothing below it is to blame.
BOTTOM = re.compile(
    r"(?:entry_SYSCALL\w*|entry_INT80\w*|entry_SYSENTER\w*|do_syscall_\w*|do_fast_syscall\w*|"
    r"__do_fast_syscall\w*|do_int80\w*|system_call\w*|sysenter\w*|syscall_call|x64_sys_call|ia32_sys_call"
    r"|ret_from_\w*|ret_fast_syscall|ret_to_user|kernel_thread_helper|el0\w*|invoke_syscall|"
    r"do_el0_svc|__sys_trace\w*|syscall_exit\w*|handle_syscall|do_trap_ecall_u|tracesys\w*"
    r"|(?:x86_64|i386)_start_\w*|secondary_startup\w*|start_secondary|cpu_startup_entry|rest_init|kthread)\Z"
)

# Waiting, as hung tasks do it.
WAITING = re.compile(
    r"sched|_lock|_slowlock|down|rwsem|completion|kthread|wait|synchronize|context_switch|__switch_to"
    r"|cancel_delayed_work|rcu_barrier|rwbase|^bit_|out_of_line|freezing|msleep|usleep"
)
# Hangs that come in from all over the kernel, and are told apart by what they wait for.
HANG_ANCHORS = ("rtnl_lock", "synchronize_rcu", "synchronize_srcu", "synchronize_net", "synchronize_sched")

# Work is handed out here; what was handed out is the frame above. For reads, writes and ioctls of all kinds the
# frame above the common entry is the one that tells them apart.
DISPATCH = re.compile(
    r"(?:\w*process_one_work|\w*do_syscall_\w*|\w*do_fast_syscall_\w*|sysenter_dispatch|tracesys_phase2|"
    r"\w*netif_receive_skb\w*|\w*do_softirq\w*|handle_softirqs|softirq_handle\w*|call_timer_fn|\w*_run_timers|"
    r"run_timer_softirq|\w*hrtimer_run\w*|run_ksoftirqd|smpboot_thread_fn|kthread|start_secondary|"
    r"cpu_startup_entry|ret_from_fork\w*|entry_SYSCALL\w*|el0_svc\w*|invoke_syscall|ret_fast_syscall|"
    r"x64_sys_call|ia32_sys_call|system_call\w*|\w*tasklet\w*_action\w*"
    r"|\w*vfs_(?:iter_)?(?:read|write)v?|do_iter_(?:read|write)v?|\w*vfs_ioctl|\w*ksys_ioctl|"
    r"\w*compat_ioctl\w*|\w*compat_sys_ioctl|\w*blkdev_driver_ioctl|\w*blkdev_ioctl|\w*call_(?:read|write)_iter|"
    r"new_sync_(?:read|write)|\w*do_iter_readv_writev\w*|call_mmap|\w*mmap_region|\w*do_mmap\w*|do_dentry_open|vfs_open"
    r"|sock_sendmsg\w*|__sock_sendmsg|sock_recvmsg\w*|\w*sock_release|\w*sys_setsockopt|do_sock_setsockopt|"
    r"kernel_setsockopt|sock_common_setsockopt|\w*sys_listen\w*|kernel_listen|sk_common_release|sock_mmap|"
    r"\w*sys_accept\w*|kernel_accept|sock_do_ioctl|sock_ioctl|compat_sock_ioctl|nfnetlink_rcv_msg|"
    r"rtnetlink_rcv_msg|genl_rcv_msg|netlink_dump"
    r"|(?:compat_)?(?:sys|SYSC|SyS|__sys|___sys|__do_sys|__se_sys|__x64_sys|__arm64_sys)_(?:socketpair|connect|ioctl)"
    r"|__do_fault|\w*do_page_fault|page_fault|__fput|task_work_run|"
    r"exit_to_user\w*|\w*smp_call_function\w*|resume_user_mode_work|full_proxy_\w+)\Z"
)
INTERRUPTED = re.compile(
    r"(?:asm_)?(?:sysvec_)?(?:\w*apic_timer_interrupt\w*|reschedule_interrupt|call_function\w*interrupt|"
    r"irq_work_interrupt)|asm_sysvec_\w+|(?:asm_)?common_interrupt|ret_from_intr|el1_irq|el1h_64_irq\w*|__irq_svc|"
    r"timer_interrupt_common|asm_exc_nmi|end_repeat_nmi|retint_kernel|restore_regs_and_return_to_kernel"
)
TRAP = re.compile(
    r"asm_exc_(?!nmi)\w+|\w*invalid_op|\w*page_fault|\w*general_protection|\w*divide_error|\w*double_fault|int3|debug|"
    r"error_(?:entry|exit|return)|\w*stack_segment|\w*alignment_check|\w*simd_coprocessor_error"
)
