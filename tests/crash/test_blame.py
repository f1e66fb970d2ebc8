# SPDX-License-Identifier: GPL-2.0-or-later
"""The function to blame is the one whose doing it was, not the one in which it came to light."""

import pytest

from ejectable.crash.blame import blame, caller_of_stall, caller_of_wait, first_left, named

__all__: list[str] = []


@pytest.mark.parametrize(
    ("trace", "guilty"),
    [
        ("dump_stack_lvl print_report kasan_report memcpy ntfs_set_ea", "ntfs_set_ea"),
        ("__list_add_valid_or_report chrdev_open do_dentry_open", "chrdev_open"),
        ("rb_erase __kernfs_remove kernfs_remove_by_name_ns", "__kernfs_remove"),
        ("__alloc_frozen_pages_noprof ___kmalloc_large_node __kmalloc_noprof read_acl", "read_acl"),
        ("fortify_panic checkentry xt_check_target", "checkentry"),
        ("__check_heap_object __check_object_size sg_scsi_ioctl", "sg_scsi_ioctl"),
        ("_raw_spin_lock_irqsave down_trylock console_lock tty_open", "console_lock"),
        ("__x86_indirect_thunk_rbx locks_remove_file __fput", "locks_remove_file"),
        ("ref_tracker_free.cold packet_release __sock_release", "packet_release"),
        ("test_and_clear_bit napi_hash_del netif_napi_del", "napi_hash_del"),
        ("cleanup_srcu_struct kvm_put_kvm kvm_vm_release", "kvm_put_kvm"),
        ("find_lock_entries truncate_inode_pages_range evict_inode", "evict_inode"),
        ("ext4_find_entry.isra.0 ext4_lookup", "ext4_find_entry"),
        ("list_lru_add d_lru_add", "list_lru_add"),
        ("ioread8 vp_modern_get_status vp_reset", "vp_modern_get_status"),
        ("native_write_msr x86_pmu_enable_all", "x86_pmu_enable_all"),
        ("add_taint load_module", "load_module"),
        ("arch_local_irq_restore __seqprop_assert finish_it", "finish_it"),
        ("trace_kprobe_create create_or_delete", "trace_kprobe_create"),
    ],
)
def test_what_every_caller_may_be_standing_in_is_passed_over(trace: str, guilty: str) -> None:
    assert blame(trace.split()) == guilty


@pytest.mark.parametrize(
    ("wording", "trace", "guilty"),
    [
        ("odebug", "debug_print_object hrtimer_init_sleeper __vunmap vfree table_free", "table_free"),
        ("bug", "skb_over_panic skb_put build_frame", "build_frame"),
        ("ubsan", "ubsan_epilogue handle_overflow shift_it", "shift_it"),
        ("kmsan", "_copy_to_iter crypto_aes_encrypt netlink_rcv_skb nla_put", "nla_put"),
        ("leak", "kmem_cache_alloc_noprof skb_alloc idr_get_new session_open", "session_open"),
        ("urb", "usb_submit_urb usb_start_wait_urb ath_send", "ath_send"),
        ("preemptible", "check_preemption_disabled this_cpu_write count_it", "count_it"),
    ],
)
def test_some_kinds_pass_over_more(wording: str, trace: str, guilty: str) -> None:
    assert blame(trace.split(), wording) == guilty


@pytest.mark.parametrize(
    "frame",
    [
        "SyS_recvmmsg",
        "SYSC_recvmmsg",
        "__x64_sys_recvmmsg",
        "__arm64_sys_recvmmsg",
        "__se_sys_recvmmsg",
        "sys_recvmmsg",
        "ksys_recvmmsg",
        "compat_sys_recvmmsg",
        "__ia32_compat_sys_recvmmsg",
    ],
)
def test_a_system_call_has_one_name_whatever_macros_made_of_it(frame: str) -> None:
    assert named(frame) == "sys_recvmmsg"


def test_functions_that_only_sound_like_system_calls_keep_their_names() -> None:
    assert [named(name) for name in ("___sys_sendmsg", "sysfs_emit", "SyS")] == [
        "___sys_sendmsg",
        "sysfs_emit",
        "SyS",
    ]


@pytest.mark.parametrize(
    ("trace", "guilty"),
    [
        ("sensor_read sensor_poll vfs_read ksys_read __x64_sys_read do_syscall_64", "sensor_poll"),
        ("copy_msghdr do_recvmmsg __x64_sys_recvmmsg x64_sys_call do_syscall_64", "sys_recvmmsg"),
        ("sctp_do_sm sctp_heartbeat call_timer_fn __run_timers", "sctp_heartbeat"),
        ("flush_tlb smp_call_function_many_cond on_each_cpu", "smp_call_function"),
        ("scan_all gc_work process_one_work worker_thread kthread", "gc_work"),
    ],
)
def test_of_a_cpu_that_is_stuck_the_last_function_before_the_dispatcher_is_to_blame(trace: str, guilty: str) -> None:
    assert caller_of_stall(trace.split()) == guilty


def test_what_handles_the_timer_is_not_what_held_up_rcu() -> None:
    told = "dump_stack rcu_dump_cpu_stacks update_process_times hrtimer_interrupt apic_timer_interrupt"
    assert (
        caller_of_stall([*told.split(), "lock_is_held_type", "nfnetlink_rcv_msg"], "rcu-stall") == "lock_is_held_type"
    )


@pytest.mark.parametrize(
    ("trace", "guilty"),
    [
        ("__schedule schedule schedule_timeout __wait_for_common __flush_work p9_fd_close", "p9_fd_close"),
        ("__schedule schedule __mutex_lock rtnl_lock dev_ioctl", "rtnl_lock"),
        ("__schedule schedule wait_for_completion __synchronize_srcu synchronize_srcu mark_destroy", "synchronize_rcu"),
        ("__schedule schedule io_schedule folio_wait_bit_common do_read_cache_folio read_part", "read_part"),
        ("__schedule schedule io_ring_exit_work process_one_work", "io_ring_exit_work"),
        ("__schedule schedule rcu_barrier net_exit", "net_exit"),
    ],
)
def test_of_a_task_that_hangs_the_one_that_waits_is_to_blame(trace: str, guilty: str) -> None:
    assert caller_of_wait(trace.split()) == guilty


def test_where_all_are_passed_over_the_first_that_does_more_than_report_is_left() -> None:
    assert blame(["kasan_report", "kfree"]) is None
    assert first_left(["kasan_report", "kfree"]) == "kfree"
    assert first_left(["kasan_report"]) == "kasan_report"
    assert first_left([]) is None
