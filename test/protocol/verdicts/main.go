// Records what Go makes of odd JSON: one JSON string a line on stdin, one verdict a line on stdout.
// verdicts.json was written by `go run main.go` (Go 1.26) and is what the tests read; nothing here runs Go.
package main

import (
	"bufio"
	"encoding/json"
	"net/netip"
	"os"
)

type portBindingReq struct {
	Proto           int
	BackendIP       netip.Addr
	BackendPort     uint16
	FrontendIP      netip.Addr
	FrontendPort    uint16
	FrontendPortEnd uint16
}

type mapPortsRequest struct {
	Reqs   []portBindingReq
	Labels map[string]string
}

type natRule struct {
	FromAddr netip.Addr
	FromPort uint16
}

type portBinding struct {
	Proto           int
	BackendIP       netip.Addr
	BackendPort     uint16
	FrontendIP      netip.Addr
	FrontendPort    uint16
	DiscardReq      bool
	AllowForwarding bool
	NAT             *natRule
	Error           *string
}

type unmapPortsRequest struct {
	PortBindings []portBinding
	Labels       map[string]string
}

// Syntax is the error of text that is no JSON; Map and Unmap are the text decoded and encoded again as a
// MapPortsRequest and an UnmapPortsRequest, null where Go refuses to decode it.
type verdict struct {
	JSON   string  `json:"json"`
	Syntax *string `json:"syntax"`
	Map    *string `json:"map"`
	Unmap  *string `json:"unmap"`
}

func main() {
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for {
		var text string
		if in.Decode(&text) != nil {
			return
		}
		v := verdict{JSON: text}
		var any json.RawMessage
		if err := json.Unmarshal([]byte(text), &any); err != nil {
			reason := err.Error()
			v.Syntax = &reason
		}
		v.Map = again(text, &mapPortsRequest{})
		v.Unmap = again(text, &unmapPortsRequest{})
		out.Encode(v)
	}
}

func again(text string, into any) *string {
	if json.Unmarshal([]byte(text), into) != nil {
		return nil
	}
	encoded, _ := json.Marshal(into)
	reencoded := string(encoded)
	return &reencoded
}
