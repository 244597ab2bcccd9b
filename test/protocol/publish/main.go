// Records what Docker makes of the texts of `-p`: one text a line on stdin, one verdict a line on stdout.
// verdicts.json was written from texts.txt by `go run . < texts.txt` (Go 1.26) and is what the tests read; nothing there runs Go.
package main

import (
	"bufio"
	"encoding/json"
	"os"

	"github.com/docker/go-connections/nat"
)

// Ports are as Docker names them, HOSTIP|HOSTPORT|CONTAINERPORT/PROTO, and null where Docker refuses the text.
type verdict struct {
	Text  string   `json:"text"`
	Ports []string `json:"ports"`
}

func main() {
	var verdicts []verdict
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		v := verdict{Text: lines.Text()}
		if mappings, err := nat.ParsePortSpec(v.Text); err == nil {
			for _, m := range mappings {
				v.Ports = append(v.Ports, m.Binding.HostIP+"|"+m.Binding.HostPort+"|"+string(m.Port))
			}
		}
		verdicts = append(verdicts, v)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", " ")
	out.Encode(verdicts)
}
