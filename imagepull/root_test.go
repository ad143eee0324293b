// SPDX-License-Identifier: Apache-2.0

//go:build root

package imagepull

import (
	"archive/tar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A bundle is what an OCI runtime expects: runc runs it, as the image's user,
// in the image's directory, with the image's environment and nothing of the host.
func TestRootRunc(t *testing.T) {
	needRoot(t)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("busybox-static: %v", err)
	}
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skipf("runc: %v", err)
	}
	r := newRegistryFake(t)
	r.put(t, "v1", testImage{
		layers: []testLayer{gzipLayer(t, tarOf(t,
			entry{name: "bin/", typ: tar.TypeDir}, entry{name: "bin/busybox", body: string(busybox), mode: 0o755},
			entry{name: "etc/passwd", body: testPasswd}, entry{name: "etc/group", body: testGroup}, entry{name: "data/", typ: tar.TypeDir, mode: 0o777}))},
		config: map[string]any{
			"User": "web", "WorkingDir": "/data", "Env": []string{"WHAT=this"}, "Entrypoint": []string{"/bin/busybox", "sh", "-c"},
			"Cmd": []string{"/bin/busybox id; pwd; echo $WHAT; echo x > f && /bin/busybox cat f; /bin/busybox hostname"},
		},
	})
	img := mustPull(t, newTestPuller(t, r), r.ref("v1"))
	base, _, _ := overlayDirs(t)
	b, err := NewBundle(img, filepath.Join(base, "bundle"), BundleOptions{Hostname: "h"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	id := "imagepull-" + filepath.Base(base)
	cmd := exec.CommandContext(t.Context(), "runc", "--root", filepath.Join(base, "runc"), "run", "--bundle", b.Dir, id)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("runc: %v: %s", err, out)
	}
	for _, want := range []string{"uid=33(web) gid=34(web) groups=34(web),50(extra),51(logs)", "\n/data\n", "\nthis\n", "\nx\n", "\nh\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in the output:\n%s", want, out)
		}
	}
}
