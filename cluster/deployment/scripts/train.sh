
"${train[@]}" &
driver=$!
while kill -0 "$driver" 2>/dev/null; do
  wait "$driver" || true # a signal ends a wait, but not the driver
done
code=0
wait "$driver" || code=$?

if [ "$code" = 5 ] && [ -n "$time_is_up" ]; then
  finish
  echo "saved before the time limit; the job goes back into the queue, and carries on from there"
  scontrol requeue "$SLURM_JOB_ID" || echo "not requeued: sbatch this script again to carry on" >&2
fi
exit "$code"
