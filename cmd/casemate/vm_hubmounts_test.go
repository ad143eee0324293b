// SPDX-License-Identifier: Apache-2.0

//go:build vm && sample

package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	cdh "github.com/casemate/casemate/agent/api/datahub"
	"github.com/casemate/casemate/agent/pod"
	"github.com/casemate/casemate/agent/services"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/keyprovider"
)

// hubOn serves the data hub of a configuration on a socket and returns a client and what ends it.
func hubOn(t *testing.T, c config.Measured) (cdh.TTRPCSecureMountServiceService, func() error) {
	t.Helper()
	m := testMachine(c)
	hub, end, err := m.hub(nil, noKBS{})
	if err != nil {
		t.Fatal(err)
	}
	address := "unix://" + filepath.Join(t.TempDir(), "cdh.sock")
	l, err := listen(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- hub.Serve(ctx, l) }()
	conn, err := net.Dial("unix", strings.TrimPrefix(address, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() {
		_ = client.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return cdh.NewTTRPCSecureMountServiceClient(client), end
}

var (
	_ services.Mounts       = (*hubMounts)(nil)
	_ keyprovider.KeySource = noKBS{}
)

// TestVMSecureMountSocket sends what kata's agent sends, to the hub's socket: for its image store, for an existing
// volume, and what is not allowed.
func TestVMSecureMountSocket(t *testing.T) {
	const disk = "/dev/vdc"
	if err := os.MkdirAll(pod.DefaultDir, 0o755); err != nil {
		t.Fatal(err)
	}
	blankWithKey(t, disk)
	conf, err := config.Load(volumeFile(t, 1<<20, config.FSExt4))
	if err != nil {
		t.Fatal(err)
	}
	request := func(point string, options map[string]string) *cdh.SecureMountRequest {
		all := map[string]string{"devicePath": disk, "sourceType": "empty", "targetType": "fileSystem", "filesystemType": "ext4", "encryptionType": "luks2", "dataIntegrity": "true"}
		for k, v := range options {
			all[k] = v
		}
		return &cdh.SecureMountRequest{VolumeType: "block-device", Options: all, MountPoint: point}
	}
	store := request(pod.DefaultDir+"/image/", map[string]string{"mkfsOpts": "-E lazy_journal_init"})
	volume := request(pod.DefaultDir+"/data", map[string]string{"sourceType": "encrypted", "key": conf.Volumes["data"].Key})

	for _, c := range []struct {
		name    string
		serve   []string
		request *cdh.SecureMountRequest
	}{
		{"nothing served", nil, store}, {"scratch where a volume is served", []string{"data"}, store}, {"a volume where scratch is served", []string{"scratch"}, volume},
		{"over the guest's files", []string{"scratch"}, request("/etc", nil)}, {"beside the pod's", []string{"scratch"}, request(pod.DefaultDir, nil)},
	} {
		conf.Services.SecureMount = c.serve
		client, end := hubOn(t, conf)
		if _, err := client.SecureMount(t.Context(), c.request); err == nil || !strings.Contains(err.Error(), "[CDH] [ERROR]: secure mount failed") {
			t.Errorf("%s: got %v", c.name, err)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	}
	conf.Services.SecureMount = []string{"scratch", "data"}
	client, end := hubOn(t, conf)
	for range 2 { // kata's agent asks with every container
		if _, err := client.SecureMount(t.Context(), store); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(pod.DefaultDir+"/image/layer", []byte("x"), 0o600); err != nil {
		t.Error(err)
	}
	other := request(pod.DefaultDir+"/image", map[string]string{"mkfsOpts": "-m 0"})
	if _, err := client.SecureMount(t.Context(), other); err == nil {
		t.Error("another request for the same place")
	}
	// What its user has unmounted is unmapped before the next request.
	if err := unix.Unmount(pod.DefaultDir+"/image", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := client.SecureMount(t.Context(), other); err != nil {
		t.Error(err)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir("/dev/mapper"); err != nil || len(left) != 1 {
		t.Errorf("still mapped: %v, %v", left, err)
	}
}
