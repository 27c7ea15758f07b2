set -u
export SLURM_EXPORT_ENV=ALL # srun hands on the environment made above; --export=NONE is for this script alone

# The time limit is near (USR1, by --signal above) or the job is ended (TERM): the run finishes its step and saves.
driver=
time_is_up=
stop() {
  if [ -z "$driver" ]; then
    echo "stopped before the training began" >&2
    exit 1
  fi
  kill -s TERM "$driver" 2>/dev/null || true
}
trap 'time_is_up=yes; stop' USR1
trap stop TERM INT

# Whatever happens: end the Ray that this job has started, nothing else, and remove the job's own files.
job_files=/tmp/ray-$SLURM_JOB_ID # Ray's sockets are below it, and their paths must be short
started=() # processes: Ray on the nodes, and who waits for them
on_each_node() {
  timeout 60 srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 "$@"
}
finish() {
  trap - EXIT
  trap '' USR1 TERM INT
  kill -s TERM "${started[@]}" 2>/dev/null || true
  for ((second = 0; second < 20; second++)); do
    kill -0 "${started[@]}" 2>/dev/null || break
    sleep 1
  done
  kill -s KILL "${started[@]}" 2>/dev/null || true
  on_each_node rm -rf "$job_files" || rm -rf "$job_files" # srun is refused where a node has failed
  rm -f "${RAY_AUTH_TOKEN_PATH:-}"
}

on_each_node sh -c 'mkdir -p -m 700 "$0" && test -O "$0"' "$job_files"
trap finish EXIT
recipe >"$job_files/recipe.yaml"
