#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The guest's only program. It loads the modules it was given, says what it sees and does what it is told.
#
# It speaks through /dev/kmsg, so that a line of ours is never torn apart by a line of the kernel's, and stands in
# the transcript where it belongs. Every line begins with the token of this run ($EJECTABLE, from the kernel's
# command line). It listens on the console: "NUMBER VERB WORDS...", answered by "= NUMBER ...".
#
# Whatever might kill or block its caller runs in a child: this process must be able to answer as long as the
# kernel can.

say() { echo "<5>$EJECTABLE: $*" >/dev/kmsg; }
answer() { say "= $*"; }

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
# The same, where nothing can be made: `>` onto a node that has just gone would leave a file in the next one's place.
mount -o bind /dev /nodes && mount -o remount,ro,bind /nodes
# Every line of ours is printed, at any rate and in suspend, too; nobody waits for RCU. On the command line the same words
# would be more for a kernel to stumble over.
echo on >/proc/sys/kernel/printk_devkmsg
echo 8 >/proc/sys/kernel/printk
echo N >/sys/module/printk/parameters/console_suspend
echo 1 2>/dev/null >/sys/kernel/rcu_expedited
say "hello $(uname -r)"
echo "$EJECTABLE_PANIC" >/proc/sys/kernel/panic_on_oops
# A command is a line, as it was sent: no echo, no signals, no flow control.
stty -echo -isig -ixon -icrnl 2>/dev/null

load() {
    while read -r module parameters; do
        [ -n "$module" ] || continue
        # shellcheck disable=SC2086  # the parameters are words
        said=$(insmod "/modules/$module" $parameters 2>&1) || say "insmod $module: $said"
    done
}

# What the drivers make of the virtio PCI devices: one word for each, fields separated by commas, empty where there
# is nothing: address, PCI device id, PCI driver bound (1), virtio device, its feature bit 32, virtio driver.
see() {
    seen=
    for folder in /sys/bus/pci/devices/*; do
        read -r vendor <"$folder/vendor" || continue
        [ "$vendor" = 0x1af4 ] || continue
        read -r id <"$folder/device"
        address=${folder##*/}
        bound= name= bit= driver=
        [ -e "/sys/bus/pci/drivers/virtio-pci/$address" ] && bound=1
        for virtio in "$folder"/virtio[0-9]*; do
            [ -e "$virtio" ] || continue
            name=${virtio##*/}
            # The features stand once the driver is at work (DRIVER_OK); it is linked before that.
            read -r status <"$virtio/status"
            if [ $((status & 4)) -ne 0 ]; then
                read -r features <"$virtio/features"
                features=${features#????????????????????????????????}
                bit=${features%"${features#?}"}
            fi
            for link in /sys/bus/virtio/drivers/*/"$name"; do
                [ -e "$link" ] && driver=${link%/*} && driver=${driver##*/}
            done
        done
        seen="$seen $address,$id,$bound,$name,$bit,$driver"
    done
}

# The first thing that a class of devices shows below a virtio device, or nothing.
child() { for path in /sys/bus/virtio/devices/$1; do [ -e "$path" ] && echo "${path##*/}" && return; done; }

# The disk below a virtio device: `disk_of KIND VIRTIO`.
disk_of() {
    case $1 in
    disk) child "$2/block/*" ;;
    scsi) child "$2/host*/target*/*/block/*" ;;
    esac
}

# Make a device work once, so that its queues are used: `use_once KIND VIRTIO`. Says on its output what went wrong.
use_once() {
    case $1 in
    disk | scsi)
        node=$(disk_of "$1" "$2")
        [ -n "$node" ] || { echo "no disk appeared" && return 1; }
        dd if="/dev/$node" of=/dev/null bs=4096 count=16 iflag=direct || return 1
        dd if=/dev/zero of="/nodes/$node" bs=4096 count=16 oflag=direct
        ;;
    nic)
        node=$(child "$2/net/*")
        [ -n "$node" ] || { echo "no interface appeared" && return 1; }
        ip address replace 10.0.2.15/24 dev "$node" && ip link set "$node" up && ping -c 1 -W 1 10.0.2.2
        ;;
    rng)
        dd if=/dev/hwrng of=/dev/null bs=16 count=1
        ;;
    console)
        node=$(child "$2/virtio-ports/*")
        [ -c "/nodes/$node" ] || { echo "no port appeared" && return 1; }
        echo "$EJECTABLE" >"/nodes/$node"
        ;;
    *) ;; # a balloon and a vsock are used from outside
    esac
}

# A driver is bound before what it gives is ready: a disk that is there in sysfs may not be opened yet (ENXIO until
# add_disk is done), a link is not up, a scan still runs. So try for some seconds before it is called a failure.
use() {
    tries=0
    until said=$(use_once "$@" 2>&1); do
        tries=$((tries + 1))
        [ $tries -ge 40 ] && echo "$said" && return 1
        sleep 0.2
    done
}

# Take a module out. It is in use as long as a program has a device of it open, which whoever keeps it busy does again
# and again, with gaps in between: so try for some seconds.
unload() {
    tries=0
    until said=$(rmmod "$1" 2>&1); do
        tries=$((tries + 1))
        case $said in *"temporarily unavailable"*) ;; *) tries=200 ;; esac
        [ $tries -ge 200 ] && echo "$said" && return 1
        sleep 0.05
    done
}

# Keep a device busy until it is gone: `busy KIND VIRTIO`.
busy() {
    case $1 in
    disk | scsi)
        node=$(disk_of "$1" "$2")
        while dd if="/dev/$node" of=/dev/null bs=65536 count=64 iflag=direct; do :; done
        ;;
    nic)
        node=$(child "$2/net/*")
        while [ -e "/sys/class/net/$node" ]; do ping -c 50 -i 0.02 -W 1 10.0.2.2 || sleep 0.1; done
        ;;
    rng) while dd if=/dev/hwrng of=/dev/null bs=64 count=16; do :; done ;;
    console)
        node=$(child "$2/virtio-ports/*")
        while [ -c "/nodes/$node" ]; do echo "$EJECTABLE" >"/nodes/$node" || sleep 0.02; done
        ;;
    *) ;;
    esac >/dev/null 2>&1
}

# Do what is told: `doing VERB "WORDS"`. What it says is part of the answer.
doing() {
    verb=$1 words=$2
    # shellcheck disable=SC2086  # these are words, and no patterns
    { set -f && set -- $words && set +f; }
    case $verb in
    # A crash of this very process is the trigger's. (/proc/self is whoever opens it: this shell, which may be a child.)
    remove | unbind-pci | unbind-virtio | suspend) read -r pid _ </proc/self/stat && say "mark by $pid" ;;
    esac
    case $verb in
    remove) echo 1 >"/sys/bus/pci/devices/$1/remove" ;;
    unbind-pci) echo "$1" >/sys/bus/pci/drivers/virtio-pci/unbind ;;
    unbind-virtio) echo "$1" >"/sys/bus/virtio/drivers/$2/unbind" ;;
    rmmod) unload "$1" ;;
    insmod) module=$1 && shift && insmod "/modules/$module.ko" "$@" ;;
    read) cat "$1" ;;
    sh) eval "$words" ;;
    suspend)
        # Two ways back: a byte on the serial port, and the alarm clock should that be deaf.
        for wakeup in /sys/class/tty/$EJECTABLE_TTY/power/wakeup; do echo enabled >"$wakeup"; done
        echo +8 >/sys/class/rtc/rtc0/wakealarm
        echo freeze >/sys/power/state
        status=$?
        echo 0 >/sys/class/rtc/rtc0/wakealarm
        return $status
        ;;
    use) use "$1" "$2" ;;
    *) echo "no such verb" && false ;;
    esac 2>&1
}

# Do it and answer: on one line, and no longer than printk takes (PRINTKRB_RECORD_MAX).
carry_out() {
    number=$1 verdict=ok
    said=$(doing "$2" "$3") || verdict=failed
    # shellcheck disable=SC2046  # words again
    set -f && answer "$number" "$verdict" $(printf %.800s "$said")
}

load </modules/load
say up

while :; do
    read -r number verb words || { sleep 0.1 && continue; }
    case $verb in
    ping) answer "$number" pong ;;
    see) see && answer "$number" "$seen" ;;
    busy)
        # shellcheck disable=SC2086
        busy $words </dev/null &
        answer "$number" ok
        ;;
    '') ;;
    mark) say "mark $number $words" && answer "$number" ok ;;
    *) carry_out "$number" "$verb" "$words" </dev/null & ;;
    esac
done
