#!/bin/sh
# The CNI plugin as a runtime starts it: sends the execution to the running portmapper by curl, in a fraction of the
# time that Node takes to start. Node handles the other cases: no curl, no plugin yet (it waits for one), a missing
# answer (it repeats the command, since a plugin undoes what it could not answer), parameters and configurations that
# a shell can't parse reliably.

tried=
in_node() {
  if ! command -v node >/dev/null; then
    case $CNI_COMMAND in STATUS) code=50 ;; *) code=11 ;; esac
    printf '{"cniVersion":"1.0.0","code":%s,"msg":"%s","details":"%s"}\n' "$code" \
      "no portmapper answers${tried:+ on $tried}, and node is not in PATH, which would wait for it" \
      "start it: systemctl start portmapper, or portmapper serve"
    exit 1
  fi
  program=$(readlink -f -- "$0") || program=$0
  exec node "${program%/*}/main.ts" "$@"
}

if [ "$#" -gt 0 ] || [ -z "$CNI_COMMAND" ]; then in_node "$@"; fi
# A header can't contain these.
case $CNI_COMMAND$CNI_CONTAINERID$CNI_NETNS$CNI_IFNAME in *[![:graph:]]*) in_node ;; esac

input=$(cat) || in_node

# The socket that the configuration names, parsed from JSON as runtimes write it: in one line, the keys in order. We
# search after the last array; only a key that no bracket but the very last one follows is the plugin's. Of equal keys
# the last counts. The plugin parses the configuration itself, and refuses an execution that came through another
# socket (421).
named= found= before= key= colon=
case $input in
  *'"socket":"/'*'}')
    set -f
    IFS=']'
    for tail in $input; do :; done
    IFS='"'
    for part in $tail; do
      case $before\"$key\"$colon in
        *[,{]\"socket\":) found=$part named= ;;
        *[,{]\"socket\":*) found= named= ;;
      esac
      case $part in *[][{}\\]*) named=$found found= ;; esac
      before=$key key=$colon colon=$part
    done
    unset IFS
    case $part in '}') ;; *) named= ;; esac
    case $named in [!/]* | *[[:cntrl:]]*) named= ;; esac
    ;;
esac

socket=${named:-/run/docker/plugins/portmapper.sock}
# By default, the socket of this user's plugin: root's is here, another user's elsewhere.
if [ -n "$named" ] || [ -O "$socket" ]; then
  tried=$socket
  type=application/vnd.portmapper.cni+json
  answer=$(
    curl -q -s --noproxy '*' --max-time 30 --unix-socket "$socket" -H Expect: -H 'Content-Type: application/json' \
      -H "CNI-Command: $CNI_COMMAND" -H "CNI-ContainerID: $CNI_CONTAINERID" -H "CNI-Netns: $CNI_NETNS" \
      -H "CNI-IfName: $CNI_IFNAME" -H "Portmapper-Socket: $named" --data-binary @- \
      -w '\n%{http_code} %{content_type}' http://plugin/Cni.Execute 2>/dev/null <<END
$input
END
  ) || answer=
  case $answer in
    *"
200 $type") status=0 ;;
    *"
500 $type") status=1 ;;
    *) status= ;;
  esac
  if [ -n "$status" ]; then
    printf %s "${answer%"
"*}"
    exit "$status"
  fi
fi

in_node <<END
$input
END
