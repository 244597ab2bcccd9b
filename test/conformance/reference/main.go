// A port-mapper plugin on the Go plugin helpers (docker/go-plugins-helpers, sdk) that grants every request, as
// the reference recorded in test/vectors does. Argument: the path of its Unix socket.
package main

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"

	"github.com/docker/go-plugins-helpers/sdk"
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

type mapPortsResponse struct {
	PortBindings []portBinding
	Err          string
}

type unmapPortsRequest struct {
	PortBindings []portBinding
	Labels       map[string]string
}

// A group with an ephemeral port gets this one.
const ephemeral = 49153

func main() {
	handler := sdk.NewHandler(`{"Implements": ["PortMapper"]}`)
	handler.HandleFunc("/PortMapper.MapPorts", func(w http.ResponseWriter, r *http.Request) {
		var req mapPortsRequest
		if sdk.DecodeRequest(w, r, &req) != nil {
			return
		}
		res := mapPortsResponse{PortBindings: []portBinding{}}
		for _, b := range req.Reqs {
			port := b.FrontendPort
			if port == 0 {
				port = ephemeral
			}
			res.PortBindings = append(res.PortBindings, portBinding{
				Proto: b.Proto, BackendIP: b.BackendIP, BackendPort: b.BackendPort,
				FrontendIP: b.FrontendIP, FrontendPort: port, AllowForwarding: true,
				NAT: &natRule{FromAddr: b.FrontendIP, FromPort: port},
			})
		}
		// Port 1 lets a test request each kind of refusal.
		if len(req.Reqs) > 0 && req.Reqs[0].FrontendPort == 1 {
			res = mapPortsResponse{Err: "bind for port 1 failed: port is already allocated"}
			sdk.EncodeResponse(w, res, req.Labels["status"] == "500")
			return
		}
		sdk.EncodeResponse(w, res, false)
	})
	handler.HandleFunc("/PortMapper.UnmapPorts", func(w http.ResponseWriter, r *http.Request) {
		var req unmapPortsRequest
		if sdk.DecodeRequest(w, r, &req) != nil {
			return
		}
		sdk.EncodeResponse(w, struct{}{}, false)
	})
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("listening")
	if err := handler.Serve(listener); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
