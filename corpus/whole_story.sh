#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The story of corpus/live_whole.py, inside of the guest: each step says what it came to, "PROOF: ok ..." or "PROOF:
# FAILED ...", and asks the other side for what only that can do, "HOST: plug NAME". It goes on after each reboot.
stage_file=/var/lib/whole-story
log=/var/log/whole-story
mark=/var/lib/ejectable/live-loaded
stage=$(cat $stage_file 2>/dev/null || echo first)
release=$(uname -r)

say() { printf '\nPROOF: %s\n' "$*"; }
ok() { say "ok $*"; }
failed() { say "FAILED $*"; }
ask() { printf '\nHOST: %s\n' "$*"; }

# expect CODE WHAT COMMAND...: run it, and hold its exit code against the expected one.
expect() {
    wanted=$1 what=$2
    shift 2
    "$@" >$log.out 2>&1
    code=$?
    { echo "\$ $*"; cat $log.out; echo "($code)"; } | tee -a $log
    if [ $code = "$wanted" ]; then ok "$what: $code"; else failed "$what: $code, expected $wanted"; fi
}
# says WHAT PATTERN: what the last command said.
says() { if grep -q -- "$2" $log.out; then ok "$1"; else failed "$1: no '$2'"; fi; }
# truth WHAT COMMAND...: it must hold.
truth() {
    what=$1
    shift
    if "$@"; then ok "$what"; else failed "$what"; fi
}
gone() { [ ! -e "$1" ]; }
disks() { find /sys/bus/virtio/devices/ -mindepth 1 | wc -l; }
wait_for() {
    n=0
    until [ "$(disks)" = "$1" ]; do
        sleep 0.5
        n=$((n + 1))
        [ $n -lt 120 ] || return 1
    done
    udevadm settle
}
plug() { ask "plug $1" && wait_for "$2"; }
no_oops() { ! dmesg | grep -qE 'BUG:|Oops|WARNING:'; }
# An Oops comes when the device has left its bus already.
pull() { ask "pull $1" && wait_for "$2" && sleep 2 && no_oops; }

echo "=== stage $stage on $release" | tee -a $log
case $stage in
first)
    truth "a legacy disk is plugged" plug one 2
    expect 2 "check, before" ejectable check
    expect 2 "the plan" ejectable fix live
    says "the plan says that it is possible" "^live  *possible"
    expect 0 "fix live --apply" ejectable fix live --apply
    truth "the module is loaded" test -e /sys/module/ejectable_live
    truth "the mark is there" test -e $mark
    expect 0 "check, repaired" ejectable check
    says "check says mitigated" MITIGATED
    truth "the unplug that crashed" pull one 1
    truth "a legacy disk plugged after loading" plug two 2
    expect 0 "check, with the new one" ejectable check
    says "check says mitigated of the new one" MITIGATED
    truth "it is unplugged" pull two 1
    truth "no oops and no warning so far" no_oops
    truth "another legacy disk is plugged" plug three 2
    expect 0 "fix live --undo" ejectable fix live --undo
    truth "the module is gone" gone /sys/module/ejectable_live
    truth "the mark is gone" gone $mark
    truth "the runtime units are gone" gone /run/systemd/system/ejectable-live.service
    expect 2 "check, after --undo" ejectable check
    expect 64 "a second --undo has nothing to take back" ejectable fix live --undo
    expect 0 "fix live --apply --persist" ejectable fix live --apply --persist
    dkms status | tee -a $log
    truth "DKMS has it for this kernel" sh -c "dkms status | grep -q 'ejectable-live.*$release.*installed'"
    expect 0 "check, persistent" ejectable check
    says "check says mitigated, persistent" MITIGATED
    echo second >$stage_file
    sync
    systemctl --no-block reboot
    ;;
second)
    truth "after a clean reboot the module is loaded" test -e /sys/module/ejectable_live
    expect 0 "check, after the reboot" ejectable check
    says "check says mitigated, after the reboot" MITIGATED
    truth "the mark is this boot's" grep -q "$(cat /proc/sys/kernel/random/boot_id)" $mark
    echo third >$stage_file
    sync
    ask reset
    sleep 600
    ;;
third)
    truth "after one crash it is loaded once more" test -e /sys/module/ejectable_live
    expect 0 "check, after one crash" ejectable check --verbose
    says "check says that the last boot crashed" "did not end in good order"
    echo fourth >$stage_file
    sync
    ask reset
    sleep 600
    ;;
fourth)
    truth "after two crashes it is not loaded again" gone /sys/module/ejectable_live
    truth "the journal says why" sh -c "journalctl -b -u ejectable-live | grep -q 'did not end in good order'"
    expect 2 "check, after two crashes" ejectable check
    expect 69 "fix live --apply refuses" ejectable fix live --apply
    says "it says why it refuses" "did not end in good order"
    expect 0 "fix live --undo takes everything away" ejectable fix live --undo
    found=
    for left in $mark /usr/src/ejectable-live-* /etc/systemd/system/ejectable-live* /var/lib/dkms/ejectable-live \
        /lib/modules/*/updates/dkms/ejectable_live.ko*; do
        [ -e "$left" ] && found="$found $left"
    done
    truth "nothing is left behind:$found" test -z "$found"
    echo fifth >$stage_file
    sync
    say "ok the last unplug, without the module: it must crash"
    pull three 1 && failed "it did not crash"
    sleep 5
    dmesg | grep -A3 'BUG: kernel NULL' && ok "it crashed" || failed "no Oops"
    say end
    ;;
esac
