# Runs "$@" (PostgreSQL) and stops it when whoever holds the other end of our standard input is gone, for
# whatever reason, SIGKILL included. Meanwhile each line read there is the name of a signal to pass on.
# Ends with the server's exit status.
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
(
    while read -r signal <&3; do
        kill -s "$signal" "$server" 2>/dev/null
    done
    # sent again and again, because a server that has only just begun ignores the first ones
    for signal in INT QUIT KILL; do
        tries=0
        while [ "$tries" -lt 50 ]; do
            kill -s "$signal" "$server" 2>/dev/null || exit 0
            sleep 0.2
            tries=$((tries + 1))
        done
    done
) &
watcher=$!
exec 3<&-
wait "$server"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
