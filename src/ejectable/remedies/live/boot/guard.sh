#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Load ejectable_live at boot, but not after two boots in a row that it did not survive. Installed by
# `ejectable fix live`.
#
#   start   mark this boot, then load the module; refuse if the marks of the last two boots are still there
#   settle  half an hour went well: take the mark away
#   stop    the machine goes down in good order: take the mark away
#
# The mark is one line, BOOT_ID RELEASE STRIKES: so many boots right before did not end in good order. Only this
# boot's own mark is ever taken away here.
set -u
mark=/var/lib/ejectable/live-loaded
most=2
boot=$(cat /proc/sys/kernel/random/boot_id) || exit 1

marked_by= strikes=0
[ -r "$mark" ] && read -r marked_by _ strikes _ <"$mark"
case $strikes in *[!0-9]* | '') strikes=0 ;; esac

# shows FILE HEX: the ELF notes in FILE hold these bytes. A kernel that shows no such file is judged by the module.
shows() {
    [ -r "$1" ] || return 0
    od -An -v -tx1 "$1" | tr -d ' \n' | grep -q -F -- "$2"
}

case ${1:-} in
start)
    [ -e /sys/module/ejectable_live ] && exit 0
    [ -n "$marked_by" ] && [ "$marked_by" != "$boot" ] && strikes=$((strikes + 1))
    if [ "$strikes" -ge $most ]; then
        echo "<3>The last $strikes boots that loaded ejectable_live did not end in good order: it is not loaded." >&2
        echo "<3>Unplugging a legacy virtio device will crash this kernel. If it was the power: rm $mark" >&2
        exit 1
    fi
    kernel=$(modinfo -F ejectable_build_id ejectable_live) || exit 1
    driver=$(modinfo -F ejectable_driver_build_id ejectable_live) || exit 1
    if ! shows /sys/kernel/notes "$kernel" || ! shows /sys/module/virtio_pci/notes/.note.gnu.build-id "$driver"; then
        echo "<3>This is another build than the one that ejectable_live was made for: it is not loaded." >&2
        echo "<3>Run: ejectable check" >&2
        exit 1
    fi
    # The mark must be on the disk before the module is in the kernel.
    echo "$boot $(uname -r) $strikes" >"$mark.new" && sync && mv "$mark.new" "$mark" && sync || exit 1
    [ "$strikes" = 0 ] || echo "<4>The last boot that loaded ejectable_live did not end in good order." >&2
    modprobe ejectable_live && exit 0
    status=$?
    rm -f "$mark"
    exit $status
    ;;
settle | stop)
    [ "$marked_by" = "$boot" ] && rm -f "$mark"
    exit 0
    ;;
*)
    echo "usage: $0 start|settle|stop" >&2
    exit 64
    ;;
esac
