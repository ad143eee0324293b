// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/casemate/casemate/agent/api/kata"
)

const (
	maxAddresses = 64
	maxRoutes    = 1024
	maxNeighbors = 1024
)

// validLink is a name that the kernel takes and no path or pattern.
var validLink = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`)

// updateInterface finds an interface by its hardware address and gives it name,
// addresses and MTU. Loopback belongs to the workload: it is never found.
func (s *Service) updateInterface(ctx context.Context, req *kata.UpdateInterfaceRequest) (*kata.Interface, error) {
	want := req.GetInterface()
	addresses, err := checkInterface(want)
	if err != nil {
		return nil, err
	}
	h, err := s.links()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	link, err := s.awaitLink(ctx, h, want)
	if err != nil {
		return nil, err
	}
	if err := h.LinkSetDown(link); err != nil {
		return nil, fmt.Errorf("setting interface %s down: %w", link.Attrs().Name, err)
	}
	for _, a := range addresses {
		if err := h.AddrReplace(link, a); err != nil {
			return nil, fmt.Errorf("adding address %s: %w", a.IPNet, err)
		}
	}
	if err := rename(h, link, want.GetName()); err != nil {
		return nil, err
	}
	if mtu := want.GetMtu(); mtu > 0 {
		if err := h.LinkSetMTU(link, int(mtu)); err != nil { //nolint:gosec // checked
			return nil, fmt.Errorf("setting the MTU of %s: %w", want.GetName(), err)
		}
	}
	if want.GetRawFlags()&unix.IFF_NOARP != 0 {
		if err := h.LinkSetARPOff(link); err != nil {
			return nil, fmt.Errorf("switching ARP off on %s: %w", want.GetName(), err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("setting interface %s up: %w", want.GetName(), err)
	}
	return want, nil
}

func checkInterface(want *kata.Interface) ([]*netlink.Addr, error) {
	switch {
	case want == nil:
		return nil, fail(codes.InvalidArgument, "the request has no interface")
	case !validLink.MatchString(want.GetName()) || want.GetName() == "lo":
		return nil, fail(codes.InvalidArgument, "interface name %.40q", want.GetName())
	case want.GetMtu() > 1<<16:
		return nil, fail(codes.InvalidArgument, "MTU %d", want.GetMtu())
	case len(want.GetIPAddresses()) > maxAddresses:
		return nil, fail(codes.InvalidArgument, "%d addresses, at most %d", len(want.GetIPAddresses()), maxAddresses)
	}
	var out []*netlink.Addr
	for _, a := range want.GetIPAddresses() {
		ip := net.ParseIP(a.GetAddress())
		bits := 128
		if ip.To4() != nil {
			bits = 32
		}
		ones, err := strconv.Atoi(a.GetMask())
		if ip == nil || err != nil || ones < 0 || ones > bits {
			return nil, fail(codes.InvalidArgument, "address %.60q/%.10q", a.GetAddress(), a.GetMask())
		}
		if local(ip) {
			return nil, fail(codes.PermissionDenied, "UpdateInterfaceRequest is blocked by policy: loopback: %s belongs to the workload", ip)
		}
		out = append(out, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(ones, bits)}})
	}
	return out, nil
}

// local reports addresses that never leave the guest, or would catch all of them.
func local(ip net.IP) bool { return ip.IsLoopback() || ip.IsUnspecified() }

// awaitLink finds an interface by its hardware address, and where the request says on which PCI function it will be waits
// for that. Which interface is meant stays the hardware address's to say.
func (s *Service) awaitLink(ctx context.Context, h *netlink.Handle, want *kata.Interface) (netlink.Link, error) {
	path := want.GetDevicePath()
	if path == "" || s.cfg.Devices == nil {
		return linkByAddress(h, want.GetHwAddr())
	}
	if err := s.cfg.Devices.Check("net", path); err != nil {
		return nil, fail(codes.InvalidArgument, "device path %.40q", path)
	}
	link, err := linkByAddress(h, want.GetHwAddr())
	if status.Code(err) != codes.NotFound {
		return link, err
	}
	if _, failed := s.cfg.Devices.Wait(ctx, "net", path); failed != nil {
		return nil, &Failure{Code: codes.NotFound, Phrase: status.Convert(err).Message(), Err: failed}
	}
	return linkByAddress(h, want.GetHwAddr())
}

// linkByAddress wants exactly the hardware address; the runtimes try again when
// the device has not come up yet, if the text says so.
func linkByAddress(h *netlink.Handle, text string) (netlink.Link, error) {
	mac, err := net.ParseMAC(text)
	if err != nil {
		return nil, fail(codes.InvalidArgument, "hardware address %.40q", text)
	}
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	for _, l := range links {
		if a := l.Attrs(); bytes.Equal(a.HardwareAddr, mac) && a.Flags&net.FlagLoopback == 0 {
			return l, nil
		}
	}
	return nil, fail(codes.NotFound, "Link not found (hardware address %s)", mac)
}

// rename gives link its name; another interface of that name steps aside.
func rename(h *netlink.Handle, link netlink.Link, name string) error {
	old := link.Attrs().Name
	if old == name {
		return nil
	}
	other, err := h.LinkByName(name)
	if err == nil {
		aside := fmt.Sprintf("tmp%d", other.Attrs().Index)
		if err := errors.Join(h.LinkSetDown(other), h.LinkSetName(other, aside)); err != nil {
			return fmt.Errorf("moving interface %s aside: %w", name, err)
		}
	}
	if err := h.LinkSetName(link, name); err != nil {
		return fmt.Errorf("renaming interface %s to %s: %w", old, name, err)
	}
	return nil
}

// updateRoutes adds the routes, those without a gateway first so that gateways can
// be reached, and returns the table as it then is.
func (s *Service) updateRoutes(_ context.Context, req *kata.UpdateRoutesRequest) (*kata.Routes, error) {
	list := req.GetRoutes().GetRoutes()
	if len(list) > maxRoutes {
		return nil, fail(codes.InvalidArgument, "%d routes, at most %d", len(list), maxRoutes)
	}
	h, err := s.links()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	for _, gateways := range []bool{false, true} {
		for _, r := range list {
			if (r.GetGateway() != "") != gateways {
				continue
			}
			route, err := parseRoute(h, r)
			if err != nil {
				return nil, err
			}
			if err := h.RouteReplace(route); err != nil && !errors.Is(err, unix.EEXIST) {
				return nil, fmt.Errorf("adding route to %.60q: %w", r.GetDest(), err)
			}
		}
	}
	return routes(h)
}

func parseRoute(h *netlink.Handle, r *kata.Route) (*netlink.Route, error) {
	bad := func(what, value string) error { return fail(codes.InvalidArgument, "route %s %.60q", what, value) }
	out := &netlink.Route{Scope: netlink.Scope(r.GetScope()), Protocol: unix.RTPROT_BOOT, Table: unix.RT_TABLE_MAIN, MTU: int(r.GetMtu()), Flags: int(r.GetFlags())}
	if r.GetScope() > 255 || r.GetMtu() > 1<<16 {
		return nil, bad("scope or MTU of", r.GetDest())
	}
	if r.GetDest() != "" {
		_, dst, err := net.ParseCIDR(r.GetDest())
		if err != nil {
			return nil, bad("destination", r.GetDest())
		}
		if dst.IP.IsLoopback() || dst.Contains(net.IPv6loopback) && dst.String() != "::/0" {
			return nil, fail(codes.PermissionDenied, "UpdateRoutesRequest is blocked by policy: loopback: %s belongs to the workload", dst)
		}
		out.Dst = dst
	}
	for _, a := range []struct {
		what, text string
		to         *net.IP
	}{{"gateway", r.GetGateway(), &out.Gw}, {"source", r.GetSource(), &out.Src}} {
		if a.text == "" {
			continue
		}
		if *a.to = net.ParseIP(a.text); *a.to == nil || local(*a.to) {
			return nil, bad(a.what, a.text)
		}
	}
	link, err := h.LinkByName(r.GetDevice())
	if err != nil || link.Attrs().Flags&net.FlagLoopback != 0 {
		return nil, bad("device", r.GetDevice())
	}
	out.LinkIndex = link.Attrs().Index
	return out, nil
}

func (s *Service) listRoutes(context.Context, *kata.ListRoutesRequest) (*kata.Routes, error) {
	h, err := s.links()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return routes(h)
}

func routes(h *netlink.Handle) (*kata.Routes, error) {
	out := &kata.Routes{}
	for family, kind := range map[int]kata.IPFamily{netlink.FAMILY_V4: kata.IPFamily_v4, netlink.FAMILY_V6: kata.IPFamily_v6} {
		list, err := h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("listing routes: %w", err)
		}
		for _, r := range list {
			link, err := h.LinkByIndex(r.LinkIndex)
			if err != nil {
				continue // gone meanwhile
			}
			one := &kata.Route{Device: link.Attrs().Name, Scope: uint32(r.Scope), Family: kind, Mtu: uint32(r.MTU)} //nolint:gosec // kernel's own
			if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
				one.Dest = r.Dst.String()
			}
			if r.Gw != nil {
				one.Gateway = r.Gw.String()
			}
			if r.Src != nil {
				one.Source = r.Src.String()
			}
			out.Routes = append(out.Routes, one)
		}
	}
	return out, nil
}

func (s *Service) listInterfaces(context.Context, *kata.ListInterfacesRequest) (*kata.Interfaces, error) {
	h, err := s.links()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	out := &kata.Interfaces{}
	for _, l := range links {
		a := l.Attrs()
		one := &kata.Interface{Device: a.Name, Name: a.Name, HwAddr: a.HardwareAddr.String(), Mtu: uint64(a.MTU), Type: l.Type()} //nolint:gosec // kernel's own
		addresses, err := h.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("listing addresses of %s: %w", a.Name, err)
		}
		for _, addr := range addresses {
			ones, _ := addr.Mask.Size()
			family := kata.IPFamily_v6
			if addr.IP.To4() != nil {
				family = kata.IPFamily_v4
			}
			one.IPAddresses = append(one.IPAddresses, &kata.IPAddress{Family: family, Address: addr.IP.String(), Mask: strconv.Itoa(ones)})
		}
		out.Interfaces = append(out.Interfaces, one)
	}
	return out, nil
}

// addNeighbors fills the neighbour table where the host's network answers no ARP.
func (s *Service) addNeighbors(_ context.Context, req *kata.AddARPNeighborsRequest) (*emptypb.Empty, error) {
	list := req.GetNeighbors().GetARPNeighbors()
	if len(list) > maxNeighbors {
		return nil, fail(codes.InvalidArgument, "%d neighbours, at most %d", len(list), maxNeighbors)
	}
	h, err := s.links()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	for _, n := range list {
		ip := net.ParseIP(n.GetToIPAddress().GetAddress())
		if ip == nil || local(ip) {
			return nil, fail(codes.InvalidArgument, "neighbour address %.60q", n.GetToIPAddress().GetAddress())
		}
		link, err := h.LinkByName(n.GetDevice())
		if err != nil || link.Attrs().Flags&net.FlagLoopback != 0 {
			return nil, fail(codes.InvalidArgument, "neighbour device %.40q", n.GetDevice())
		}
		entry := &netlink.Neigh{LinkIndex: link.Attrs().Index, IP: ip, State: int(n.GetState()), Flags: int(n.GetFlags())}
		if n.GetLladdr() != "" {
			if entry.HardwareAddr, err = net.ParseMAC(n.GetLladdr()); err != nil {
				return nil, fail(codes.InvalidArgument, "neighbour hardware address %.40q", n.GetLladdr())
			}
		}
		if err := h.NeighSet(entry); err != nil {
			return nil, fmt.Errorf("adding neighbour %s: %w", ip, err)
		}
	}
	return &emptypb.Empty{}, nil
}
