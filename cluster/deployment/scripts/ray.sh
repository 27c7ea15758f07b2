
# Where the nodes meet: at the first one's address in their network, at ports of this job's own.
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
if [ -n "$interface" ]; then
  address=$(PATH=$PATH:/usr/sbin:/sbin ip -4 -oneline address show dev "$interface" | awk 'NR == 1 {print $4}') || true
  address=${address%/*}
else
  address=$(getent ahostsv4 "$head_node" | awk 'NR == 1 {print $1}') || true
fi
if [ -z "$address" ] || { [ -z "$interface" ] && [[ $address = 127.* ]]; }; then
  echo "$head_node has no address that the other nodes reach; set interface= above to that of their network" >&2
  exit 2
fi
port=$((20000 + SLURM_JOB_ID % 1000 * 10))
while (: <"/dev/tcp/$address/$port") 2>/dev/null; do port=$((port + 10)); done # another job's

# Who has the token may join, and nobody else; it is in a file that only you can read.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$storage/.ray-token-$SLURM_JOB_ID
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")

# Ray on each node. A node that fails takes neither the job nor the others with it: the run goes on with those left.
ray_log=$storage/logs/$SLURM_JOB_NAME-$SLURM_JOB_ID-ray.log
export RAY_USAGE_STATS_ENABLED=0 RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
step=(--ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --no-kill --kill-on-bad-exit=0 --wait=0
  --output="$ray_log" --open-mode=append --label)
node=(--block --log-color=false --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus_per_node"
  --object-store-memory="$object_store_bytes" --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0)
srun --nodes=1 --ntasks=1 --nodelist="$head_node" "${step[@]}" \
  ray start --head --node-ip-address="$address" --port="$port" --temp-dir="$job_files" --dashboard-host=127.0.0.1 \
  --dashboard-port=$((port + 1)) --ray-client-server-port=$((port + 2)) "${node[@]}" &
started+=($!)
for ((second = 0; second < 120; second++)); do
  (: <"/dev/tcp/$address/$port") 2>/dev/null && break
  kill -0 "${started[@]}" 2>/dev/null || break
  sleep 1
done
others=$((SLURM_JOB_NUM_NODES - 1))
srun --nodes="$others" --ntasks="$others" --exclude="$head_node" "${step[@]}" \
  ray start --address="$address:$port" "${node[@]}" &
started+=($!)
export RAY_ADDRESS=$address:$port
python -m cluster.gathering "$RAY_ADDRESS" "$SLURM_JOB_NUM_NODES" --seconds "$join_seconds" &
started+=($!)
wait -n || { # until all nodes have joined, or the time for it is over, or Ray has ended on one of them
  code=$?
  echo "Ray has not come up on all nodes; $ray_log and the logs in ${ray_log%.log} say why" >&2
  mkdir -p "${ray_log%.log}"
  on_each_node sh -c 'cp -r "$0" "$1/$SLURMD_NODENAME"' "$job_files/session_latest/logs" "${ray_log%.log}" || true
  exit "$code"
}
