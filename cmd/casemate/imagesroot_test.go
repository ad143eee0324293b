// SPDX-License-Identifier: Apache-2.0

//go:build root

package main

import (
	"os"
	"path/filepath"
	"testing"

	cdh "github.com/casemate/casemate/agent/api/datahub"
	"github.com/casemate/casemate/imagepull"
)

// What kata-agent asks of confidential-data-hub: two containers of one image.
func TestPullImageOverTheSocket(t *testing.T) {
	host, reference, digest := pushed(t)
	m := pullingMachine(t, host, anything)
	client := hubClient(t, m)
	for range 2 {
		bundle := filepath.Join(t.TempDir(), "images")
		out, err := client.PullImage(t.Context(), &cdh.ImagePullRequest{ImageUrl: reference, BundlePath: bundle})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := imagepull.Unmount(filepath.Join(bundle, "rootfs")); err != nil {
				t.Error(err)
			}
		}()
		if out.ManifestDigest != digest {
			t.Errorf("got %s, want %s", out.ManifestDigest, digest)
		}
		if _, err := os.Stat(filepath.Join(bundle, "config.json")); err != nil {
			t.Error(err)
		}
		if files, err := os.ReadDir(filepath.Join(bundle, "rootfs")); err != nil || len(files) == 0 {
			t.Errorf("the root file system holds %v, %v", files, err)
		}
		if again, err := client.PullImage(t.Context(), &cdh.ImagePullRequest{ImageUrl: reference, BundlePath: bundle}); err == nil {
			t.Errorf("a bundle was replaced: %v", again)
		}
	}
	wantPulled(t, m, reference, digest)
}
