#!/bin/sh
# The CNI plugin as a runtime starts it. Where a portmapper is running it executes the command itself, in a fraction of the
# time that Node takes to start; where none is, or curl is not there, or anything is unusual, Node does it, which needs
# nothing of this. After an answer that never came the command is given to Node as well: each of them may be repeated, and
# what a running plugin could not answer it has undone.

in_node() {
  program=$(readlink -f -- "$0") || program=$0
  exec node "${program%/*}/main.ts" "$@"
}

if [ "$#" -gt 0 ] || [ -z "$CNI_COMMAND" ]; then in_node "$@"; fi
# What a header can't hold.
case $CNI_COMMAND$CNI_CONTAINERID$CNI_NETNS$CNI_IFNAME in *[![:graph:]]*) in_node ;; esac

input=$(cat) || in_node

# The socket that the configuration names, as runtimes write it, in one line and its keys in order: it is looked for behind
# the last array, and only what no bracket but the very last one follows is said of the plugin. The last of equal keys is
# meant. Whatever is missed here the plugin sees, and refuses.
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
# The plugin at the usual place is meant where this is run by its user, who is root; elsewhere another place is usual.
if [ -S "$socket" ] && { [ -n "$named" ] || [ -O "$socket" ]; }; then
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
