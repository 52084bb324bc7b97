# Starts a Redis, a participant, a coordinator with its port for Redis clients, and door.py before it, and ends them
# with the shell that reads this file. Wants $here, this folder, and $to_the_port, the last words for door.py. Says
# $door, the port to test.
assent=${ASSENT:-$here/../../target/debug/assent}
base=${PORT:-17800}
redis=$base agent=$((base + 1)) agent_admin=$((base + 2))
api=$((base + 3)) admin=$((base + 4)) resp=$((base + 5)) door=$((base + 6))
dir=$(mktemp -d)
pids=
stop() { for pid in $pids; do kill "$pid" 2>/dev/null || true; done; wait; rm -rf "$dir"; }
trap stop EXIT
trap 'exit 1' INT TERM
keep() { pids="$! $pids"; }

# REDIS_SERVER may be another version of it.
"${REDIS_SERVER:-redis-server}" --port "$redis" --dir "$dir" --appendonly yes --appendfsync always --save '' \
  --enable-debug-command local >"$dir/redis.log" & keep
until redis-cli -p "$redis" ping >/dev/null 2>&1; do sleep 0.1; done
"$assent" init --data-dir "$dir/log" >/dev/null 2>&1
"$assent" participant --name it --redis "redis://127.0.0.1:$redis" --listen "127.0.0.1:$agent" \
  --admin-listen "127.0.0.1:$agent_admin" >"$dir/agent.log" 2>&1 & keep
"$assent" coordinator --data-dir "$dir/log" --listen "127.0.0.1:$api" \
  --admin-listen "127.0.0.1:$admin" --participant "it=http://127.0.0.1:$agent" \
  --resp-listen "127.0.0.1:$resp" --route '*=it' >"$dir/coordinator.log" 2>&1 & keep
python3 "$here/door.py" "$door" "$resp" "$redis" $to_the_port >"$dir/door.log" 2>&1 & keep
until redis-cli -p "$door" set ready yes 2>/dev/null | grep -q OK; do sleep 0.1; done
