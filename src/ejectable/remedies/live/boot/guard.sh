#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Load ejectable_live at boot, but never again after a boot that it did not survive. Installed by `ejectable fix live`.
#
#   start   mark this boot, then load the module; refuse if the mark is another boot's
#   settle  half an hour went well: take the mark away
#   stop    the machine goes down in good order: take the mark away
#
# The mark is one line, BOOT_ID RELEASE. Only this boot's own mark is ever taken away here.
set -u
mark=/var/lib/ejectable/live-loaded
boot=$(cat /proc/sys/kernel/random/boot_id) || exit 1

marked_by=
[ -r "$mark" ] && read -r marked_by _ <"$mark"

case ${1:-} in
start)
    [ -e /sys/module/ejectable_live ] && exit 0
    if [ -n "$marked_by" ] && [ "$marked_by" != "$boot" ]; then
        echo "<3>The last boot that loaded ejectable_live did not end in good order: it is not loaded again." >&2
        echo "<3>Unplugging a legacy virtio device will crash this kernel. If it was a power cut: rm $mark" >&2
        exit 1
    fi
    # The mark must be on the disk before the module is in the kernel.
    echo "$boot $(uname -r)" >"$mark.new" && sync && mv "$mark.new" "$mark" && sync || exit 1
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
