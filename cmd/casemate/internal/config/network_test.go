// SPDX-License-Identifier: Apache-2.0

package config

import (
	"log/slog"
	"strings"
	"testing"
)

// TestNetwork: the measured root says how the card gets its address, all of it or nothing, and loopback stays the
// workload's.
func TestNetwork(t *testing.T) {
	const static = "[network]\nmode = 'static'\naddress = '192.0.2.7/24'\n"
	for name, c := range map[string]struct{ text, want string }{
		"dhcp":                              {"[network]\nmode = 'dhcp'\n", ""},
		"dhcp with name servers of its own": {"[network]\nmode = 'dhcp'\ninterface = 'enp0s3'\ndns = ['192.0.2.53', '2001:db8::53']\nslaac = true\n", ""},
		"static":                            {static + "gateway = '192.0.2.1'\ndns = ['192.0.2.53']\n", ""},
		"static without a way out":          {static, ""},
		"address alone":                     {"[network]\nmode = 'static'\naddress = '192.0.2.7/32'\ngateway = '198.51.100.1'\n", ""},
		"no mode":                           {"[network]\ninterface = 'eth0'\n", "network.mode"},
		"another mode":                      {"[network]\nmode = 'bootp'\n", "network.mode"},
		"address with dhcp":                 {"[network]\nmode = 'dhcp'\naddress = '192.0.2.7/24'\n", "network.address"},
		"static without address":            {"[network]\nmode = 'static'\n", "want network.address"},
		"no subnet":                         {"[network]\nmode = 'static'\naddress = '192.0.2.7'\n", "network.address"},
		"the subnet's own":                  {"[network]\nmode = 'static'\naddress = '192.0.2.0/24'\n", "network.address"},
		"everything on the link":            {"[network]\nmode = 'static'\naddress = '192.0.2.7/0'\n", "network.address"},
		"loopback":                          {"[network]\nmode = 'static'\naddress = '127.0.0.2/8'\n", "network.address"},
		"IPv6":                              {"[network]\nmode = 'static'\naddress = '2001:db8::7/64'\n", "network.address"},
		"gateway elsewhere":                 {static + "gateway = '198.51.100.1'\n", "network.gateway"},
		"itself as gateway":                 {static + "gateway = '192.0.2.7'\n", "network.gateway"},
		"gateway with a name":               {static + "gateway = 'router'\n", "network.gateway"},
		"name server on loopback":           {static + "dns = ['127.0.0.53']\n", "network.dns"},
		"on loopback of IPv6":               {static + "dns = ['::1']\n", "network.dns"},
		"on loopback in another form":       {static + "dns = ['::ffff:127.0.0.1']\n", "network.dns"},
		"with a zone":                       {static + "dns = ['fe80::1%eth0']\n", "network.dns"},
		"with a name":                       {static + "dns = ['dns.example']\n", "network.dns"},
		"four":                              {static + "dns = ['192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.4']\n", "at most 3"},
		"interface lo":                      {"[network]\nmode = 'dhcp'\ninterface = 'lo'\n", "network.interface"},
		"a path as interface":               {"[network]\nmode = 'dhcp'\ninterface = '../lo'\n", "network.interface"},
		"all interfaces":                    {"[network]\nmode = 'dhcp'\ninterface = 'all.x'\n", "network.interface"},
		"a peer pod":                        {"pod_netns = '/run/netns/pod'\n[network]\nmode = 'dhcp'\n", "want one of them"},
		"unknown key":                       {"[network]\nmode = 'dhcp'\nhostname = 'x'\n", "unknown key"},
	} {
		if _, err := parse(c.text); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	for _, text := range []string{static, "[network]\nmode = 'dhcp'\n"} {
		if _, err := (Measured{}).WithInitData(map[string]string{keyCasemate: text}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "measured root") {
			t.Errorf("from initdata: got %v", err)
		}
	}
}
