#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The story of corpus/power_cuts.py, inside of the guest. "CUT: what" asks the other side to keep what the disk has now;
# "WATCH" ones come in the middle of a step. With power_cuts.probe on the kernel's command line it only says how it is.
stage_file=/var/lib/power-cuts
newer=$(cat /var/packages/newer)
older=$(cat /var/packages/older)
export DEBIAN_FRONTEND=noninteractive

cut() { printf '\nCUT: %s\n' "$*"; sleep 1; }
# meanwhile WHAT TEST...: once the test holds, while a step is under way.
meanwhile() {
    (
        what=$1
        shift
        n=0
        until "$@" 2>/dev/null; do
            sleep 0.3
            n=$((n + 1))
            [ $n -lt 3000 ] || exit
        done
        printf '\nCUT: %s\n' "$what"
    ) &
}
step() {
    what=$1
    shift
    "$@" >/var/log/power-cuts.out 2>&1
    code=$?
    sed 's/^/| /' /var/log/power-cuts.out | tail -30
    printf '\nSTEP: %s: %s\n' "$what" "$code"
}
status() { grep -q -s "$2" "$1"; }
state_of() { dpkg-query -W -f '${db:Status-Status}' "linux-image-$1" 2>/dev/null | grep -q "^$2"; }
gone() { [ ! -e "$1" ]; }

if grep -q power_cuts.probe /proc/cmdline; then
    module=$([ -e /sys/module/ejectable_live ] && echo loaded || echo "not loaded")
    broken=$(dpkg --audit | grep -c '^ linux')
    failed=$(systemctl --failed --no-legend --plain | cut -d' ' -f1 | tr '\n' ' ')
    printf '\nBOOTED: %s; module %s; packages half done: %s; failed units: %s\n' "$(uname -r)" "$module" "$broken" "${failed:-none}"
    sync
    poweroff -f
fi
stage=$(cat $stage_file 2>/dev/null || echo first)
printf '\n=== stage %s on %s\n' "$stage" "$(uname -r)"
case $stage in
first)
    step "update-grub" update-grub
    sync
    cut "before anything"
    meanwhile "persist: the mark is there, nothing is loaded yet" test -e /var/lib/ejectable/live-loaded
    meanwhile "persist: the module is loaded" test -e /sys/module/ejectable_live
    meanwhile "persist: the sources are there" test -e /usr/src/ejectable-live-0.1.0/dkms.conf
    meanwhile "persist: DKMS builds" test -e /var/lib/dkms/ejectable-live/0.1.0/build
    meanwhile "persist: DKMS has installed" sh -c 'ls /lib/modules/*/updates/dkms/ejectable_live.ko*'
    meanwhile "persist: the units are enabled" test -e /etc/systemd/system/sysinit.target.wants/ejectable-live.service
    step "fix live --apply --persist" ejectable fix live --apply --persist
    cut "persist: done, not synced"
    sync
    cut "persist: done and synced"
    for what in unpacked half-configured; do meanwhile "upgrade: $what" state_of "$newer" "$what"; done
    meanwhile "upgrade: the kernel is in /boot" test -e "/boot/vmlinuz-$newer"
    meanwhile "upgrade: its initrd is being written" test -e "/boot/initrd.img-$newer.new"
    meanwhile "upgrade: its initrd is there" test -e "/boot/initrd.img-$newer"
    meanwhile "upgrade: GRUB's menu has it" status /boot/grub/grub.cfg "$newer"
    cd /var/packages || exit
    step "dpkg -i of $newer" dpkg -i "linux-headers-${newer%-cloud*}-common.deb" "linux-headers-$newer.deb" "linux-image-$newer.deb"
    cut "upgrade: done, not synced"
    sync
    cut "upgrade: done and synced"
    echo second >$stage_file
    sync
    meanwhile "reboot: under way" false
    cut "reboot: asked for"
    systemctl --no-block reboot
    sleep 2
    printf '\nCUT: reboot: systemd is stopping services\n'
    ;;
second)
    cut "in the new kernel"
    meanwhile "remove: the kernel is gone from /boot" gone "/boot/vmlinuz-$older"
    meanwhile "remove: its initrd is gone" gone "/boot/initrd.img-$older"
    step "dpkg --purge of $older" dpkg --purge "linux-image-$older" "linux-headers-$older"
    cut "remove: done"
    meanwhile "undo: the units are gone" gone /etc/systemd/system/ejectable-live.service
    meanwhile "undo: the sources are gone" gone /usr/src/ejectable-live-0.1.0
    step "fix live --undo" ejectable fix live --undo
    cut "undo: done, not synced"
    sync
    cut "undo: done and synced"
    printf '\nEND\n'
    ;;
esac
