# A training job as far as storage sees it. The demonstration puts what is told by it above: where the appliance is (S3, API), the
# key (ACCESS_KEY, SECRET_KEY), what `bedplate` must add up to (PROGRAM), the buckets (TOOLS, DATA, CHECKPOINTS), the NODES, and how
# many READERS.
set -eu
export LC_ALL=C
node=$(cat /proc/sys/kernel/hostname)
work=/var/lib/training data=/mnt/data saved=/mnt/checkpoints
step="making folders"

# The console shows it, and so does the bucket once it is mounted.
ended() {
	[ "$1" = 0 ] && return
	echo "training on $node failed while $step (exit code $1)"
	if mountpoint -q "$saved"; then
		echo "$step (exit code $1)" >"$saved/results/$node.failed"
	fi
}
trap 'ended $?' EXIT
now() { echo $(($(date +%s%N) / 1000000)); }
figure() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$data/.bedplate-stats"; }
sum() { sha256sum | cut -d ' ' -f 1; }
say() {
	step=$1
	echo "training on $node: $1"
}
mkdir -p "$work" "$data" "$saved" /etc/bedplate /var/cache/bedplate

say "fetching bedplate"
busybox wget -q -O "$work/bedplate" "$S3/$TOOLS/bedplate"
[ "$(sum <"$work/bedplate")" = "$PROGRAM" ]
install -m 755 "$work/bedplate" /usr/bin/bedplate
rm "$work/bedplate"
ln -sf /usr/bin/bedplate /sbin/mount.bedplate

say "mounting"
(
	umask 077
	printf 'BEDPLATE_ACCESS_KEY=%s\nBEDPLATE_SECRET_KEY=%s\n' "$ACCESS_KEY" "$SECRET_KEY" >/etc/bedplate/mount.env
)
options="_netdev,nofail,url=$API,s3_url=$S3,credentials=/etc/bedplate/mount.env,cache=/var/cache/bedplate"
echo "$DATA $data bedplate ro,$options 0 0" >>/etc/fstab
echo "$CHECKPOINTS $saved bedplate rw,$options 0 0" >>/etc/fstab
mount "$data"
mount "$saved"
mkdir -p "$saved/results"
# A snapshot is never written, and the key may not write the bucket behind it either.
if touch "$data/note" 2>/dev/null; then exit 1; fi

# Each shard once, in an order that no epoch shares with another, by several readers at a time.
epoch() {
	say "reading epoch $1"
	begun=$(now) network=$(figure network_bytes) cached=$(figure cache_bytes)
	(cd "$data" && cut -c 67- SHA256SUMS | shuf | xargs -P "$READERS" -n 1 sha256sum) | sort -k 2 >"$work/epoch-$1"
	took=$(($(now) - begun))
	cmp "$work/epoch-$1" "$data/SHA256SUMS"
	printf '{"milliseconds":%d,"network_bytes":%d,"cache_bytes":%d,"sums":"%s"}' "$took" \
		$(($(figure network_bytes) - network)) $(($(figure cache_bytes) - cached)) "$(sum <"$work/epoch-$1")" >"$work/epoch-$1.json"
}
epoch 1
# What the kernel still has would hide the cache on this node's disk, which is what a dataset larger than memory is read from.
sync
echo 3 >/proc/sys/vm/drop_caches
epoch 2
bedplate mount --stats "$data"

# What the node of this name would have learnt: its name, and a shard's bytes.
weights() {
	printf 'weights of %s after epoch 2\n' "$1"
	cat "$data/$(cut -c 67- SHA256SUMS | head -n 1)"
}
cd "$data"
say "saving a checkpoint"
begun=$(now)
mkdir -p "$saved/$node"
weights "$node" | dd bs=1M conv=fsync status=none of="$saved/$node/step-2.partial"
mv "$saved/$node/step-2.partial" "$saved/$node/step-2"
saving=$(($(now) - begun))

# The next node's, the last one's is the first's; what is not there yet will be.
next=$(echo "$NODES $NODES" | tr ' ' '\n' | grep -x -A 1 "$node" | sed -n 2p)
say "reading the checkpoint of $next"
tries=0
until [ -e "$saved/$next/step-2" ]; do
	tries=$((tries + 1))
	[ "$tries" -lt 600 ]
	sleep 1
done
begun=$(now)
cp "$saved/$next/step-2" "$work/of-$next"
reading=$(($(now) - begun))
weights "$next" | cmp - "$work/of-$next"

say "reporting"
printf '{"node":"%s","epochs":[%s,%s],"saved":{"milliseconds":%d,"sha256":"%s"},"read_back":{"node":"%s","milliseconds":%d,"sha256":"%s"}}\n' \
	"$node" "$(cat "$work/epoch-1.json")" "$(cat "$work/epoch-2.json")" "$saving" "$(weights "$node" | sum)" \
	"$next" "$reading" "$(sum <"$work/of-$next")" >"$work/result.json"
dd bs=1M conv=fsync status=none if="$work/result.json" of="$saved/results/$node.partial"
mv "$saved/results/$node.partial" "$saved/results/$node.json"
say "done"
