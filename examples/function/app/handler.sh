# The answer to one event.
handle() {
  printf '{"greeting": "%s", "event": %s}\n' "$(cat greeting.txt)" "$1"
}
