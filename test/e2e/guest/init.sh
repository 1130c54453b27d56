#!/bin/bash
# The first process of the guest. Mounts what every Linux system has, brings up the network, and then does what it is told
# through a virtio port: a line `ID SECONDS SCRIPT`, the script in base64, is answered by `ID STATUS OUTPUT ERRORS`, the last
# two in base64 (`-` when there are none), when the script has ended. Scripts run side by side.
# What happens here is seen on the console only, which ends up in the log of the run.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
shopt -s lastpipe

mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mkdir -p /dev/pts /dev/shm /run/lock /tmp/jobs
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
hostname guest
dmesg --console-level 4 # warnings and worse

modprobe -a virtio_net virtio_console
/lib/systemd/systemd-udevd --daemon
udevadm trigger
udevadm settle

ip link set lo up
for card in /sys/class/net/e*; do card=${card##*/}; done
ip link set "$card" up
ip address add 10.0.2.15/24 dev "$card"
ip route add default via 10.0.2.2

for named in /sys/class/virtio-ports/*; do
  [ "$(cat "$named/name")" = e2e ] && port=/dev/${named##*/}
done
exec 3<>"$port"

answer() { # ID STATUS; in one write, and one at a time, so that answers do not mix
  {
    flock 4
    printf '%s %s %s %s\n' "$1" "$2" "$(encoded "/tmp/jobs/$1.out")" "$(encoded "/tmp/jobs/$1.err")" >&3
  } 4>/tmp/jobs/lock
}

encoded() {
  if [ -s "$1" ]; then head -c 262144 "$1" | base64 -w 0; else echo -; fi
}

perform() { # ID SECONDS
  timeout --kill-after=5 "$2" bash "/tmp/jobs/$1.sh" </dev/null >"/tmp/jobs/$1.out" 2>"/tmp/jobs/$1.err" 3>&-
  answer "$1" "$?"
}

echo 'READY - -' >&3
while read -r id seconds script <&3; do
  [ "$id" = END ] && break
  base64 -d <<<"$script" >"/tmp/jobs/$id.sh"
  perform "$id" "$seconds" &
done

sync
echo o >/proc/sysrq-trigger
sleep 60
